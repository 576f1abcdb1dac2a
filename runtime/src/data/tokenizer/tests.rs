use super::*;
use crate::data::tokens::{TokenFile, TokenStream};
use aurora_compiler::fields::Split as Part;

const END: &str = "<|end|>";

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = Utf8PathBuf::try_from(folder.path().to_owned()).expect("UTF-8");
    (folder, path)
}

/// Text in which many pairs are equally frequent, in several scripts.
fn corpus() -> Vec<String> {
    let sentences = include_str!("../language/sentences.txt");
    let mut texts: Vec<String> = sentences
        .lines()
        .filter_map(|line| Some(line.split_once('\t')?.1.to_owned()))
        .collect();
    texts.extend((0..200).map(|i| format!("def f{i}(x):\n    if x > {i}:\n        return x * {}\n", i * i)));
    texts
}

fn write(path: &Utf8Path, texts: &[String]) -> Utf8PathBuf {
    let file = path.join("documents.jsonl");
    let line = |(at, text): (usize, &String)| {
        serde_json::to_string(&Document {
            id: at.to_string(),
            text: text.clone(),
            answer: None,
        })
        .expect("JSON")
            + "\n"
    };
    std::fs::write(&file, texts.iter().enumerate().map(line).collect::<String>()).expect("written");
    file
}

fn bpe(vocabulary: u32) -> TokenizerFields {
    TokenizerFields::TrainBpe {
        vocabulary,
        minimum_frequency: 2,
        special: vec![END.into(), "<|pad|>".into()],
    }
}

fn trained(texts: &[String], vocabulary: u32, threads: usize) -> (String, TokenizerMeta) {
    let (_guard, path) = folder();
    let documents = [write(&path, texts)];
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("threads");
    let meta = pool
        .install(|| {
            tokenizer(
                &bpe(vocabulary),
                TokenizerInput::Documents(&documents),
                &path,
                ProgressReporter::none(),
            )
        })
        .expect("trained");
    (
        std::fs::read_to_string(path.join("tokenizer.json")).expect("read"),
        meta,
    )
}

#[test]
fn training_gives_the_same_bytes_on_any_threads_and_in_any_order() {
    let mut texts = corpus();
    let (json, meta) = trained(&texts, 600, 1);
    assert_eq!(
        meta,
        TokenizerMeta {
            vocabulary: 600,
            end_of_document: END.into(),
            end_of_document_id: 0
        }
    );
    for threads in [1, 2, 4, 4] {
        assert!(trained(&texts, 600, threads).0 == json, "{threads} threads");
    }
    texts.reverse();
    assert!(trained(&texts, 600, 2).0 == json, "documents reversed");
    // If this fails, tokenizers trained before have other bytes: the meaning of `tokenizer` has changed.
    assert_eq!(
        blake3::hash(json.as_bytes()).to_hex().as_str(),
        "f81b7b5d188af0876bfa22ad282a3ed608baa1b4ac3aad82b4f3ea8462b0f6f7"
    );
}

fn encoded(texts: &[String], vocabulary: u32, threads: usize) -> (Vec<u8>, Vec<u8>, TokensMeta, Vec<Vec<i64>>) {
    let (_guard, path) = folder();
    let documents = [write(&path, texts)];
    let trained = tokenizer(
        &bpe(600),
        TokenizerInput::Documents(&documents),
        &path,
        ProgressReporter::none(),
    )
    .expect("trained");
    let out = path.join("out");
    std::fs::create_dir(&out).expect("created");
    let fields = TokensFields {
        split: Part::All,
        vocabulary,
    };
    let json = path.join("tokenizer.json");
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("threads");
    let id = trained.end_of_document_id;
    let meta = pool
        .install(|| tokens(&fields, &documents, &json, id, &out, ProgressReporter::none()))
        .expect("encoded");
    let (bin, idx) = (out.join("tokens.bin"), out.join("tokens.idx"));
    let file = TokenFile::open(&bin, &idx).expect("opened");
    let ids = (0..file.num_documents()).map(|document| {
        let range = file.document(document).expect("there");
        let mut ids = vec![0; (range.end - range.start) as usize];
        file.read(range.start, &mut ids).expect("read");
        ids
    });
    let ids = ids.collect();
    (
        std::fs::read(bin).expect("read"),
        std::fs::read(idx).expect("read"),
        meta,
        ids,
    )
}

