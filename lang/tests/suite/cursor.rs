//! The roles of tokens and the completions at a cursor, on complete and on incomplete texts.

use std::path::{Path, PathBuf};

use aurora_lang::ast::{Block, Body, Entry, Name, StatementKind, Value, ValueKind};
use aurora_lang::cursor::{CursorRole, Expected, FieldPath, PathStep, ValuePath, at, roles};

use aurora_lang::parse::{Heading, parse};
use aurora_lang::token::{Token, TokenKind, tokens};

/// Every valid file of the repository that tests of the language can use.
fn valid_files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [
        "tests/ok",
        "../specs",
        "../specs/lib",
        "../compiler/tests/ui",
        "../compiler/tests/ui/lib",
    ];
    let mut files = Vec::new();
    for folder in folders {
        let entries = std::fs::read_dir(root.join(folder)).expect("the folder exists");
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "aur") {
                let text = std::fs::read_to_string(&path).expect("the file is text");
                if parse(&text, None).errors.is_empty() {
                    files.push((path, text));
                }
            }
        }
    }
    assert!(files.len() > 100, "only {} valid files", files.len());
    files
}

/// The tokens of a text with their roles.
struct Found<'t> {
    tokens: &'t [Token],
    roles: Vec<CursorRole>,
}

impl Found<'_> {
    fn at(&self, start: usize) -> &CursorRole {
        let index = self.tokens.binary_search_by_key(&start, |token| token.span.start);
        &self.roles[index.expect("a token starts here")]
    }

    fn value(&self, value: &Value) {
        let role = self.at(value.span.start);
        match &value.kind {
            ValueKind::Word(_) => assert!(matches!(role, CursorRole::Word { .. }), "{value:?}: {role:?}"),
            ValueKind::Call(call) => {
                assert_eq!(
                    role,
                    &CursorRole::Call {
                        name: call.name.text.clone()
                    }
                );
                for (index, argument) in call.arguments.iter().enumerate() {
                    if let Some(name) = &argument.name {
                        let role = self.at(name.span.start);
                        let CursorRole::Argument { path } = role else {
                            panic!("{name:?}: {role:?}")
                        };
                        let step = PathStep::Argument {
                            call: call.name.text.clone(),
                            index,
                            name: Some(name.text.clone()),
                        };
                        assert_eq!(path.steps.last(), Some(&step));
                    }
                    self.value(&argument.value);
                }
            }
            ValueKind::List(elements) => elements.iter().for_each(|element| self.value(element)),
            ValueKind::Every(inner) => {
                assert_eq!(role, &CursorRole::Keyword);
                self.value(inner);
            }
            ValueKind::Number(number) => {
                if let Some(unit) = &number.unit {
                    assert!(matches!(self.at(unit.span.start), CursorRole::Unit { .. }), "{unit:?}");
                }
            }
            ValueKind::Text(_) => assert_eq!(role, &CursorRole::Text),
        }
        for mark in &value.marks {
            assert_eq!(self.at(mark.name.span.start), &CursorRole::Mark);
        }
    }

    fn entries(&self, entries: &[Entry], owner: &Heading) {
        let texts = |names: &[Name]| -> Vec<String> { names.iter().map(|name| name.text.clone()).collect() };
        for entry in entries {
            match entry {
                Entry::Field(field) => {
                    let name = field.path.last().expect("a field has a name");
                    let expected = CursorRole::Field {
                        path: FieldPath {
                            owner: owner.clone(),
                            names: texts(&field.path),
                        },
                        is_last: true,
                    };
                    assert_eq!(self.at(name.span.start), &expected);
                    self.value(&field.value);
                }
                Entry::Component(component) => {
                    let role = self.at(component.name.span.start);
                    assert!(matches!(role, CursorRole::Component { .. }), "{role:?}");
                    self.value(&component.from);
                    for (word, value) in &component.settings {
                        assert_eq!(self.at(word.span.start), &CursorRole::Keyword);
                        self.value(value);
                    }
                }
                Entry::Block(block) => {
                    assert_eq!(self.at(block.name.span.start), &CursorRole::Block);
                    self.block(block);
                }
            }
        }
    }

    fn block(&self, block: &Block) {
        assert_eq!(self.at(block.keyword.span.start), &CursorRole::Keyword);
        let owner = Heading {
            keyword: block.keyword.text.clone(),
            name: block.name.text.clone(),
        };
        if let Body::Entries(entries) = &block.body {
            self.entries(entries, &owner);
        }
    }
}

#[test]
fn roles_are_those_of_the_syntax_tree() {
    for (path, text) in valid_files() {
        let tokens = tokens(&text);
        let found = Found {
            tokens: &tokens,
            roles: roles(&text, &tokens),
        };
        let file = parse(&text, None).file;
        for block in &file.items {
            let keyword = block.keyword.text.clone();
            assert_eq!(found.at(block.name.span.start), &CursorRole::Declared { keyword });
            found.block(block);
        }
        for statement in &file.statements {
            match &statement.kind {
                StatementKind::Let { value, .. } | StatementKind::Param { value, .. } => found.value(value),
                StatementKind::Import { path, .. } => assert_eq!(found.at(path.span.start), &CursorRole::ImportPath),
                StatementKind::Extends { path, entries } => {
                    assert_eq!(found.at(path.span.start), &CursorRole::ImportPath);
                    let owner = Heading {
                        keyword: "extends".to_owned(),
                        name: String::new(),
                    };
                    found.entries(entries, &owner);
                }
            }
        }
        let unknown = tokens.iter().zip(&found.roles).find(|(token, role)| {
            let is_plain = matches!(token.kind, TokenKind::Word | TokenKind::Number | TokenKind::Text { .. });
            is_plain && matches!(role, CursorRole::Other)
        });
        assert_eq!(unknown, None, "{}", path.display());
    }
}

