//! Digests of every operation's result in a range of steps, by logical names, and the first difference of two traces.
//!
//! In: the entries of each rank. Out: the first operation, in the order in which one worker computes, whose results differ.
//! A name has the step, the micro-batch's index in the batch, the layer, the operation, and the logical shard, row block or
//! chunk: it does not depend on the layout. Not here: which results are recorded (`aurora-train`), which steps are
//! traced (`bisect`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// What is computed, in the order in which it is computed within its pass and layer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Operation {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Operation {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name as text.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

operations! {
    Batch => "token ids",
    LearningRate => "learning rate",
    Embedding => "embedding",
    FirstNorm => "first norm",
    Query => "query projection",
    KeyValue => "shared key and value projection",
    Attention => "attention",
    AttentionOutput => "attention output",
    AttentionOutputSum => "attention output, sum over shards",
    SecondNorm => "second norm",
    Up => "feed-forward up",
    Activation => "activation",
    Down => "feed-forward down",
    DownSum => "feed-forward down, sum over shards",
    FinalNorm => "final norm",
    Logits => "output layer",
    Losses => "loss",
    LogitsGradient => "loss, input gradient",
    OutputGradient => "output layer, input gradient",
    OutputGradientSum => "output layer, input gradient, sum over shards",
    FinalNormGradient => "final norm, input gradient",
    DownSumGradient => "feed-forward down, output gradient",
    DownGradient => "feed-forward down, input gradient",
    ActivationGradient => "activation, input gradient",
    UpGradient => "feed-forward up, input gradient",
    UpGradientSum => "feed-forward up, input gradient, sum over shards",
    SecondNormGradient => "second norm, input gradient",
    AttentionSumGradient => "attention output, output gradient",
    AttentionOutputGradient => "attention output, input gradient",
    AttentionGradient => "attention, query gradient",
    KeyValueGradient => "attention, shared key and value gradient",
    QueryGradient => "query projection, input gradient",
    KeyValueGradientSum => "attention, shared key and value gradient, sum over shards",
    KeyValueInputGradient => "shared key and value projection, input gradient",
    QueryGradientSum => "query projection, input gradient, sum over shards",
    FirstNormGradient => "first norm, input gradient",
    EmbeddingGradient => "embedding, output gradient",
    LaneGradient => "gradient of a lane",
    LanesGradient => "gradient, sum over lanes",
    Gradient => "gradient, sum over row blocks and tied accumulators",
    Loss => "loss of the batch",
    GradientNorm => "gradient norm",
    Weights => "updated weights",
}

impl Operation {
    /// Whether it is a sum over tensor shards, which is computed between ranks.
    pub fn is_sum_over_shards(self) -> bool {
        self.text().ends_with("sum over shards")
    }

    /// The part of a step that it belongs to.
    pub fn phase(self) -> Phase {
        match self {
            Self::Batch | Self::LearningRate => Phase::Given,
            of if of <= Self::Losses => Phase::Forward,
            of if of <= Self::EmbeddingGradient => Phase::Backward,
            of if of <= Self::GradientNorm => Phase::Gradients,
            _ => Phase::Update,
        }
    }

    /// Its name as an argument, with `-` between the words.
    pub fn argument(self) -> String {
        self.text().replace(", ", "-").replace(' ', "-")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The inputs of the step.
    Given,
    Forward,
    Backward,
    /// Lanes and their sums.
    Gradients,
    Update,
}

/// The range of a result that a digest covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TracedRange {
    Whole,
    /// Logical tensor shard.
    Shard(u32),
    /// A logical tensor shard's rows from `row` on, if not all rows exist at the same time.
    ShardRows {
        shard: u32,
        row: u32,
    },
    /// Rows of a block of the logical grid.
    Block(u32),
    /// By its index in the complete model.
    Chunk(u32),
}

/// The logical name of a result. Members that do not apply are `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceName {
    /// The step of the stage.
    pub step: u64,
    pub phase: Phase,
    /// Its index in the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<u32>,
    /// Logical gradient lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u32>,
    pub operation: Operation,
    /// The checkpoint's tensor, of gradients and weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensor: Option<String>,
    pub piece: TracedRange,
}

