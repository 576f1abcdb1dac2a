use std::os::unix::fs::FileTypeExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::*;
use crate::numerics::{Fingerprint, MachineDescription};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn root(&self) -> &Utf8Path {
        Utf8Path::from_path(self.0.path()).expect("UTF-8")
    }

    fn store(&self) -> Store {
        Store::open(self.root()).expect("a store")
    }

    fn problems(&self) -> Vec<String> {
        let store = Store::open_read_only(self.root()).expect("a store");
        let problems = store.verify().expect("a report").problems.into_iter();
        problems
            .map(|problem| format!("{}: {}", problem.path, problem.cause))
            .collect()
    }

    fn collect(&self, keep: &[Key], since: Option<u64>) -> Result<GarbageReport, StoreError> {
        let store = Store::open_alone(self.root()).expect("no other process");
        store.collect(&keep.iter().copied().collect(), since, false)
    }
}

fn key(text: &str) -> Key {
    digest_of([(text, 0, "")])
}

fn id(text: &str) -> ResultId {
    ResultId::without_class(key(text))
}

/// A node `name` of the experiment `small`, with this key and realised key.
fn publication<'a>(name: &'a str, own: &str, realised: &str) -> Publication<'a> {
    Publication {
        experiment: "small",
        node: name,
        id: id(own),
        realised: key(realised),
        preimage: Preimage::default(),
        made_on: None,
    }
}

/// A folder with one file.
fn made(store: &Store, text: &str) -> Scratch {
    let scratch = store.scratch().expect("a folder");
    fs::write(scratch.path().join("text"), text).expect("a file");
    scratch
}

fn publish(store: &Store, name: &str, own: &str, realised: &str) -> Record {
    let scratch = made(store, own);
    let published = store.publish(publication(name, own, realised), scratch.path());
    published.expect("a result")
}

/// Changes the text of a record, with the checksum of the new text.
fn change(path: &Utf8Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).expect("a record");
    let (body, _) = text.trim_end().rsplit_once('\n').expect("a checksum");
    assert!(body.contains(from), "{body}");
    let body = body.replacen(from, to, 1);
    fs::write(path, format!("{body}\n{}\n", blake3::hash(body.as_bytes()).to_hex())).expect("a record");
}

fn exchange(a: &Utf8Path, b: &Utf8Path) {
    let (first, second) = (fs::read(a).expect("a record"), fs::read(b).expect("a record"));
    fs::write(a, second).expect("a record");
    fs::write(b, first).expect("a record");
}

#[test]
fn another_format_is_refused_with_both_versions() {
    let folder = Folder::new();
    let record = publish(&folder.store(), "a", "a", "ra");
    let path = Address::new(RecordKind::Result, record.key).path(folder.root());
    for version in ["9.0", "1.0"] {
        let text = fs::read(&path).expect("a record");
        change(&path, &format!("\"{}\"", sealed::FORMAT), &format!("\"{version}\""));
        for opened in [
            Store::open(folder.root()),
            Store::open_read_only(folder.root()),
            Store::open_alone(folder.root()),
        ] {
            let error = opened.map(drop).expect_err("another format");
            assert!(error.help().is_some_and(|help| help.contains("--store")));
            let message = error.to_string();
            assert!(
                message.contains(version) && message.contains(sealed::FORMAT),
                "{message}"
            );
        }
        fs::write(&path, text).expect("a record");
    }
    // One record of another format among others.
    let store = folder.store();
    publish(&store, "b", "b", "rb");
    for kind in [RecordKind::Result, RecordKind::Realised] {
        let address = match kind {
            RecordKind::Result => Address::new(kind, key("b")),
            _ => Address::new(kind, key("rb")),
        };
        let text = fs::read(address.path(folder.root())).expect("a record");
        change(
            &address.path(folder.root()),
            &format!("\"{}\"", sealed::FORMAT),
            "\"9.0\"",
        );
        let read = store.realised(id("rb"));
        assert!(matches!(read, Err(StoreError::Format { found, .. }) if found == "9.0"));
        fs::write(address.path(folder.root()), text).expect("a record");
    }
}

