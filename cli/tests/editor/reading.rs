//! Hovers, inlay hints, outline, folding ranges, semantic tokens, formatting.

use serde_json::{Value, json};

use crate::client::{Editor, edited, find, position, slice};
use crate::specs::{FILES, LIBRARY, SPEC};

fn hover(part: &str, nth: usize) -> String {
    let mut editor = Editor::new(&FILES);
    editor.open_file("specs/demo.aur");
    editor.hover("specs/demo.aur", find(SPEC, part, nth))
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

#[test]
fn the_hover_of_a_field_has_its_meaning_value_and_origin() {
    contains(
        &hover("budget", 1),
        &[
            "The length of the stage",
            "a number of tokens or steps. Required.",
            "`stage.second.budget = 327_680 tokens`, written at specs/demo.aur:41:19",
            "= 80 steps",
        ],
    );
    contains(
        &hover("checkpoint", 0),
        &[
            "only at the end",
            "every 40 steps",
            "@assumed(\"often enough\")",
            "163,840 tokens",
        ],
    );
    contains(
        &hover("warmup", 0),
        &["Default: `0 steps`", "stage.first.learning_rate.warmup", "= 2 steps"],
    );
    // A value that has a name elsewhere; one in a library, as a `let`.
    contains(
        &hover("context", 0),
        &["`model.small.context = 128 tokens`, written at specs/demo.aur:6:16 (param length)"],
    );
    let mut editor = Editor::new(&FILES);
    editor.open_file("specs/lib/data.aur");
    contains(
        &editor.hover("specs/lib/data.aur", find(LIBRARY, "held_out", 0)),
        &[
            "Default: `0%`",
            "corpus.fi.held_out = 3%",
            "specs/lib/data.aur:1:12 (let held)",
        ],
    );
}

#[test]
fn the_hover_of_a_name_has_its_documentation_and_numbers() {
    contains(
        &hover("small\n  budget", 0),
        &[
            "model small",
            "A small model.",
            "1,234,944 parameters",
            "Declared in specs/demo.aur",
        ],
    );
    contains(
        &hover("first {", 0),
        &[
            "4,096 tokens a step: 32 sequences × 128 tokens",
            "240 steps, 983,040 tokens",
            "7.28e12 FLOPs: 6 × 1,234,944 parameters × tokens",
        ],
    );
    contains(
        &hover("cap\n", 0),
        &[
            "`fi`: 25% of stage `first` is about 245,760 tokens",
            "`en`: 75% of stage `second` is about 245,760 tokens",
        ],
    );
    contains(
        &hover("fi from", 0),
        &["weight 25%", "stage `second` is about 81,920 tokens"],
    );
    contains(
        &hover("length\n", 0),
        &[
            "param length = 128 tokens in [64 tokens, 128 tokens]",
            "--set length=VALUE",
        ],
    );
    contains(&hover("fi, en", 0), &["corpus fi", "Declared in specs/lib/data.aur"]);
    contains(&hover("first.held_out", 0), &["stage first", "240 steps"]);
    contains(&hover("lib/data", 0), &["specs/lib/data.aur", "corpus `fi`"]);
}

#[test]
fn the_hover_of_a_word_has_its_meaning() {
    contains(&hover("stage first", 0), &["A training stage", "```aur"]);
    contains(
        &hover("cosine", 0),
        &["Cosine decay", "`peak`: The highest rate. (required)"],
    );
    contains(&hover("gpt_bigcode", 0), &["learned positions"]);
    contains(&hover("import", 0), &["from another file"]);
    contains(&hover("weight", 0), &["Percentage of the tokens of the stage"]);
    contains(&hover("@assumed", 0), &["it is assumed"]);
    contains(&hover("sequences", 0), &["sequences"]);
    let text = SPEC.replace("by_line = true", "");
    let mut editor = Editor::new(&FILES);
    editor.open("specs/demo.aur", &text.replace("checkpoint ", "checkpiont "));
    contains(
        &editor.hover("specs/demo.aur", find(&text, "checkpoint", 0)),
        &["E0203", "unknown field"],
    );
    editor.open("specs/units.aur", "corpus c { limit = 2 GiB }");
    contains(
        &editor.hover("specs/units.aur", json!({ "line": 0, "character": 22 })),
        &["1,073,741,824 bytes"],
    );
}

#[test]
fn hovers_and_hints_work_on_a_file_with_errors() {
    let broken = format!(
        "{}\nstage third {{ start = \n",
        SPEC.replace("kind = perplexity", "kind = = perplexity")
    );
    let mut editor = Editor::new(&FILES);
    assert!(!editor.open("specs/demo.aur", &broken).is_empty());
    contains(
        &editor.hover("specs/demo.aur", find(&broken, "budget", 0)),
        &["The length of the stage", "= 983,040 tokens"],
    );
    contains(
        &editor.hover("specs/demo.aur", find(&broken, "first {", 0)),
        &["240 steps, 983,040 tokens"],
    );
    contains(
        &editor.hover("specs/demo.aur", find(&broken, "start = \n", 0)),
        &["The weights it starts from"],
    );
    assert_eq!(hints(&mut editor, &broken).len(), 6);
}

fn full_range(text: &str) -> Value {
    json!({ "start": { "line": 0, "character": 0 }, "end": position(text) })
}

fn hints(editor: &mut Editor, text: &str) -> Vec<(String, String)> {
    let uri = editor.uri("specs/demo.aur");
    let hints = editor.request(
        "textDocument/inlayHint",
        json!({ "textDocument": { "uri": uri }, "range": full_range(text) }),
    );
    let of = |hint: &Value| {
        let place = json!({ "start": { "line": hint["position"]["line"], "character": 0 }, "end": hint["position"] });
        (
            slice(text, &place).trim().to_owned(),
            hint["label"].as_str().expect("a label").to_owned(),
        )
    };
    hints.as_array().expect("a list").iter().map(of).collect()
}

#[test]
fn hints_show_values_in_another_unit() {
    let mut editor = Editor::new(&FILES);
    editor.open_file("specs/demo.aur");
    let expected = [
        ("budget        = 240 steps", "= 983,040 tokens"),
        ("global_batch  = 32 sequences", "= 4,096 tokens"),
        (
            "learning_rate = cosine(peak = 1e-3, floor = 1e-4, warmup = 8192 tokens",
            "= 2 steps",
        ),
        ("checkpoint    = every 40 steps", "= 163,840 tokens"),
        ("budget        = 327_680 tokens", "= 80 steps"),
        ("global_batch  = 32 sequences", "= 4,096 tokens"),
    ];
    assert_eq!(
        hints(&mut editor, SPEC),
        expected.map(|(value, hint)| (value.to_owned(), hint.to_owned()))
    );
    // The weights of a mixture that one stage uses.
    let one = SPEC.replace(
        "start         = first\n  budget        = 327_680 tokens\n  mixture       = cap",
        "start         = first\n  budget        = 327_680 tokens\n  mixture       = cat",
    ) + "mixture cat { fi from [fi] weight 100% }\n";
    editor.change("specs/demo.aur", &one);
    let tokens: Vec<String> = hints(&mut editor, &one)
        .into_iter()
        .filter(|(value, _)| value.ends_with('%'))
        .map(|(_, hint)| hint)
        .collect();
    assert_eq!(tokens, ["≈ 245,760 tokens", "≈ 737,280 tokens", "≈ 327,680 tokens"]);
}

#[test]
fn the_outline_has_blocks_and_their_fields() {
    let mut editor = Editor::new(&FILES);
    editor.open_file("specs/demo.aur");
    let uri = editor.uri("specs/demo.aur");
    let symbols = editor.request("textDocument/documentSymbol", json!({ "textDocument": { "uri": uri } }));
    let symbols = symbols.as_array().expect("a list");
    let names: Vec<&str> = symbols
        .iter()
        .map(|symbol| symbol["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(
        names,
        [
            "lib/data.aur",
            "demo",
            "length",
            "bpe",
            "small",
            "cap",
            "first",
            "second",
            "held_out",
            "kept",
            "short"
        ]
    );
    let stage = &symbols[6];
    assert_eq!(
        (&stage["detail"], slice(SPEC, &stage["selectionRange"])),
        (&json!("stage"), "first")
    );
    let fields: Vec<&str> = stage["children"]
        .as_array()
        .expect("fields")
        .iter()
        .map(|field| field["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(fields[..3], ["start", "budget", "mixture"]);
    assert_eq!(stage["children"][1]["detail"], "240 steps");
}

#[test]
fn blocks_with_errors_fold() {
    let mut editor = Editor::new(&FILES);
    let text = "/// One.\n/// Two.\nstage a {\n  b = =\n}\nstage c {\n";
    editor.open("specs/broken.aur", text);
    let uri = editor.uri("specs/broken.aur");
    let folds = editor.request("textDocument/foldingRange", json!({ "textDocument": { "uri": uri } }));
    assert_eq!(
        folds,
        json!([{ "startLine": 0, "endLine": 1, "kind": "comment" }, { "startLine": 2, "endLine": 3 }])
    );
}

#[test]
fn tokens_have_colours() {
    let mut editor = Editor::new(&FILES);
    let text = "// é\nstage cap { start = small budget = 1B tokens @assumed(\"x\") optimizer_state = keep learning_rate = wsd(peak = 1) }\n";
    editor.open("specs/colours.aur", text);
    let legend = editor.capabilities["semanticTokensProvider"]["legend"]["tokenTypes"].clone();
    let uri = editor.uri("specs/colours.aur");
    let data = editor.request(
        "textDocument/semanticTokens/full",
        json!({ "textDocument": { "uri": uri } }),
    )["data"]
        .clone();
    let numbers: Vec<u64> = data
        .as_array()
        .expect("numbers")
        .iter()
        .filter_map(Value::as_u64)
        .collect();
    let (mut line, mut character) = (0, 0);
    let tokens: Vec<String> = numbers
        .chunks(5)
        .map(|token| {
            character = if token[0] == 0 { character + token[1] } else { token[1] };
            line += token[0];
            let range = json!({ "start": { "line": line, "character": character }, "end": { "line": line, "character": character + token[2] } });
            format!("{} {}{}", slice(text, &range), legend[token[3] as usize].as_str().expect("a kind"), if token[4] == 1 { "!" } else { "" })
        })
        .collect();
    let expected = "// é comment, stage keyword, cap class!, start property, small variable, budget property, 1B number, tokens type, @ decorator, \
                    assumed decorator, \"x\" string, optimizer_state property, keep enumMember, learning_rate property, wsd function, peak parameter, 1 number";
    assert_eq!(tokens.join(", "), expected);
}

#[test]
fn formatting_does_not_change_a_file_with_errors() {
    let mut editor = Editor::new(&FILES);
    let ugly = SPEC.replace("  layers       = 4\n", " layers=4 // few\n");
    editor.open("specs/demo.aur", &ugly);
    let uri = editor.uri("specs/demo.aur");
    let params = json!({ "textDocument": { "uri": uri }, "options": { "tabSize": 2, "insertSpaces": true } });
    let edits = editor.request("textDocument/formatting", params.clone());
    assert_eq!(edits.as_array().expect("edits").len(), 1);
    // Only the lines that change: a cursor elsewhere stays.
    assert_eq!(slice(&ugly, &edits[0]["range"]).lines().count(), 1, "{edits}");
    let formatted = edited(&ugly, &edits);
    assert_eq!(
        formatted,
        SPEC.replace("  layers       = 4\n", "  layers       = 4 // few\n")
    );
    editor.change("specs/demo.aur", &formatted);
    assert_eq!(editor.request("textDocument/formatting", params.clone()), json!([]));
    editor.change("specs/demo.aur", "stage a { b = = }");
    assert!(editor.request("textDocument/formatting", params).is_null());
}
