//! Rows of tables and of JSON as documents.
//!
//! In: the bytes of a record, or a piece of a columnar file. Out: for each row its document, or why there is none. Not here:
//! how a stream is cut into records (`records`).

use super::counts::Skip;
use super::json;
use super::records::DELIMITERS;
use super::select::{Cell, Dropped, Made, Selection, listed};
use crate::data::columns::Rows;
use crate::data::encoding::decode_utf8;

/// A row of a file, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Its line or number, from 1.
    pub at: u64,
    pub made: Result<Made, Dropped>,
    /// U+FFFD that were put for invalid sequences.
    pub replaced: u64,
}

/// A line or block of a plain text.
pub(super) fn of_text(at: u64, bytes: Vec<u8>) -> Row {
    let (text, replaced) = decode_utf8(bytes);
    let made = Made {
        text,
        ..Made::default()
    };
    Row {
        at,
        made: Ok(made),
        replaced,
    }
}

/// The item that a line of a plain text is: its member `prompt`.
pub(super) fn of_prompt(at: u64, bytes: Vec<u8>, selection: &Selection) -> Row {
    let (text, replaced) = decode_utf8(bytes);
    let cell = |path: &String| match path.as_str() {
        "prompt" => Cell::Text(text.clone()),
        _ => Cell::Missing,
    };
    let cells = selection.wanted.iter().map(cell).collect();
    Row {
        at,
        made: selection.document(cells, &|| "`prompt`".to_owned()),
        replaced,
    }
}

/// A JSON object.
pub(super) fn of_json(at: u64, bytes: Vec<u8>, selection: &Selection) -> Row {
    let (text, mut replaced) = decode_utf8(bytes);
    let made = match json::cells(&text, &selection.wanted) {
        Ok((cells, surrogates)) => {
            replaced += surrogates;
            selection.document(cells, &|| json::members(&text))
        }
        Err(cause) => Err(Dropped::new(Skip::Malformed, cause)),
    };
    Row { at, made, replaced }
}

/// Every string under a member of a JSON file, at any depth; each is a row, numbered from 1.
pub(super) fn of_json_strings(bytes: Vec<u8>, field: &str) -> Vec<Row> {
    let (text, replaced) = decode_utf8(bytes);
    let row = |at, made, replaced| Row { at, made, replaced };
    match json::strings(&text, Some(field)) {
        Err(cause) => vec![row(1, Err(Dropped::new(Skip::Malformed, cause)), replaced)],
        Ok((found, _)) if found.is_empty() => {
            let cause = format!("no `{field}` at any depth; there is {}", json::members(&text));
            vec![row(1, Err(Dropped::new(Skip::MissingField, cause)), replaced)]
        }
        Ok((found, surrogates)) => (1..)
            .zip(found)
            .map(|(at, text)| {
                let made = match text.is_empty() {
                    true => Err(Dropped::new(Skip::Empty, "")),
                    false => Ok(Made {
                        text,
                        ..Made::default()
                    }),
                };
                row(at, made, if at == 1 { replaced + surrogates } else { 0 })
            })
            .collect(),
    }
}

/// The columns of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub names: Vec<String>,
    pub delimiter: u8,
    /// The column of each wanted member.
    columns: Vec<Option<usize>>,
}

/// Why the first row of a table cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("columns {} and {} have the same name `{name}`", first + 1, second + 1)]
    Twice { name: String, first: usize, second: usize },
    #[error("there is no column `{wanted}`; there is {columns}, separated by {delimiter}")]
    Missing {
        wanted: String,
        columns: String,
        delimiter: String,
    },
}

impl Header {
    /// Reads the first row. Without a declared delimiter it is the one with which all wanted columns are there, or else the one
    /// that the row has most often.
    pub fn new(row: &[u8], declared: Option<u8>, selection: &Selection) -> Result<Self, HeaderError> {
        let split = |delimiter| -> Vec<String> {
            let fields = fields(row, delimiter).into_iter();
            fields.map(|field| decode_utf8(field).0).collect()
        };
        let has_all = |names: &[String]| selection.wanted.iter().all(|wanted| names.contains(wanted));
        let delimiter = declared.unwrap_or_else(|| {
            let all = DELIMITERS.map(|delimiter| (delimiter, split(delimiter)));
            let fitting = all.iter().find(|(_, names)| names.len() > 1 && has_all(names));
            // Of equals the first.
            let most = all.iter().rev().max_by_key(|(_, names)| names.len());
            fitting.or(most).map_or(b',', |(delimiter, _)| *delimiter)
        });
        let names = split(delimiter);
        for (second, name) in names.iter().enumerate() {
            if let Some(first) = names[..second].iter().position(|known| known == name) {
                let name = name.clone();
                return Err(HeaderError::Twice { name, first, second });
            }
        }
        let column = |wanted: &String| names.iter().position(|name| name == wanted);
        let columns: Vec<Option<usize>> = selection.wanted.iter().map(column).collect();
        if let Some(at) = columns.iter().position(Option::is_none) {
            return Err(HeaderError::Missing {
                wanted: selection.wanted[at].clone(),
                columns: listed(names.iter().map(String::as_str)),
                delimiter: named_delimiter(delimiter),
            });
        }
        Ok(Self {
            names,
            delimiter,
            columns,
        })
    }
}

fn named_delimiter(delimiter: u8) -> String {
    match delimiter {
        b'\t' => "tabs".to_owned(),
        other => format!("`{}`", char::from(other)),
    }
}

/// The values of a row. Two quotes in a quoted value are one.
fn fields(row: &[u8], delimiter: u8) -> Vec<Vec<u8>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .buffer_capacity(row.len().max(1))
        .from_reader(row);
    let mut record = csv::ByteRecord::new();
    // Reading bytes from memory does not fail; a row of no bytes has no fields.
    if !matches!(reader.read_byte_record(&mut record), Ok(true)) {
        return vec![Vec::new()];
    }
    record.iter().map(<[u8]>::to_vec).collect()
}

/// A row of a table.
pub(super) fn of_table(at: u64, row: &[u8], header: &Header, selection: &Selection) -> Row {
    let fields = fields(row, header.delimiter);
    let (found, expected) = (fields.len(), header.names.len());
    if found != expected {
        let cause = format!("{found} columns, and the first row has {expected}");
        return Row {
            at,
            made: Err(Dropped::new(Skip::Malformed, cause)),
            replaced: 0,
        };
    }
    let mut replaced = 0;
    let cells = header.columns.iter().map(|column| match column.and_then(|column| fields.get(column)) {
        Some(field) => {
            let (text, more) = decode_utf8(field.clone());
            replaced += more;
            Cell::Text(text)
        }
        None => Cell::Missing,
    });
    let cells = cells.collect();
    let members = || listed(header.names.iter().map(String::as_str));
    Row {
        at,
        made: selection.document(cells, &members),
        replaced,
    }
}

/// The rows of a piece of a columnar file.
pub(super) fn of_columns(rows: &Rows, selection: &Selection) -> Vec<Row> {
    use arrow_array::Array;
    let row = |index: usize| {
        let at = rows.first + index as u64;
        let cells = rows.columns.iter().map(|column| match column.is_null(index) {
            true => Cell::Null,
            false => Cell::Text(column.value(index).to_owned()),
        });
        let invalid = rows.invalid.iter().find(|(number, _)| *number == at);
        Row {
            at,
            made: selection.document(cells.collect(), &String::new),
            replaced: invalid.map_or(0, |(_, replaced)| *replaced),
        }
    };
    (0..rows.rows).map(row).collect()
}

