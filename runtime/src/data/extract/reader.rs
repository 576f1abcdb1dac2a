//! A format that is ready for use, and the rows that it finds in a piece of a file.
//!
//! In: a complete file, a record of one, or rows of columns. Out: rows, and what was left out of them. A piece depends on nothing
//! but itself, so that threads may work on several. Not here: how files are cut (`writer`), counting.

use std::sync::Arc;

use aurora_compiler::fields::{ExtractFields, Format, TextUnit};

use super::counts::Skip;
use super::rows::{self, Header, Row};
use super::select::{Dropped, Selection};
use super::{ExtractError, html, json, mo, roff};
use crate::data::columns::Rows;
use crate::data::encoding::{self, Encoding};
use crate::data::records::Record;
use crate::progress::ProgressReporter;
use crate::source::archive::InputFile;

/// The texts of a member whose format rebuilds them, and what was left out.
#[derive(Default)]
pub(super) struct Extracted {
    pub texts: Vec<String>,
    /// Why the member has no document, and the cause.
    pub dropped: Option<(Skip, String)>,
    pub left_out: Vec<(Skip, u64)>,
}

impl Extracted {
    pub fn one(text: String) -> Self {
        Self {
            texts: vec![text],
            ..Self::default()
        }
    }

    pub fn leave_out(&mut self, why: Skip) {
        match self.left_out.iter_mut().find(|(known, _)| *known == why) {
            Some((_, times)) => *times += 1,
            None => self.left_out.push((why, 1)),
        }
    }

    pub fn dropped(why: Skip, cause: impl Into<String>) -> Self {
        Self {
            dropped: Some((why, cause.into())),
            ..Self::default()
        }
    }
}

/// A format that is ready for use: patterns compiled, templates read, reference pages read.
pub(super) enum Reader {
    Html(html::Pages),
    Roff,
    Mo,
    Text(TextUnit),
    JsonStrings,
    /// Rows in the format that the spec states, or the name of a file.
    Rows(Option<RowFormat>, Selection),
}

/// How the rows of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowFormat {
    Jsonl,
    /// A list, or values one after the other.
    Json,
    /// With the declared delimiter.
    Table(Option<u8>),
    Parquet,
    Arrow,
    /// Lines of text.
    Prompts,
}

impl RowFormat {
    pub fn of_name(name: &str) -> Self {
        match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("json") => Self::Json,
            Some("csv") => Self::Table(None),
            Some("tsv") => Self::Table(Some(b'\t')),
            Some("parquet") => Self::Parquet,
            Some("arrow" | "feather") => Self::Arrow,
            Some("txt") => Self::Prompts,
            _ => Self::Jsonl,
        }
    }
}

/// What distinguishes the documents of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbering {
    /// There is one.
    Whole,
    /// By the line on which it begins.
    Line,
    /// By its number.
    Number,
    /// By its number in the JSON value that begins on this line.
    Within(u64),
}

impl Numbering {
    /// Where a row is in the file at `path`; a document without an identifier of its own has this one.
    pub fn place(self, path: &str, at: u64) -> String {
        match self {
            Self::Whole => path.to_owned(),
            Self::Line => format!("{path}:{at}"),
            Self::Number => format!("{path}#{at}"),
            Self::Within(line) => format!("{path}:{line}#{at}"),
        }
    }
}

/// What the threads work on.
pub(super) enum Piece {
    /// A complete member.
    Whole(Vec<u8>),
    Line(Record),
    Prompt(Record),
    Json(Record),
    /// A JSON file that is not a list: strings at any depth.
    JsonStrings(Record),
    Row(Arc<Header>, Record),
    Columns(Rows),
}

impl Piece {
    pub fn bytes(&self) -> usize {
        64 + match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Line(record)
            | Self::Prompt(record)
            | Self::Json(record)
            | Self::JsonStrings(record)
            | Self::Row(_, record) => record.bytes.len(),
            Self::Columns(rows) => rows
                .columns
                .iter()
                .map(|column| column.values().len() + 8 * rows.rows)
                .sum(),
        }
    }
}

/// What became of a piece.
pub(super) struct Done {
    pub rows: Vec<Row>,
    pub left_out: Vec<(Skip, u64)>,
    pub numbering: Numbering,
}

impl Done {
    fn rows(rows: Vec<Row>, numbering: Numbering) -> Self {
        Self {
            rows,
            left_out: Vec::new(),
            numbering,
        }
    }
}