#[test]
fn tokens_are_the_text_again_and_end_each_document() {
    let mut texts = corpus();
    texts.push(format!("text that spells {END} and <|pad|>"));
    texts.push("tabs\tand \u{1f600}\r\n   \n\n  odd   space ".into());
    let (bin, idx, meta, ids) = encoded(&texts, 800, 1);
    let (bin_4, idx_4, meta_4, _) = encoded(&texts, 800, 4);
    assert!(bin == bin_4 && idx == idx_4 && meta == meta_4);
    assert_eq!(meta.documents, texts.len() as u64);
    assert_eq!(meta.bytes, texts.iter().map(|text| text.len() as u64).sum::<u64>());
    assert_eq!(meta.tokens * 2, bin.len() as u64);

    let (json, _) = trained(&texts, 600, 1);
    let tokenizer = parse("test", json.as_bytes()).expect("a tokenizer");
    for (text, ids) in texts.iter().zip(&ids) {
        let (last, inner) = ids.split_last().expect("never empty");
        assert_eq!(*last, 0);
        assert!(inner.iter().all(|&id| id > 1), "special tokens only at the end: {text}");
        let inner: Vec<u32> = inner.iter().map(|&id| id as u32).collect();
        assert_eq!(tokenizer.tokenizer().decode(&inner, false).expect("decoded"), *text);
    }
}

#[test]
fn a_given_tokenizer_is_taken_as_it_is() {
    let (_guard, path) = folder();
    let (json, _) = trained(&corpus(), 400, 1);
    let given = path.join("given.json");
    std::fs::write(&given, &json).expect("written");
    let out = path.join("out");
    std::fs::create_dir(&out).expect("created");
    let load = |member: &str, end: &str| TokenizerFields::Load {
        member: member.into(),
        end_of_document: end.into(),
    };
    let make = |fields: &TokenizerFields| {
        let json = std::fs::read(&given).expect("read");
        tokenizer(fields, TokenizerInput::Json(&json), &out, ProgressReporter::none())
    };
    let meta = make(&load("given.json", "<|pad|>")).expect("loaded");
    assert_eq!((meta.vocabulary, meta.end_of_document_id), (400, 1));
    assert_eq!(std::fs::read_to_string(out.join("tokenizer.json")).expect("read"), json);
    assert!(matches!(
        make(&load("given.json", "<eos>")),
        Err(TokenizerError::NoEnd { .. })
    ));
    assert!(matches!(make(&bpe(400)), Err(TokenizerError::NoDocuments)));
    std::fs::write(&given, "{}").expect("written");
    assert!(matches!(
        make(&load("given.json", END)),
        Err(TokenizerError::NoTokenizer { .. })
    ));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (_guard, path) = folder();
    let documents = [write(&path, &corpus())];
    let train = |fields: &TokenizerFields| {
        tokenizer(
            fields,
            TokenizerInput::Documents(&documents),
            &path,
            ProgressReporter::none(),
        )
        .expect_err("refused")
        .to_string()
    };
    assert_eq!(
        train(&bpe(257)),
        "a vocabulary of 257 is too small for 256 bytes and 2 special tokens"
    );
    let special = |special: &[&str]| TokenizerFields::TrainBpe {
        vocabulary: 400,
        minimum_frequency: 0,
        special: special.iter().map(|&token| token.into()).collect(),
    };
    assert!(train(&special(&[])).contains("there must be one"));
    assert!(train(&special(&[END, END])).contains("occurs twice"));
    assert!(train(&special(&["a"])).contains("single character"));
    tokenizer(
        &bpe(400),
        TokenizerInput::Documents(&documents),
        &path,
        ProgressReporter::none(),
    )
    .expect("trained");
    let fields = TokensFields {
        split: Part::All,
        vocabulary: 399,
    };
    let error = tokens(
        &fields,
        &documents,
        &path.join("tokenizer.json"),
        0,
        &path,
        ProgressReporter::none(),
    )
    .expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the tokenizer has 400 entries, but the model's vocabulary only has 399"
    );
}

