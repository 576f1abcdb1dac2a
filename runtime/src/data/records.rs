//! Cuts a stream into records: lines, blocks of lines, JSON values, rows of tables.
//!
//! In: bytes in an encoding that has ASCII, such as UTF-8. Out: the bytes of one record at a time, unchanged, with the line on
//! which it begins. Memory: one record. Not here: what a record means.

use std::io::{self, BufRead};

/// The bytes of a record, without what ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// From 1.
    pub line: u64,
    pub bytes: Vec<u8>,
    /// Where in the stream the record ends, with its end.
    pub end: u64,
}

/// What ends a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// LF only.
    Lf,
    /// LF, CRLF or CR.
    Line,
    /// Blank lines.
    Block,
    /// A line end outside of quotes; columns are separated by this byte. `None` for the first row, when it is not known.
    Row(Option<u8>),
    /// The end of a JSON value; the elements of a list at the top are records themselves.
    Value,
}

/// What can separate columns, if a spec does not say.
pub(crate) const DELIMITERS: [u8; 4] = *b",;\t|";

#[derive(Debug, thiserror::Error)]
pub(crate) enum CutError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error("line {line}: a record has more than {limit} bytes")]
    Large { line: u64, limit: u64 },
    #[error("line {line}: a quote that begins here is not closed")]
    Quote { line: u64 },
    #[error("line {line}: {what}")]
    Json { line: u64, what: &'static str },
}

/// Reads records.
pub(crate) struct Records<R> {
    pub input: R,
    limit: u64,
    line: u64,
    read: u64,
    /// The last byte was a CR that ended a line: an LF after it belongs to it.
    after_return: bool,
    list: List,
}

/// Whether a JSON text is a list, and where in it the next value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    /// Nothing but white space was read.
    Start,
    /// The values are at the top, one after the other.
    None,
    /// After `[` or `,`.
    Value,
    /// After a value of the list.
    Comma,
    Ended,
}

/// What a byte is for the record that is read.
enum Byte {
    /// It does not belong to a record.
    Skip,
    /// It belongs to it.
    Push,
    /// It belongs to it and is its last.
    PushEnd,
    /// It ends the record and does not belong to it.
    End,
    /// The record ended before it.
    EndBefore,
    /// What was read up to this byte is no part of a record.
    Clear,
    Invalid(&'static str),
}

impl<R: BufRead> Records<R> {
    /// `limit` is for the bytes of a record.
    pub fn new(input: R, limit: u64) -> Self {
        Self {
            input,
            limit,
            line: 1,
            read: 0,
            after_return: false,
            list: List::Start,
        }
    }

    /// The line of the next byte, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Whether the last JSON value is an element of a list at the top.
    pub fn is_in_list(&self) -> bool {
        self.list == List::Comma
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// The stream cannot be read, or a record does not end or is too long.
    pub fn next(&mut self, cut: Cut) -> Result<Option<Record>, CutError> {
        match cut {
            Cut::Lf => self.until(true, |_, byte, _| if byte == b'\n' { Byte::End } else { Byte::Push }),
            Cut::Line => self.until(false, |_, byte, after_return| match byte {
                b'\n' if after_return => Byte::Skip,
                b'\n' | b'\r' => Byte::End,
                _ => Byte::Push,
            }),
            Cut::Block => self.block(),
            Cut::Row(delimiter) => self.row(delimiter),
            Cut::Value => self.value(),
        }
    }

    /// Asks for every byte what it is, until a record ends or the stream. `kind` is given the record so far, the byte, and
    /// whether the byte before was a CR that ended a line.
    fn until(
        &mut self,
        only_lf: bool,
        mut kind: impl FnMut(&[u8], u8, bool) -> Byte,
    ) -> Result<Option<Record>, CutError> {
        let (mut first, mut bytes, mut ended) = (self.line, Vec::new(), false);
        while !ended {
            let buffer = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                buffer => buffer?,
            };
            if buffer.is_empty() {
                break;
            }
            let mut used = 0;
            for &byte in buffer {
                let kind = kind(&bytes, byte, self.after_return);
                if matches!(kind, Byte::EndBefore) {
                    ended = true;
                    break;
                }
                if bytes.is_empty() {
                    first = self.line;
                }
                used += 1;
                if byte == b'\n' && (only_lf || !self.after_return) || byte == b'\r' && !only_lf {
                    self.line += 1;
                }
                self.after_return = byte == b'\r' && !only_lf;
                match kind {
                    Byte::Push => bytes.push(byte),
                    Byte::PushEnd => {
                        bytes.push(byte);
                        ended = true;
                    }
                    Byte::End => ended = true,
                    Byte::Clear => bytes.clear(),
                    Byte::Skip | Byte::EndBefore => {}
                    Byte::Invalid(what) => {
                        return Err(CutError::Json { line: first, what });
                    }
                }
                if ended {
                    break;
                }
            }
            self.input.consume(used);
            self.read += used as u64;
            if bytes.len() as u64 > self.limit {
                return Err(CutError::Large {
                    line: first,
                    limit: self.limit,
                });
            }
        }
        Ok((ended || !bytes.is_empty()).then_some(Record {
            line: first,
            bytes,
            end: self.read,
        }))
    }