#[test]
fn a_record_is_used_only_in_its_own_place() {
    let folder = Folder::new();
    let store = folder.store();
    let (a, b) = (publish(&store, "a", "a", "ra"), publish(&store, "b", "b", "rb"));
    let path = |kind, own: &str| Address::new(kind, key(own)).path(folder.root());
    for (kind, [first, second]) in [(RecordKind::Result, ["a", "b"]), (RecordKind::Realised, ["ra", "rb"])] {
        let (first, second) = (path(kind, first), path(kind, second));
        exchange(&first, &second);
        assert_eq!(store.realised(id("ra")).expect("a store"), None);
        assert_eq!(folder.problems().len(), 2, "{:?}", folder.problems());
        exchange(&first, &second);
    }
    assert_eq!(store.realised(id("ra")).expect("a store"), Some(a.clone()));
    // A record that says that it is in its place, but has another result.
    let place = path(RecordKind::Result, "a");
    let text = fs::read(&place).expect("a record");
    fs::copy(path(RecordKind::Result, "b"), &place).expect("a record");
    let (wrong, right) = (b.key.to_hex(), a.key.to_hex());
    change(
        &place,
        &format!("\"key\":\"{wrong}\",\"value\""),
        &format!("\"key\":\"{right}\",\"value\""),
    );
    assert_eq!(store.record(a.id()).expect("a store"), None);
    fs::write(&place, text).expect("a record");
    assert_eq!(folder.problems(), [""; 0]);
    // Unfinished checkpoints.
    for own in ["c", "d"] {
        let scratch = made(&store, own);
        let published = store.publish_partial(publication(own, own, own), 3, scratch.path());
        published.expect("a checkpoint");
    }
    exchange(&path(RecordKind::Partial, "c"), &path(RecordKind::Partial, "d"));
    assert_eq!(store.partial(id("c")).expect("a store"), None);
    assert_eq!(folder.problems().len(), 2);
    fs::copy(&place, path(RecordKind::Partial, "c")).expect("a record");
    assert_eq!(store.partial(id("c")).expect("a store"), None);
}

#[test]
fn an_interrupted_publication_is_not_damage() {
    let folder = Folder::new();
    let store = folder.store();
    let record = publish(&store, "a", "a", "ra");
    let name = Store::name_of("small", "a").path(folder.root());
    let realised = Address::new(RecordKind::Realised, key("ra")).path(folder.root());
    let marker = folder.root().join("publishing").join(record.key.to_hex());
    for path in [&name, &realised] {
        fs::remove_file(path).expect("a record");
    }
    assert_eq!(folder.problems().len(), 2);
    fs::write(&marker, "").expect("a marker");
    assert_eq!(folder.problems(), [""; 0]);
    store.restore(&record, "small", "a").expect("restored");
    assert!(!marker.exists() && name.exists() && realised.exists());
    assert_eq!(folder.problems(), [""; 0]);
}

#[test]
fn gc_keeps_what_was_changed_since_a_process_began() {
    let folder = Folder::new();
    let (old, new) = {
        let store = folder.store();
        (publish(&store, "a", "old", "r1"), publish(&store, "a", "new", "r2"))
    };
    let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let set = |path: &Utf8Path, time| {
        let file = File::open(path).expect("a file");
        file.set_modified(time).expect("a time");
    };
    for path in files_below(folder.root()).expect("files") {
        set(&path, began - Duration::from_secs(1));
    }
    // `new` is in use by its name, `old` by nothing but its age.
    let action = Address::new(RecordKind::Result, old.key).path(folder.root());
    set(&action, began);
    let since = Some(1_000_000);
    let report = folder.collect(&[], since).expect("collected");
    assert_eq!((report.records, report.objects), (0, 0));
    assert_eq!(folder.problems(), [""; 0]);
    set(&action, began - Duration::from_secs(1));
    let object = folder.root().join("tmp/object");
    fs::write(&object, "").expect("a file");
    let report = folder.collect(&[], since).expect("collected");
    assert_eq!((report.records, report.objects, report.young), (1, 1, 1));
    assert!(!action.exists() && object.exists());
    assert_eq!(folder.problems(), [""; 0]);
    assert!(folder.store().record(new.id()).expect("a store").is_some());
}

