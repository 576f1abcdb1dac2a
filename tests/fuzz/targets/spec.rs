//! A spec: parsed, checked, compiled to its graph and keys.
#![no_main]

use aurora_compiler::check::check;
use aurora_compiler::graph::lower;
use aurora_compiler::hash::hash;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(spec) = check("fuzzed.aur", text, None) {
        drop(hash(lower(&spec, &Default::default())));
    }
});
