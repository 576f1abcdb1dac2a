//! Rows of tables and of JSON as documents.
//!
//! In: the bytes of a record, or a piece of a columnar file. Out: for each row its document, or why there is none. Not here:
//! how a stream is cut into records (`records`).

use super::counts::Skip;
use super::json;
use super::select::{Cell, Dropped, Made, Selection, listed};
use crate::data::columns::Rows;
use crate::data::encoding::decode_utf8;
use crate::data::table::Table;

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

/// Texts of one piece, numbered from 1; what was replaced in the piece is counted for the first.
pub(super) fn of_texts(texts: Vec<String>, replaced: u64) -> Vec<Row> {
    let row = |(at, text): (u64, String)| Row {
        at,
        made: match text.is_empty() {
            true => Err(Dropped::new(Skip::Empty, "")),
            false => Ok(Made {
                text,
                ..Made::default()
            }),
        },
        replaced: if at == 1 { replaced } else { 0 },
    };
    (1..).zip(texts).map(row).collect()
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
        Ok((found, surrogates)) => of_texts(found, replaced + surrogates),
    }
}

/// The columns of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub table: Table,
    /// The column of each wanted member.
    columns: Vec<usize>,
}

impl Header {
    /// Reads the first row.
    ///
    /// # Errors
    /// Two columns have the same name, or a wanted one is missing.
    pub fn new(row: &[u8], declared: Option<u8>, selection: &Selection) -> Result<Self, String> {
        let table = Table::new(row, declared, &selection.wanted)?;
        let column = |wanted: &String| {
            table.names.iter().position(|name| name == wanted).ok_or_else(|| {
                let columns = listed(table.names.iter().map(String::as_str));
                let delimiter = table.named_delimiter();
                format!("there is no column `{wanted}`; there is {columns}, separated by {delimiter}")
            })
        };
        let columns = selection.wanted.iter().map(column).collect::<Result<_, _>>()?;
        Ok(Self { table, columns })
    }
}

/// A row of a table.
pub(super) fn of_table(at: u64, row: &[u8], header: &Header, selection: &Selection) -> Row {
    let fields = match header.table.fields(row) {
        Ok(fields) => fields,
        Err(cause) => {
            return Row {
                at,
                made: Err(Dropped::new(Skip::Malformed, cause)),
                replaced: 0,
            };
        }
    };
    let mut replaced = 0;
    let cells = header.columns.iter().map(|&column| {
        let (text, more) = decode_utf8(fields[column].clone());
        replaced += more;
        Cell::Text(text)
    });
    let cells = cells.collect();
    let members = || listed(header.table.names.iter().map(String::as_str));
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
