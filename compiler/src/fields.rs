//! The fields that define the work of a node: one plain struct per kind.
//!
//! In: checked values. Out: JSON, from which the key is computed and which the runtime reads back. Every field can change
//! a result. Not here: what cannot, such as threads, the parallel layout and paths.

mod task;

use serde::{Deserialize, Serialize};

use crate::exact::Exact;

pub use task::{AnswerMode, Attack, Judge, JudgeFields, Labelled, Need, TaskFields};

/// A source is identified by its bytes, wherever they come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SourceFields {
    /// BLAKE3 (hex) of the manifest of the pinned files.
    Content(String),
    /// Not pinned yet: the reference takes the place of the content.
    Declared(String),
}

/// How documents are read from the files of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtractFields {
    /// Glob patterns over member paths (of an archive) or file names, without the extension of a compression.
    pub files: Vec<String>,
    /// Members that match one of these are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    pub format: Format,
    /// The encoding of files without a byte-order mark, as its standard spells it; UTF-8 if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
}

/// A format, and what of it is a document. `Text`, `Code` and the formats with rows yield documents byte for byte; `Html`,
/// `Roff` and `Mo` have to rebuild them, with one line per paragraph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Format {
    /// Elements matching `select` (CSS), without those matching `drop`; a block element is one paragraph.
    /// With `reference`, the input of role `reference` holds the same pages in the reference language, under the
    /// path with `reference.own` replaced by `reference.other`. A paragraph is kept only if it differs from the reference
    /// paragraph of the same `id`.
    Html {
        select: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        drop: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reference: Option<PageReference>,
    },
    /// Manual pages: keeps the text of font macros and drops that of other requests, resolves escapes, joins lines.
    Roff,
    /// GNU message catalogues: the translations that differ from their originals, without accelerator marks.
    Mo,
    Text {
        by: TextUnit,
    },
    /// Source code, one document per file.
    Code,
    /// One JSON object per line.
    Jsonl(RowDocument),
    /// Each element of a list is a row; in a file that is an object, each string under the member at any depth is a document.
    Json(RowDocument),
    /// Every string of a JSON file is a line of one document (message catalogues).
    JsonStrings,
    Csv {
        document: RowDocument,
        /// Found by the first row if it is not stated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delimiter: Option<String>,
    },
    Parquet(RowDocument),
    Arrow(RowDocument),
    /// One row per document: a prompt, which is only context, and an answer, which is trained on. Both are templates over
    /// the row's members. The name of a file determines the format of its rows.
    Pairs {
        prompt: String,
        answer: String,
        /// Reads only the items whose member has this text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<MemberFilter>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
}

/// What of a plain text is a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextUnit {
    File,
    Line,
    Block,
}

/// What of a row is a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowDocument {
    /// A template over the row's members.
    pub text: String,
    /// The member that identifies the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Selects items whose member `member` equals `text`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberFilter {
    pub member: String,
    pub text: String,
}

/// The part of a page's path that names its language, and its replacement in the reference language.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageReference {
    pub own: String,
    pub other: String,
}

/// Rules for the text that a corpus keeps. Counts of what was dropped and changed, by reason, are an output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterFields {
    /// In this order.
    pub prepare: Vec<Step>,
    /// Fraction of documents held out, in 0..1, by the hash of the document's text.
    pub held_out: Exact,
    /// Stops after this number of bytes of kept text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
}

/// A step that prepares the documents of a corpus. `by` is what it keeps, drops or changes; paragraphs are the lines of a
/// document at that step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Paragraphs between empty lines become lines, and each run of white space a space.
    Reflow,
    /// Each run of white space becomes one space, and none stays at both ends.
    Collapse { by: FilterUnit },
    /// Removes white space at both ends.
    Trim { by: FilterUnit },
    /// Drops what has fewer characters (Unicode code points).
    Minimum { by: FilterUnit, characters: u32 },
    /// Drops what is not detected as a language: `code` is its name in the detector, of which `detector` has the version.
    Language {
        by: FilterUnit,
        detector: String,
        code: String,
    },
    /// Drops exact repeats across the corpus; the first one stays.
    Deduplicate { by: FilterUnit },
}

/// What a step keeps or drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilterUnit {
    Paragraph,
    Document,
}

/// How a tokenizer is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenizerFields {
    /// Byte-level BPE trained on the inputs of role `documents`. `special[0]` ends a document.
    TrainBpe {
        vocabulary: u32,
        minimum_frequency: u32,
        special: Vec<String>,
    },
    /// A Hugging Face `tokenizer.json`: the file `member` of the input of role `source`.
    Load { member: String, end_of_document: String },
}

