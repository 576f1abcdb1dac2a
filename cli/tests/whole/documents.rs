//! Documents from files as users have them: unchanged, and every row that is none is counted.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::project::{Done, Project};

/// Texts that a reader is tempted to change.
const TEXTS: [&str; 4] = [
    "def f(x):\r\n\tif x:\n\n\t\treturn  1 \n",
    "  leading, trailing, \u{2028}separators\u{85} and an emoji 😀  ",
    "a line that is long enough to train on, with \"quotes\" and \\backslashes\\",
    "Ääkköset, ひらがな, हिन्दी; and the same line twice\nand the same line twice",
];

fn jsonl() -> String {
    let line = |text: &&str| json!({ "meta": { "text": text }, "text": text, "content": text }).to_string() + "\n";
    TEXTS.iter().map(line).collect::<String>().repeat(6)
}

/// A project whose corpora have one source each; `corpora` are names of corpora with their extraction, and the bytes of the
/// source by its file.
fn project(corpora: &[(&str, &str, &str, Vec<u8>)]) -> Project {
    let project = Project::new();
    let mut spec = "experiment small {\n  seed = 7\n}\n".to_owned();
    for (name, file, from, bytes) in corpora {
        std::fs::write(project.path(&format!("data/{file}")), bytes).expect("written");
        let from = from.replace("SOURCE", &format!("{name}_source"));
        spec += &format!(
            "source {name}_source {{ from = \"file:data/{file}\" }}\ncorpus {name} {{\n  language = other\n  from = [{from}]\n}}\n"
        );
    }
    let names: Vec<&str> = corpora.iter().map(|(name, ..)| *name).collect();
    let share = 100 / names.len();
    let first = 100 - share * (names.len() - 1);
    spec += &format!(
        "tokenizer bpe {{\n  kind = train_bpe(vocabulary = 300)\n  corpora = [{}]\n}}\n",
        names.join(", ")
    );
    spec += "model tiny {\n  architecture = llama\n  layers = 1\n  hidden = 16\n  heads = 2\n  context = 16 tokens\n  \
             vocabulary = 300\n  tokenizer = bpe\n}\nmixture all {\n";
    for (at, name) in names.iter().enumerate() {
        let weight = if at == 0 { first } else { share };
        spec += &format!("  {name} from [{name}] weight {weight}%\n");
    }
    spec += "}\nstage first {\n  start = tiny\n  budget = 4 steps\n  mixture = all\n  sequence = 16 tokens\n  \
             global_batch = 4 sequences\n  learning_rate = constant(rate = 1e-3)\n}\n";
    project.write("specs/small.aur", &spec);
    project
}

fn shown(project: &Project, corpus: &str) -> Vec<String> {
    let done = project.aurora(&["data", "show", "specs/small.aur", corpus, "--sample", "1000", "--json"]);
    done.exits(0);
    let text = |line: &str| {
        serde_json::from_str::<Value>(line).expect("JSON")["text"]
            .as_str()
            .map(str::to_owned)
    };
    done.out().lines().map(|line| text(line).expect("a text")).collect()
}

fn compressed(command: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new(command);
    let child = child
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = child.spawn().expect(command);
    let mut input = child.stdin.take().expect("its input");
    let bytes = bytes.to_vec();
    let writing = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().expect(command);
    writing.join().expect("no panic").expect("written");
    output.stdout
}

