//! The role of each token, from the syntax tree.

use super::{CursorRole, FieldPath, PathStep, ValuePath};
use crate::ast::{
    Allowed, Block, Body, Component, Entry, Expression, ExpressionKind, File, Gate, Mark, Name, Number, Span,
    Statement, StatementKind, Value, ValueKind,
};
use crate::parse::{Heading, chunks, repair};
use crate::token::{Token, TokenKind};

/// The roles of all tokens of a text.
pub fn roles(text: &str, tokens: &[Token]) -> Vec<CursorRole> {
    let mut roles = Roles::new(text, tokens);
    for chunk in chunks(text, tokens) {
        if let Some(repaired) = repair(text, chunk) {
            roles.chunk(chunk, &repaired.file, &repaired.removed);
        }
    }
    roles.all
}

/// Visits syntax trees and records what the names in them are.
pub(super) struct Roles<'t> {
    tokens: &'t [Token],
    pub all: Vec<CursorRole>,
    /// The place for which `present` is collected.
    pub cursor: Option<usize>,
    /// The fields, arguments or names of the innermost block, call or import that contains the cursor, without the
    /// name at the cursor.
    pub present: Vec<String>,
    /// The settings of the last component that starts before the cursor.
    pub settings: Vec<String>,
}

impl<'t> Roles<'t> {
    pub fn new(text: &str, tokens: &'t [Token]) -> Self {
        let all = tokens.iter().map(|token| match token.kind {
            TokenKind::Comment => CursorRole::Comment,
            TokenKind::Number => CursorRole::Number,
            TokenKind::Text { .. } => CursorRole::Text,
            TokenKind::Sign if token.text(text) == "@" => CursorRole::Mark,
            TokenKind::Word | TokenKind::Open(_) | TokenKind::Close(_) | TokenKind::Sign => CursorRole::Other,
        });
        Self {
            tokens,
            all: all.collect(),
            cursor: None,
            present: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Records the roles of one chunk, given its syntax tree.
    pub fn chunk(&mut self, chunk: Span, file: &File, removed: &[usize]) {
        let first = self.tokens.partition_point(|token| token.span.start < chunk.start);
        for (token, role) in self.tokens[first..].iter().zip(&mut self.all[first..]) {
            // A word that the tree has neither as a name, a value nor a unit is a keyword.
            let is_keyword = token.kind == TokenKind::Word && !removed.contains(&token.span.start);
            if token.span.start < chunk.end && is_keyword {
                *role = CursorRole::Keyword;
            }
        }
        for block in &file.items {
            let keyword = block.keyword.text.clone();
            self.block(block, CursorRole::Declared { keyword });
        }
        for statement in &file.statements {
            self.statement(statement);
        }
    }

    fn set(&mut self, span: Span, role: CursorRole) {
        let first = self.tokens.partition_point(|token| token.span.start < span.start);
        for (token, of_token) in self.tokens[first..].iter().zip(&mut self.all[first..]) {
            if token.span.start >= span.end {
                break;
            }
            *of_token = role.clone();
        }
    }

    /// Collects the names of a block, call or import that contains the cursor.
    fn collect<'a>(&mut self, span: Span, names: impl Iterator<Item = &'a Name>) {
        let Some(cursor) = self.cursor else { return };
        if span.start <= cursor && cursor < span.end {
            let others = names.filter(|name| name.span.start != cursor && !name.span.is_empty());
            self.present = others.map(|name| name.text.clone()).collect();
        }
    }

    fn statement(&mut self, statement: &Statement) {
        let keyword = statement.kind.keyword().to_owned();
        match &statement.kind {
            StatementKind::Import { path, names } => {
                self.set(path.span, CursorRole::ImportPath);
                self.collect(statement.span, names.iter().flatten());
                for name in names.iter().flatten() {
                    let file = path.text.clone();
                    self.set(name.span, CursorRole::ImportName { file });
                }
            }
            StatementKind::Extends { path, entries } => {
                self.set(path.span, CursorRole::ImportPath);
                let owner = Heading {
                    keyword,
                    name: String::new(),
                };
                self.entries(statement.span, entries, &owner);
            }
            StatementKind::Let { name, value } => {
                self.set(name.span, CursorRole::Declared { keyword });
                self.value(value, &ValuePath::default());
            }
            StatementKind::Param { name, value, allowed } => {
                self.set(name.span, CursorRole::Declared { keyword });
                self.value(value, &ValuePath::default());
                match allowed.as_deref() {
                    Some(Allowed::Between(least, most)) => {
                        self.value(least, &ValuePath::default());
                        self.value(most, &ValuePath::default());
                    }
                    Some(Allowed::OneOf(values)) => {
                        values.iter().for_each(|value| self.value(value, &ValuePath::default()));
                    }
                    None => {}
                }
            }
        }
    }

    fn block(&mut self, block: &Block, name: CursorRole) {
        self.set(block.name.span, name);
        let owner = Heading {
            keyword: block.keyword.text.clone(),
            name: block.name.text.clone(),
        };
        match &block.body {
            Body::Entries(entries) => self.entries(block.span, entries, &owner),
            Body::Gate(gate) => self.gate(gate),
        }
    }

    fn entries(&mut self, span: Span, entries: &[Entry], owner: &Heading) {
        let names = entries.iter().filter_map(|entry| match entry {
            Entry::Field(field) => field.path.last(),
            Entry::Component(component) => Some(&component.name),
            Entry::Block(_) => None,
        });
        self.collect(span, names);
        let path = |names: &[Name]| FieldPath {
            owner: owner.clone(),
            names: names.iter().map(|name| name.text.clone()).collect(),
        };
        for entry in entries {
            match entry {
                Entry::Block(block) => self.block(block, CursorRole::Block),
                Entry::Field(field) => {
                    for (index, name) in field.path.iter().enumerate() {
                        let role = CursorRole::Field {
                            path: path(&field.path[..=index]),
                            is_last: index + 1 == field.path.len(),
                        };
                        self.set(name.span, role);
                    }
                    let value = ValuePath {
                        field: Some(path(&field.path)),
                        steps: Vec::new(),
                    };
                    self.value(&field.value, &value);
                }
                Entry::Component(component) => {
                    self.component(component, path(std::slice::from_ref(&component.name)));
                }
            }
        }
    }

    fn component(&mut self, component: &Component, path: FieldPath) {
        if self.cursor.is_some_and(|cursor| component.span.start < cursor) {
            let words = component.settings.iter().map(|(word, _)| word.text.clone());
            self.settings = words.chain(["from".to_owned()]).collect();
        }
        self.set(component.name.span, CursorRole::Component { path: path.clone() });
        let setting = |word: &str| ValuePath {
            field: Some(path.clone()),
            steps: vec![PathStep::Setting(word.to_owned())],
        };
        self.value(&component.from, &setting("from"));
        for (word, value) in &component.settings {
            self.value(value, &setting(&word.text));
        }
    }

    fn value(&mut self, value: &Value, path: &ValuePath) {
        self.marks(&value.marks);
        let part = |step: PathStep| ValuePath {
            field: path.field.clone(),
            steps: path.steps.iter().cloned().chain([step]).collect(),
        };
        match &value.kind {
            ValueKind::Number(number) => self.number(number, path),
            ValueKind::Word(_) => self.set(value.span, CursorRole::Word { path: path.clone() }),
            ValueKind::Text(_) => {}
            ValueKind::Every(inner) => self.value(inner, path),
            ValueKind::List(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    self.value(element, &part(PathStep::Element(index)));
                }
            }
            ValueKind::Call(call) => {
                let name = call.name.text.clone();
                self.set(call.name.span, CursorRole::Call { name });
                let names = call.arguments.iter().filter_map(|argument| argument.name.as_ref());
                self.collect(Span::new(call.name.span.end, value.span.end), names);
                for (index, argument) in call.arguments.iter().enumerate() {
                    let path = part(PathStep::Argument {
                        call: call.name.text.clone(),
                        index,
                        name: argument.name.as_ref().map(|name| name.text.clone()),
                    });
                    if let Some(name) = &argument.name {
                        self.set(name.span, CursorRole::Argument { path: path.clone() });
                    }
                    self.value(&argument.value, &path);
                }
            }
        }
    }