/// The tokens of a corpus' documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensFields {
    pub split: Split,
    /// The model's vocabulary: the tokenizer may not have more entries.
    pub vocabulary: u32,
}

/// Which documents of a corpus are used, by the hash that holds documents out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    Train,
    HeldOut,
    All,
}

/// The data order of a stage: which sample of which component is at each position of the sample stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderFields {
    pub seed: u64,
    /// Tokens of one sample (one more is read, for the last target).
    pub sequence: u32,
    pub components: Vec<OrderComponent>,
    /// Samples of the stage; set only if a weight changes over the stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
}

impl OrderFields {
    /// The configured fraction of a component over the first `length` samples, in 0..1.
    pub fn configured_fraction(&self, component: &OrderComponent, length: u64) -> f64 {
        let start = f64::from(component.weight_ppm);
        let end = component.until_ppm.map_or(start, f64::from);
        let samples = self.samples.unwrap_or(1).max(1);
        let progress = length.min(samples) as f64 / samples as f64;
        (start + (end - start) * progress / 2.0) / 1e6
    }
}

/// A component of a mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderComponent {
    pub name: String,
    /// Millionths of the stage's tokens; the weights of a mixture sum to a million.
    pub weight_ppm: u32,
    /// The weight at the end of the stage, if it changes (linearly); these sum to a million too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ppm: Option<u32>,
}

/// The shape of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFields {
    pub architecture: Architecture,
    pub layers: u32,
    pub hidden: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub feed_forward: u32,
    /// Longest sequence in tokens; gpt_bigcode learns an embedding for each position.
    pub context: u32,
    pub vocabulary: u32,
    pub activation: Activation,
    pub norm_epsilon: Exact,
    /// Base of rotary positions (llama).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotary_base: Option<Exact>,
    /// The output layer is the word embedding.
    #[serde(default = "tied", skip_serializing_if = "is_tied")]
    pub tied_embeddings: bool,
}

fn tied() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_tied(tied: &bool) -> bool {
    *tied
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    GptBigcode,
    Llama,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    Gelu,
    GeluTanh,
    #[serde(rename = "swiglu")]
    SwiGlu,
}

/// The first weights of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsFields {
    pub model: ModelFields,
    pub how: WeightsHow,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum WeightsHow {
    /// Normal numbers from the counter-based generator, keyed by seed, tensor name and element index; the two
    /// projections into the residual stream are scaled by 1/√(2 × layers); biases 0, norm weights 1.
    Random { seed: u64, std: Exact },
    /// The files of the input of role `source`: a model in Hugging Face's layout.
    Import,
    /// A GGUF file: the member `member` of the input of role `source`.
    Gguf { member: String },
}

/// Fixes the order of every floating-point sum: a contract and a logical grid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numerics {
    pub contract: Contract,
    /// Logical tensor shards (a power of two that divides heads, feed-forward and vocabulary).
    pub tensor: u32,
    /// Logical gradient lanes: independent partial sums over micro-batches (a power of two).
    pub lanes: u32,
    /// Sequences of one micro-batch.
    pub micro_batch: u32,
}

/// Where results are bitwise identical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contract {
    /// For any layout and number of threads in one numerics class: sums follow the logical grid.
    Invariant,
    /// As `invariant`, and on every x86-64-v3 processor: Aurora uses only its own kernels.
    Portable,
    /// Uses the fastest kernels of libtorch; sums across shards and lanes still follow the grid.
    Native,
}

impl Contract {
    /// The contract with this name in specs.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "invariant" => Some(Self::Invariant),
            "portable" => Some(Self::Portable),
            "native" => Some(Self::Native),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    F32,
    Bf16,
}

/// Hyper-parameters of AdamW (Loshchilov and Hutter 2019).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    pub beta1: Exact,
    pub beta2: Exact,
    pub epsilon: Exact,
    pub weight_decay: Exact,
    /// Maximum of the global gradient norm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<Exact>,
}

/// A part of a learning-rate schedule over the steps of a stage, counted from 0. Update `k` uses the rate at step `k`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "shape", rename_all = "snake_case", deny_unknown_fields)]
pub enum SchedulePiece {
    /// From step `from` until the next piece or the end.
    Constant { from: u64, rate: Exact },
    /// A straight line from `start` at step `from` to `end` at step `to`.
    Linear {
        from: u64,
        to: u64,
        start: Exact,
        end: Exact,
    },
    /// Half a cosine from `start` at step `from` to `end` at step `to`.
    Cosine {
        from: u64,
        to: u64,
        start: Exact,
        end: Exact,
    },
}

