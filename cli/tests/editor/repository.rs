//! The specs of the repository in the editor: they have no errors, every word has a hover, and every name can be renamed.

use std::path::Path;

use aurora_lang::token::{TokenKind, tokens};
use serde_json::json;

use crate::client::{Editor, position};

fn specs() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = ["specs", "specs/lib"].iter();
    let mut found: Vec<(String, String)> = folders
        .filter_map(|folder| Some((folder, std::fs::read_dir(root.join(folder)).ok()?)))
        .flat_map(|(folder, entries)| entries.flatten().map(move |entry| (folder, entry.path())))
        .filter(|(_, path)| path.extension().is_some_and(|kind| kind == "aur"))
        .map(|(folder, path)| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .expect("a name")
                .to_owned();
            (
                format!("{folder}/{name}"),
                std::fs::read_to_string(path).expect("a spec"),
            )
        })
        .collect();
    found.sort();
    assert!(found.len() >= 3, "the specs of the repository are there");
    found
}

#[test]
fn the_specs_of_the_repository_have_no_errors_and_every_word_answers() {
    let specs = specs();
    let files: Vec<(&str, &str)> = specs
        .iter()
        .map(|(file, text)| (file.as_str(), text.as_str()))
        .collect();
    let mut editor = Editor::new(&files);
    for (file, text) in files {
        let found = editor.open_file(file);
        assert!(found.iter().all(|found| found["severity"] != 1), "{file}: {found:?}");
        let uri = editor.uri(file);
        let tokens = tokens(text);
        for (index, token) in tokens
            .iter()
            .enumerate()
            .filter(|(_, token)| token.kind == TokenKind::Word)
        {
            let place = position(&text[..token.span.start]);
            editor.hover(file, place.clone());
            let declares =
                index > 0 && tokens[index - 1].first_on_line && tokens[index - 1].span.end + 1 == token.span.start;
            let at_edge = index > 0 && text[..tokens[index - 1].span.start].ends_with('\n');
            if declares && at_edge && tokens[index - 1].kind == TokenKind::Word {
                let params = json!({ "textDocument": { "uri": uri }, "position": place, "newName": "another_name" });
                editor.request("textDocument/rename", params);
            }
        }
    }
}
