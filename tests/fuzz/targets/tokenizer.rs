//! A `tokenizer.json`, and a text that it encodes.
#![no_main]

use aurora_fuzz::file;
use aurora_runtime::data::tokenizer::load;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(encoder) = load(&file("tokenizer.json", bytes).path) {
        drop(encoder.encode("A text, with  spaces,\nlines and Ääkkösiä 漢字."));
    }
});