    fn block(&mut self) -> Result<Option<Record>, CutError> {
        // Where the last line that is not blank ends, without its line end; where the line that is read begins.
        let (mut content, mut line) = (0, 0);
        let record = self.until(false, |block, byte, after_return| {
            if byte == b'\n' && after_return {
                line = if content == 0 { 0 } else { block.len() + 1 };
                return if content == 0 { Byte::Clear } else { Byte::Push };
            }
            if byte != b'\n' && byte != b'\r' {
                return Byte::Push;
            }
            if !is_blank(&block[line.min(block.len())..]) {
                content = block.len();
                line = content + 1;
                Byte::Push
            } else if content == 0 {
                line = 0;
                Byte::Clear
            } else {
                Byte::End
            }
        })?;
        Ok(record.and_then(|mut record| {
            let begun = record.bytes.get(line..).unwrap_or_default();
            if is_blank(begun) {
                record.bytes.truncate(content);
            }
            (!record.bytes.is_empty()).then_some(record)
        }))
    }

    fn row(&mut self, delimiter: Option<u8>) -> Result<Option<Record>, CutError> {
        let separates = |byte| match delimiter {
            Some(delimiter) => byte == delimiter,
            None => DELIMITERS.contains(&byte),
        };
        let (mut field_begins, mut quoted, mut may_close) = (true, false, false);
        let first = self.line;
        let record = self.until(false, |row, byte, after_return| {
            if quoted {
                if may_close && byte == b'"' {
                    // Two quotes are one in the value.
                    may_close = false;
                    return Byte::Push;
                }
                if !may_close {
                    may_close = byte == b'"';
                    return Byte::Push;
                }
                (quoted, may_close) = (false, false);
            }
            match byte {
                b'\n' if after_return && row.is_empty() => Byte::Skip,
                b'\n' | b'\r' => Byte::End,
                b'"' if field_begins => {
                    (quoted, field_begins) = (true, false);
                    Byte::Push
                }
                _ => {
                    field_begins = separates(byte);
                    Byte::Push
                }
            }
        })?;
        if quoted && !may_close {
            let line = record.map_or(first, |record| record.line);
            return Err(CutError::Quote { line });
        }
        Ok(record)
    }

    fn value(&mut self) -> Result<Option<Record>, CutError> {
        let mut list = self.list;
        let (mut depth, mut text, mut escaped) = (0usize, false, false);
        let record = self.until(false, |value, byte, _| {
            let is_white = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
            if value.is_empty() {
                return match (list, byte) {
                    _ if is_white => Byte::Skip,
                    (List::Start, b'[') => {
                        list = List::Value;
                        Byte::Skip
                    }
                    (List::Comma, b',') => {
                        list = List::Value;
                        Byte::Skip
                    }
                    (List::Comma | List::Value, b']') => {
                        list = List::Ended;
                        Byte::Skip
                    }
                    (List::Comma, _) => Byte::Invalid("the elements of a list are separated by `,`"),
                    (List::Ended, _) => Byte::Invalid("there is text after the end of the list"),
                    (_, b'{' | b'[') => {
                        depth = 1;
                        Byte::Push
                    }
                    (_, b'"') => {
                        text = true;
                        Byte::Push
                    }
                    _ => Byte::Push,
                };
            }
            if text {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => text = false,
                    _ => {}
                }
                return if !text && depth == 0 { Byte::PushEnd } else { Byte::Push };
            }
            match byte {
                b'"' => text = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    if depth == 0 {
                        return Byte::PushEnd;
                    }
                }
                // A number or a word.
                b',' | b']' | b'}' if depth == 0 => return Byte::EndBefore,
                _ if depth == 0 && is_white => return Byte::EndBefore,
                _ => {}
            }
            Byte::Push
        })?;
        self.list = match (&record, list) {
            (Some(_), List::Value) => List::Comma,
            (Some(_), List::Start) => List::None,
            (None, List::Value | List::Comma) => {
                return Err(CutError::Json {
                    line: self.line,
                    what: "the list is not closed: the file is not complete",
                });
            }
            _ => list,
        };
        Ok(record)
    }
}

