//! The text of a lock: golden, parsed again, and parsed after edits.

use aurora_compiler::check::check;
use aurora_compiler::graph::{Pin, Pins, lower, stage_plan};
use aurora_compiler::hash::{hash, source_content};
use aurora_compiler::lock::{Completeness, Lock, LockError, LockedOrder, lock};
use aurora_compiler::numerics_class::NumericsClass;
use aurora_compiler::spec::{BlockId, BlockKind, Spec};
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
        content: manifest_of(name),
        files: vec![format!("{name}.txt")],
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

/// What pins the only file of a source: the manifest of its name, its bytes and its digest.
fn manifest_of(name: &str) -> String {
    let mut digest = [0; 32];
    digest[31] = u8::try_from(name.len()).expect("a short name");
    source_content([(format!("{name}.txt").as_str(), 10, digest)]).to_hex()
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
            Ok(lock) => lock.check_against(&spec()).is_err() || lock.experiment != "tiny",
        };
        // `from`, `reference` and `bytes` of a local file only describe the file, whose content is checked.
        assert!(
            found || ["from", "reference", "bytes", "files"].contains(&field),
            "line {}: {line}",
            number + 1
        );
    }
}

/// The lock after a run.
fn with_results() -> Lock {
    let mut lock = locked(&pins());
    lock.class = NumericsClass::parse("f1c4d00686cebbd0");
    lock.fingerprint = Some("a machine".to_owned());
    let keys = lock.node.iter().map(|(name, node)| (name.clone(), node.key));
    lock.result = keys.collect();
    let spec = spec();
    for name in lock.node.keys() {
        let Some(stage) = name.strip_prefix("order/") else {
            continue;
        };
        let block = BlockId {
            kind: BlockKind::Stage,
            name: stage.to_owned(),
        };
        let order = LockedOrder {
            samples: stage_plan(&spec, &block).samples(),
            commitment: blake3_of(stage),
        };
        lock.order.insert(stage.to_owned(), order);
    }
    lock.count_results();
    lock
}

#[test]
fn every_lost_line_after_a_run_is_found() {
    let lock = with_results();
    let text = lock.to_text();
    assert!(text.contains("results = \"complete\""), "{text}");
    let header: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
    insta::assert_snapshot!("the_header_after_a_run", header.join("\n"));
    assert_eq!(Lock::parse(&text), Ok(lock.clone()));
    lock.check_against(&spec()).expect("nothing was edited");
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let left: Vec<&str> = [&lines[..number], &lines[number + 1..]].concat();
        let found = match Lock::parse(&left.join("\n")) {
            Err(_) => true,
            Ok(lock) => lock.check_against(&spec()).is_err(),
        };
        assert!(found, "line {}: {line}", number + 1);
    }
}

#[test]
fn lost_and_edited_results_and_orders_are_found() {
    let all = with_results();
    let stage = all.order.keys().next().expect("a stage").clone();
    let found = |change: &dyn Fn(&mut Lock)| {
        let mut lock = all.clone();
        change(&mut lock);
        let read = Lock::parse(&lock.to_text());
        let checked = read.and_then(|lock| lock.check_against(&spec()));
        checked.expect_err("an edited lock").to_string()
    };
    let lost = found(&|lock| drop(lock.result.pop_first()));
    assert!(lost.contains("does not have a result"), "{lost}");
    let lost = found(&|lock| lock.result.clear());
    assert!(lost.contains("more) does not have a result"), "{lost}");
    let partial = found(&|lock| lock.results = Completeness::Partial);
    assert!(partial.contains("every node has a result"), "{partial}");
    let lost = found(&|lock| drop(lock.order.remove(&stage)));
    assert!(lost.contains(&format!("order `{stage}`: it is missing")), "{lost}");
    let edited = found(&|lock| lock.order.get_mut(&stage).expect("an order").samples += 1);
    assert!(edited.contains(&format!("order `{stage}`: the lock has")), "{edited}");
    let other = found(&|lock| {
        let order = lock.order[&stage].clone();
        lock.order.insert("other".to_owned(), order);
    });
    assert!(other.contains("order `other`"), "{other}");
    let lost = found(&|lock| lock.fingerprint = None);
    assert!(lost.contains("fingerprint"), "{lost}");
    let lost = found(&|lock| lock.class = None);
    assert!(lost.contains("class"), "{lost}");
    let edited = found(&|lock| lock.intent = lock.node["report"].key);
    assert!(edited.contains("intent"), "{edited}");
}

