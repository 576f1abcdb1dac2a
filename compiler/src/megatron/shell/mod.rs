//! Interprets a script like a shell, as far as that is possible without running commands.
//!
//! In: the text of a script. Out: its commands with their words, every character with its line, and notes about the parts
//! that were not interpreted. Supported are assignments, arrays, arithmetic, functions, `bash -c`, and conditions on values
//! that the script sets. The environment and the output of commands are unknown values, each with a reason. Loops, and
//! branches that depend on an unknown value, are skipped and noted.
//! Not here: what the commands mean (`launch`).

mod arithmetic;
mod condition;
mod expand;

use std::collections::{BTreeMap, BTreeSet};

use tree_sitter::{Node, Parser};

use super::text::{SourceChar, SourceText, at, plain, unknown};
pub use expand::shown;

/// The maximum nesting of functions, `bash -c` and brackets.
const DEEPEST: usize = 60;
/// The maximum number of statements: a function may call itself.
const MOST_STATEMENTS: usize = 20_000;
/// The maximum number of characters of all variables and words: `A=$A$A` doubles.
const MOST_TEXT: usize = 4 << 20;

/// The value of a variable.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar(SourceText),
    Array(Vec<SourceText>),
}

/// A command that the script would run.
#[derive(Clone, Debug)]
pub struct Command {
    pub words: Vec<SourceText>,
}

/// A note about a part of the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub line: u32,
    pub what: String,
    pub why: String,
}

pub struct Shell {
    variables: BTreeMap<String, Value>,
    functions: BTreeMap<String, SourceText>,
    /// Why each unknown value is unknown, by its index.
    reasons: Vec<String>,
    pub commands: Vec<Command>,
    /// Parts that were not interpreted.
    pub notes: Vec<Note>,
    /// Names whose default was used, because the script does not set them.
    pub defaults: Vec<Note>,
    depth: usize,
    statements: usize,
    size: usize,
}

/// A text whose syntax tree has one byte per character.
struct Source<'a> {
    characters: &'a [SourceChar],
}

impl<'a> Source<'a> {
    fn of(&self, node: Node<'_>) -> &'a [SourceChar] {
        self.characters.get(node.byte_range()).unwrap_or_default()
    }

    fn line(&self, node: Node<'_>) -> u32 {
        let characters = self.of(node);
        let first = characters.iter().find(|character| !character.char.is_whitespace());
        first.or(characters.first()).map_or(0, |character| character.line)
    }
}

/// The input of the grammar: one byte per character. Letters beyond ASCII are replaced by a letter, because the scanner of
/// the grammar looks them up in tables that are too short (tree-sitter-bash issue 337).
fn ascii(characters: &[SourceChar]) -> Vec<u8> {
    characters
        .iter()
        .map(|character| u8::try_from(character.char).ok().filter(u8::is_ascii).unwrap_or(b'x'))
        .collect()
}

impl Shell {
    /// `variables` are set before the script starts.
    pub fn new(variables: impl IntoIterator<Item = (String, SourceText)>) -> Self {
        Self {
            variables: variables
                .into_iter()
                .map(|(name, value)| (name, Value::Scalar(value)))
                .collect(),
            functions: BTreeMap::new(),
            reasons: Vec::new(),
            commands: Vec::new(),
            notes: Vec::new(),
            defaults: Vec::new(),
            depth: 0,
            statements: 0,
            size: 0,
        }
    }

    /// Why the unknown value with an index is unknown.
    pub fn reason(&self, number: usize) -> &str {
        self.reasons.get(number).map_or("it is unknown", String::as_str)
    }

    /// Interprets a text.
    pub fn run(&mut self, characters: &[SourceChar]) {
        let text = ascii(characters);
        let mut parser = Parser::new();
        let tree = match parser.set_language(&tree_sitter_bash::LANGUAGE.into()) {
            Ok(()) => parser.parse(&text, None),
            Err(_) => None,
        };
        let Some(tree) = tree else {
            return self.note(
                characters.first().map_or(0, |character| character.line),
                "the script",
                "it cannot be parsed",
            );
        };
        self.statement(tree.root_node(), &Source { characters });
    }