/// Each of these lost documents, or changed them, before.
#[test]
fn documents_arrive_as_they_are() {
    let lines = jsonl().into_bytes();
    let whole = |text: &str| text.as_bytes().to_vec();
    let wide: Vec<u8> = "\u{feff}one line of text\nanother one, with ä\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let list = serde_json::to_string_pretty(
        &TEXTS
            .iter()
            .cycle()
            .take(24)
            .map(|text| json!({ "text": text }))
            .collect::<Vec<_>>(),
    );
    let list = list.expect("JSON");
    let mut table = "text,n\n".to_owned();
    for (at, text) in TEXTS.iter().cycle().take(24).enumerate() {
        table += &format!("\"{}\",{at}\n", text.replace('"', "\"\""));
    }
    table += "# no comment but a row,24\n";
    let mut padded = compressed("gzip", &lines);
    padded.extend([0; 512]);
    let project = project(&[
        ("plain", "plain.jsonl", "jsonl(SOURCE)", lines.clone()),
        (
            "marked",
            "marked.jsonl",
            "jsonl(SOURCE)",
            [b"\xef\xbb\xbf", &lines[..]].concat(),
        ),
        (
            "nested",
            "nested.jsonl",
            "jsonl(SOURCE, field = \"meta.text\")",
            lines.clone(),
        ),
        ("padded", "padded.jsonl.gz", "jsonl(SOURCE)", padded),
        (
            "xz",
            "packed.jsonl.xz",
            "jsonl(SOURCE, field = \"content\")",
            compressed("xz", &lines),
        ),
        (
            "bzip2",
            "packed.jsonl.bz2",
            "jsonl(SOURCE)",
            compressed("bzip2", &lines),
        ),
        ("list", "list.json", "json(SOURCE, field = \"text\")", whole(&list)),
        ("table", "table.csv", "csv(SOURCE)", whole(&table)),
        ("wide", "wide.txt", "text(SOURCE, by_line = true)", wide),
        ("file", "file.txt", "text(SOURCE)", TEXTS.concat().into_bytes()),
    ]);
    let done = project.run();
    assert!(
        !done.out().contains("corpus "),
        "nothing was dropped or changed: {}",
        done.out()
    );
    let expected: Vec<String> = TEXTS.iter().cycle().take(24).map(|&text| text.to_owned()).collect();
    for corpus in ["plain", "marked", "nested", "padded", "xz", "bzip2", "list"] {
        assert_eq!(shown(&project, corpus), expected, "{corpus}");
    }
    let table = shown(&project, "table");
    assert_eq!(
        (&table[..24], table[24].as_str()),
        (&expected[..], "# no comment but a row")
    );
    assert_eq!(shown(&project, "wide"), ["one line of text", "another one, with ä"]);
    assert_eq!(shown(&project, "file"), [TEXTS.concat()]);
    let stats = project.aurora(&["data", "stats", "specs/small.aur", "--json"]).json();
    let plain = &stats["sources"]
        .as_array()
        .expect("sources")
        .iter()
        .find(|row| row["corpus"] == "plain");
    let plain = plain.expect("the corpus");
    assert_eq!(
        (&plain["read"], &plain["kept"], &plain["dropped"]),
        (&json!(24), &json!(24), &json!({}))
    );
}

#[test]
fn what_is_dropped_is_said_with_its_place() {
    let lines = [
        jsonl(),
        "{\"text\": \"half \\ud83d a pair\"}\n{\"text\": null}\nnot JSON\n\n{\"other\": 1}\n".to_owned(),
    ]
    .concat();
    let ragged = "prompt,answer\n".to_owned() + &"why?,because of it\n".repeat(30) + "one,two,three\n";
    let project = project(&[
        ("en", "en.jsonl", "jsonl(SOURCE)", lines.into_bytes()),
        (
            "chat",
            "chat.csv",
            "pairs(SOURCE, prompt = \"{prompt}\", answer = \"{answer}\")",
            ragged.into_bytes(),
        ),
    ]);
    let done = project.run();
    done.prints(
        "corpus en from en_source: 25 of 28 rows are documents; 1 malformed, 1 missing field, 1 null; 1 kept with U+FFFD for \
         invalid text (en.jsonl:27: expected ident, column 2)",
    );
    done.prints("corpus chat from chat_source: 30 of 31 rows are documents; 1 malformed");
    done.prints("chat.csv:32: 3 columns, and the first row has 2");
    assert_eq!(
        shown(&project, "en").last().map(String::as_str),
        Some("half \u{fffd} a pair")
    );
    let stats = project.aurora(&["data", "stats", "specs/small.aur", "--json"]).json();
    let rows = stats["sources"].as_array().expect("sources");
    let en = rows.iter().find(|row| row["corpus"] == "en").expect("the corpus");
    assert_eq!(en["dropped"], json!({ "malformed": 1, "missing_field": 1, "null": 1 }));
    assert_eq!(en["invalid_text"], 1);
    // A step drops, and says so; what it dropped can be read.
    project.edit(
        "from = [jsonl(en_source)]",
        "from = [jsonl(en_source)]\n  prepare = [deduplicate, minimum(30 characters)]",
    );
    let done = project.run();
    done.prints("corpus en: 4 of 25 documents after `prepare`; 20 duplicate, 1 too short");
    let dropped = project.aurora(&[
        "data",
        "show",
        "specs/small.aur",
        "en",
        "--dropped",
        "too_short",
        "--json",
    ]);
    dropped.exits(0);
    dropped.prints("half \u{fffd} a pair");
    let none = project.aurora(&["data", "show", "specs/small.aur", "en", "--dropped", "null"]);
    none.exits(1);
    none.prints("there is `duplicate`, `too_short`");
}

