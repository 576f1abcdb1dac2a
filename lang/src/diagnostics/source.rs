//! Texts and the names they go by in messages.
//!
//! Several files of one spec stand behind each other in one text, so that a place is one number whatever file it is in;
//! only here is it known where each file starts.

use super::Position;
use crate::ast::Span;

/// A file's name, and where it starts in the common text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    pub name: String,
    pub start: usize,
}

/// Files behind each other in one text, an empty line between two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    files: Vec<SourceFile>,
    text: String,
}

impl Sources {
    /// Adds a file; returns where it starts.
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

/// A text and the name it goes by in messages; the first of several files, if there are several.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
    /// None if the text is one file.
    files: &'a [SourceFile],
}

impl<'a> Source<'a> {
    /// A text that is one file.
    pub fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text, files: &[] }
    }

    /// The file that holds a byte: its number, its name, and its range of the text.
    pub fn file(&self, byte: usize) -> (usize, &'a str, Span) {
        let index = self.files.partition_point(|file| file.start <= byte).saturating_sub(1);
        let Some(file) = self.files.get(index) else {
            return (0, self.name, Span::new(0, self.text.len()));
        };
        // The line break between two files belongs to neither.
        let end = self.files.get(index + 1).map_or(self.text.len(), |next| next.start - 1);
        (index, &file.name, Span::new(file.start, end))
    }

    /// Lines and columns of bytes, each in its file.
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

/// Finds lines and columns; fast where one byte asked for lies a little behind the one before.
#[derive(Clone, Debug)]
pub struct Positions<'a> {
    source: Source<'a>,
    /// The range of the file that holds `byte`.
    file: Span,
    byte: usize,
    at: Position,
}

impl Positions<'_> {
    /// Line and column of a byte in its file, both from 1; columns count characters.
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
    fn places_are_those_of_their_file() {
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