    fn note(&mut self, line: u32, what: impl Into<String>, why: impl Into<String>) {
        let note = Note {
            line,
            what: what.into(),
            why: why.into(),
        };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn children(&mut self, node: Node<'_>, source: &Source<'_>) {
        for child in named(node) {
            self.statement(child, source);
        }
    }

    fn statement(&mut self, node: Node<'_>, source: &Source<'_>) {
        self.statements += 1;
        if self.statements > MOST_STATEMENTS || self.depth >= DEEPEST {
            return self.note(source.line(node), "the rest", "it is too long or nested too deeply");
        }
        self.depth += 1;
        match node.kind() {
            "program" | "do_group" | "pipeline" | "variable_assignments" => self.children(node, source),
            "compound_statement" if plain(source.of(node)).trim_start().starts_with("((") => {
                self.forget(node, source);
            }
            "compound_statement" => self.children(node, source),
            "subshell" => {
                let before = self.variables.clone();
                self.children(node, source);
                self.variables = before;
            }
            "list" | "test_command" | "negated_command" => {
                self.condition(node, source);
            }
            "redirected_statement" => {
                if let Some(body) = node.child_by_field_name("body") {
                    self.statement(body, source);
                }
            }
            "variable_assignment" => self.assign(node, source),
            "declaration_command" => {
                for child in named(node).filter(|child| child.kind() == "variable_assignment") {
                    self.assign(child, source);
                }
            }
            "command" => self.command(node, source),
            "if_statement" => self.branches(node, source),
            "function_definition" => {
                let name = node.child_by_field_name("name").map(|name| plain(source.of(name)));
                let body = node.child_by_field_name("body").map(|body| source.of(body).to_vec());
                if let (Some(name), Some(body)) = (name, body) {
                    self.functions.insert(name, body);
                }
            }
            "for_statement" | "c_style_for_statement" | "while_statement" | "case_statement" => {
                self.skip(node, source, "loops and `case` are not interpreted");
            }
            "unset_command" => {
                self.forget(node, source);
            }
            "ERROR" => {
                self.note(
                    source.line(node),
                    excerpt(&plain(source.of(node))),
                    "it is not valid shell syntax",
                );
                self.children(node, source);
            }
            _ => {}
        }
        self.depth -= 1;
    }

    fn branches(&mut self, node: Node<'_>, source: &Source<'_>) {
        let mut holds = Some(false);
        let mut is_condition = true;
        let mut cursor = node.walk();
        for child in node.children(&mut cursor) {
            match child.kind() {
                "if" | ";" | "fi" | "comment" => {}
                "then" => is_condition = false,
                "elif_clause" | "else_clause" if holds == Some(false) => {
                    // An `elif` is another `if`; an `else` contains statements.
                    if child.kind() == "elif_clause" {
                        return self.branches_of_elif(node, child, source);
                    }
                    self.children(child, source);
                }
                _ if is_condition => holds = self.condition(child, source),
                _ if holds == Some(true) && !child.kind().ends_with("_clause") => self.statement(child, source),
                _ if holds.is_none() => self.skip(child, source, "its condition is only known when the script runs"),
                _ => {}
            }
        }
    }

    fn branches_of_elif(&mut self, whole: Node<'_>, clause: Node<'_>, source: &Source<'_>) {
        self.branches(clause, source);
        // Whether a later clause is executed depends on this one: they are skipped.
        for later in named(whole).filter(|later| later.start_byte() >= clause.end_byte()) {
            self.skip(later, source, "it follows an `elif`");
        }
    }

    /// Skips a part. The variables that it sets become unknown.
    fn skip(&mut self, node: Node<'_>, source: &Source<'_>, why: &str) {
        let text = plain(source.of(node));
        let set = self.forget(node, source);
        let only_prints = matches!(text.split_whitespace().next(), Some("echo" | "printf" | "exit"));
        if set || !only_prints && (text.contains(".py") || text.contains("--")) {
            self.note(source.line(node), excerpt(&text), format!("not interpreted: {why}"));
        }
    }

    /// Makes every variable that a part sets unknown, and returns whether there is one.
    fn forget(&mut self, node: Node<'_>, source: &Source<'_>) -> bool {
        let line = source.line(node);
        let names = self.names_set(node, source);
        for name in &names {
            let value = self.unknown(&format!("`{name}` is set by a part that was not interpreted"), line);
            self.variables.insert(name.clone(), Value::Scalar(value));
        }
        !names.is_empty()
    }

    fn names_set(&self, node: Node<'_>, source: &Source<'_>) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut waiting = vec![node];
        while let Some(node) = waiting.pop() {
            let sets = match node.kind() {
                "variable_assignment" => node.child_by_field_name("name"),
                "for_statement" => node.child_by_field_name("variable"),
                "unset_command" | "postfix_expression" | "unary_expression" => {
                    named(node).find(|child| child.kind() == "variable_name")
                }
                _ => None,
            };
            if let Some(name) = sets {
                let name = plain(source.of(name));
                names.insert(name.split('[').next().unwrap_or_default().to_owned());
            }
            waiting.extend(named(node));
        }
        names
    }