impl Reader {
    pub fn read(&self, member: &str, declared: Option<Encoding>, piece: Piece) -> Done {
        let selection = match self {
            Self::Rows(_, selection) => Some(selection),
            _ => None,
        };
        let one = |row| Done::rows(vec![row], Numbering::Line);
        match (piece, selection) {
            (Piece::Whole(bytes), _) => self.read_whole(member, declared, bytes),
            (Piece::Line(record), _) => one(rows::of_text(record.line, record.bytes)),
            (Piece::Prompt(record), Some(selection)) => one(rows::of_prompt(record.line, record.bytes, selection)),
            (Piece::Json(record), Some(selection)) => one(rows::of_json(record.line, record.bytes, selection)),
            (Piece::Row(header, record), Some(selection)) => {
                one(rows::of_table(record.line, &record.bytes, &header, selection))
            }
            (Piece::JsonStrings(record), Some(selection)) => {
                let field = selection.only_member().unwrap_or_default();
                Done::rows(
                    rows::of_json_strings(record.bytes, field),
                    Numbering::Within(record.line),
                )
            }
            (Piece::Columns(columns), Some(selection)) => {
                Done::rows(rows::of_columns(&columns, selection), Numbering::Number)
            }
            // Only a format with rows has such pieces.
            (_, None) => Done::rows(Vec::new(), Numbering::Whole),
        }
    }

    /// A member that is one text, or several that are rebuilt.
    fn read_whole(&self, member: &str, declared: Option<Encoding>, bytes: Vec<u8>) -> Done {
        if let Self::Mo = self {
            return rebuilt(mo::read(&bytes), 0, Numbering::Number);
        }
        let sniffed = match self {
            Self::Html(_) => encoding::of_html(&bytes, declared),
            _ => encoding::sniff(&bytes, declared),
        };
        let (text, mut replaced) = match sniffed {
            Ok((encoding, mark)) => encoding::decode(bytes, encoding, mark),
            Err(error) => {
                let extracted = Extracted::dropped(Skip::Malformed, error.to_string());
                return rebuilt(extracted, 0, Numbering::Whole);
            }
        };
        let extracted = match self {
            Self::Html(pages) => pages.read(member, &text),
            Self::Roff => Extracted::one(roff::read(&text)),
            Self::JsonStrings => match json::strings(&text, None) {
                Ok((found, surrogates)) => {
                    replaced += surrogates;
                    Extracted::one(found.join("\n"))
                }
                Err(cause) => Extracted::dropped(Skip::Malformed, cause),
            },
            _ => Extracted::one(text),
        };
        rebuilt(extracted, replaced, Numbering::Whole)
    }
}

fn rebuilt(extracted: Extracted, replaced: u64, numbering: Numbering) -> Done {
    let rows = match extracted.dropped {
        Some((why, cause)) => vec![Row {
            at: 1,
            made: Err(Dropped::new(why, cause)),
            replaced,
        }],
        None => rows::of_texts(extracted.texts, replaced),
    };
    Done {
        rows,
        left_out: extracted.left_out,
        numbering,
    }
}

/// # Errors
/// A selector or template is malformed, or the reference pages cannot be read.
pub(super) fn reader(
    fields: &ExtractFields,
    reference: Option<&[InputFile]>,
    progress: ProgressReporter<'_>,
) -> Result<Reader, ExtractError> {
    let rows = |format, document| -> Result<Reader, ExtractError> {
        Ok(Reader::Rows(Some(format), Selection::of_document(document)?))
    };
    Ok(match &fields.format {
        Format::Html {
            select,
            drop,
            reference: pairing,
        } => {
            let mut pages = html::Pages::new(select, drop.as_deref())?;
            if let Some(pairing) = pairing {
                pages.read_reference(fields, pairing, reference.ok_or(ExtractError::NoReference)?, progress)?;
            }
            Reader::Html(pages)
        }
        Format::Roff => Reader::Roff,
        Format::Mo => Reader::Mo,
        Format::Text { by } => Reader::Text(*by),
        Format::Code => Reader::Text(TextUnit::File),
        Format::Jsonl(document) => rows(RowFormat::Jsonl, document)?,
        Format::Json(document) => rows(RowFormat::Json, document)?,
        Format::JsonStrings => Reader::JsonStrings,
        Format::Csv { document, delimiter } => {
            let declared = delimiter.as_ref().and_then(|delimiter| delimiter.bytes().next());
            rows(RowFormat::Table(declared), document)?
        }
        Format::Parquet(document) => rows(RowFormat::Parquet, document)?,
        Format::Arrow(document) => rows(RowFormat::Arrow, document)?,
        Format::Pairs {
            prompt,
            answer,
            only,
            id,
        } => Reader::Rows(None, Selection::of_pairs(prompt, answer, only.as_ref(), id.as_deref())?),
    })
}
