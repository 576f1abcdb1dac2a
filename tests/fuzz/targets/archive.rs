//! An archive or a compressed file; the first byte chooses its kind.
#![no_main]

use aurora_fuzz::{documents, file};

const NAMES: [&str; 8] = ["x.tar", "x.tar.gz", "x.tar.xz", "x.tar.zst", "x.zip", "x.deb", "x.jsonl.gz", "x.crate"];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((kind, bytes)) = bytes.split_first() {
        let name = NAMES[usize::from(*kind) % NAMES.len()];
        documents(file(name, bytes), r#"{"name":"jsonl","text":"{text}"}"#);
    }
});