    fn assign(&mut self, node: Node<'_>, source: &Source<'_>) {
        let Some(name) = node.child_by_field_name("name") else {
            return;
        };
        let line = source.line(node);
        let written = plain(source.of(name));
        let appends = named_or_not(node).any(|child| child.kind() == "+=");
        if named(node).any(|child| child.is_error()) || written.contains('[') {
            let name = written.split('[').next().unwrap_or_default();
            let value = self.unknown(&format!("`{}` is a placeholder", plain(source.of(node)).trim()), line);
            return self.set(name, Value::Scalar(value));
        }
        let value = match node.child_by_field_name("value") {
            None => Value::Scalar(SourceText::new()),
            Some(array) if array.kind() == "array" => {
                let mut elements = Vec::new();
                for element in named(array).filter(|element| element.kind() != "comment") {
                    elements.extend(self.words(source.of(element)));
                }
                Value::Array(elements)
            }
            Some(value) => Value::Scalar(self.expand_unsplit(source.of(value))),
        };
        let value = match (appends.then(|| self.variables.remove(&written)).flatten(), value) {
            (Some(Value::Array(mut old)), Value::Array(new)) => {
                old.extend(new);
                Value::Array(old)
            }
            (Some(Value::Array(mut old)), Value::Scalar(new)) => {
                old.push(new);
                Value::Array(old)
            }
            (Some(Value::Scalar(mut old)), Value::Scalar(new)) => {
                old.extend(new);
                Value::Scalar(old)
            }
            (Some(Value::Scalar(old)), Value::Array(mut new)) => {
                new.insert(0, old);
                Value::Array(new)
            }
            (None, value) => value,
        };
        self.set(&written, value);
    }

    fn command(&mut self, node: Node<'_>, source: &Source<'_>) {
        let mut words = Vec::new();
        for child in named(node) {
            let is_word =
                !matches!(child.kind(), "variable_assignment" | "comment") && !child.kind().ends_with("redirect");
            if is_word {
                words.extend(self.words(source.of(child)));
            }
        }
        self.size += words.iter().map(Vec::len).sum::<usize>();
        let Some(first) = words.first().map(|first| plain(first)) else {
            return;
        };
        let line = source.line(node);
        if let Some(body) = self.functions.get(&first).cloned() {
            let arguments = Value::Array(words.split_off(1));
            let before = self.variables.insert("@".to_owned(), arguments);
            self.run(&body);
            match before {
                Some(before) => self.variables.insert("@".to_owned(), before),
                None => self.variables.remove("@"),
            };
            return;
        }
        match first.as_str() {
            "source" | "." => {
                let file = words.get(1).map(|file| shown(file)).unwrap_or_default();
                return self.note(
                    line,
                    format!("`{first} {file}`"),
                    "another file: the variables that it sets are unknown",
                );
            }
            "shift" => {
                if let Some(Value::Array(arguments)) = self.variables.get_mut("@") {
                    arguments.drain(..arguments.len().min(1));
                }
                return;
            }
            "eval" => {
                let text = words[1..].join(&SourceChar { char: ' ', line });
                return self.run(&text);
            }
            _ => {}
        }
        let inner = words.windows(3).find_map(|three| {
            let [shell, flag, text] = three else { return None };
            let shell = plain(shell);
            let is_shell = matches!(shell.rsplit('/').next(), Some("bash" | "sh" | "zsh"));
            let flag = plain(flag);
            (is_shell && flag.starts_with('-') && flag.ends_with('c')).then(|| text.clone())
        });
        if let Some(text) = inner.filter(|_| !matches!(first.as_str(), "echo" | "printf")) {
            // The words before it belong to its launcher, such as srun.
            self.commands.push(Command { words });
            return self.run(&text);
        }
        self.commands.push(Command { words });
    }