#[test]
fn the_class_of_an_earlier_lock_is_the_end_of_its_fingerprint() {
    let new = with_results();
    let class = new.class.expect("a class");
    let text = new.to_text().replacen("version = 3", "version = 1", 1);
    // A single file was pinned by its bytes alone.
    let names = ["english", "finnish"];
    let text = names
        .iter()
        .fold(text, |text, name| text.replace(&manifest_of(name), &blake3_of(name)));
    let lines = text.lines().filter(|line| !line.starts_with("class = "));
    let earlier = |machine: &str, probe: &str| {
        let lines = lines.clone().map(|line| match line.strip_prefix("fingerprint = ") {
            Some(_) => format!("fingerprint = \"{machine}{probe}\""),
            None => line.to_owned(),
        });
        Lock::parse(&lines.collect::<Vec<_>>().join("\n"))
    };
    let read = earlier("a machine", &format!(", probe {class}")).expect("a lock");
    read.check_against(&spec()).expect("nothing was edited");
    assert_eq!((read.class, &read.fingerprint), (new.class, &new.fingerprint));
    // It is out of date, and nothing of it is lost.
    let mut fresh = locked(&pins());
    let changes: Vec<String> = read.changes(&fresh).iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["version: `1` → `3`"]);
    fresh.keep_from(&read, &spec());
    assert_eq!(fresh, new);
    let portable = earlier("portable kernels", &format!(", probe {class}")).expect("a lock");
    assert_eq!(portable.class, NumericsClass::parse(&format!("portable-{class}")));
    assert!(earlier("a machine", "").is_err());
}

#[test]
fn a_single_file_of_an_earlier_lock_is_pinned_by_its_manifest() {
    let text = locked(&pins()).to_text().replacen("version = 3", "version = 2", 1);
    let earlier = ["english", "finnish"].iter().fold(text, |text, name| {
        let text = text.replace(&manifest_of(name), &blake3_of(name));
        text.replace(&format!("\"{name}.txt\""), &format!("\"data/{name}.txt\""))
    });
    assert!(earlier.contains("files = [\"data/english.txt\"]"));
    assert_eq!(Lock::parse(&earlier).expect("a lock").pins(), pins());
}

#[test]
fn a_lock_of_a_changed_spec_is_not_damaged() {
    let lock = with_results();
    let text = crate::read("specs/tiny.aur").replacen("file:data/english.txt", "file:data/other.txt", 1);
    let changed = check("specs/tiny.aur", &text, None).expect("a valid spec");
    lock.check_against(&changed)
        .expect("a lock of another state of the spec");
}

#[test]
fn a_lock_is_complete_with_all_results() {
    let mut fresh = locked(&pins());
    assert_eq!(fresh.results, Completeness::Partial);
    fresh.keep_from(&with_results(), &spec());
    assert_eq!(fresh, with_results());
    let mut changed = with_results();
    changed.node.get_mut("report").expect("a report").key = changed.intent;
    changed.result.clear();
    changed.keep_from(&with_results(), &spec());
    assert_eq!(changed.results, Completeness::Partial);
}

#[test]
fn an_order_with_another_number_of_samples_is_not_kept() {
    let mut old = with_results();
    let stage = old.order.keys().next().expect("a stage").clone();
    old.order.get_mut(&stage).expect("an order").samples += 1;
    let mut fresh = locked(&pins());
    fresh.keep_from(&old, &spec());
    assert!(!fresh.order.contains_key(&stage));
    let read = Lock::parse(&fresh.to_text()).expect("a lock");
    read.check_against(&spec()).expect("a lock of the spec");
    assert_eq!(read.results, Completeness::Partial);
}

#[test]
fn errors_have_codes() {
    let text = locked(&pins()).to_text();
    let code = |text: String| Lock::parse(&text).expect_err("an error").code();
    assert_eq!(code(format!("<<<<<<< ours\n{text}")), Code::LOCK_CONFLICT);
    assert_eq!(code(text.replacen("version = 3", "version = 9", 1)), Code::LOCK_TOO_NEW);
    assert_eq!(code(text.replacen("version = 3", "", 1)), Code::LOCK_MALFORMED);
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