impl TraceName {
    /// The complete result of an operation that occurs once in a step.
    pub fn new(step: u64, operation: Operation) -> Self {
        Self {
            step,
            phase: operation.phase(),
            micro_batch: None,
            lane: None,
            layer: None,
            operation,
            tensor: None,
            piece: TracedRange::Whole,
        }
    }

    /// Its position in the order in which one worker computes: micro-batch by micro-batch, layers forward and then backward,
    /// whatever the pipeline schedule is.
    fn place(&self) -> impl Ord + '_ {
        let part = match self.phase {
            Phase::Given => 0,
            Phase::Forward | Phase::Backward => 1,
            Phase::Gradients => 2,
            Phase::Update => 3,
        };
        // The embedding is before all layers, the head after them.
        let layer = match (self.layer, self.operation) {
            (Some(layer), _) => i64::from(layer),
            (None, Operation::Embedding | Operation::EmbeddingGradient) => -1,
            (None, _) => i64::from(u32::MAX),
        };
        let layer = if self.phase == Phase::Backward { -layer } else { layer };
        let within = (layer, self.operation, self.lane, self.tensor.as_deref(), self.piece);
        (self.step, part, self.micro_batch, self.phase, within)
    }
}

impl PartialOrd for TraceName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TraceName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

impl fmt::Display for TraceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}", self.step)?;
        if let Some(index) = self.micro_batch {
            write!(f, ", micro-batch {index}")?;
        }
        match self.phase {
            Phase::Given => write!(f, ", given")?,
            Phase::Forward => write!(f, ", forward")?,
            Phase::Backward => write!(f, ", backward")?,
            Phase::Gradients | Phase::Update => {}
        }
        if let Some(layer) = self.layer {
            write!(f, ", layer {layer}")?;
        }
        write!(f, ", {}", self.operation.text())?;
        if let Some(lane) = self.lane {
            write!(f, ", lane {lane}")?;
        }
        if let Some(tensor) = &self.tensor {
            write!(f, ", `{tensor}`")?;
        }
        match self.piece {
            TracedRange::Whole => Ok(()),
            TracedRange::Shard(shard) => write!(f, ", shard {shard}"),
            TracedRange::ShardRows { shard, row } => write!(f, ", shard {shard}, rows from {row} on"),
            TracedRange::Block(block) => write!(f, ", rows of block {block}"),
            TracedRange::Chunk(chunk) => write!(f, ", chunk {chunk}"),
        }
    }
}

/// One line of `trace-RANK.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceEntry {
    pub name: TraceName,
    /// BLAKE3 (hex) of the numbers' bytes.
    pub digest: String,
}

/// The entries of all ranks. A result that several ranks have, or that is computed twice, has one digest, or several if the
/// results differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    digests: BTreeMap<TraceName, BTreeSet<String>>,
}

impl Extend<TraceEntry> for Trace {
    fn extend<T: IntoIterator<Item = TraceEntry>>(&mut self, entries: T) {
        for TraceEntry { name, digest } in entries {
            self.digests.entry(name).or_default().insert(digest);
        }
    }
}

/// The first operation with two results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parting {
    #[serde(flatten)]
    pub name: TraceName,
    /// Digests of the result on each side.
    pub a: BTreeSet<String>,
    pub b: BTreeSet<String>,
}

/// The comparison of two traces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Results that both traces have.
    pub compared: usize,
    /// Results before the first that differs, or all.
    pub agreeing: usize,
    /// Results that differ.
    pub differing: usize,
    pub first: Option<Parting>,
}

