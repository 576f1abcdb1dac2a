//! A lock: what is read is written again with the same meaning.
#![no_main]

use aurora_compiler::lock::Lock;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(lock) = Lock::parse(text) {
        let again = Lock::parse(&lock.to_text()).expect("what Aurora writes");
        assert_eq!(again.to_text(), lock.to_text());
    }
});