/// Prompts are only read, answers and the ends of documents are trained on; where there is no prompt there is no mask.
#[test]
fn a_mask_says_what_is_trained_on() {
    let (_guard, path) = folder();
    let plain = write(&path, &corpus());
    let tokenizer_folder = path.join("tokenizer");
    std::fs::create_dir(&tokenizer_folder).expect("a folder");
    let meta = tokenizer(
        &bpe(600),
        TokenizerInput::Documents(std::slice::from_ref(&plain)),
        &tokenizer_folder,
        ProgressReporter::none(),
    )
    .expect("a tokenizer");
    let fields = TokensFields {
        split: Part::Train,
        vocabulary: 600,
    };
    let encode = |documents: &Utf8Path, name: &str| {
        let out = path.join(name);
        std::fs::create_dir(&out).expect("a folder");
        let json = tokenizer_folder.join("tokenizer.json");
        let found = tokens(
            &fields,
            &[documents.to_owned()],
            &json,
            meta.end_of_document_id,
            &out,
            ProgressReporter::none(),
        );
        found.map(|_| out)
    };
    let out = encode(&plain, "plain").expect("tokens");
    assert!(!out.join("tokens.mask").exists());
    let pairs = path.join("pairs.jsonl");
    let lines = [("<|end|>Why is it? ", "Because."), ("", "All of it."), ("Näin? ", "Ei")].map(|(prompt, answer)| {
        let document = Document {
            id: "x".to_owned(),
            text: format!("{prompt}{answer}"),
            answer: (!prompt.is_empty()).then_some(prompt.len()),
        };
        serde_json::to_string(&document).expect("JSON") + "\n"
    });
    std::fs::write(&pairs, lines.concat()).expect("written");
    let out = encode(&pairs, "pairs").expect("tokens");
    let file = TokenFile::open(&out.join("tokens.bin"), &out.join("tokens.idx")).expect("opened");
    let stream = TokenStream::new(vec![file.masked(&out.join("tokens.mask")).expect("a mask")]).expect("a stream");
    let encoder = load(&tokenizer_folder.join("tokenizer.json")).expect("a tokenizer");
    let count = |text: &str| encoder.encode(text).expect("encoded").len();
    let mut expected = vec![false; count("Why is it? ") + 1];
    expected.extend(vec![true; count("Because.") + 1 + count("All of it.") + 1]);
    expected.extend(vec![false; count("Näin? ")]);
    expected.extend(vec![true; count("Ei") + 1]);
    let mut found = vec![true; expected.len()];
    stream.trained(0, &mut found).expect("read");
    assert_eq!(found, expected);
    assert!(stream.is_masked() && stream.num_tokens() == expected.len() as u64);
    std::fs::write(out.join("tokens.mask"), [1; 3]).expect("written");
    let file = TokenFile::open(&out.join("tokens.bin"), &out.join("tokens.idx")).expect("opened");
    let error = file
        .masked(&out.join("tokens.mask"))
        .expect_err("too short")
        .to_string();
    assert!(error.contains("has 3 bytes for"), "{error}");
    // A place inside of a character is no beginning.
    std::fs::write(&pairs, "{\"id\": \"x\", \"text\": \"ä\", \"answer\": 1}\n").expect("written");
    assert!(encode(&pairs, "broken").is_err());
}
