use super::*;
use proptest::prelude::*;

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = Utf8PathBuf::try_from(folder.path().to_owned()).expect("UTF-8");
    (folder, path)
}

/// Writes files of documents with these ids, and their index; `digest` replaces the digest of an id.
fn write(path: &Utf8Path, files: &[Vec<String>], digest: impl Fn(&str) -> u64) -> (Utf8PathBuf, Vec<Utf8PathBuf>) {
    let index = path.join(DOCUMENT_INDEX);
    let mut writer = DocumentIndexWriter::create(&index, files.len()).expect("created");
    let mut paths = Vec::new();
    for (number, ids) in files.iter().enumerate() {
        let mut text = String::new();
        for (at, id) in ids.iter().enumerate() {
            writer.push(digest(id), text.len() as u64).expect("pushed");
            let document = Document {
                id: id.clone(),
                text: format!("text {at} of {id}\n\u{2028}").repeat(at % 5),
                answer: None,
            };
            text += &serde_json::to_string(&document).expect("JSON");
            text.push('\n');
        }
        writer.end_file();
        paths.push(path.join(format!("{number}.jsonl")));
        std::fs::write(&paths[number], text).expect("written");
    }
    writer.finish().expect("finished");
    (index, paths)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every document is found by its number and by its id, also where several have one id, and no other one is.
    #[test]
    fn documents_are_found_by_number_and_by_id(
        files in proptest::collection::vec(
            proptest::collection::vec(prop_oneof!["[a-z]{0,2}", "[\\\\\"/ä\u{1F600}\n]{0,3}", ".{0,12}"], 0..40),
            1..4,
        ),
        absent in "[0-9]{3}",
    ) {
        let (_guard, path) = folder();
        let (index, paths) = write(&path, &files, id_digest);
        let documents = IndexedDocuments::open(&index, &paths).expect("opened");
        let all: Vec<&String> = files.iter().flatten().collect();
        prop_assert_eq!(documents.num_documents(), all.len() as u64);
        for (number, id) in all.iter().enumerate() {
            prop_assert_eq!(&documents.id(number as u64).expect("there"), *id);
            prop_assert_eq!(&documents.document(number as u64).expect("there").id, *id);
            let same: Vec<u64> = (0..).zip(&all).filter(|(_, other)| *other == id).map(|(at, _)| at).collect();
            prop_assert_eq!(documents.find(id).expect("read"), same);
        }
        prop_assert_eq!(documents.find(&absent).expect("read").len(), all.iter().filter(|id| ***id == absent).count());
        prop_assert!(documents.id(all.len() as u64).is_err());
    }

    /// The order of the table does not depend on how many entries each part has.
    #[test]
    fn the_table_is_sorted(digests in proptest::collection::vec(prop_oneof![any::<u64>(), 0u64..3], 0..5000)) {
        let (_guard, path) = folder();
        let path = path.join(DOCUMENT_INDEX);
        let mut writer = DocumentIndexWriter::create(&path, 1).expect("created");
        for &digest in &digests {
            writer.push(digest, 0).expect("pushed");
        }
        writer.finish().expect("finished");
        let index = DocumentIndex::open(&path).expect("opened");
        for &digest in &digests {
            let same: Vec<u64> = (0..).zip(&digests).filter(|(_, other)| **other == digest).map(|(at, _)| at).collect();
            prop_assert_eq!(index.candidates(digest), same);
        }
    }
}

/// Counted by hand from the description of the format.
#[test]
fn golden_bytes() {
    let (_guard, path) = folder();
    let path = path.join(DOCUMENT_INDEX);
    let mut writer = DocumentIndexWriter::create(&path, 2).expect("created");
    writer.push(0xff00_0000_0000_0001, 0).expect("pushed");
    writer.push(2, 100).expect("pushed");
    writer.end_file();
    writer.push(1, 0).expect("pushed");
    writer.finish().expect("finished");
    let words: Vec<u64> = std::fs::read(&path)
        .expect("read")
        .as_chunks()
        .0
        .iter()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .collect();
    let magic = u64::from_le_bytes(*b"AURDOCS\0");
    let table = [1, 2, 2, 1, 0xff00_0000_0000_0001, 0];
    assert_eq!(words, [&[magic, 1, 3, 2, 2, 3, 0, 100, 0][..], &table].concat());
}

#[test]
fn the_line_decides_between_ids_with_one_digest() {
    let (_guard, path) = folder();
    let ids = ["a", "b", "a", "c"].map(str::to_owned).to_vec();
    let (index, paths) = write(&path, &[ids], |_| id_digest("a"));
    let documents = IndexedDocuments::open(&index, &paths).expect("opened");
    assert_eq!(documents.find("a").expect("read"), [0, 2]);
    assert_eq!(documents.find("b").expect("read"), Vec::<u64>::new());
}

/// Any other length is refused, and no changed byte makes a reader panic.
#[test]
fn a_damaged_index_is_an_error() {
    let (_guard, path) = folder();
    let files = [vec!["x".to_owned(), "y".to_owned()], vec!["z".to_owned()]];
    let (index, paths) = write(&path, &files, id_digest);
    let good = std::fs::read(&index).expect("read");
    for length in (0..good.len()).chain([good.len() + 1]) {
        let mut bad = good.clone();
        bad.resize(length, 0);
        std::fs::write(&index, bad).expect("written");
        assert!(DocumentIndex::open(&index).is_err(), "{length} bytes");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x81;
        std::fs::write(&index, bad).expect("written");
        let Ok(documents) = IndexedDocuments::open(&index, &paths) else {
            continue;
        };
        for number in 0..documents.num_documents() {
            drop(documents.document(number));
        }
        for id in ["x", "y", "z"] {
            drop(documents.find(id));
        }
    }
    std::fs::write(&index, &good).expect("written");
    std::fs::write(&paths[1], "not JSON\n").expect("written");
    let documents = IndexedDocuments::open(&index, &paths).expect("opened");
    let error = documents.id(2).expect_err("not a document").to_string();
    assert!(
        error.starts_with("the line at byte 0 of `") && error.ends_with("1.jsonl` is not a valid document"),
        "{error}"
    );
    assert!(matches!(
        IndexedDocuments::open(&index, &paths[..1]),
        Err(DocumentIndexError::Files { found: 2, given: 1, .. })
    ));
}
