//! The place that a request is about: a file, its tokens, and the names that it may use.

use std::rc::Rc;

use aurora_compiler::compose::{Declared, What};
use aurora_compiler::schema;
use aurora_compiler::spec::BlockKind;
use aurora_lang::ast::Span;
use aurora_lang::tokens::{Token, TokenKind, tokens};
use camino::Utf8Path;

use super::analysis::Analysis;
use super::roles::{Role, Walker};
use super::text::Text;
use super::workspace::Workspace;

/// A byte of a file.
pub struct Spot {
    pub text: Rc<Text>,
    pub tokens: Vec<Token>,
    pub byte: usize,
}

impl Spot {
    pub fn new(workspace: &mut Workspace, path: &Utf8Path, byte: usize) -> Option<Self> {
        let text = workspace.text(path)?;
        let tokens = tokens(text.as_str());
        Some(Self { text, tokens, byte })
    }

    /// The token at the byte: a word rather than the sign before it.
    pub fn token(&self) -> Option<usize> {
        let holds = |token: &Token| token.span.start <= self.byte && self.byte <= token.span.end;
        let mut touching = (0..self.tokens.len()).filter(|&index| holds(&self.tokens[index]));
        let first = touching.next()?;
        let is_word = |index: usize| matches!(self.tokens[index].kind, TokenKind::Word | TokenKind::Number);
        match touching.next() {
            Some(second) if is_word(second) || !is_word(first) => Some(second),
            _ => Some(first),
        }
    }

    pub fn word(&self, index: usize) -> &str {
        let token = self.tokens.get(index);
        token.map_or("", |token| token.text(self.text.as_str()))
    }

    /// A walk over the tokens before one.
    pub fn walk(&self, before: usize) -> Walker<'_> {
        let mut walker = Walker::new(self.text.as_str(), &self.tokens);
        for index in 0..before {
            walker.feed(index);
        }
        walker
    }

    pub fn role(&self, index: usize) -> Role {
        self.walk(index).feed(index)
    }
}

/// A name that may be used in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Known {
    pub name: String,
    /// `stage`, `let`, …
    pub keyword: String,
    /// The first line of its documentation, or its value.
    pub detail: String,
}

/// Every name that a file may use, those of blocks that cannot be read included.
pub fn known(analysis: &Analysis, path: &Utf8Path) -> Vec<Known> {
    let Some((index, file)) = analysis.file(path) else {
        return Vec::new();
    };
    let mut all: Vec<Known> = analysis.bundle.in_scope(index).iter().map(of).collect();
    all.extend(
        file.parsed
            .broken
            .iter()
            .filter(|(_, name)| !name.is_empty())
            .map(|(keyword, name)| Known {
                name: name.clone(),
                keyword: keyword.clone(),
                detail: String::new(),
            }),
    );
    all.sort();
    all.dedup_by(|a, b| (&a.name, &a.keyword) == (&b.name, &b.keyword));
    all
}

fn of(declared: &Declared<'_>) -> Known {
    let detail = match declared.what {
        What::Block(block) => block.documentation.first().cloned().unwrap_or_default(),
        What::Let(value) | What::Param { value, .. } => aurora_lang::format::value(value),
    };
    Known {
        name: declared.name.text.clone(),
        keyword: declared.what.keyword().to_owned(),
        detail: detail.trim().to_owned(),
    }
}

impl Known {
    pub fn kind(&self) -> Option<BlockKind> {
        schema::kind(&self.keyword)
    }

    pub fn is_line(&self) -> bool {
        matches!(self.keyword.as_str(), "let" | "param")
    }
}

/// The word that a cursor is at the end of or in, and the number of tokens before it.
pub fn prefix(spot: &Spot) -> (Span, usize) {
    let touches = |token: &Token| token.span.start < spot.byte && spot.byte <= token.span.end;
    match spot.tokens.iter().position(touches) {
        Some(index) if spot.tokens[index].kind == TokenKind::Word => {
            (Span::new(spot.tokens[index].span.start, spot.byte), index)
        }
        _ => {
            let before = spot.tokens.partition_point(|token| token.span.end <= spot.byte);
            (Span::new(spot.byte, spot.byte), before)
        }
    }
}
