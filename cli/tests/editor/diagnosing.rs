//! Diagnostics while typing, and their quick fixes.

use serde_json::{Value, json};

use crate::client::{Editor, edited, slice};
use crate::specs::{FILES, LIBRARY, SPEC};

fn codes(found: &[Value]) -> Vec<&str> {
    found
        .iter()
        .map(|error| error["code"].as_str().expect("a code"))
        .collect()
}

#[test]
fn every_error_of_a_file_is_shown_at_its_place() {
    let mut editor = Editor::new(&FILES);
    let text = SPEC
        .replace("budget        = 240 steps", "bugdet        = 240 steps")
        .replace("seed = 7 }", "seed = }");
    let found = editor.open("specs/demo.aur", &text);
    assert_eq!(codes(&found), ["E0101", "E0203"], "{found:?}");
    let unknown = &found[1];
    assert_eq!(slice(&text, &unknown["range"]), "bugdet");
    assert_eq!(
        (&unknown["severity"], &unknown["source"]),
        (&json!(1), &json!("aurora"))
    );
    let message = unknown["message"].as_str().expect("a text");
    assert!(
        message.contains("no field `bugdet`") && message.contains("help: a field with a similar name exists: `budget`"),
        "{message}"
    );
    // All fixed.
    assert_eq!(editor.change("specs/demo.aur", SPEC).len(), 0);
}

#[test]
fn a_code_is_a_link_to_its_explanation() {
    let mut editor = Editor::new(&FILES);
    let found = editor.open("specs/demo.aur", &SPEC.replace("heads ", "haeds "));
    let href = found[0]["codeDescription"]["href"].as_str().expect("a link");
    let path = href.strip_prefix("file://").expect("a file");
    let page = std::fs::read_to_string(path).expect("the page is there");
    assert!(page.starts_with("# E0203: unknown field"), "{page}");
}

#[test]
fn other_places_of_an_error_are_related_information() {
    let mut editor = Editor::new(&FILES);
    let found = editor.open("specs/demo.aur", &SPEC.replace("seed = 7", "seed = 7 seed = 8"));
    let related = &found[0]["relatedInformation"][0];
    assert_eq!(
        (&found[0]["code"], &related["message"]),
        (&json!("E0204"), &json!("set here first"))
    );
    assert_eq!(related["location"]["uri"], json!(editor.uri("specs/demo.aur")));
    // In another file.
    let found = editor.change("specs/demo.aur", &format!("{SPEC}\ncorpus fi {{ language = en }}\n"));
    let uris: Vec<&Value> = found
        .iter()
        .flat_map(|error| error["relatedInformation"].as_array())
        .flatten()
        .map(|related| &related["location"]["uri"])
        .collect();
    assert!(uris.contains(&&json!(editor.uri("specs/lib/data.aur"))), "{found:?}");
}

#[test]
fn the_text_of_an_open_library_is_used() {
    let mut editor = Editor::new(&FILES);
    assert_eq!(editor.open_file("specs/demo.aur").len(), 0);
    // Nothing of this is on disk.
    let library = editor.open("specs/lib/data.aur", &LIBRARY.replace("corpus en", "corpus english"));
    assert_eq!(codes(&library), Vec::<&str>::new());
    let spec = editor.change("specs/demo.aur", SPEC);
    assert!(codes(&spec).contains(&"E0221"), "{spec:?}");
    editor.change("specs/lib/data.aur", LIBRARY);
    assert_eq!(editor.change("specs/demo.aur", SPEC).len(), 0);
}