/// A stage up to a checkpoint: its first `last_step` steps. The step at which a run resumes is not a field: the engine
/// puts it in the worker's job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainFields {
    pub model: ModelFields,
    pub numerics: Numerics,
    pub precision: Precision,
    pub optimizer: AdamW,
    /// The optimizer's moments before the stage's first step: those of the input, or zero.
    pub optimizer_state: OptimizerState,
    /// The pieces up to `last_step`, in order.
    pub schedule: Vec<SchedulePiece>,
    pub last_step: u64,
    /// Sequences.
    pub global_batch: u32,
    /// Tokens.
    pub sequence: u32,
}

/// Whether a stage continues with the optimizer state of the stage before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerState {
    Keep,
    Reset,
}

/// Perplexity and bits per byte of each set (inputs of role `set`, in this order), or a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalFields {
    pub model: ModelFields,
    pub numerics: Numerics,
    pub precision: Precision,
    /// Tokens of one window; each token of a document is scored once, and the last window reads earlier ones again.
    pub window: u32,
    pub sets: Vec<EvalSet>,
    /// Items are inputs of role `items`, the tokenizer is that of role `tokenizer`; `window` is the longest prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskFields>,
}

/// A set of documents of a perplexity eval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalSet {
    /// The name under which its metrics are reported (usually a language).
    pub name: String,
}

/// A gate over metrics: the inputs of role `scores`, by position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectFields {
    /// The result shows its name and text.
    pub name: String,
    pub text: String,
    pub left: Term,
    pub relation: crate::spec::Relation,
    pub right: Term,
    /// Confidence level in 0..1: the relation must hold in the complete confidence interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Exact>,
}

/// A side of a gate. Metrics are read from inputs by their position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Term {
    Metric {
        input: usize,
        metric: String,
        set: String,
    },
    /// A metric at several checkpoints, each with its tokens since the start of the stage. The value is the fitted
    /// change from the first to the last.
    Trend(Vec<(u64, Term)>),
    /// How much worse the last is than the best of the earlier ones.
    Forgetting {
        earlier: Vec<Term>,
        last: Box<Term>,
        better: crate::spec::Better,
    },
    Mean(Vec<Term>),
    Worst {
        of: Vec<Term>,
        better: crate::spec::Better,
    },
    Gap(Vec<Term>),
    Number(Exact),
    Add(Box<Term>, Box<Term>),
    Subtract(Box<Term>, Box<Term>),
    Multiply(Box<Term>, Box<Term>),
}

/// The deterministic part of a report: the nodes that it shows, in the order of the page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportFields {
    pub experiment: String,
    /// The names of all other nodes, in the order of the graph: the page shows them.
    pub nodes: Vec<String>,
}

impl ModelFields {
    /// Number of parameters.
    ///
    /// gpt_bigcode (tied embeddings, learned positions, biases on every linear layer):
    /// `V·d + P·d + L·[d·(d + 2·k·h) + (d + 2·k·h) + d² + d + 2·d·f + f + d + 4·d] + 2·d` with head dimension h and k
    /// key/value heads; gives StarCoder's published counts.
    /// llama: `V·d (twice if untied) + L·[d·(d + 2·k·h) + d² + 3·d·f + 2·d] + d`.
    pub fn parameters(&self) -> u64 {
        let [d, f] = [self.hidden, self.feed_forward].map(u64::from);
        let [vocabulary, context, layers] = [self.vocabulary, self.context, self.layers].map(u64::from);
        let key_value = 2 * u64::from(self.kv_heads) * d.checked_div(u64::from(self.heads)).unwrap_or(0);
        let attention = d * (d + key_value) + d * d;
        match self.architecture {
            Architecture::GptBigcode => {
                let layer = attention + (d + key_value) + d + 2 * d * f + f + d + 4 * d;
                (vocabulary + context) * d + layers * layer + 2 * d
            }
            Architecture::Llama => {
                let embeddings = if self.tied_embeddings { 1 } else { 2 };
                embeddings * vocabulary * d + layers * (attention + 3 * d * f + 2 * d) + d
            }
        }
    }
    /// Weights of one layer's matrix products.
    pub fn layer_weights(&self) -> u64 {
        let [d, f] = [self.hidden, self.feed_forward].map(u64::from);
        let key_value = 2 * u64::from(self.kv_heads) * d.checked_div(u64::from(self.heads)).unwrap_or(0);
        let products = match self.architecture {
            Architecture::GptBigcode => 2,
            Architecture::Llama => 3,
        };
        d * (d + key_value) + d * d + products * d * f
    }

    /// Weights of the output layer.
    pub fn head_weights(&self) -> u64 {
        u64::from(self.vocabulary) * u64::from(self.hidden)
    }
}
