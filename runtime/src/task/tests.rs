use std::collections::BTreeMap;

use super::*;
use crate::data::encoder::Encoder;
use crate::source::archive::InputFile;
use aurora_compiler::fields::{AnswerMode, Attack};
use camino::Utf8PathBuf;

fn fields(asks: AnswerMode) -> TaskFields {
    TaskFields {
        files: vec!["*.jsonl".to_owned()],
        shot_files: Vec::new(),
        prompt: "Q: {q}\nA:".to_owned(),
        limit: None,
        attacks: Vec::new(),
        chat: None,
        answer: Some("{a}".to_owned()),
        shots: 0,
        separator: "\n\n".to_owned(),
        delimiter: " ".to_owned(),
        by: Vec::new(),
        seed: 7,
        asks,
    }
}

fn choices() -> AnswerMode {
    AnswerMode::Choices(vec!["{c}".to_owned()])
}

fn file(lines: &str) -> (tempfile::TempDir, Vec<ItemFile>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = Utf8PathBuf::try_from(folder.path().join("x.jsonl")).expect("UTF-8");
    std::fs::write(&path, lines).expect("written");
    (folder, vec![ItemFile::from(&InputFile::from(path.as_path()))])
}

/// One token a byte.
fn encoder() -> Encoder {
    let mut vocabulary: Vec<(String, u32)> = Vec::new();
    let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
    let mut letters: Vec<char> = alphabet.into_iter().collect();
    letters.sort_unstable();
    vocabulary.extend(
        letters
            .into_iter()
            .zip(1..)
            .map(|(letter, id)| (letter.to_string(), id)),
    );
    vocabulary.push(("<end>".to_owned(), 0));
    let vocabulary: BTreeMap<String, u32> = vocabulary.into_iter().collect();
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [{"id": 0, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": []},
    });
    Encoder::new(json.to_string().as_bytes()).expect("a tokenizer")
}

const ITEMS: &str = r#"{"q": "one", "c": ["uno", "due"], "a": 0, "category": "it"}
{"q": "two", "c": ["zwei", "drei"], "a": "A", "category": "de"}

{"q": "three", "c": ["kaksi", "kolme"], "a": "kolme", "category": "fi"}
"#;

#[test]
fn questions_are_put_into_words() {
    let (_guard, files) = file(ITEMS);
    let mut task = fields(choices());
    let all = items(&task, &files).expect("items");
    assert_eq!(all[0].prompt, "Q: one\nA:");
    assert_eq!(all[2].name, "x.jsonl:4");
    let rights = all.iter().map(|item| match &item.question {
        Question::Choices { right, .. } => *right,
        Question::Text { .. } | Question::Open => 9,
    });
    assert_eq!(rights.collect::<Vec<_>>(), [0, 0, 1]);
    task.shots = 2;
    task.by = vec!["category".to_owned()];
    let solved = items(&task, &files).expect("items");
    for (number, item) in solved.iter().enumerate() {
        let parts: Vec<&str> = item.prompt.split("\n\n").collect();
        assert_eq!(parts.len(), 3, "{}", item.prompt);
        assert_eq!(parts[2], all[number].prompt, "the question comes last");
        assert!(
            parts[..2]
                .iter()
                .all(|part| *part != format!("{} uno", all[number].prompt))
        );
        assert!(
            !parts[..2].iter().any(|part| part.starts_with(&all[number].prompt)),
            "never the item itself"
        );
    }
    assert_eq!(
        solved,
        items(&task, &files).expect("items"),
        "the same examples every time"
    );
    assert_eq!(solved[1].sets, ["de"]);
}