#[test]
fn what_cannot_be_read_stops_the_run_at_once() {
    let list = "[\n{\"text\": \"a text\"},\n{\"text\": \"another\"}\n]\n";
    for (file, from, bytes, expected) in [
        (
            "x.jsonl",
            "jsonl(SOURCE)",
            list.to_owned(),
            "looks like a JSON array; write `json(…)`",
        ),
        (
            "x.jsonl",
            "jsonl(SOURCE, field = \"body\")",
            jsonl(),
            "there is no `body`; there is `content`, `meta`, `text`",
        ),
        (
            "x.jsonl",
            "jsonl(SOURCE)",
            String::new(),
            "no document is in `x.jsonl`, because there are no rows",
        ),
        (
            "x.csv",
            "csv(SOURCE)",
            "a;b\n1;2\n".to_owned(),
            "there is no column `text`; there is `a`, `b`, separated by `;`",
        ),
    ] {
        let project = project(&[("en", file, from, bytes.into_bytes())]);
        let done = project.aurora(&["run", "specs/small.aur", "--progress", "none"]);
        done.exits(4);
        done.prints(expected);
    }
}

#[test]
fn steps_are_checked_and_resolved() {
    let project = Project::new();
    project.edit(
        "language = fi",
        "language = fi\n  unit     = paragraph\n  minimum  = 12 characters\n  language_filter = true",
    );
    let shown = project.aurora(&["show", "specs/small.aur", "--resolved"]);
    shown.exits(0);
    shown.prints("= [paragraphs(), minimum(12 characters), language()]");
    let keys = project.keys();
    project.edit(
        "unit     = paragraph\n  minimum  = 12 characters\n  language_filter = true",
        "prepare  = [paragraphs, minimum, language]",
    );
    assert_ne!(project.keys(), keys, "30 characters, and not 12");
    project.edit("minimum, language]", "minimum(12 characters), language]");
    assert_eq!(project.keys(), keys);
    let wrong = |old: &str, new: &str, expected: &str| {
        let before = project.read("specs/small.aur");
        project.edit(old, new);
        let done: Done = project.aurora(&["check", "specs/small.aur"]);
        done.exits(1);
        done.prints(expected);
        project.write("specs/small.aur", &before);
    };
    wrong(
        "language = fi",
        "language = fi\n  minimum = 3 characters",
        "`minimum` has no effect beside `prepare`",
    );
    wrong(
        "language = code",
        "language = code\n  prepare = [trim]",
        "`trim` would change documents of `code`",
    );
    wrong(
        "language = fi",
        "language = sw",
        "nothing here detects the language `sw`",
    );
    wrong("language = fi", "language = finnish", "is not a language tag");
    wrong(
        "minimum(12 characters), language]",
        "paragraphs]",
        "this step was the step before",
    );
    wrong(
        "[paragraphs, minimum(12 characters), language]",
        "[trim, paragraphs]",
        "no step after `paragraphs`",
    );
}

#[test]
fn a_source_states_how_many_rows_may_be_malformed() {
    let lines = jsonl() + &"not JSON\n".repeat(12);
    let project = project(&[("en", "x.jsonl", "jsonl(SOURCE)", lines.into_bytes())]);
    let done = project.aurora(&["run", "specs/small.aur", "--progress", "none"]);
    done.exits(4);
    done.prints("12 of 36 rows are malformed, and at most 0.1% may be: x.jsonl:25: expected ident, column 2");
    let keys = project.keys();
    project.edit("\"file:data/x.jsonl\" }", "\"file:data/x.jsonl\"  malformed = 33.3% }");
    project
        .aurora(&["run", "specs/small.aur", "--progress", "none"])
        .exits(4);
    project.edit("33.3%", "33.4%");
    assert_eq!(project.keys(), keys, "a limit changes no result");
    project.run().prints("24 of 36 rows are documents; 12 malformed");
}