#[test]
fn gc_keeps_a_result_with_the_inputs_of_a_deleted_one() {
    let folder = Folder::new();
    let (first, second) = {
        let store = folder.store();
        (
            publish(&store, "a", "first", "same"),
            publish(&store, "a", "second", "same"),
        )
    };
    // The name and the realised key refer to the second one, a lock to the first one.
    fs::remove_file(Store::name_of("small", "a").path(folder.root())).expect("a name");
    folder.collect(&[first.key], None).expect("collected");
    let store = folder.store();
    assert_eq!(store.record(second.id()).expect("a store"), None);
    assert_eq!(store.realised(id("same")).expect("a store"), Some(first));
}

#[test]
fn gc_waits_for_nothing_and_needs_the_store_alone() {
    let folder = Folder::new();
    let open = folder.store();
    assert!(matches!(Store::open_alone(folder.root()), Err(StoreError::Busy { .. })));
    drop(open);
    let alone = Store::open_alone(folder.root()).expect("no other process");
    assert!(matches!(Store::open(folder.root()), Err(StoreError::Busy { .. })));
    drop(alone);
    let lock = folder.root().join("locks/store/flock");
    fs::remove_file(&lock).expect("a file");
    assert!(Command::new("mkfifo").arg(&lock).status().expect("mkfifo").success());
    assert!(fs::metadata(&lock).expect("a pipe").file_type().is_fifo());
    assert!(matches!(Store::open(folder.root()), Err(StoreError::Io { .. })));
}

#[test]
fn folders_for_partial_files_of_killed_processes_are_deleted() {
    let folder = Folder::new();
    let (store, tmp) = (folder.store(), folder.root().join("tmp"));
    let own = store.scratch().expect("a folder");
    let left = tmp.join(format!("{WORK}0123456789abcdef0123456789abcdef-x"));
    fs::create_dir(&left).expect("a folder");
    fs::write(left.join("partial"), "").expect("a file");
    drop(folder.store());
    assert!(own.path().is_dir(), "its process has the store open");
    assert!(!left.exists());
}

#[test]
fn an_object_that_is_not_a_file_is_damaged() {
    let folder = Folder::new();
    let store = folder.store();
    let record = publish(&store, "a", "a", "ra");
    let path = store.object_path(&record.outputs["text"].content);
    fs::remove_file(&path).expect("an object");
    assert_eq!(store.state_of(&record).expect("a state"), CachedResult::Missing);
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
    assert!(matches!(store.state_of(&record), Ok(CachedResult::Damaged { .. })));
    assert!(matches!(store.files(&record), Err(StoreError::Damaged { .. })));
    fs::remove_file(&path).expect("a pipe");
    std::os::unix::fs::symlink(&path, &path).expect("a link to itself");
    assert!(matches!(store.state_of(&record), Err(StoreError::Io { .. })));
    assert_eq!(folder.problems().len(), 1);
    fs::remove_file(&path).expect("a link");
    publish(&store, "a", "a", "ra");
    assert_eq!(folder.problems(), [""; 0]);
}

fn class(digit: &str) -> NumericsClass {
    NumericsClass::parse(&digit.repeat(16)).expect("a class")
}

fn in_class(text: &str, digit: &str) -> ResultId {
    ResultId {
        key: key(text),
        class: Some(class(digit)),
    }
}

/// Publishes a result of the node `a`, with this key, in a class.
fn publish_in_class(store: &Store, own: &str, digit: &str) -> Record {
    let scratch = made(store, &format!("{own} of {digit}"));
    let of = Publication {
        id: in_class(own, digit),
        ..publication("a", own, "realised")
    };
    store.publish(of, scratch.path()).expect("a result")
}