#[test]
fn a_prefix_of_a_file_has_the_same_roles() {
    let files = valid_files();
    std::thread::scope(|scope| {
        for part in files.chunks(files.len().div_ceil(4)) {
            scope.spawn(move || {
                for (path, text) in part {
                    check_prefixes(path, text);
                }
            });
        }
    });
}

fn check_prefixes(path: &Path, text: &str) {
    let all = tokens(text);
    let complete = roles(text, &all);
    let file = parse(text, None).file;
    let items = file.items.iter().map(|block| block.span.start);
    let mut starts: Vec<usize> = items
        .chain(file.statements.iter().map(|statement| statement.span.start))
        .collect();
    starts.sort_unstable();
    for end in 0..=all.len() {
        let cut = all.get(end).map_or(text.len(), |token| token.span.start);
        // The items before the one that the prefix cuts are those of the complete text.
        let start = starts.iter().rfind(|&&start| start < cut).copied().unwrap_or(0);
        let first = all.partition_point(|token| token.span.start < start);
        let part = &text[start..cut];
        let tokens = tokens(part);
        // An unclosed profile ends before a block at the left edge, which may have been a block of the profile.
        let is_block = |pair: &[Token]| pair[0].at_left_edge(part) && pair[1].kind == TokenKind::Word;
        if tokens[1.min(tokens.len())..].windows(2).any(is_block) {
            continue;
        }
        let found = roles(part, &tokens);
        // What the last two tokens are may depend on the rest of the text.
        for index in 0..tokens.len().saturating_sub(2) {
            assert_eq!(
                found[index],
                complete[first + index],
                "`{}` in {}, cut to:\n{part}",
                tokens[index].text(part),
                path.display()
            );
        }
    }
}

#[test]
fn every_cursor_has_an_answer() {
    // The files of the compiler's tests are variants of one spec.
    let files = valid_files().into_iter();
    for (_, text) in files.filter(|(path, _)| !path.to_string_lossy().contains("tests/ui")) {
        let file = parse(&text, None).file;
        let items = file.items.iter().map(|block| block.span);
        for span in items.chain(file.statements.iter().map(|statement| statement.span)) {
            let item = &text[span.start..span.end];
            let all = tokens(item);
            for token in all.iter().filter(|token| token.kind != TokenKind::Comment) {
                let is_word = token.kind == TokenKind::Word;
                // A cursor at the end of a word replaces the word.
                let cursor = at(item, token.span.end);
                let start = if is_word { token.span.start } else { token.span.end };
                assert_eq!(cursor.replaced.start, start);
                assert_eq!(cursor.replaced.end, token.span.end);
            }
        }
    }
}

fn expected(marked: &str) -> Vec<Expected> {
    let byte = marked.find('|').expect("a cursor");
    at(&marked.replace('|', ""), byte).expected
}

#[test]
fn what_is_expected_comes_from_the_grammar() {
    let owner = Heading {
        keyword: "stage".to_owned(),
        name: "a".to_owned(),
    };
    let field = |names: &[&str]| FieldPath {
        owner: owner.clone(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let budget = |steps: Vec<PathStep>| ValuePath {
        field: Some(field(&["budget"])),
        steps,
    };
    assert_eq!(expected("st|"), [Expected::Item]);
    assert_eq!(
        expected("stage a {\n  |\n  start = b\n}"),
        [Expected::FieldName { path: field(&[]) }]
    );
    assert_eq!(
        expected("stage a { budget = |"),
        [Expected::Value { path: budget(vec![]) }]
    );
    // The next line is not the value.
    assert_eq!(
        expected("stage a {\n  budget = |\n  start = b\n}"),
        [Expected::Value { path: budget(vec![]) }]
    );
    assert_eq!(
        expected("stage a { budget = [b, |"),
        [Expected::Value {
            path: budget(vec![PathStep::Element(1)])
        }]
    );
    assert_eq!(
        expected("stage a { budget = 240 |")[..2],
        [
            Expected::Unit { path: budget(vec![]) },
            Expected::Mark { has_sign: false }
        ]
    );
    assert_eq!(expected("stage a { budget = b @|"), [Expected::Mark { has_sign: true }]);
    assert_eq!(
        expected("import \"lib.aur\" { a, | }"),
        [Expected::ImportName {
            file: "lib.aur".to_owned()
        }]
    );
    assert_eq!(expected("import |"), [Expected::ImportPath]);
    assert_eq!(
        expected("expect e { trend(a.b.|"),
        [Expected::Metric {
            names: vec!["a".to_owned(), "b".to_owned()]
        }]
    );
    assert_eq!(at("stage a { budget = 1 start = b  }", 31).present, ["budget", "start"]);
    assert_eq!(at("stage a { budget = c(d = 1, )  }", 28).present, ["d"]);
}
