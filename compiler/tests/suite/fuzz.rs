//! Broken, odd and hostile input: never a panic, always a position, and time bounded by limits of the parser.

use aurora_compiler::check::check;
use aurora_compiler::compose::Choice;
use aurora_lang::ast::{Body, Entry};
use aurora_lang::diagnostics::{Diagnostic, render_text, to_json};
use aurora_lang::parse::{MOST_BYTES, MOST_ERRORS, parse};
use proptest::prelude::*;

/// Words, numbers, texts, signs and white space of a file.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let class = |character: char| match character {
        ' ' | '\t' => 0,
        '\n' => 1,
        character if character.is_alphanumeric() || character == '_' => 2,
        _ => 3,
    };
    for character in text.chars() {
        match tokens.last_mut() {
            Some(last) if class(character) != 3 && last.chars().all(|old| class(old) == class(character)) => {
                last.push(character);
            }
            _ => tokens.push(character.to_string()),
        }
    }
    tokens
}

#[derive(Clone, Debug)]
enum Mutation {
    Delete(usize),
    Duplicate(usize),
    Swap(usize, usize),
    Replace(usize, String),
    Insert(usize, String),
    Truncate(usize),
}

fn fragment() -> impl Strategy<Value = String> {
    let known = [
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "=",
        ",",
        ".",
        "@",
        "\"",
        "//",
        "///",
        "%",
        "pp",
        "every",
        "unknown",
        "none",
        "from",
        "weight",
        "max_epochs",
        "profile",
        "expect",
        "stage",
        "model",
        "<=",
        "*",
        "+",
        "-",
        "1e999999999",
        "1e-28",
        "99999999999999999999999999",
        "-1",
        "0",
        "0.5",
        "377T tokens",
        "9T tokens",
        "18446744073709551616",
        "1K",
        "steps",
        "tokens",
        "bytes",
        "\u{FEFF}",
        "é",
        "日本",
        "\r\n",
        "\\",
        "\\\"",
        "pass@1",
        "import",
        "import \"tiny.aur\"\n",
        "import \"lib/starcoder.aur\" { starcoderplus }\n",
        "extends \"tiny.aur\" { ",
        "let small = ",
        "\nlet tokens_a = 5 tokens\n",
        "\nparam peak = 1e-3 in 1 .. 2\n",
        "sweep s { stage.cap.budget = [1 steps, 2 steps] }",
        "zip",
        "in",
        "..",
        "\u{0}",
    ];
    prop_oneof![
        4 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => "[ -~]{0,12}",
        1 => any::<String>().prop_map(|text| text.chars().take(8).collect()),
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        any::<usize>().prop_map(Mutation::Delete),
        any::<usize>().prop_map(Mutation::Duplicate),
        (any::<usize>(), any::<usize>()).prop_map(|(first, second)| Mutation::Swap(first, second)),
        (any::<usize>(), fragment()).prop_map(|(at, text)| Mutation::Replace(at, text)),
        (any::<usize>(), fragment()).prop_map(|(at, text)| Mutation::Insert(at, text)),
        (0..20_usize).prop_map(Mutation::Truncate),
    ]
}

fn mutate(text: &str, mutations: &[Mutation]) -> String {
    let mut tokens = tokens(text);
    for mutation in mutations {
        let length = tokens.len();
        if length == 0 {
            break;
        }
        match mutation {
            Mutation::Delete(at) => {
                tokens.remove(at % length);
            }
            Mutation::Duplicate(at) => tokens.insert(at % length, tokens[at % length].clone()),
            Mutation::Swap(first, second) => tokens.swap(first % length, second % length),
            Mutation::Replace(at, text) => tokens[at % length].clone_from(text),
            Mutation::Insert(at, text) => tokens.insert(at % length, text.clone()),
            Mutation::Truncate(percent) => tokens.truncate(length - length * percent / 100),
        }
    }
    tokens.concat()
}

