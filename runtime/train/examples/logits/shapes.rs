//! Small models of both architectures with weights that depend on a seed only, and ids.

use aurora_compiler::fields::{
    Activation, Architecture, Contract, ModelFields, Numerics, Precision, WeightsFields, WeightsHow,
};
use aurora_runtime::checkpoint::groups;
use aurora_runtime::job::{Files, Layout, Recompute};
use aurora_train::model::ComputeDevice;
use aurora_train::train::TrainError;
use aurora_train::train::train_state::{TrainState, network};
use camino::Utf8Path;

pub fn model(shape: &str) -> Option<ModelFields> {
    let bigcode = ModelFields {
        architecture: Architecture::GptBigcode,
        layers: 3,
        hidden: 64,
        heads: 4,
        kv_heads: 1,
        feed_forward: 256,
        context: 48,
        vocabulary: 320,
        activation: Activation::GeluTanh,
        norm_epsilon: "1e-5".parse().ok()?,
        rotary_base: None,
        tied_embeddings: true,
    };
    let llama = ModelFields {
        architecture: Architecture::Llama,
        kv_heads: 2,
        feed_forward: 176,
        activation: Activation::SwiGlu,
        rotary_base: Some("100000".parse().ok()?),
        ..bigcode.clone()
    };
    Some(match shape {
        "multi_query" => bigcode,
        "per_head" => ModelFields {
            kv_heads: 4,
            activation: Activation::Gelu,
            ..bigcode
        },
        "grouped" => llama,
        "untied" => ModelFields {
            kv_heads: 1,
            tied_embeddings: false,
            rotary_base: Some("10000".parse().ok()?),
            norm_epsilon: "1e-6".parse().ok()?,
            ..llama
        },
        "each_own" => ModelFields { kv_heads: 4, ..llama },
        _ => return None,
    })
}

/// Weights large enough that every part of the model affects its logits.
pub fn weights(model: &ModelFields) -> Option<WeightsFields> {
    Some(WeightsFields {
        model: model.clone(),
        how: WeightsHow::Random {
            seed: 7,
            std: "0.2".parse().ok()?,
        },
    })
}

/// Ids that fill the context.
pub fn ids(model: &ModelFields) -> Vec<i64> {
    (0..i64::from(model.context))
        .map(|i| (i * i * 7 + i * 3 + 1) % i64::from(model.vocabulary))
        .collect()
}

/// The weight files of a checkpoint in a folder.
pub fn files(model: &ModelFields, folder: &Utf8Path) -> Files {
    groups(model)
        .iter()
        .map(|group| (group.weights(), folder.join(group.weights())))
        .collect()
}

/// A single worker with these weights, in `f32` on a grid of one.
pub fn state(model: &ModelFields, folder: &Utf8Path, device: ComputeDevice) -> Result<TrainState, TrainError> {
    let numerics = Numerics {
        contract: Contract::Invariant,
        tensor: 1,
        lanes: 1,
        micro_batch: 1,
    };
    let layout = Layout::one(1, Recompute::None);
    let network = network(model, &numerics, Precision::F32, &layout, 0, device)?;
    let mut state = TrainState::new(network, model, 0, false, false)?;
    state.load_weights(&files(model, folder))?;
    Ok(state)
}
