//! Small models of both families with weights that depend on nothing but a seed, and ids to read.

use aurora_compiler::fields::{Activation, Architecture, ModelFields, WeightsFields, WeightsHow};

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

/// Weights large enough that every part of the model shows in its logits.
pub fn weights(model: &ModelFields) -> Option<WeightsFields> {
    Some(WeightsFields {
        model: model.clone(),
        how: WeightsHow::Random {
            seed: 7,
            std: "0.2".parse().ok()?,
        },
    })
}

/// As many ids as the context has.
pub fn ids(model: &ModelFields) -> Vec<i64> {
    (0..i64::from(model.context))
        .map(|i| (i * i * 7 + i * 3 + 1) % i64::from(model.vocabulary))
        .collect()
}
