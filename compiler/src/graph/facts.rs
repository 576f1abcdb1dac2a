//! Facts of a checked spec that commands and lowering share: a stage's steps, an eval's sets, a model's shape.

use super::reader::Reader;
use crate::fields::{Activation, Architecture, ModelFields};
use crate::spec::{BlockId, Spec, Unit, Value};

/// The steps of a stage and the checkpoints at which it is cut.
#[derive(Clone, Debug)]
pub struct StagePlan {
    pub sequence: u64,
    pub global_batch: u64,
    pub steps: u64,
    /// Steps after which a checkpoint is kept, the last one included.
    pub checkpoints: Vec<u64>,
}

impl StagePlan {
    pub fn tokens_per_step(&self) -> u64 {
        self.sequence * self.global_batch
    }
}

/// Returns the steps and checkpoints of a stage.
pub fn stage_plan(spec: &Spec, stage: &BlockId) -> StagePlan {
    let mut read = Reader::new(spec);
    let sequence = read.whole(&read.at(stage, "sequence"));
    let batch = read.at(stage, "global_batch");
    let global_batch = match read.value(&batch) {
        Some(Value::Quantity(tokens, Unit::Tokens)) => tokens.checked_div(sequence).unwrap_or(0),
        Some(Value::Quantity(sequences, _)) => *sequences,
        _ => 0,
    };
    let tokens_per_step = sequence * global_batch;
    let steps = read.steps(&read.at(stage, "budget"), tokens_per_step);
    let every = read.steps(&read.at(stage, "checkpoint"), tokens_per_step);
    let whole = steps.checked_div(every).unwrap_or(0);
    let mut checkpoints: Vec<u64> = (1..=whole).map(|index| index * every).collect();
    if steps > 0 && checkpoints.last() != Some(&steps) {
        checkpoints.push(steps);
    }
    StagePlan {
        sequence,
        global_batch,
        steps,
        checkpoints,
    }
}

/// The name under which an eval reports a corpus: its language where that is unique among the eval's corpora.
pub fn set_names(spec: &Spec, eval: &BlockId) -> Vec<(String, BlockId)> {
    let read = Reader::new(spec);
    let corpora: Vec<BlockId> = read
        .elements(&read.at(eval, "data"))
        .iter()
        .filter_map(|element| match &element.field.value {
            Value::Reference(id) => Some(id.clone()),
            _ => None,
        })
        .collect();
    let language = |id: &BlockId| Reader::new(spec).text(&read.at(id, "language"));
    corpora
        .iter()
        .map(|id| {
            let own = language(id);
            let unique = corpora.iter().filter(|other| language(other) == own).count() == 1;
            (if unique { own } else { id.name.clone() }, id.clone())
        })
        .collect()
}

/// Returns a model's fields as the runtime sees them.
pub fn model_fields(spec: &Spec, id: &BlockId) -> ModelFields {
    read_model(&mut Reader::new(spec), id)
}

pub(super) fn read_model(read: &mut Reader<'_>, id: &BlockId) -> ModelFields {
    ModelFields {
        architecture: read.word(&read.at(id, "architecture"), Architecture::GptBigcode),
        layers: read.count(&read.at(id, "layers")),
        hidden: read.count(&read.at(id, "hidden")),
        heads: read.count(&read.at(id, "heads")),
        kv_heads: read.count(&read.at(id, "kv_heads")),
        feed_forward: read.count(&read.at(id, "feed_forward")),
        context: read.count(&read.at(id, "context")),
        vocabulary: read.count(&read.at(id, "vocabulary")),
        activation: read.word(&read.at(id, "activation"), Activation::Gelu),
        norm_epsilon: read.exact(&read.at(id, "norm_epsilon")),
        rotary_base: match read.at(id, "rotary_base") {
            at if at.field.value == Value::None => None,
            at => Some(read.exact(&at)),
        },
        tied_embeddings: read.flag(&read.at(id, "tied_embeddings")),
    }
}
