//! The tree-sitter grammar, compiled with the installed C compiler, parses every spec of the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use aurora_lang::token::{TokenKind, tokens};
use tree_sitter::{Language, Node, Parser, Query, QueryCursor, StreamingIterator};

use crate::missing_tools::missing_tool;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The compiled grammar. `None` without a C compiler.
fn language() -> Option<Language> {
    if Command::new("cc").arg("--version").output().is_err() {
        missing_tool("cc", "the tree-sitter grammar");
        return None;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = root().join("editors/tree-sitter-aur/src");
    let library = folder.path().join("aur.so");
    let output = Command::new("cc")
        .args([
            "-shared",
            "-fPIC",
            "-O1",
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror=implicit-function-declaration",
            "-I",
        ])
        .arg(&source)
        .args(["parser.c", "scanner.c"].map(|file| source.join(file)))
        .arg("-o")
        .arg(&library)
        .output()
        .expect("cc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // SAFETY: the library was just compiled from the grammar; it has no initializers.
    let library = unsafe { libloading::Library::new(&library) }.expect("the library loads");
    // SAFETY: the generated function has this name and type. The library is never unloaded.
    let function = unsafe {
        *library
            .get::<unsafe extern "C" fn() -> *const ()>(b"tree_sitter_aur")
            .expect("the function")
    };
    std::mem::forget(library);
    // SAFETY: as above.
    Some(unsafe { tree_sitter_language::LanguageFn::from_raw(function) }.into())
}

fn specs() -> Vec<(PathBuf, String)> {
    let folders = ["specs", "specs/lib", "specs/snapshots", "lang/tests/ok"].map(|folder| root().join(folder));
    let files = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten();
    let files = files.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let files: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|kind| kind == "aur"))
        .collect();
    assert!(files.len() >= 5, "the specs of the repository are there");
    files
        .into_iter()
        .map(|path| (path.clone(), std::fs::read_to_string(path).expect("a spec")))
        .collect()
}

fn nodes<'t>(node: Node<'t>, kind: &str, found: &mut Vec<Node<'t>>) {
    if node.kind() == kind {
        found.push(node);
    }
    for index in 0..node.child_count() {
        if let Some(child) = node.child(index) {
            nodes(child, kind, found);
        }
    }
}

#[test]
fn every_spec_parses_without_an_error() {
    let Some(language) = language() else { return };
    let mut parser = Parser::new();
    parser.set_language(&language).expect("a language of this version");
    for (path, text) in specs() {
        let tree = parser.parse(&text, None).expect("a tree");
        let mut errors = Vec::new();
        nodes(tree.root_node(), "ERROR", &mut errors);
        let first = errors
            .first()
            .map(|error| (error.start_position(), &text[error.byte_range()]));
        assert!(!tree.root_node().has_error(), "{}: {first:?}", path.display());
        // It has the same blocks as the syntax tree of the compiler.
        let parsed = aurora_lang::parse(&text, None).file;
        let mut blocks = Vec::new();
        let root = tree.root_node();
        blocks.extend(
            (0..root.child_count())
                .filter_map(|index| root.child(index))
                .filter(|node| matches!(node.kind(), "block" | "gate")),
        );
        let names: Vec<&str> = blocks
            .iter()
            .filter_map(|node| node.child_by_field_name("name"))
            .map(|name| &text[name.byte_range()])
            .collect();
        let expected: Vec<&str> = parsed.items.iter().map(|item| item.name.text.as_str()).collect();
        assert_eq!(names, expected, "{}", path.display());
    }
}

#[test]
fn a_unit_does_not_start_a_field() {
    let Some(language) = language() else { return };
    let mut parser = Parser::new();
    parser.set_language(&language).expect("a language of this version");
    let text = "layout a { tensor = 4 nodes = 2 samples = 3 steps\n  shots = 2\n  s = 1 }\nmixture m { en from [en] weight 30% max_epochs 4 fi from [fi] weight 70% }\n\
                profile p { stage.a.b = 2 stage.c.d = 3 tokens model x { y = 1 } }\nexpect e { a.b.c >= d.e.pass@1 - 2 pp }\nexpect f { gap(a.b.c, mean(a.b.d, a.b.e)) < 3 with 95% confidence }\nparam x = 3 in 1 .. 4\n";
    let tree = parser.parse(text, None).expect("a tree");
    assert!(!tree.root_node().has_error(), "{}", tree.root_node().to_sexp());
    let mut units = Vec::new();
    nodes(tree.root_node(), "unit", &mut units);
    let units: Vec<&str> = units.iter().map(|node| &text[node.byte_range()]).collect();
    assert_eq!(units, ["steps", "tokens", "pp"]);
}

#[test]
fn highlights_colour_every_word() {
    let Some(language) = language() else { return };
    let query =
        std::fs::read_to_string(root().join("editors/tree-sitter-aur/queries/highlights.scm")).expect("the query");
    let query = Query::new(&language, &query).expect("a query of this grammar");
    let mut parser = Parser::new();
    parser.set_language(&language).expect("a language of this version");
    for (path, text) in specs() {
        let tree = parser.parse(&text, None).expect("a tree");
        let mut cursor = QueryCursor::new();
        let mut captures = cursor.captures(&query, tree.root_node(), text.as_bytes());
        let mut coloured = Vec::new();
        while let Some((found, index)) = captures.next() {
            coloured.push(found.captures()[*index].node.byte_range());
        }
        for token in tokens(&text) {
            let is_coloured = coloured
                .iter()
                .any(|range| range.start <= token.span.start && token.span.end <= range.end);
            let is_sign = !matches!(token.kind, TokenKind::Word | TokenKind::Number | TokenKind::Text { .. });
            assert!(
                is_coloured || is_sign,
                "{}: `{}` has no colour",
                path.display(),
                token.text(&text)
            );
        }
    }
}