/// Whether a line has nothing but white space.
pub(crate) fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every record with its line, whatever the sizes of the pieces that the stream comes in.
    fn records(text: &str, cut: Cut) -> Result<Vec<(u64, String)>, String> {
        let mut all = Vec::new();
        for piece in [1, 2, 3, 7, 4096] {
            let reader = std::io::BufReader::with_capacity(piece, text.as_bytes());
            let mut records = Records::new(reader, 1000);
            let mut found = Vec::new();
            while let Some(record) = records.next(cut).map_err(|error| error.to_string())? {
                found.push((record.line, String::from_utf8(record.bytes).expect("UTF-8")));
            }
            all.push(found);
        }
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
        Ok(all.pop().unwrap_or_default())
    }

    fn cut(text: &str, cut: Cut) -> Vec<(u64, String)> {
        records(text, cut).expect("records")
    }

    fn own<const N: usize>(records: [(u64, &str); N]) -> Vec<(u64, String)> {
        records.map(|(line, text)| (line, text.to_owned())).into()
    }

    /// Expected: Python's `str.splitlines` of texts with these line ends only, `re.split(r"\r\n|\n|\r")` for the others.
    #[test]
    fn lines_end_at_lf_crlf_and_cr_and_nowhere_else() {
        let text = "a\r\nb\rc\n\nd\u{2028}e\u{b}f\u{85}g\r\r\nh";
        let lines = own([
            (1, "a"),
            (2, "b"),
            (3, "c"),
            (4, ""),
            (5, "d\u{2028}e\u{b}f\u{85}g"),
            (6, ""),
            (7, "h"),
        ]);
        assert_eq!(cut(text, Cut::Line), lines);
        assert_eq!(cut("a\r\n", Cut::Line), own([(1, "a")]));
        assert_eq!(cut("", Cut::Line), own([]));
        assert_eq!(cut("{\r}\r\n{\n}", Cut::Lf), own([(1, "{\r}\r"), (2, "{"), (3, "}")]));
    }

    #[test]
    fn blocks_are_separated_by_blank_lines() {
        let text = "\n \n a\nb \n\t\n\n\nc\r\nd\r\n\r\ne\r\rf\n";
        assert_eq!(
            cut(text, Cut::Block),
            own([(3, " a\nb "), (8, "c\r\nd"), (11, "e"), (13, "f")])
        );
        assert_eq!(cut("\n\n  \n", Cut::Block), own([]));
        assert_eq!(cut("a\n ", Cut::Block), own([(1, "a")]));
        assert_eq!(cut("a\n b", Cut::Block), own([(1, "a\n b")]));
    }

    /// Expected: the same rows as Python's `csv.reader` finds.
    #[test]
    fn quotes_hold_line_ends() {
        let text = "a,b\n\"1\n2\",\"x\"\"\n\"\r\n3,4\"5\n\r6,\r\n";
        let rows = own([
            (1, "a,b"),
            (2, "\"1\n2\",\"x\"\"\n\""),
            (5, "3,4\"5"),
            (6, ""),
            (7, "6,"),
        ]);
        assert_eq!(cut(text, Cut::Row(Some(b','))), rows);
        assert_eq!(cut("a;\"b\n\"", Cut::Row(None)), own([(1, "a;\"b\n\"")]));
        let error = records("a,b\n1,\"2\n3,4\n", Cut::Row(Some(b','))).expect_err("a quote");
        assert_eq!(error, "line 2: a quote that begins here is not closed");
    }

    #[test]
    fn json_values_are_elements_or_stand_one_after_the_other() {
        let values = own([
            (1, "{\"a\": [1, \"]}\\\"\"]}"),
            (2, "[2]"),
            (2, "\"x,\""),
            (3, "4"),
            (3, "null"),
        ]);
        assert_eq!(
            cut("[{\"a\": [1, \"]}\\\"\"]},\n[2], \"x,\",\n4 ,null ]\n", Cut::Value),
            values
        );
        assert_eq!(
            cut("{}\n{\n}[3] 5", Cut::Value),
            own([(1, "{}"), (2, "{\n}"), (3, "[3]"), (3, "5")])
        );
        assert_eq!(cut("[]", Cut::Value), own([]));
        for (text, what) in [
            ("[{}", "the list is not closed"),
            ("[{} {}]", "separated by `,`"),
            ("[1] 2", "after the end of the list"),
        ] {
            let error = records(text, Cut::Value).expect_err("not JSON");
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_record_has_a_limit() {
        let error = records(&"a".repeat(1001), Cut::Lf).expect_err("too long");
        assert_eq!(error, "line 1: a record has more than 1000 bytes");
    }
}