/// Checks a text, renders its diagnostics, and formats it if it parses.
fn try_all(text: &str) {
    for profile in [None, Some("smoke")] {
        let bundle = crate::bundle_in("specs", "fuzz.aur", text);
        let all = bundle.sources().text();
        let diagnostics = match bundle.check(&Choice { profile, point: None }) {
            Ok(spec) => {
                for (value, _) in spec.resolved().into_values() {
                    assert!(!value.is_empty());
                }
                spec.warnings
            }
            Err(errors) => {
                assert!(!errors.is_empty());
                errors
            }
        };
        for diagnostic in &diagnostics {
            assert!(!diagnostic.message.is_empty());
            for label in &diagnostic.labels {
                assert!(
                    label.span.start <= label.span.end && label.span.end <= all.len(),
                    "{diagnostic:?}"
                );
            }
        }
        let places: Vec<_> = diagnostics.iter().filter_map(|diagnostic| diagnostic.place()).collect();
        assert!(places.is_sorted(), "ordered by place: {places:?}");
        let source = bundle.sources().view();
        render_text(&diagnostics, source, false);
        to_json(&diagnostics, source);
    }
    if let Ok(formatted) = aurora_lang::format(text) {
        assert_eq!(
            aurora_lang::format(&formatted).as_ref(),
            Ok(&formatted),
            "formatting twice changes nothing"
        );
        let errors = |text: &str| match crate::check_in("specs", "fuzz.aur", text) {
            Ok(_) => Vec::new(),
            Err(errors) => {
                // The order of two errors at one position, and the positions, may differ.
                let mut codes: Vec<_> = errors.iter().map(|error| error.code).collect();
                codes.sort_unstable();
                codes
            }
        };
        assert_eq!(errors(&formatted), errors(text), "formatting changes no error");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutations_of_the_small_spec(mutations in proptest::collection::vec(mutation(), 1..8)) {
        try_all(&mutate(&crate::read("specs/tiny.aur"), &mutations));
    }

    #[test]
    fn any_text(text in any::<String>()) {
        try_all(&text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutations_of_a_study(mutations in proptest::collection::vec(mutation(), 1..12)) {
        try_all(&mutate(&crate::read("specs/replay.aur"), &mutations));
    }

    #[test]
    fn mutations_of_the_large_spec(mutations in proptest::collection::vec(mutation(), 1..12)) {
        try_all(&mutate(&crate::read("specs/aurora-m.aur"), &mutations));
    }
}

#[test]
fn deep_and_long_input_terminates() {
    let deep = [
        "(".repeat(100_000),
        format!("expect g {{ {}1 <= 2 }}", "(".repeat(1000)),
        format!("model m {{ layers = {}1{} }}", "[".repeat(31), "]".repeat(31)),
        format!("profile p {{ {}", "model m { ".repeat(5000)),
        "model m {\n".repeat(20_000),
        format!("expect g {{ a.b.c {}<= 1 }}", "+ 1 ".repeat(100_000)),
        format!("model m {{ layers = 1 {} }}", "@assumed(\"x\") ".repeat(20_000)),
        format!("eval e {{ data = [{}] }}", "x, ".repeat(100_000)),
        format!("stage s {{ {} = 1 }}", "a.".repeat(50_000) + "a"),
        "\"".repeat(50_000),
        "}\n".repeat(50_000),
        "// comment\n".repeat(50_000),
        format!("source s {{ from = \"pkg:{}\" }}", "@/".repeat(50_000)),
    ];
    for text in deep {
        try_all(&text);
    }
}

#[test]
fn too_large_a_file_is_refused_without_reading() {
    let errors = check("large.aur", &" ".repeat(MOST_BYTES + 1), None).expect_err("too large");
    assert_eq!(errors.iter().map(|error| error.code.as_str()).next(), Some("E0104"));
}

#[test]
fn the_number_of_syntax_errors_is_bounded() {
    let parsed = parse(&"stage s { x }\n".repeat(1000), None);
    assert_eq!(parsed.errors.len(), MOST_ERRORS);
}

/// Every word that is one edit away from `name`: a letter left out, doubled, swapped with the next, or another one.
fn misspelt(name: &str) -> Vec<String> {
    let letters: Vec<char> = name.chars().collect();
    let word = |letters: Vec<char>| letters.into_iter().collect::<String>();
    let mut found = Vec::new();
    for at in 0..letters.len() {
        let edit = |change: &dyn Fn(&mut Vec<char>)| {
            let mut letters = letters.clone();
            change(&mut letters);
            word(letters)
        };
        found.push(edit(&|letters| {
            letters.remove(at);
        }));
        found.push(edit(&|letters| letters.insert(at, letters[at])));
        found.push(edit(&|letters| {
            letters[at] = if letters[at] == 'q' { 'x' } else { 'q' }
        }));
        if at + 1 < letters.len() {
            found.push(edit(&|letters| letters.swap(at, at + 1)));
        }
    }
    found.retain(|word| word != name && word.starts_with(|first: char| first.is_ascii_alphabetic()));
    found.sort();
    found.dedup();
    found
}

#[test]
fn a_misspelt_key_is_named_by_the_suggestion() {
    let (mut tried, mut named, mut not) = (0, 0, Vec::new());
    for path in ["specs/tiny.aur", "specs/sc2-ablation.aur", "specs/smollm2-nordic.aur"] {
        let text = crate::read(path);
        for block in &parse(&text, None).file.items {
            let Body::Entries(entries) = &block.body else { continue };
            for entry in entries {
                // Names of mixture components are not in a table.
                let Entry::Field(field) = entry else { continue };
                let [name] = &field.path[..] else { continue };
                for word in misspelt(&name.text) {
                    let mut text = text.clone();
                    text.replace_range(name.span.start..name.span.end, &word);
                    let Err(errors) = crate::check_in("", path, &text) else {
                        continue;
                    };
                    let at_place = |error: &&Diagnostic| {
                        error
                            .labels
                            .first()
                            .is_some_and(|label| label.span.start == name.span.start)
                    };
                    // The name of another field is not a misspelling.
                    let Some(error) = errors.iter().find(at_place) else {
                        continue;
                    };
                    tried += 1;
                    let wanted = format!("`{}`", name.text);
                    if error.helps.iter().any(|help| help.text.contains(&wanted)) {
                        named += 1;
                    } else {
                        not.push(format!("{word} for {}", name.text));
                    }
                }
            }
        }
    }
    assert!(tried > 1000, "{tried} misspellings");
    assert!(named * 100 >= tried * 95, "{named} of {tried}; not: {not:?}");
}
