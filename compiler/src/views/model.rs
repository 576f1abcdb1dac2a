//! The experiment's own fields, and models.

use super::ViewError;
use super::reader::{Reader, SpecValues, own_name};
use crate::exact::Exact;
use crate::fields::{Activation, Architecture, Contract, ModelFields, Numerics, Precision};
use crate::spec::{BlockId, BlockKind, Spec};

pub struct ExperimentView {
    pub seed: u64,
    pub seed_values: SpecValues,
    pub numerics: Numerics,
    pub precision: Precision,
    /// The values that numerics and precision were read from.
    pub values: SpecValues,
}

pub fn experiment(spec: &Spec) -> Result<ExperimentView, ViewError> {
    let id = BlockId {
        kind: BlockKind::Experiment,
        name: spec.name.clone(),
    };
    let mut read = Reader::new(spec);
    let seed = read.whole(&read.at(&id, "seed")?)?;
    let seed_values = std::mem::take(&mut read.values);
    let at = read.at(&id, "numerics")?;
    let micro_batch = read.count(&read.argument(&at, "micro_batch")?)?;
    let tensor = read.count(&read.argument(&at, "tensor")?)?;
    let lanes = read.count(&read.argument(&at, "lanes")?)?;
    let contract = read.call_name(&at).and_then(Contract::named);
    Ok(ExperimentView {
        seed,
        seed_values,
        numerics: Numerics {
            contract: contract.ok_or_else(|| at.error("a numerics contract"))?,
            tensor,
            lanes,
            micro_batch,
        },
        precision: read.word(&read.at(&id, "precision")?, Precision::F32)?,
        values: read.values,
    })
}

pub struct ModelView {
    pub fields: ModelFields,
    pub values: SpecValues,
    pub tokenizer: BlockId,
    pub tokenizer_values: SpecValues,
    pub vocabulary_values: SpecValues,
    pub weights: WeightsView,
    pub weights_values: SpecValues,
}

/// Where a model's first weights come from.
pub enum WeightsView {
    Random {
        std: Exact,
    },
    /// A repository of the Hugging Face hub, which is a source named after the model.
    Hub {
        repository: String,
        revision: String,
        values: SpecValues,
    },
    Import {
        source: BlockId,
    },
    Gguf {
        source: BlockId,
        member: String,
    },
}

/// The name under which the weights that a model takes from the hub are pinned.
pub fn hub_source(model: &BlockId) -> String {
    format!("{}.weights", model.name)
}

pub fn model(spec: &Spec, id: &BlockId) -> Result<ModelView, ViewError> {
    let mut read = Reader::new(spec);
    let fields = ModelFields {
        architecture: read.word(&read.at(id, "architecture")?, Architecture::GptBigcode)?,
        layers: read.count(&read.at(id, "layers")?)?,
        hidden: read.count(&read.at(id, "hidden")?)?,
        heads: read.count(&read.at(id, "heads")?)?,
        kv_heads: read.count(&read.at(id, "kv_heads")?)?,
        feed_forward: read.count(&read.at(id, "feed_forward")?)?,
        context: read.count(&read.at(id, "context")?)?,
        vocabulary: read.count(&read.at(id, "vocabulary")?)?,
        activation: read.word(&read.at(id, "activation")?, Activation::Gelu)?,
        norm_epsilon: read.exact(&read.at(id, "norm_epsilon")?)?,
        rotary_base: read.optional(&read.at(id, "rotary_base")?, Reader::exact)?,
        tied_embeddings: read.flag(&read.at(id, "tied_embeddings")?)?,
    };
    let values = std::mem::take(&mut read.values);
    let tokenizer = read.reference(&read.at(id, "tokenizer")?)?;
    let tokenizer_values = std::mem::take(&mut read.values);
    read.count(&read.at(id, "vocabulary")?)?;
    let vocabulary_values = std::mem::take(&mut read.values);
    let how = read.at(id, "weights")?;
    let weights = match read.call_name(&how) {
        Some("random") => WeightsView::Random {
            std: read.exact(&read.argument(&how, "std")?)?,
        },
        Some("hf") => {
            let mut hub = Reader::new(spec);
            WeightsView::Hub {
                repository: hub.text(&hub.argument(&how, "repository")?)?,
                revision: hub.text(&hub.argument(&how, "revision")?)?,
                values: hub.values,
            }
        }
        Some("gguf") => {
            let source = read.reference(&read.argument(&how, "source")?)?;
            let member = own_name(spec, &source, read.text(&read.argument(&how, "member")?)?);
            WeightsView::Gguf { source, member }
        }
        Some("safetensors") => WeightsView::Import {
            source: read.reference(&read.argument(&how, "source")?)?,
        },
        _ => return Err(how.error("a way to get weights")),
    };
    Ok(ModelView {
        fields,
        values,
        tokenizer,
        tokenizer_values,
        vocabulary_values,
        weights,
        weights_values: read.values,
    })
}
