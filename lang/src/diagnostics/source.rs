//! Texts and their names in messages.
//!
//! The files of a spec are concatenated to one text, so that a byte of any file is one number. Only this module knows
//! where each file starts.

use schemars::JsonSchema;
use serde::Serialize;

use crate::ast::Span;

/// Line and column, both from 1. Columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

/// The name of a file, and where it starts in the concatenated text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    pub name: String,
    pub start: usize,
}

/// Files concatenated to one text, with a line break between two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    files: Vec<SourceFile>,
    text: String,
}

impl Sources {
    /// Adds a file, and returns where it starts.
    pub fn add(&mut self, name: impl Into<String>, text: &str) -> usize {
        if !self.files.is_empty() {
            self.text.push('\n');
        }
        let start = self.text.len();
        self.files.push(SourceFile {
            name: name.into(),
            start,
        });
        self.text.push_str(text);
        start
    }

    pub fn view(&self) -> Source<'_> {
        Source {
            name: self.files.first().map_or("", |file| &file.name),
            text: &self.text,
            files: &self.files,
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }
}

/// A text and its name in messages: of several files, the name of the first.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
    /// Empty if the text is one file.
    files: &'a [SourceFile],
}

impl<'a> Source<'a> {
    /// A text that is one file.
    pub fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text, files: &[] }
    }

    /// The file that contains a byte: its index, its name, and its range of the text.
    pub fn file(&self, byte: usize) -> (usize, &'a str, Span) {
        let index = self.files.partition_point(|file| file.start <= byte).saturating_sub(1);
        let Some(file) = self.files.get(index) else {
            return (0, self.name, Span::new(0, self.text.len()));
        };
        // The line break between two files is part of neither.
        let end = self.files.get(index + 1).map_or(self.text.len(), |next| next.start - 1);
        (index, &file.name, Span::new(file.start, end))
    }

    /// Converts bytes to lines and columns of their files.
    pub fn positions(&self) -> Positions<'a> {
        let (_, _, file) = self.file(0);
        Positions {
            source: *self,
            file,
            byte: file.start,
            at: Position { line: 1, column: 1 },
        }
    }
}

/// Converts bytes to lines and columns. Fast if each byte is shortly after the one before.
#[derive(Clone, Debug)]
pub struct Positions<'a> {
    source: Source<'a>,
    /// The range of the file that contains `byte`.
    file: Span,
    byte: usize,
    at: Position,
}

impl Positions<'_> {
    /// The line and column of a byte in its file.
    pub fn of(&mut self, byte: usize) -> Position {
        let text = self.source.text;
        let mut byte = byte.min(text.len());
        while !text.is_char_boundary(byte) {
            byte -= 1;
        }
        if byte < self.byte || byte > self.file.end {
            self.file = self.source.file(byte).2;
            byte = byte.min(self.file.end);
            if byte < self.byte || self.byte < self.file.start {
                self.byte = self.file.start;
                self.at = Position { line: 1, column: 1 };
            }
        }
        let between = &text[self.byte..byte];
        match between.rfind('\n') {
            Some(last) => {
                self.at.line += between.bytes().filter(|&byte| byte == b'\n').count() as u32;
                self.at.column = between[last + 1..].chars().count() as u32 + 1;
            }
            None => self.at.column += between.chars().count() as u32,
        }
        self.byte = byte;
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_the_file() {
        let mut sources = Sources::default();
        let first = sources.add("a.aur", "ab\ncd");
        let second = sources.add("b.aur", "é\nfgh");
        let third = sources.add("c.aur", "");
        assert_eq!((first, second, third), (0, 6, 13));
        let view = sources.view();
        let names: Vec<&str> = [0, 5, 6, 12, 13].iter().map(|&byte| view.file(byte).1).collect();
        assert_eq!(names, ["a.aur", "a.aur", "b.aur", "b.aur", "c.aur"]);
        let mut positions = view.positions();
        let mut at = |byte| {
            let Position { line, column } = positions.of(byte);
            (line, column)
        };
        assert_eq!(
            [at(4), at(11), at(9), at(3), at(13), at(0), at(99)],
            [(2, 2), (2, 3), (2, 1), (2, 1), (1, 1), (1, 1), (1, 1)]
        );
    }
}