#[test]
fn a_wrong_item_is_named_by_file_and_line() {
    let message = |lines: &str, change: fn(&mut TaskFields)| {
        let (_guard, files) = file(lines);
        let mut task = fields(choices());
        change(&mut task);
        crate::errors::chain(&items(&task, &files).expect_err("wrong"))
    };
    let nothing: fn(&mut TaskFields) = |_| {};
    let good = "{\"q\": \"one\", \"c\": [\"x\", \"y\"], \"a\": 0}\n";
    for (lines, change, expected) in [
        (
            format!("{good}[1]\n"),
            nothing,
            "line 2 of `x.jsonl` is not a valid item",
        ),
        (
            format!("{good}{{\n"),
            nothing,
            "line 2 of `x.jsonl` is not a valid item",
        ),
        (
            format!("{good}{{\"q\": 1}}\n"),
            nothing,
            "x.jsonl:2: the item does not have `c`; it has q",
        ),
        (
            good.replace('0', "2"),
            nothing,
            "x.jsonl:1: the answer `2` is not one of the choices",
        ),
        (
            good.to_owned(),
            |task| task.by = vec!["category".to_owned()],
            "x.jsonl:1: scores are grouped by `category`",
        ),
        (
            good.to_owned(),
            |task| task.shots = 1,
            "1 solved examples are needed, but there are only 0",
        ),
        (
            good.to_owned(),
            |task| task.files = vec!["*.json".to_owned()],
            "there is for example `x.jsonl`",
        ),
        (String::new(), nothing, "the files that match"),
    ] {
        let found = message(&lines, change);
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn requests_split_where_the_answer_begins() {
    let (_guard, files) = file(ITEMS);
    let task = fields(choices());
    let all = items(&task, &files).expect("items");
    let encoder = encoder();
    let ids = |text: &str| encoder.encode(text).expect("encoded");
    let found = requests(&task, &all, &encoder, 0, 64).expect("requests");
    assert_eq!(found.len(), 6);
    let expected = Request::Likelihood {
        item: 0,
        context: ids("Q: one\nA:"),
        continuation: ids(" uno"),
    };
    assert_eq!(found[0], expected);
    // A window of five: four of the context's end, as the answer's last token is only predicted.
    let short = requests(&task, &all[..1], &encoder, 0, 5).expect("requests");
    let expected = Request::Likelihood {
        item: 0,
        context: ids("A:"),
        continuation: ids(" uno"),
    };
    assert_eq!(short[0], expected);
    assert!(matches!(
        requests(&task, &all, &encoder, 0, 3),
        Err(TaskError::Long { .. })
    ));
    let open = TaskFields {
        prompt: String::new(),
        answer: Some("{c}".to_owned()),
        ..fields(AnswerMode::Text {
            stop: vec![".".to_owned()],
            maximum: 4,
            temperature: None,
            top_p: None,
            samples: 1,
        })
    };
    let all = items(&open, &files).expect("items");
    let found = requests(&open, &all, &encoder, 0, 64).expect("requests");
    let expected = Request::Text {
        item: 0,
        sample: 0,
        prompt: vec![0],
    };
    assert_eq!(found[0], expected, "an empty prompt follows the end of a document");
    let answer = |text: &str| Answer::Text(ids(text));
    let answers = [answer("uno. Due"), answer("acht"), answer("kolm")];
    let (scores, results) = score(&open, &all, &answers, &encoder).expect("scores");
    assert_eq!(results[0].text.as_deref(), Some("uno"));
    let of = |metric: &str| scores.measures[""][metric].value;
    assert_eq!((of("exact_match"), of("f1")), (1.0 / 3.0, 1.0 / 3.0));
    assert!(of("chrf") > 40.0 && of("chrf") < 80.0, "{}", of("chrf"));
}

#[test]
fn lengths_decide_between_choices_as_they_should() {
    let (_guard, files) = file(
        "{\"q\": \"x\", \"c\": [\"ab\", \"abcd\", \"नमः\"], \"a\": 1, \"category\": \"k\"}\n\
         {\"q\": \"y\", \"c\": [\"a\", \"b\"], \"a\": 0, \"category\": \"l\"}\n",
    );
    let mut task = fields(choices());
    task.by = vec!["category".to_owned()];
    let all = items(&task, &files).expect("items");
    let ln = |value: f64| Answer::Likelihood(value.to_bits());
    // By itself −2 wins; by characters −2/2, −2.4/4, −2.7/3; by bytes −2/2, −2.4/4, −2.7/9. Equals: the first.
    let answers = [-2.0, -2.4, -2.7, -5.0, -5.0].map(ln);
    let (scores, results) = score(&task, &all, &answers, &encoder()).expect("scores");
    let of = |set: &str, metric: &str| scores.measures[set][metric].value;
    assert_eq!(
        (of("k", "accuracy"), of("k", "accuracy_norm"), of("k", "accuracy_bytes")),
        (0.0, 1.0, 0.0)
    );
    assert_eq!(
        (of("l", "accuracy"), of("", "accuracy"), of("", "accuracy_norm")),
        (1.0, 0.5, 1.0)
    );
    assert_eq!(scores.measures[""]["accuracy"].standard_error, Some(0.5));
    assert_eq!(scores.measures["k"]["accuracy"].standard_error, None);
    assert_eq!(results[0].choices[2], ("नमः".to_owned(), -2.7));
    assert!(score(&task, &all, &answers[..4], &encoder()).is_err());
}

/// Every prompt is sampled several times with the text of every attack, and nothing is scored yet.
#[test]
fn open_questions_use_the_templates_of_attacks() {
    let lines = "{\"q\": \"one\", \"category\": \"k\"}\n{\"q\": \"two\", \"category\": \"l\"}\n";
    let (_guard, files) = file(lines);
    let attack = |name: &str, template: &str| Attack {
        name: name.to_owned(),
        template: template.to_owned(),
    };
    let mut task = TaskFields {
        prompt: "{q}?".to_owned(),
        answer: None,
        by: vec!["category".to_owned()],
        attacks: vec![
            attack("plain", "{prompt}"),
            attack("story", "A {category} story: {prompt}"),
        ],
        ..fields(AnswerMode::Text {
            stop: Vec::new(),
            maximum: 4,
            temperature: None,
            top_p: None,
            samples: 2,
        })
    };
    let all = items(&task, &files).expect("items");
    let prompts: Vec<_> = all
        .iter()
        .map(|item| (item.prompt.as_str(), item.sets.join(" ")))
        .collect();
    let expected = [
        ("one?", "k plain"),
        ("A k story: one?", "k story"),
        ("two?", "l plain"),
        ("A l story: two?", "l story"),
    ];
    assert_eq!(prompts, expected.map(|(prompt, sets)| (prompt, sets.to_owned())));
    let encoder = encoder();
    let sent = requests(&task, &all, &encoder, 0, 64).expect("requests");
    assert_eq!(sent.len(), 8);
    assert!(matches!(sent[3], Request::Text { item: 1, sample: 1, .. }));
    let so = Answer::Text(encoder.encode("so").expect("encoded"));
    let (scores, results) = score(&task, &all, &vec![so; 8], &encoder).expect("no scores");
    assert!(scores.measures.is_empty());
    assert_eq!(results[1].answers, ["so", "so"]);
    // A special entry counts in the turn, and not in the prompt, which spells one here.
    task.chat = Some("u: {prompt}<end>m:".to_owned());
    let mut spelled = all.clone();
    spelled[0].prompt = "<end>".to_owned();
    let sent = requests(&task, &spelled, &encoder, 0, 64).expect("requests");
    let ids = |text: &str| encoder.encode(text).expect("encoded");
    let prompt = [ids("u: "), ids("<end>"), vec![0], ids("m:")].concat();
    assert_eq!(
        sent[0],
        Request::Text {
            item: 0,
            sample: 0,
            prompt
        }
    );
    assert!(ids("<end>").len() > 1);
    let (text, stopped) = encoder
        .decode_until(&[ids("so"), vec![0], ids("no")].concat(), &["<end>".to_owned()])
        .expect("a text");
    assert_eq!((text.as_str(), stopped), ("so", true));
    let (text, stopped) = encoder
        .decode_until(&[ids("so"), vec![0], ids("no")].concat(), &[])
        .expect("a text");
    assert_eq!((text.as_str(), stopped), ("sono", false));
    task.chat = None;
    task.attacks[0].name = "l".to_owned();
    let error = items(&task, &files).expect_err("two meanings").to_string();
    assert!(
        error.contains("x.jsonl:2: its `category` is `l`, the name of an attack"),
        "{error}"
    );
}

#[test]
fn items_are_read_from_tables_and_lines() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let put = |name: &str, text: &str| {
        let path = Utf8PathBuf::try_from(folder.path().join(name)).expect("UTF-8");
        std::fs::write(&path, text).expect("written");
        ItemFile::from(&InputFile::from(path.as_path()))
    };
    let table = "prompt,category\n\"one, two\",k\nthree,\"l\nm\"\n";
    let files = [put("a.csv", table), put("b.txt", "first\n\nsecond\n")];
    let patterns = ["*.csv".to_owned(), "*.txt".to_owned()];
    let found = read(&files, &patterns).expect("items");
    let scores: Vec<String> = found.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let expected = [
        r#"a.csv:2 {"category":"k","prompt":"one, two"}"#,
        r#"a.csv:3 {"category":"l\nm","prompt":"three"}"#,
        r#"b.txt:1 {"prompt":"first"}"#,
        r#"b.txt:3 {"prompt":"second"}"#,
    ];
    assert_eq!(scores, expected);
    let short = [put("c.csv", "prompt,category\nonly\n")];
    let error = read(&short, &patterns).expect_err("a short row").to_string();
    assert!(error.contains("line 2 of `c.csv` is not a valid item"), "{error}");
    // Neither of two values with one name is lost.
    for (name, text, cause) in [
        (
            "d.csv",
            "prompt,category,prompt\na,b,c\n",
            "columns 1 and 3 have the same name `prompt`",
        ),
        (
            "e.jsonl",
            "{\"prompt\": \"a\", \"prompt\": \"b\"}\n",
            "the key `prompt` occurs twice, with \"a\" and \"b\"",
        ),
    ] {
        let error = read(&[put(name, text)], &["*.csv".to_owned(), "*.jsonl".to_owned()]).expect_err("twice");
        let error = crate::errors::chain(&error);
        assert!(error.contains(cause), "{error}");
    }
}

/// The same items, wherever they are in their files.
#[test]
fn a_limit_chooses_by_the_text_of_items() {
    let lines: Vec<String> = (0..20)
        .map(|n| format!("{{\"q\": \"{n}\", \"c\": [\"x\"], \"a\": 0}}\n"))
        .collect();
    let mut task = fields(choices());
    task.limit = Some(5);
    let prompts = |lines: &[String]| {
        let (_guard, files) = file(&lines.concat());
        let found = items(&task, &files).expect("items");
        found.into_iter().map(|item| item.prompt).collect::<Vec<_>>()
    };
    let mut chosen = prompts(&lines);
    assert_eq!(chosen.len(), 5);
    let mut turned = lines.clone();
    turned.reverse();
    let again = prompts(&turned);
    assert!(again != chosen, "in the order of the file");
    chosen.reverse();
    assert_eq!(again, chosen);
}

#[test]
fn a_limit_counts_items_with_the_same_content() {
    let line = "{\"q\": \"one\", \"c\": [\"x\", \"y\"], \"a\": 0}\n";
    let (_guard, files) = file(&line.repeat(9));
    let mut task = fields(choices());
    task.limit = Some(4);
    let names: Vec<String> = items(&task, &files)
        .expect("items")
        .into_iter()
        .map(|item| item.name)
        .collect();
    assert_eq!(names, ["x.jsonl:1", "x.jsonl:2", "x.jsonl:3", "x.jsonl:4"]);
}

/// Files of one source, all with the same item.
fn source(name: &str, files: &[&str], folder: &camino::Utf8Path) -> crate::job::Files {
    let line = "{\"q\": \"one\", \"c\": [\"x\", \"y\"], \"a\": 0}\n";
    let file = |file: &&str| {
        let path = folder.join(format!("{name}-{file}"));
        if file.ends_with(".tar") {
            let mut archive = tar::Builder::new(std::fs::File::create(&path).expect("created"));
            let mut header = tar::Header::new_gnu();
            header.set_size(line.len() as u64);
            header.set_mode(0o644);
            archive
                .append_data(&mut header, "m.jsonl", line.as_bytes())
                .expect("a member");
            archive.finish().expect("written");
        } else {
            std::fs::write(&path, line).expect("written");
        }
        ((*file).to_owned(), path)
    };
    files.iter().map(file).collect()
}

#[test]
fn items_of_several_sources_or_archives_have_different_names() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = camino::Utf8Path::from_path(folder.path()).expect("UTF-8");
    let names = |sources: Vec<crate::job::Files>| -> Vec<String> {
        let items = read(&item_files(sources), &["**".to_owned()]).expect("items");
        items.into_iter().map(|(name, _)| name).collect()
    };
    let of = |name: &str, files: &[&str]| source(name, files, folder);
    // One source with at most one archive: the path and the line.
    assert_eq!(
        names(vec![of("a", &["x.jsonl", "y.jsonl", "z.tar"])]),
        ["x.jsonl:1", "y.jsonl:1", "m.jsonl:1"]
    );
    assert_eq!(
        names(vec![of("a", &["x.jsonl"]), of("b", &["x.jsonl"])]),
        ["1/x.jsonl:1", "2/x.jsonl:1"]
    );
    assert_eq!(
        names(vec![of("a", &["y.tar", "z.tar"])]),
        ["y.tar/m.jsonl:1", "z.tar/m.jsonl:1"]
    );
    assert_eq!(
        names(vec![of("a", &["y.tar", "z.tar"]), of("b", &["y.tar"])]),
        ["1/y.tar/m.jsonl:1", "1/z.tar/m.jsonl:1", "2/m.jsonl:1"]
    );
    // A plain file and a member of the same path are refused.
    let error = read(&item_files(vec![of("a", &["m.jsonl", "z.tar"])]), &["**".to_owned()]);
    assert_eq!(
        error.expect_err("twice").to_string(),
        "the items have two files `m.jsonl`"
    );
}