    fn number(&mut self, number: &Number, path: &ValuePath) {
        if let Some(unit) = &number.unit {
            self.set(unit.span, CursorRole::Unit { path: path.clone() });
        }
    }

    fn marks(&mut self, marks: &[Mark]) {
        for mark in marks {
            self.set(mark.name.span, CursorRole::Mark);
        }
    }

    fn gate(&mut self, gate: &Gate) {
        self.expression(&gate.left);
        self.expression(&gate.right);
        self.marks(&gate.marks);
    }

    fn expression(&mut self, expression: &Expression) {
        match &expression.kind {
            ExpressionKind::Number(number) => self.number(number, &ValuePath::default()),
            ExpressionKind::Metric(path) => {
                for (index, name) in path.iter().enumerate() {
                    let names = path[..=index].iter().map(|name| name.text.clone()).collect();
                    self.set(name.span, CursorRole::Metric { names });
                }
            }
            ExpressionKind::Function { name, arguments } => {
                let call = CursorRole::Call {
                    name: name.text.clone(),
                };
                self.set(name.span, call);
                arguments.iter().for_each(|argument| self.expression(argument));
            }
            ExpressionKind::Group(inner) => self.expression(inner),
            ExpressionKind::Binary { left, right, .. } => {
                self.expression(left);
                self.expression(right);
            }
        }
    }
}
