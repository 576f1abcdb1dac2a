//! Positions of a text in the encoding of the client: lines, and characters in UTF-8 or UTF-16 units.

use aurora_lang::ast::Span;
use lsp_types::{Position, Range, TextDocumentContentChangeEvent};

/// The unit of the characters of a [`Position`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    Utf16,
}

/// A text, the starts of its lines, and the UTF-16 units before every block of [`BLOCK`] bytes: a line may be as long as the
/// text, and each of its tokens is located.
#[derive(Clone, Debug)]
pub struct Text {
    text: String,
    lines: Vec<usize>,
    units: Vec<usize>,
}

const BLOCK: usize = 256;

/// UTF-16 units of characters, by their UTF-8 bytes: one for each, and another for those of four bytes.
fn units(bytes: &[u8]) -> usize {
    let of_byte = |byte: &u8| usize::from(byte & 0xc0 != 0x80) + usize::from(*byte >= 0xf0);
    bytes.iter().map(of_byte).sum()
}

impl Text {
    pub fn new(text: String) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(starts.map(|(at, _)| at + 1)).collect();
        let blocks = text.as_bytes().chunks(BLOCK).scan(0, |before, block| {
            *before += units(block);
            Some(*before)
        });
        let units = std::iter::once(0).chain(blocks).collect();
        Self { text, lines, units }
    }

    /// UTF-16 units before a byte.
    fn units_before(&self, byte: usize) -> usize {
        let block = byte / BLOCK;
        self.units[block] + units(&self.text.as_bytes()[block * BLOCK..byte])
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The byte of a position, or the nearest byte if there is no such position.
    pub fn byte(&self, position: Position, encoding: Encoding) -> usize {
        let Some(&start) = self.lines.get(position.line as usize) else {
            return self.text.len();
        };
        let end = self
            .lines
            .get(position.line as usize + 1)
            .map_or(self.text.len(), |next| next - 1);
        let line = &self.text[start..end];
        let mut left = position.character as usize;
        for (at, character) in line.char_indices() {
            let width = width(character, encoding);
            if left < width {
                return start + at;
            }
            left -= width;
        }
        end
    }

    pub fn position(&self, byte: usize, encoding: Encoding) -> Position {
        let mut byte = byte.min(self.text.len());
        while !self.text.is_char_boundary(byte) {
            byte -= 1;
        }
        let line = self.lines.partition_point(|&start| start <= byte) - 1;
        let start = self.lines[line];
        let character = match encoding {
            Encoding::Utf8 => byte - start,
            Encoding::Utf16 => self.units_before(byte) - self.units_before(start),
        };
        Position::new(line as u32, character as u32)
    }

    pub fn range(&self, span: Span, encoding: Encoding) -> Range {
        Range::new(self.position(span.start, encoding), self.position(span.end, encoding))
    }

    pub fn span(&self, range: Range, encoding: Encoding) -> Span {
        let start = self.byte(range.start, encoding);
        Span::new(start, self.byte(range.end, encoding).max(start))
    }

    /// The text after one change of the client.
    #[must_use]
    pub fn changed(&self, change: &TextDocumentContentChangeEvent, encoding: Encoding) -> Self {
        let Some(range) = change.range else {
            return Self::new(change.text.clone());
        };
        let Span { start, end } = self.span(range, encoding);
        Self::new([&self.text[..start], &change.text, &self.text[end..]].concat())
    }

    /// The start of the line that contains a byte.
    pub fn line_start(&self, byte: usize) -> usize {
        self.lines[self.lines.partition_point(|&start| start <= byte) - 1]
    }
}

fn width(character: char, encoding: Encoding) -> usize {
    match encoding {
        Encoding::Utf8 => character.len_utf8(),
        Encoding::Utf16 => character.len_utf16(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Encoding, Text};
    use lsp_types::{Position, Range, TextDocumentContentChangeEvent};

    #[test]
    fn positions_count_utf_16_units_or_bytes() {
        let text = Text::new("aé😀b\n\nc".to_owned());
        let at = |byte| text.position(byte, Encoding::Utf16);
        assert_eq!(at(7), Position::new(0, 4));
        assert_eq!(text.position(7, Encoding::Utf8), Position::new(0, 7));
        // The start of every character is found again.
        for (byte, _) in text.as_str().char_indices() {
            for encoding in [Encoding::Utf8, Encoding::Utf16] {
                assert_eq!(text.byte(text.position(byte, encoding), encoding), byte);
            }
        }
        // Inside a character, after the end of a line, after the end of the text.
        assert_eq!(text.byte(Position::new(0, 3), Encoding::Utf16), 3);
        assert_eq!(text.byte(Position::new(0, 99), Encoding::Utf16), 8);
        assert_eq!(text.byte(Position::new(9, 0), Encoding::Utf16), text.as_str().len());
    }

    /// A long line is located as the short ones are, whatever characters are at the ends of blocks.
    #[test]
    fn positions_in_long_lines() {
        let text = Text::new("x\n".to_owned() + &"aé日😀".repeat(500));
        let mut units = 0;
        for (byte, character) in text.as_str().char_indices().skip(2) {
            assert_eq!(text.position(byte, Encoding::Utf16), Position::new(1, units));
            units += character.len_utf16() as u32;
        }
        assert_eq!(text.position(usize::MAX, Encoding::Utf16), Position::new(1, units));
    }

    #[test]
    fn changes_replace_their_range() {
        let text = Text::new("one\ntwo😀\n".to_owned());
        let change = TextDocumentContentChangeEvent {
            range: Some(Range::new(Position::new(1, 3), Position::new(2, 0))),
            range_length: None,
            text: "!".to_owned(),
        };
        assert_eq!(text.changed(&change, Encoding::Utf16).as_str(), "one\ntwo!");
    }
}