#[test]
fn results_of_two_classes_are_never_exchanged() {
    let folder = Folder::new();
    let store = folder.store();
    let first = publish_in_class(&store, "a", "1");
    let scratch = made(&store, "unfinished");
    let of = Publication {
        id: in_class("c", "1"),
        ..publication("c", "c", "c")
    };
    store.publish_partial(of, 3, scratch.path()).expect("a checkpoint");
    assert_eq!(store.record(in_class("a", "1")).expect("a store"), Some(first.clone()));
    for other in [id("a"), in_class("a", "2")] {
        assert_eq!(store.record(other).expect("a store"), None);
        assert_eq!(store.state(other).expect("a store"), CachedResult::Missing);
    }
    for other in [id("realised"), in_class("realised", "2")] {
        assert_eq!(store.realised(other).expect("a store"), None);
    }
    assert!(store.partial(in_class("c", "1")).expect("a store").is_some());
    for other in [id("c"), in_class("c", "2")] {
        assert_eq!(store.partial(other).expect("a store"), None);
    }
    let second = publish_in_class(&store, "a", "2");
    assert_ne!(first.digest, second.digest);
    assert_eq!(store.classes_of(key("a")).expect("a store"), [class("1"), class("2")]);
    for (digit, record) in [("1", first), ("2", second)] {
        let read = store.realised(in_class("realised", digit)).expect("a store");
        assert_eq!(read, Some(record));
    }
    // A record in the folder of another class.
    let [from, to] = ["1", "2"].map(|digit| Address::new(RecordKind::Result, in_class("a", digit)).path(folder.root()));
    fs::copy(from, to).expect("a record");
    assert_eq!(store.record(in_class("a", "2")).expect("a store"), None);
    assert!(!folder.problems().is_empty());
}

#[test]
fn gc_keeps_the_results_of_all_classes_of_a_key_in_use() {
    let folder = Folder::new();
    {
        let store = folder.store();
        for (own, digit) in [("old", "1"), ("old", "2"), ("new", "1"), ("new", "2")] {
            publish_in_class(&store, own, digit);
        }
    }
    let report = folder.collect(&[], None).expect("collected");
    assert_eq!(report.records, 2);
    let store = folder.store();
    assert!(store.classes_of(key("old")).expect("a store").is_empty());
    assert_eq!(store.classes_of(key("new")).expect("a store").len(), 2);
    assert_eq!(folder.problems(), [""; 0]);
}

#[test]
fn a_machine_has_the_class_that_a_worker_reported_last() {
    let folder = Folder::new();
    let store = folder.store();
    let machine = |cpu: &str| MachineDescription {
        cpu: cpu.to_owned(),
        ..MachineDescription::default()
    };
    let report = |cpu: &str, digit: &str| {
        let fingerprint = Fingerprint {
            machine: machine(cpu),
            probe: digit.repeat(64),
            portable: "f".repeat(64),
        };
        store
            .learn_classes(&fingerprint.machine, &fingerprint)
            .expect("a record");
    };
    let known = |cpu: &str, portable| store.known_class(&machine(cpu), portable).expect("a store");
    assert_eq!(known("a", false), None);
    report("a", "1");
    assert_eq!((known("a", false), known("b", false)), (Some(class("1")), None));
    assert!(known("a", true).is_some_and(|class| class.to_string() == format!("portable-{}", "f".repeat(16))));
    report("a", "2");
    assert_eq!(known("a", false), Some(class("2")));
    // A damaged record is reported, counts as missing and is written again.
    let path = entries(&folder.root().join("classes"), 0).expect("records").remove(0);
    change(&path, "2222", "3333");
    let text = fs::read_to_string(&path).expect("a record").replace("3333", "4444");
    fs::write(&path, text).expect("a record");
    assert_eq!(known("a", false), None);
    assert_eq!(folder.problems().len(), 1);
    report("a", "2");
    assert_eq!(known("a", false), Some(class("2")));
    assert_eq!(folder.problems(), [""; 0]);
}

