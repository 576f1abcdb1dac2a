//! A file cut into what a merge decides about: blocks and their entries, each with the comments above it.

use std::ops::Range;

use crate::ast::{Block, Body, Comment, Entry, File, Span, Statement, StatementKind};
use crate::diagnostics::Diagnostic;
use crate::format;
use crate::parse::parse;

/// A block, an entry, or the words between them. The units of a level tile its text.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    /// The same on all sides: `stage cap`, `budget`, or [`HEAD`] and [`TAIL`].
    pub key: String,
    /// From behind the unit before it to the end of its own line.
    pub extent: Range<usize>,
    /// As the formatter writes it: sides that differ in layout alone are the same.
    pub canonical: String,
    /// What a block that both sides have changed is merged by; empty for what is merged as a whole.
    pub inside: Vec<Unit>,
}

/// The comments above a block, or a file's first comment.
pub(super) const HEAD: &str = "#head";
/// What stands behind the last entry.
pub(super) const TAIL: &str = "#tail";

/// A side of a merge.
#[derive(Debug)]
pub(super) struct Side {
    pub text: String,
    pub units: Vec<Unit>,
    /// Whether the text is as the formatter writes it.
    pub formatted: bool,
}

impl Side {
    /// # Errors
    /// The syntax faults of the text.
    pub fn new(text: &str) -> Result<Self, Vec<Diagnostic>> {
        let mut text = text.to_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let canonical = format(&text)?;
        let (own, of_canonical) = (parse(&text, None).file, parse(&canonical, None).file);
        let mut units = Cut::of(&text, &own).file(&own);
        // The formatter keeps blocks and entries in their order.
        take_canonical(&mut units, &Cut::of(&canonical, &of_canonical).file(&of_canonical));
        Ok(Self {
            formatted: canonical == text,
            text,
            units,
        })
    }
}

fn take_canonical(units: &mut [Unit], formatted: &[Unit]) {
    for (unit, formatted) in units.iter_mut().zip(formatted) {
        unit.canonical.clone_from(&formatted.canonical);
        take_canonical(&mut unit.inside, &formatted.inside);
    }
}

/// What stands on the top level.
enum Item<'f> {
    Block(&'f Block),
    Statement(&'f Statement),
}

impl Item<'_> {
    fn span(&self) -> Span {
        match self {
            Self::Block(block) => block.span,
            Self::Statement(statement) => statement.span,
        }
    }
}

/// Cuts one text.
struct Cut<'t> {
    text: &'t str,
    comments: &'t [Comment],
}

impl<'t> Cut<'t> {
    fn of(text: &'t str, file: &'t File) -> Self {
        Self {
            text,
            comments: &file.comments,
        }
    }

    fn file(&self, file: &File) -> Vec<Unit> {
        let start = self.first_comment();
        let mut units = vec![self.unit(HEAD.to_owned(), 0..start, Vec::new())];
        let mut before = start;
        let mut items: Vec<Item<'_>> = file.items.iter().map(Item::Block).collect();
        items.extend(file.statements.iter().map(Item::Statement));
        items.sort_by_key(|item| item.span().start);
        for item in items {
            let unit = match item {
                Item::Block(block) => self.block(block, before),
                Item::Statement(statement) => self.statement(statement, before),
            };
            before = unit.extent.end;
            units.push(unit);
        }
        units.push(self.unit(TAIL.to_owned(), before..self.text.len(), Vec::new()));
        units
    }

    /// The end of a comment that stands above all blocks with an empty line behind it; it is the file's, not a block's.
    fn first_comment(&self) -> usize {
        let mut end = 0;
        for comment in self.comments {
            let between = &self.text[end..comment.span.start];
            if !between.trim().is_empty() || (end > 0 && between.matches('\n').count() > 1) {
                break;
            }
            end = comment.span.end;
        }
        let behind = &self.text[end..];
        let lines = behind.len() - behind.trim_start_matches(['\n', ' ', '\r', '\t']).len();
        if end > 0 && behind[..lines].matches('\n').count() > 1 {
            end + 1
        } else {
            0
        }
    }

    fn unit(&self, key: String, extent: Range<usize>, inside: Vec<Unit>) -> Unit {
        Unit {
            key,
            canonical: self.text[extent.clone()].trim().to_owned(),
            extent,
            inside,
        }
    }

    fn block(&self, block: &Block, before: usize) -> Unit {
        let key = format!("{} {}", block.keyword.text, block.name.text);
        match &block.body {
            Body::Entries(entries) => self.entries(key, block.span, block.name.span.end, entries, before),
            Body::Gate(_) => self.unit(key, before..self.end_of_line(block.span), Vec::new()),
        }
    }

    fn statement(&self, statement: &Statement, before: usize) -> Unit {
        let word = statement.kind.keyword();
        let key = match &statement.kind {
            StatementKind::Import { path, .. } => format!("{word} \"{}\"", path.text),
            // A file extends one other.
            StatementKind::Extends { path, entries } if !entries.is_empty() => {
                return self.entries(word.to_owned(), statement.span, path.span.end, entries, before);
            }
            StatementKind::Extends { .. } => word.to_owned(),
            StatementKind::Let { name, .. } | StatementKind::Param { name, .. } => format!("{word} {}", name.text),
        };
        self.unit(key, before..self.end_of_line(statement.span), Vec::new())
    }

    /// Something with entries between braces, the first of which stands behind `name`.
    fn entries(&self, key: String, span: Span, name: usize, entries: &[Entry], before: usize) -> Unit {
        let extent = before..self.end_of_line(span);
        let mut inside = vec![self.unit(HEAD.to_owned(), before..span.start, Vec::new())];
        let mut before = name + self.text[name..].find('{').map_or(0, |brace| brace + 1);
        // A comment behind the brace is the block's, not the first entry's.
        if let Some(comment) = self.comments.iter().find(|comment| comment.span.start >= before)
            && !self.text[before..comment.span.start].contains(|other: char| other == '\n' || !other.is_whitespace())
        {
            before = comment.span.end;
        }
        if self.text[before..].starts_with('\n') {
            before += 1;
        }
        for entry in entries {
            let unit = match entry {
                Entry::Block(block) => self.block(block, before),
                Entry::Field(field) => {
                    let path: Vec<&str> = field.path.iter().map(|name| name.text.as_str()).collect();
                    self.unit(path.join("."), before..self.end_of_line(field.span), Vec::new())
                }
                Entry::Component(component) => self.unit(
                    component.name.text.clone(),
                    before..self.end_of_line(component.span),
                    Vec::new(),
                ),
            };
            before = unit.extent.end;
            inside.push(unit);
        }
        // The closing brace stands where it stands on every side.
        inside.push(self.unit(TAIL.to_owned(), before..(span.end - 1).max(before), Vec::new()));
        self.unit(key, extent, inside)
    }

    /// Behind the line that something ends on, if nothing but a comment follows there; else right behind it.
    fn end_of_line(&self, span: Span) -> usize {
        let mut end = span.end;
        if let Some(comment) = self.comments.iter().find(|comment| comment.span.start >= end)
            && !self.text[end..comment.span.start].contains(|other: char| other == '\n' || !other.is_whitespace())
        {
            end = comment.span.end;
        }
        let rest = &self.text[end..];
        let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\r']).len();
        if rest[blank..].starts_with('\n') {
            end + blank + 1
        } else {
            end
        }
    }
}
