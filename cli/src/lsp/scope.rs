//! The place of a request in a file, and the names that may be used there.

use std::rc::Rc;

use aurora_compiler::compose::{Declared, DeclaredItem};
use aurora_compiler::schema;
use aurora_compiler::spec::BlockKind;
use aurora_lang::cursor::{CursorRole, roles};
use aurora_lang::token::{Token, TokenKind, tokens};
use camino::Utf8Path;

use super::analysis::Analysis;
use super::text::Text;
use super::workspace::Workspace;

/// A place of a file, with the tokens of the file.
pub struct CursorPlace {
    pub text: Rc<Text>,
    pub tokens: Vec<Token>,
    pub byte: usize,
}

impl CursorPlace {
    pub fn new(workspace: &mut Workspace, path: &Utf8Path, byte: usize) -> Option<Self> {
        let text = workspace.text(path)?;
        let tokens = tokens(text.as_str());
        Some(Self { text, tokens, byte })
    }

    /// The token at the byte. At the border of two tokens, a word or number comes before punctuation.
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

    pub fn role(&self, index: usize) -> CursorRole {
        let roles = roles(self.text.as_str(), &self.tokens);
        roles.into_iter().nth(index).unwrap_or(CursorRole::Other)
    }
}

/// A declared name that a file may use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KnownName {
    pub name: String,
    /// `stage`, `let`, …
    pub keyword: String,
    /// The first line of its documentation, or its value.
    pub detail: String,
}

/// Every name that a file may use, including those of blocks with syntax errors.
pub fn known_names(analysis: &Analysis, path: &Utf8Path) -> Vec<KnownName> {
    let Some((index, file)) = analysis.file(path) else {
        return Vec::new();
    };
    let mut all: Vec<KnownName> = analysis.bundle.in_scope(index).iter().map(of).collect();
    all.extend(
        file.parsed
            .broken
            .iter()
            .filter(|heading| !heading.name.is_empty())
            .map(|heading| KnownName {
                name: heading.name.clone(),
                keyword: heading.keyword.clone(),
                detail: String::new(),
            }),
    );
    all.sort();
    all.dedup_by(|a, b| (&a.name, &a.keyword) == (&b.name, &b.keyword));
    all
}

fn of(declared: &Declared<'_>) -> KnownName {
    let detail = match declared.item {
        DeclaredItem::Block(block) => block.documentation.first().cloned().unwrap_or_default(),
        DeclaredItem::Let(value) | DeclaredItem::Param { value, .. } => aurora_lang::format::value(value),
    };
    KnownName {
        name: declared.name.text.clone(),
        keyword: declared.item.keyword().to_owned(),
        detail: detail.trim().to_owned(),
    }
}

impl KnownName {
    pub fn kind(&self) -> Option<BlockKind> {
        schema::kind(&self.keyword)
    }

    /// Whether a `let` or a `param` declares it: the name of a value, not of a block.
    pub fn is_value_declaration(&self) -> bool {
        matches!(self.keyword.as_str(), "let" | "param")
    }
}