#[test]
fn a_library_has_its_own_errors_and_those_of_the_specs_that_use_it() {
    let mut editor = Editor::new(&FILES);
    // A library needs no experiment, and may have unused names.
    assert_eq!(editor.open_file("specs/lib/data.aur").len(), 0);
    let found = editor.change("specs/lib/data.aur", &LIBRARY.replace("language = fi", "langauge = fi"));
    assert_eq!(codes(&found), ["E0203"]);
    // That nothing is held out is wrong because of the eval in the spec.
    let found = editor.change("specs/lib/data.aur", &LIBRARY.replacen("held_out = held\n", "\n", 1));
    let spec = editor.uri("specs/demo.aur");
    assert_eq!((codes(&found), codes(&editor.shown[&spec])), (vec![], vec!["E0314"]));
    // The diagnostics are removed when the error is fixed.
    editor.change("specs/lib/data.aur", LIBRARY);
    assert_eq!(editor.shown[&spec].len(), 0);
}

fn actions(editor: &mut Editor, file: &str, found: &[Value]) -> Vec<Value> {
    let uri = editor.uri(file);
    let params =
        json!({ "textDocument": { "uri": uri }, "range": found[0]["range"], "context": { "diagnostics": found } });
    editor
        .request("textDocument/codeAction", params)
        .as_array()
        .expect("a list")
        .clone()
}

#[test]
fn a_suggestion_is_an_action() {
    let mut editor = Editor::new(&FILES);
    let text = SPEC.replace("budget        = 240 steps", "bugdet        = 240 steps");
    let found = editor.open("specs/demo.aur", &text);
    let all = actions(&mut editor, "specs/demo.aur", &found);
    assert_eq!(all.len(), 1);
    assert_eq!(
        (&all[0]["title"], &all[0]["kind"], &all[0]["isPreferred"]),
        (&json!("Change to `budget`"), &json!("quickfix"), &json!(true))
    );
    assert_eq!(all[0]["diagnostics"][0], found[0]);
    let change = &all[0]["edit"]["documentChanges"][0];
    assert_eq!(
        change["textDocument"],
        json!({ "uri": editor.uri("specs/demo.aur"), "version": 1 })
    );
    assert_eq!(edited(&text, &change["edits"]), SPEC);
}

#[test]
fn missing_fields_are_added() {
    let mut editor = Editor::new(&FILES);
    let rate = "  learning_rate = cosine(peak = 1e-3, floor = 1e-4, warmup = 8192 tokens)\n";
    let text = SPEC.replacen("  mixture       = cap\n", "", 1).replacen(rate, "", 1);
    let found = editor.open("specs/demo.aur", &text);
    assert_eq!(codes(&found), ["E0210", "E0210"]);
    let all = actions(&mut editor, "specs/demo.aur", &found);
    let titles: Vec<&str> = all
        .iter()
        .map(|action| action["title"].as_str().expect("a title"))
        .collect();
    assert_eq!(
        titles,
        [
            "Add `learning_rate`",
            "Add all 2 missing fields of `first`",
            "Add `mixture`"
        ]
    );
    let edited_text = edited(&text, &all[1]["edit"]["documentChanges"][0]["edits"]);
    assert_eq!(editor.change("specs/demo.aur", &edited_text).len(), 0, "{edited_text}");
    // A block on one line.
    let text = format!("{SPEC}eval more {{ kind = perplexity }}\n");
    let found = editor.change("specs/demo.aur", &text);
    let all = actions(&mut editor, "specs/demo.aur", &found);
    let edited_text = edited(&text, &all[0]["edit"]["documentChanges"][0]["edits"]);
    assert!(
        edited_text.ends_with("eval more { kind = perplexity  data = [en, fi] }\n"),
        "{edited_text}"
    );
    assert_eq!(editor.change("specs/demo.aur", &edited_text).len(), 0);
}

#[test]
fn a_client_without_versioned_edits_gets_plain_ones() {
    let mut editor = Editor::with(&FILES, json!({}));
    let found = editor.open("specs/demo.aur", &SPEC.replace("heads ", "haeds "));
    let all = actions(&mut editor, "specs/demo.aur", &found);
    let uri = editor.uri("specs/demo.aur");
    assert_eq!(all[0]["edit"]["changes"][&uri][0]["newText"], "heads");
}