impl Trace {
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Compares the results that both traces have, in the order of execution.
    pub fn compare(&self, other: &Self) -> Comparison {
        let mut found = Comparison::default();
        for (name, a) in &self.digests {
            let Some(b) = other.digests.get(name) else { continue };
            found.compared += 1;
            if a != b {
                found.differing += 1;
                found.first.get_or_insert_with(|| Parting {
                    name: name.clone(),
                    a: a.clone(),
                    b: b.clone(),
                });
            } else if found.first.is_none() {
                found.agreeing += 1;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(micro_batch: u32, layer: Option<u32>, operation: Operation, piece: TracedRange) -> TraceName {
        TraceName {
            micro_batch: Some(micro_batch),
            layer,
            piece,
            ..TraceName::new(17, operation)
        }
    }

    fn in_order() -> Vec<TraceName> {
        use Operation as O;
        let gradient = TraceName {
            lane: Some(1),
            tensor: Some("ln.weight".to_owned()),
            piece: TracedRange::Block(0),
            ..TraceName::new(17, O::LaneGradient)
        };
        vec![
            TraceName::new(17, O::Batch),
            name(0, None, O::Embedding, TracedRange::Block(0)),
            name(0, Some(0), O::FirstNorm, TracedRange::Block(0)),
            name(0, Some(0), O::Down, TracedRange::Shard(1)),
            name(0, Some(0), O::DownSum, TracedRange::Block(0)),
            name(0, Some(0), O::DownSum, TracedRange::Block(1)),
            name(0, Some(1), O::FirstNorm, TracedRange::Block(0)),
            name(0, None, O::Logits, TracedRange::ShardRows { shard: 0, row: 1024 }),
            name(0, None, O::FinalNormGradient, TracedRange::Block(0)),
            name(0, Some(1), O::DownGradient, TracedRange::Shard(2)),
            name(0, Some(1), O::FirstNormGradient, TracedRange::Block(0)),
            name(0, Some(0), O::DownGradient, TracedRange::Shard(0)),
            name(0, None, O::EmbeddingGradient, TracedRange::Block(0)),
            name(1, None, O::Embedding, TracedRange::Block(0)),
            gradient,
            TraceName::new(17, O::GradientNorm),
            TraceName::new(17, O::Weights),
            TraceName::new(18, O::Batch),
        ]
    }

    #[test]
    fn names_stand_in_the_order_of_execution() {
        let expected = in_order();
        let mut names = expected.clone();
        names.reverse();
        names.sort();
        assert_eq!(names, expected);
    }

    #[test]
    fn names_read_as_sentences_and_survive_json() {
        let name = name(3, Some(1), Operation::UpGradientSum, TracedRange::Block(2));
        let text = "step 17, micro-batch 3, backward, layer 1, feed-forward up, input gradient, sum over shards, rows of block 2";
        assert_eq!(name.to_string(), text);
        for name in in_order() {
            let text = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<TraceName>(&text).unwrap(), name, "{text}");
        }
        let operations: Vec<String> = Operation::ALL
            .iter()
            .filter(|operation| operation.is_sum_over_shards())
            .map(|operation| operation.argument())
            .collect();
        assert!(
            operations.contains(&"feed-forward-down-sum-over-shards".to_owned()),
            "{operations:?}"
        );
    }

    #[test]
    fn what_one_side_alone_has_is_left_out_and_the_first_difference_is_the_first_executed() {
        let trace = |digests: &[(usize, &str)]| {
            let names = in_order();
            let mut trace = Trace::default();
            // Ranks record in any order.
            trace.extend(digests.iter().rev().map(|(at, digest)| TraceEntry {
                name: names[*at].clone(),
                digest: (*digest).to_owned(),
            }));
            trace
        };
        let a = trace(&[(0, "x"), (2, "alone"), (4, "x"), (9, "x"), (11, "x")]);
        let b = trace(&[(0, "x"), (3, "alone"), (4, "x"), (9, "y"), (11, "y")]);
        let found = a.compare(&b);
        assert_eq!((found.compared, found.agreeing, found.differing), (4, 2, 2));
        assert_eq!(found.first.unwrap().name, in_order()[9]);
        assert_eq!(a.compare(&a).first, None);
        // Two ranks have the same row block, and one of them has other bytes.
        let torn = trace(&[(0, "x"), (4, "x"), (4, "y")]);
        assert_eq!(a.compare(&torn).first.unwrap().name, in_order()[4]);
    }
}