    fn set(&mut self, name: &str, value: Value) {
        self.size += match &value {
            Value::Scalar(text) => text.len(),
            Value::Array(texts) => texts.iter().map(Vec::len).sum(),
        };
        let value = if self.size > MOST_TEXT {
            Value::Scalar(self.unknown("the texts of the script become too long", 0))
        } else {
            value
        };
        self.variables.insert(name.to_owned(), value);
    }

    /// An unknown value with its reason.
    fn unknown(&mut self, reason: &str, line: u32) -> SourceText {
        let number = self.reasons.iter().position(|known| known == reason);
        let number = number.unwrap_or_else(|| {
            self.reasons.push(reason.to_owned());
            self.reasons.len() - 1
        });
        at(line, &unknown(number).to_string())
    }

    /// The value of a name that the script sets. For an array it is the first element, as in a shell.
    fn lookup(&mut self, name: &str) -> Option<SourceText> {
        if let Ok(number @ 1..) = name.parse::<usize>() {
            let Some(Value::Array(arguments)) = self.variables.get("@") else {
                return None;
            };
            return arguments.get(number - 1).cloned();
        }
        let value = match self.variables.get(name)? {
            Value::Scalar(text) => text.clone(),
            Value::Array(texts) => texts.first().cloned().unwrap_or_default(),
        };
        if self.size > MOST_TEXT {
            return Some(self.unknown("the texts of the script become too long", 0));
        }
        self.size += value.len();
        Some(value)
    }

    fn variable(&mut self, name: &str, line: u32) -> SourceText {
        if let Some(value) = self.lookup(name) {
            return value;
        }
        let what = match name.parse::<usize>() {
            Ok(number) => format!("it is argument {number} of the script"),
            Err(_) => format!("`${name}` is not set in the script"),
        };
        self.unknown(&what, line)
    }

    /// Every element of an array, or of the arguments.
    fn all(&mut self, name: Option<&str>, line: u32) -> Vec<SourceText> {
        let missing = match name {
            None => "they are the arguments of the script".to_owned(),
            Some(name) => format!("`{name}` is not set in the script"),
        };
        let values = match self.variables.get(name.unwrap_or("@")) {
            Some(Value::Array(texts)) => texts.clone(),
            Some(Value::Scalar(text)) => vec![text.clone()],
            None => vec![self.unknown(&missing, line)],
        };
        self.size += values.iter().map(Vec::len).sum::<usize>();
        if self.size > MOST_TEXT {
            return vec![self.unknown("the texts of the script become too long", line)];
        }
        values
    }

    fn note_default(&mut self, name: &str, default: &[SourceChar], line: u32) {
        let note = Note {
            line,
            what: format!("${name}"),
            why: format!("not set; the script uses the default `{}`", shown(default)),
        };
        if !self.defaults.contains(&note) {
            self.defaults.push(note);
        }
    }
}

fn named(node: Node<'_>) -> impl Iterator<Item = Node<'_>> {
    (0..node.named_child_count()).filter_map(move |index| node.named_child(u32::try_from(index).ok()?))
}

fn named_or_not(node: Node<'_>) -> impl Iterator<Item = Node<'_>> {
    (0..node.child_count()).filter_map(move |index| node.child(index))
}

/// The start of a part of a script.
fn excerpt(text: &str) -> String {
    let text = text.trim();
    let first = text.lines().next().unwrap_or_default().trim();
    let cut: String = first.chars().take(60).collect();
    let more = if cut.len() < text.len() { " …" } else { "" };
    format!("`{cut}{more}`")
}
