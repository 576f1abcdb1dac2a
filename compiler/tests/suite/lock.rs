//! The text of a lock: golden, parsed again, and parsed after edits.

use aurora_compiler::check::check;
use aurora_compiler::graph::{Pin, Pins, lower};
use aurora_compiler::hash::hash;
use aurora_compiler::lock::{Lock, LockError, lock};
use aurora_compiler::spec::Spec;
use aurora_lang::diagnostics::Code;
use proptest::prelude::*;

fn spec() -> Spec {
    check("specs/tiny.aur", &crate::read("specs/tiny.aur"), None).expect("a valid spec")
}

fn pins() -> Pins {
    let pin = |name: &str| Pin {
        from: format!("file:data/{name}.txt"),
        reference: format!("file:data/{name}.txt"),
        bytes: 10,
        content: blake3_of(name),
        files: vec![format!("data/{name}.txt")],
    };
    ["english", "finnish"]
        .into_iter()
        .map(|name| (name.to_string(), pin(name)))
        .collect()
}

/// Any 64 digits are valid as a content digest.
fn blake3_of(name: &str) -> String {
    format!("{:064x}", name.len())
}

fn locked(pins: &Pins) -> Lock {
    let spec = spec();
    lock(&hash(lower(&spec, pins)), &spec, "specs/tiny.aur", pins, "2.13.0")
}

#[test]
fn the_text_is_golden_and_reads_back() {
    let made = locked(&pins());
    insta::assert_snapshot!(made.to_text());
    assert_eq!(Lock::parse(&made.to_text()).expect("the text that Aurora wrote"), made);
    assert_eq!(made.pins(), pins());
    made.check_against(&spec()).expect("it follows from its own pins");
}

#[test]
fn without_pins_everything_is_only_declared() {
    let made = locked(&Pins::new());
    assert!(made.to_text().contains("confidence = \"declared\""));
    assert!(!made.to_text().contains("confidence = \"exact\"\nfrom"));
    assert_eq!(made.pins(), Pins::new());
}

#[test]
fn every_edited_line_is_found() {
    let text = locked(&pins()).to_text();
    for (number, line) in text.lines().enumerate() {
        let Some((field, value)) = line.split_once(" = ") else {
            continue;
        };
        // The graph does not contain the spec's path; the command that opens the lock checks it.
        // A revision only adds to the format: a reader accepts a later one.
        if field == "spec" || field == "libtorch" || field == "revision" {
            continue;
        }
        let other = match value.trim_matches('"').chars().next() {
            Some('0') => value.replacen('0', "1", 1),
            Some(first) => value.replacen(first, "0", 1),
            None => continue,
        };
        let changed: Vec<String> = text
            .lines()
            .enumerate()
            .map(|(at, line)| {
                if at == number {
                    format!("{field} = {other}")
                } else {
                    line.to_string()
                }
            })
            .collect();
        let read = Lock::parse(&changed.join("\n"));
        let found = match &read {
            Err(_) => true,
            Ok(lock) => {
                lock.check_against(&spec()).is_err()
                    || lock.intent != locked(&pins()).intent
                    || lock.experiment != "tiny"
            }
        };
        // `from`, `reference` and `bytes` of a local file only describe the file, whose content is checked.
        assert!(
            found || ["from", "reference", "bytes", "files"].contains(&field),
            "line {}: {line}",
            number + 1
        );
    }
}

#[test]
fn errors_have_codes() {
    let text = locked(&pins()).to_text();
    let code = |text: String| Lock::parse(&text).expect_err("an error").code();
    assert_eq!(code(format!("<<<<<<< ours\n{text}")), Code::LOCK_CONFLICT);
    assert_eq!(code(text.replacen("version = 1", "version = 9", 1)), Code::LOCK_TOO_NEW);
    assert_eq!(code(text.replacen("version = 1", "", 1)), Code::LOCK_MALFORMED);
    assert_eq!(code(text.replacen("revision", "revisoin", 1)), Code::LOCK_MALFORMED);
    assert!(matches!(Lock::parse(""), Err(LockError::NoVersion)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_edited_text_never_panics(at in any::<prop::sample::Index>(), cut in 0usize..40, put in "\\PC{0,12}") {
        let text = locked(&pins()).to_text();
        let characters: Vec<char> = text.chars().collect();
        let at = at.index(characters.len());
        let changed: String = characters[..at]
            .iter()
            .copied()
            .chain(put.chars())
            .chain(characters[(at + cut).min(characters.len())..].iter().copied())
            .collect();
        if let Ok(lock) = Lock::parse(&changed) {
            drop(lock.check_against(&spec()));
        }
    }

    #[test]
    fn any_text_never_panics(text in "(\\PC|\n){0,400}") {
        drop(Lock::parse(&text));
    }
}
