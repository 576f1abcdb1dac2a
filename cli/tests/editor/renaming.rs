//! Definitions, references and renaming across files.

use serde_json::{Value, json};

use crate::client::{Editor, edited, find, slice};
use crate::specs::{FILES, LIBRARY, SPEC};

/// A second spec that uses the library.
const OTHER: &str = "import \"lib/data.aur\"\nexperiment other { seed = 1 }\nprofile p { corpus.fi.held_out = 5% }\n";

fn files() -> Vec<(&'static str, &'static str)> {
    [&FILES[..], &[("specs/other.aur", OTHER)]].concat()
}

fn text(file: &str) -> &'static str {
    files()
        .iter()
        .find(|(name, _)| name.strip_prefix("specs/") == Some(file))
        .expect("a known file")
        .1
}

/// Places as `FILE:LINE:text`, sorted.
fn places(found: &Value) -> Vec<String> {
    let all = found.as_array().expect("a list of places");
    let mut all: Vec<String> = all
        .iter()
        .map(|place| {
            let file = place["uri"]
                .as_str()
                .expect("a URI")
                .rsplit("/specs/")
                .next()
                .expect("a path");
            let line = place["range"]["start"]["line"].as_u64().expect("a line") + 1;
            format!("{file}:{line}:{}", slice(text(file), &place["range"]))
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_name_leads_to_its_declaration_in_another_file() {
    let mut editor = Editor::new(&files());
    editor.open_file("specs/demo.aur");
    let go = |editor: &mut Editor, part: &str, nth: usize| {
        places(&editor.at("textDocument/definition", "specs/demo.aur", find(SPEC, part, nth)))
    };
    assert_eq!(go(&mut editor, "fi, en", 0), ["lib/data.aur:6:fi"]);
    assert_eq!(go(&mut editor, "fi] weight", 0), ["lib/data.aur:6:fi"]);
    assert_eq!(go(&mut editor, "small\n  budget", 0), ["demo.aur:14:small"]);
    assert_eq!(go(&mut editor, "length\n", 0), ["demo.aur:6:length"]);
    assert_eq!(go(&mut editor, "held_out.bits", 0), ["demo.aur:48:held_out"]);
    assert_eq!(go(&mut editor, "first.budget", 0), ["demo.aur:29:first"]);
    // An import leads to its file; a field to nothing.
    assert_eq!(go(&mut editor, "lib/data", 0), ["lib/data.aur:1:"]);
    assert!(
        editor
            .at("textDocument/definition", "specs/demo.aur", find(SPEC, "budget", 0))
            .is_null()
    );
}

#[test]
fn a_name_in_a_block_with_an_error_leads_to_its_possible_declarations() {
    let mut editor = Editor::new(&files());
    let broken = SPEC.replace(
        "sequence      = 128 tokens\n  global_batch  = 32 sequences\n  learning_rate = cosine",
        "sequence = = 3\n  learning_rate = cosine",
    );
    editor.open("specs/demo.aur", &broken);
    let found = editor.at(
        "textDocument/definition",
        "specs/demo.aur",
        find(&broken, "small\n  budget", 0),
    );
    assert_eq!(places(&found), ["demo.aur:14:small"]);
}

#[test]
fn references_are_found_in_every_file() {
    let mut editor = Editor::new(&files());
    editor.open_file("specs/lib/data.aur");
    let found = editor.at(
        "textDocument/references",
        "specs/lib/data.aur",
        find(LIBRARY, "fi {", 0),
    );
    let expected = [
        "demo.aur:10:fi",
        "demo.aur:1:fi",
        "demo.aur:25:fi",
        "demo.aur:50:fi",
        "lib/data.aur:6:fi",
        "other.aur:3:fi",
    ];
    assert_eq!(places(&found), expected);
    let uri = editor.uri("specs/lib/data.aur");
    let params = json!({ "textDocument": { "uri": uri }, "position": find(LIBRARY, "held =", 0), "context": { "includeDeclaration": false } });
    let found = editor.request("textDocument/references", params);
    assert_eq!(
        places(&found),
        ["lib/data.aur:15:held", "lib/data.aur:9:held"]
            .map(str::to_owned)
            .to_vec()
    );
}

#[test]
fn a_name_is_highlighted_in_its_file() {
    let mut editor = Editor::new(&files());
    editor.open_file("specs/demo.aur");
    let found = editor.at(
        "textDocument/documentHighlight",
        "specs/demo.aur",
        find(SPEC, "first.held", 0),
    );
    let found = found.as_array().expect("a list");
    let kinds: Vec<&Value> = found.iter().map(|one| &one["kind"]).collect();
    assert_eq!(kinds, [&json!(3), &json!(2), &json!(2), &json!(2)]);
    assert!(found.iter().all(|one| slice(SPEC, &one["range"]) == "first"));
}

/// Renames, and returns the new text of every file that changes.
fn rename(editor: &mut Editor, file: &str, position: Value, new: &str) -> Result<Vec<(String, String)>, String> {
    let uri = editor.uri(file);
    let params = json!({ "textDocument": { "uri": uri }, "position": position, "newName": new });
    let edit = editor
        .try_request("textDocument/rename", params)
        .map_err(|error| error["message"].as_str().expect("a message").to_owned())?;
    let changes = edit["documentChanges"].as_array().expect("changes").iter();
    Ok(changes
        .map(|change| {
            let file = change["textDocument"]["uri"]
                .as_str()
                .expect("a URI")
                .rsplit("/specs/")
                .next()
                .expect("a path")
                .to_owned();
            let new = edited(text(&file), &change["edits"]);
            (file, new)
        })
        .collect())
}

#[test]
fn renaming_changes_every_file_and_keeps_the_specs_valid() {
    let mut editor = Editor::new(&files());
    editor.open_file("specs/demo.aur");
    let at = find(SPEC, "fi] weight", 0);
    let range = editor.at("textDocument/prepareRename", "specs/demo.aur", at.clone());
    assert_eq!(slice(SPEC, &range), "fi");
    let changed = rename(&mut editor, "specs/demo.aur", at, "suomi").expect("it can be renamed");
    let names: Vec<&str> = changed.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(names, ["demo.aur", "lib/data.aur", "other.aur"]);
    assert!(changed[0].1.contains("{ suomi, en }") && changed[0].1.contains("fi from [suomi] weight"));
    assert!(changed[1].1.contains("corpus suomi {\n  language = fi"));
    assert!(changed[2].1.contains("corpus.suomi.held_out"));
    for (file, text) in &changed {
        std::fs::write(editor.path(&format!("specs/{file}")), text).expect("a file");
    }
    let mut after = Editor::new(&[]);
    for (file, text) in &changed {
        std::fs::create_dir_all(after.path("specs/lib")).expect("a folder");
        std::fs::write(after.path(&format!("specs/{file}")), text).expect("a file");
    }
    let found = after.open_file("specs/demo.aur");
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn blocks_lets_and_params_are_renamed() {
    let mut editor = Editor::new(&files());
    editor.open_file("specs/demo.aur");
    let one = |editor: &mut Editor, part: &str, new: &str| {
        rename(editor, "specs/demo.aur", find(SPEC, part, 0), new)
            .expect("it can be renamed")
            .remove(0)
            .1
    };
    let stage = one(&mut editor, "first {", "warm");
    for part in [
        "stage warm {",
        "start         = warm\n",
        "<= warm.held_out",
        "stage.warm.budget",
    ] {
        assert!(stage.contains(part), "{part}: {stage}");
    }
    assert!(!stage.contains("first"), "{stage}");
    let param = one(&mut editor, "length =", "reach");
    assert!(
        param.contains("param reach = 128") && param.contains("context      = reach"),
        "{param}"
    );
    editor.open_file("specs/lib/data.aur");
    let renamed =
        rename(&mut editor, "specs/lib/data.aur", find(LIBRARY, "held =", 0), "share").expect("it can be renamed");
    assert_eq!(renamed.len(), 1);
    assert_eq!(renamed[0].1.matches("share").count(), 3);
}

#[test]
fn an_import_of_several_blocks_keeps_the_other_name() {
    let library = "source fi { from = \"file:a.txt\" }\ncorpus fi { language = fi from = [text(fi)] }\n";
    let spec = "import \"lib.aur\" { fi }\nexperiment e { seed = 1 }\nlet both = 3\ntokenizer t { kind = train_bpe() corpora = [fi] }\n";
    let mut editor = Editor::new(&[("specs/lib.aur", library), ("specs/e.aur", spec)]);
    editor.open_file("specs/lib.aur");
    let uri = editor.uri("specs/lib.aur");
    let params = json!({ "textDocument": { "uri": uri }, "position": find(library, "fi", 3), "newName": "x" });
    let none = editor.try_request("textDocument/rename", params);
    assert!(none.is_err(), "a word of the language has no other name: {none:?}");
    let params = json!({ "textDocument": { "uri": uri }, "position": find(library, "fi {", 1), "newName": "finnish" });
    let edit = editor.request("textDocument/rename", params);
    let changes = edit["documentChanges"].as_array().expect("changes");
    let spec_change = changes
        .iter()
        .find(|change| change["textDocument"]["uri"] == json!(editor.uri("specs/e.aur")))
        .expect("the spec changes");
    let after = edited(spec, &spec_change["edits"]);
    assert!(
        after.contains("{ fi, finnish }") && after.contains("corpora = [finnish]"),
        "{after}"
    );
}

#[test]
fn a_rename_that_causes_an_error_is_refused() {
    let mut editor = Editor::new(&files());
    editor.open_file("specs/demo.aur");
    let mut refused =
        |part: &str, new: &str| rename(&mut editor, "specs/demo.aur", find(SPEC, part, 0), new).expect_err("refused");
    assert_eq!(refused("first {", "second"), "there are two blocks `stage second`");
    assert_eq!(
        refused("first {", "small"),
        "a stage and a model are both called `small`"
    );
    assert_eq!(
        refused("first {", "a b"),
        "`a b` is not a valid name: use letters, digits and `_`, and start with a letter or `_`"
    );
    assert_eq!(refused("length =", "gelu"), "`gelu` is a word of the language");
    assert_eq!(
        refused("budget", "x"),
        "only names of blocks, `let` and `param` can be renamed"
    );
    let broken = SPEC.replace("seed = 7 }", "seed = }");
    editor.change("specs/demo.aur", &broken);
    let why = rename(&mut editor, "specs/demo.aur", find(&broken, "first {", 0), "x").expect_err("refused");
    assert_eq!(
        why,
        "a file has syntax errors, and the name may be used in a block that cannot be parsed"
    );
}
