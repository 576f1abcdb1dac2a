//! The VS Code extension: its grammar covers the language, and it builds and tokenizes.

use std::path::{Path, PathBuf};
use std::process::Command;

use aurora_compiler::schema::{BLOCKS, UNITS};
use serde_json::Value;

use crate::missing_tools::missing_tool;

fn extension() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../editors/vscode")
}

fn json(file: &str) -> Value {
    let path = extension().join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The alternatives of the patterns of the grammar.
fn alternatives(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.extend(text.split(['(', ')', '|']).map(str::to_owned)),
        Value::Array(all) => all.iter().for_each(|value| alternatives(value, found)),
        Value::Object(all) => all.values().for_each(|value| alternatives(value, found)),
        _ => {}
    }
}

#[test]
fn the_grammar_knows_every_kind_of_block_and_every_unit() {
    let mut known = Vec::new();
    alternatives(&json("syntaxes/aur.tmLanguage.json"), &mut known);
    let kinds = BLOCKS.iter().map(|block| block.kind.to_string());
    let units = UNITS.iter().map(|unit| unit.text.to_owned());
    for word in kinds.chain(units) {
        assert!(known.contains(&word), "the grammar does not know `{word}`");
    }
}

#[test]
fn snippets_are_blocks_that_parse() {
    for (name, snippet) in json("snippets/aur.json").as_object().expect("snippets") {
        let lines: Vec<&str> = snippet["body"]
            .as_array()
            .expect("lines")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let text = plain(&lines.join("\n"));
        let errors = aurora_lang::parse(&text, None).errors;
        assert!(errors.is_empty(), "{name}: {errors:?}\n{text}");
    }
}

/// A snippet with the defaults of its placeholders.
fn plain(snippet: &str) -> String {
    let mut text = String::new();
    let mut rest = snippet;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        rest = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((inner, after)) => {
                let default = inner.split_once([':', '|']).map_or("x", |(_, default)| default);
                text.push_str(default.split([',', '|']).next().unwrap_or_default());
                after
            }
            None => {
                text.push('x');
                after.trim_start_matches(|digit: char| digit.is_ascii_digit())
            }
        };
    }
    text + rest
}

#[test]
fn the_extension_builds_and_tokenizes() {
    // In a copy, so that the test leaves no files. The test of the grammar needs the specs two folders above.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = extension().join("../..");
    for from in ["editors/vscode", "specs", "lang/tests/ok"] {
        copy(&root.join(from), &folder.path().join(from));
    }
    let vscode = folder.path().join("editors/vscode");
    let npm = |arguments: &[&str]| Command::new("npm").args(arguments).current_dir(&vscode).output();
    match npm(&["--version"]) {
        Ok(version) if version.status.success() => {}
        _ => return missing_tool("npm", "the build of the VS Code extension"),
    }
    for arguments in [["ci"].as_slice(), &["run", "build"], &["test"]] {
        let output = npm(arguments).expect("npm runs");
        let text = [output.stdout, output.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat();
        assert!(output.status.success(), "npm {}:\n{text}", arguments.join(" "));
    }
    assert!(vscode.join("dist/extension.js").is_file());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (path, name) = (entry.path(), entry.file_name());
        if name == "node_modules" || name == "dist" {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            std::fs::copy(&path, to.join(name)).expect("a file");
        }
    }
}
