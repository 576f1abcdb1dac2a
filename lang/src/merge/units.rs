//! Splits a file into the units of a merge: blocks and their entries, each with the comments above it.

use std::ops::Range;

use crate::ast::{Block, Body, Comment, Entry, File, Span, Statement, StatementKind};
use crate::diagnostics::Diagnostic;
use crate::format;
use crate::parse::parse;

/// A block, an entry, or the text between them. The units of a level cover its text without gaps.
#[derive(Clone, Debug)]
pub(super) struct MergeUnit {
    /// The same on all sides: `stage cap`, `budget`, or [`HEAD`] and [`TAIL`].
    pub key: String,
    /// From the end of the unit before it to the end of its own last line.
    pub extent: Range<usize>,
    /// The formatted text: versions that differ only in formatting are equal.
    pub canonical: String,
    /// The units of a block, which are merged one by one. Empty for a unit that is not divided.
    pub inside: Vec<MergeUnit>,
}

/// The key of the comments above a block, or of the first comment of a file.
pub(super) const HEAD: &str = "#head";
/// The key of the text after the last entry.
pub(super) const TAIL: &str = "#tail";

/// A side of a merge.
#[derive(Debug)]
pub(super) struct Side {
    pub text: String,
    pub units: Vec<MergeUnit>,
    /// Whether the text is formatted.
    pub formatted: bool,
}

impl Side {
    /// # Errors
    /// The syntax errors of the text.
    pub fn new(text: &str) -> Result<Self, Vec<Diagnostic>> {
        let mut text = text.to_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let canonical = format(&text)?;
        let (own, of_canonical) = (parse(&text, None).file, parse(&canonical, None).file);
        let mut units = Splitter::of(&text, &own).file(&own);
        // The formatter keeps blocks and entries in their order.
        take_canonical(&mut units, &Splitter::of(&canonical, &of_canonical).file(&of_canonical));
        Ok(Self {
            formatted: canonical == text,
            text,
            units,
        })
    }
}

fn take_canonical(units: &mut [MergeUnit], formatted: &[MergeUnit]) {
    for (unit, formatted) in units.iter_mut().zip(formatted) {
        unit.canonical.clone_from(&formatted.canonical);
        take_canonical(&mut unit.inside, &formatted.inside);
    }
}

/// A top-level block or statement.
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

/// Splits one text.
struct Splitter<'t> {
    text: &'t str,
    comments: &'t [Comment],
}

impl<'t> Splitter<'t> {
    fn of(text: &'t str, file: &'t File) -> Self {
        Self {
            text,
            comments: &file.comments,
        }
    }

    fn file(&self, file: &File) -> Vec<MergeUnit> {
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

    /// The end of the comment above all blocks, if an empty line follows it: it belongs to the file, not to a block.
    fn first_comment(&self) -> usize {
        let mut end = 0;
        for comment in self.comments {
            let between = &self.text[end..comment.span.start];
            if !between.trim().is_empty() || (end > 0 && between.matches('\n').count() > 1) {
                break;
            }
            end = comment.span.end;
        }
        let after = &self.text[end..];
        let lines = after.len() - after.trim_start_matches(['\n', ' ', '\r', '\t']).len();
        if end > 0 && after[..lines].matches('\n').count() > 1 {
            end + 1
        } else {
            0
        }
    }

    fn unit(&self, key: String, extent: Range<usize>, inside: Vec<MergeUnit>) -> MergeUnit {
        MergeUnit {
            key,
            canonical: self.text[extent.clone()].trim().to_owned(),
            extent,
            inside,
        }
    }

    fn block(&self, block: &Block, before: usize) -> MergeUnit {
        let key = format!("{} {}", block.keyword.text, block.name.text);
        match &block.body {
            Body::Entries(entries) => self.entries(key, block.span, block.name.span.end, entries, before),
            Body::Gate(_) => self.unit(key, before..self.end_of_line(block.span), Vec::new()),
        }
    }

    fn statement(&self, statement: &Statement, before: usize) -> MergeUnit {
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

    /// A block or statement with entries in braces. `name` is the end of its name, before the brace.
    fn entries(&self, key: String, span: Span, name: usize, entries: &[Entry], before: usize) -> MergeUnit {
        let extent = before..self.end_of_line(span);
        let mut inside = vec![self.unit(HEAD.to_owned(), before..span.start, Vec::new())];
        let mut before = name + self.text[name..].find('{').map_or(0, |brace| brace + 1);
        // A comment after the brace belongs to the block, not to the first entry.
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
        // The closing brace is part of the block on every side.
        inside.push(self.unit(TAIL.to_owned(), before..(span.end - 1).max(before), Vec::new()));
        self.unit(key, extent, inside)
    }

    /// The end of the line on which `span` ends, if only a comment follows on that line; otherwise the end of `span`.
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
