//! A GGUF file: its header and all its tensors.
#![no_main]

use aurora_fuzz::file;
use aurora_runtime::weights::{Gguf, PublishedWeights};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(model) = Gguf::open(&[file("x.gguf", bytes)], "x.gguf") {
        for tensor in model.tensors() {
            drop(model.numbers(&tensor.name));
        }
    }
});