#[test]
fn gc_keeps_no_reference_to_a_deleted_result_of_a_class() {
    let folder = Folder::new();
    {
        let store = folder.store();
        publish_in_class(&store, "new", "1");
        for digit in ["1", "2"] {
            publish_in_class(&store, "old", digit);
        }
        store.name("small", "a", key("new")).expect("a name");
    }
    let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let young = Address::new(RecordKind::Result, in_class("old", "2")).path(folder.root());
    for path in files_below(folder.root()).expect("files") {
        let file = File::open(&path).expect("a file");
        let time = if path == young {
            began
        } else {
            began - Duration::from_secs(1)
        };
        file.set_modified(time).expect("a time");
    }
    // In class 1 the name refers to another result of the same inputs; in class 2 the old result is young.
    let report = folder.collect(&[], Some(1_000_000)).expect("collected");
    assert_eq!(report.records, 1);
    assert_eq!(folder.problems(), [""; 0]);
    let store = folder.store();
    let read = |digit| store.realised(in_class("realised", digit)).expect("a store");
    assert_eq!(read("1").map(|record| record.key), Some(key("new")));
    assert_eq!(read("2").map(|record| record.key), Some(key("old")));
}

/// What pins a source whose only file is `text` with this text.
fn manifest(text: &str) -> String {
    source_content([("text", text.len() as u64, *blake3::hash(text.as_bytes()).as_bytes())]).to_hex()
}

/// The publication of a source whose pin has this content.
fn source(pinned: &str) -> Publication<'static> {
    let fields = BTreeMap::from([("content".to_owned(), pinned.to_owned())]);
    let kind = NodeKind::Source.name().to_owned();
    Publication {
        preimage: Preimage {
            kind,
            version: NodeKind::Source.version(),
            fields,
            ..Preimage::default()
        },
        ..publication("source/corpus", "source", "source")
    }
}

#[test]
fn a_source_that_changes_while_it_is_copied_is_not_published() {
    let folder = Folder::new();
    let store = folder.store();
    let error = store
        .publish(source(&manifest("old")), made(&store, "new").path())
        .expect_err("it changed");
    let StoreError::SourceChanged { node, pinned, copied } = error else {
        unreachable!("{error}")
    };
    assert_eq!(
        (node.as_str(), pinned, copied),
        ("source/corpus", manifest("old"), manifest("new"))
    );
    assert!(store.record(id("source")).expect("readable").is_none());
    store
        .publish(source(&manifest("new")), made(&store, "new").path())
        .expect("published");
    assert!(folder.problems().is_empty());
}

#[test]
fn the_record_of_a_source_is_bound_to_its_pin() {
    let folder = Folder::new();
    let store = folder.store();
    let hash = |text: &str| blake3::hash(text.as_bytes()).to_hex().to_string();
    store
        .publish(source(&manifest("old")), made(&store, "old").path())
        .expect("published");
    // Everything in the record is changed alike, but not the pin in its key's pre-image.
    let other = publish(&store, "other", "new", "new");
    let path = Address::new(RecordKind::Result, id("source")).path(folder.root());
    let object = format!("\"text\":{{\"content\":\"{}\"", hash("old"));
    change(&path, &object, &object.replace(&hash("old"), &hash("new")));
    let digest = |outputs: &BTreeMap<String, Object>| digest_of_outputs(outputs).to_hex();
    let old = BTreeMap::from([(
        "text".to_owned(),
        Object {
            content: hash("old"),
            bytes: 3,
        },
    )]);
    change(&path, &digest(&old), &digest(&other.outputs));
    assert!(store.record(id("source")).expect("readable").is_none());
    let problems = folder.problems();
    assert!(
        problems
            .iter()
            .any(|problem| problem.ends_with("its files are not those that its key pins")),
        "{problems:?}"
    );
}
