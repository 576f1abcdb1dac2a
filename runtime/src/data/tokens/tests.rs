use super::*;
use proptest::prelude::*;

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = Utf8PathBuf::try_from(folder.path().to_owned()).expect("UTF-8");
    (folder, path)
}

fn write(path: &Utf8Path, name: &str, vocabulary: u32, documents: &[Vec<u32>]) -> (Utf8PathBuf, Utf8PathBuf) {
    let (bin, idx) = (path.join(format!("{name}.bin")), path.join(format!("{name}.idx")));
    let mut writer = TokenWriter::create(&bin, &idx, vocabulary).expect("created");
    for document in documents {
        writer.push(document).expect("pushed");
    }
    let written = writer.finish().expect("finished");
    assert_eq!(written.documents, documents.len() as u64);
    assert_eq!(written.tokens, documents.iter().map(Vec::len).sum::<usize>() as u64);
    (bin, idx)
}

fn hex(path: &Utf8Path) -> String {
    std::fs::read(path)
        .expect("read")
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The bytes that Megatron-LM itself writes for these two documents.
#[test]
fn golden_bytes() {
    let (_guard, path) = folder();
    let (bin, idx) = write(&path, "golden", 65_499, &[vec![1, 2, 3], vec![4, 5]]);
    assert_eq!(hex(&bin), "01000200030004000500");
    assert_eq!(
        hex(&idx),
        "4d4d49444944580000010000000000000008020000000000000003000000000000000300000002000000\
         00000000000000000600000000000000000000000000000001000000000000000200000000000000"
    );
}

#[test]
fn element_type_follows_the_vocabulary() {
    let (_guard, path) = folder();
    let (bin, idx) = write(&path, "wide", 65_500, &[vec![65_499]]);
    assert_eq!(hex(&bin), "dbff0000");
    let file = TokenFile::open(&bin, &idx).expect("opened");
    assert_eq!(file.element(), TokenWidth::I32);
    let mut out = [0];
    file.read(0, &mut out).expect("read");
    assert_eq!(out, [65_499]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_is_read(
        documents in proptest::collection::vec(proptest::collection::vec(0u32..70_000, 1..20), 1..30),
        cut in 0usize..30,
        narrow: bool,
    ) {
        let documents: Vec<Vec<u32>> = if narrow {
            documents.into_iter().map(|d| d.into_iter().map(|t| t % 300).collect()).collect()
        } else {
            documents
        };
        let vocabulary = if narrow { 300 } else { 70_000 };
        let (_guard, path) = folder();
        let cut = cut.min(documents.len());
        let first = write(&path, "a", vocabulary, &documents[..cut]);
        let second = write(&path, "b", vocabulary, &documents[cut..]);
        let stream = TokenStream::open([(first.0.as_path(), first.1.as_path()), (&second.0, &second.1)]).expect("opened");
        let all: Vec<i64> = documents.iter().flatten().map(|&token| i64::from(token)).collect();
        prop_assert_eq!(stream.num_tokens(), all.len() as u64);
        prop_assert_eq!(stream.num_documents(), documents.len() as u64);
        for (start, length) in [(0, all.len()), (all.len() / 3, all.len() / 2), (all.len(), 0)] {
            let mut out = vec![-1; length];
            stream.read(start as u64, &mut out).expect("read");
            prop_assert_eq!(&out[..], &all[start..start + length]);
        }
        prop_assert!(stream.read(1, &mut vec![0; all.len()]).is_err());
        let mut position = 0u64;
        for (i, document) in documents[cut..].iter().enumerate() {
            let range = stream.files()[1].document(i as u64).expect("there");
            prop_assert_eq!(range.clone(), position..position + document.len() as u64);
            prop_assert_eq!(stream.files()[1].document_at(range.start).expect("there"), i as u64);
            prop_assert_eq!(stream.files()[1].document_at(range.end - 1).expect("there"), i as u64);
            position = range.end;
        }
    }
}

#[test]
fn samples_share_their_last_token() {
    let (_guard, path) = folder();
    let (bin, idx) = write(&path, "s", 100, &[vec![1; 9]]);
    let stream = TokenStream::open([(bin.as_path(), idx.as_path())]).expect("opened");
    assert_eq!(
        [1, 4, 8, 9, 0].map(|sequence| stream.num_samples(sequence)),
        [8, 2, 1, 0, 0]
    );
    let (bin, idx) = write(&path, "none", 100, &[]);
    let stream = TokenStream::open([(bin.as_path(), idx.as_path())]).expect("opened");
    assert_eq!((stream.num_tokens(), stream.num_samples(4)), (0, 0));
}

#[test]
fn the_writer_refuses_what_cannot_be_read_back() {
    let (_guard, path) = folder();
    let mut writer = TokenWriter::create(&path.join("w.bin"), &path.join("w.idx"), 10).expect("created");
    assert!(matches!(writer.push(&[]), Err(TokensError::EmptyDocument)));
    assert!(matches!(
        writer.push(&[1, 10]),
        Err(TokensError::OutsideVocabulary {
            token: 10,
            vocabulary: 10
        })
    ));
}

/// Every single-byte change of the index is noticed, as is any other length of either file.
#[test]
fn a_damaged_pair_is_refused() {
    let (_guard, path) = folder();
    let (bin, idx) = write(&path, "golden", 65_499, &[vec![1, 2, 3], vec![4, 5]]);
    let good = std::fs::read(&idx).expect("read");
    // But for the boundary between the two documents: 0 there would be an empty document before one of two sequences,
    // which the format allows.
    for at in (0..good.len()).filter(|&at| at != HEADER + 12 * 2 + 8) {
        let mut bad = good.clone();
        bad[at] ^= 0x01;
        std::fs::write(&idx, &bad).expect("written");
        let error = TokenFile::open(&bin, &idx).expect_err("refused");
        assert!(error.to_string().contains("golden."), "byte {at}: {error}");
    }
    for length in 0..good.len() {
        std::fs::write(&idx, &good[..length]).expect("written");
        assert!(TokenFile::open(&bin, &idx).is_err(), "index of {length} bytes");
    }
    std::fs::write(&idx, [&good[..], &[0, 0]].concat()).expect("written");
    assert!(matches!(
        TokenFile::open(&bin, &idx),
        Err(TokensError::IndexLength {
            found: 84,
            needed: 82,
            ..
        })
    ));
    std::fs::write(&idx, &good).expect("written");
    std::fs::write(&bin, [0; 11]).expect("written");
    assert!(matches!(
        TokenFile::open(&bin, &idx),
        Err(TokensError::BinLength {
            found: 11,
            expected: 10,
            ..
        })
    ));
    std::fs::write(&idx, b"TNTIDX\0\0 and so on").expect("written");
    assert!(matches!(TokenFile::open(&bin, &idx), Err(TokensError::OldIndex { .. })));
}

#[test]
fn a_negative_token_is_refused() {
    let (_guard, path) = folder();
    let (bin, idx) = write(&path, "n", 70_000, &[vec![1, 2]]);
    std::fs::write(&bin, [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).expect("written");
    let file = TokenFile::open(&bin, &idx).expect("opened");
    assert!(matches!(
        file.read(0, &mut [0; 2]),
        Err(TokensError::NegativeToken {
            position: 1,
            token: -1,
            ..
        })
    ));
}

/// Opening in constant time gives the same positions, and never panics on an index that disagrees with itself.
#[test]
fn a_verified_pair_is_opened_without_reading_its_index() {
    let (_guard, path) = folder();
    let documents: Vec<Vec<u32>> = (1..9).map(|length| vec![length; length as usize]).collect();
    let (bin, idx) = write(&path, "v", 100, &documents);
    let (slow, quick) = (
        TokenFile::open(&bin, &idx).expect("opened"),
        TokenFile::open_verified(&bin, &idx).expect("opened"),
    );
    assert_eq!(quick.num_tokens(), slow.num_tokens());
    for document in 0..8 {
        assert_eq!(
            quick.document(document).expect("there"),
            slow.document(document).expect("there")
        );
    }
    for position in 0..slow.num_tokens() {
        assert_eq!(
            quick.document_at(position).expect("there"),
            slow.document_at(position).expect("there")
        );
    }
    let good = std::fs::read(&idx).expect("read");
    for at in HEADER..good.len() {
        for flip in [0x01, 0x80] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            std::fs::write(&idx, &bad).expect("written");
            let Ok(file) = TokenFile::open_verified(&bin, &idx) else {
                continue;
            };
            for position in 0..file.num_tokens() {
                drop(file.document_at(position));
            }
            for document in 0..file.num_documents() {
                drop(file.document(document));
            }
        }
    }
    let (bin, idx) = write(&path, "none", 100, &[]);
    assert_eq!(TokenFile::open_verified(&bin, &idx).expect("opened").num_tokens(), 0);
}

proptest! {
    /// Whatever the lengths are: equal, growing, or empty.
    #[test]
    fn the_document_of_a_token_is_found(
        lengths in proptest::collection::vec(prop_oneof![0u64..3, 900u64..1100, 0u64..1_000_000], 1..400),
        part in 0.0f64..1.0,
    ) {
        let starts: Vec<u64> = std::iter::once(0)
            .chain(lengths.iter().scan(0, |sum, length| {
                *sum += length;
                Some(*sum)
            }))
            .collect();
        let tokens = starts[lengths.len()];
        prop_assume!(tokens > 0);
        let position = ((tokens as f64 * part) as u64).min(tokens - 1);
        let found = last_at_or_before(lengths.len() as u64, tokens, position, |at| Ok::<_, ()>(starts[at as usize]));
        let expected = starts[..lengths.len()].partition_point(|start| *start <= position) - 1;
        prop_assert_eq!(found, Ok(expected as u64));
    }
}
