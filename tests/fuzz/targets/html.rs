//! A page of HTML.
#![no_main]

use aurora_fuzz::{documents, file};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    documents(file("x.html", bytes), r#"{"name":"html","select":"body"}"#);
});
