//! A model in Hugging Face's format: `config.json` up to the first zero byte, then a safetensors file.
#![no_main]

use aurora_fuzz::file;
use aurora_runtime::weights::{HuggingFace, PublishedWeights};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (config, weights) = bytes.split_at(end);
    let weights = weights.get(1..).unwrap_or_default();
    let files = [file("config.json", config), file("model.safetensors", weights)];
    if let Ok(model) = HuggingFace::open(&files) {
        for tensor in model.tensors() {
            drop(model.numbers(&tensor.name));
        }
    }
});
