//! Columns of tables: Parquet files, and Arrow IPC files and streams.
//!
//! In: a file and the columns that are wanted of it. Out: their values as text, in the order of the rows, in pieces of
//! bounded length; what is null stays null. Only the wanted columns are read. A file that is damaged, or that states
//! wrong lengths, is an error: nothing panics, and no stated length is believed before memory is taken for it. Not
//! here: which rows become documents (`extract`).

use std::fs::File;
use std::io::{self, Read, Seek};

use arrow_array::LargeStringArray;
use arrow_array::builder::LargeStringBuilder;
use arrow_schema::{DataType, Field, Schema};
use camino::Utf8Path;

use crate::guard;

mod arrow;
mod pages;
mod parquet;
#[cfg(test)]
mod tests;
mod thrift;

pub use arrow::{read_arrow, read_arrow_file, read_arrow_stream};
pub use parquet::read_parquet;

/// The most memory that one page, one batch of an Arrow file, or one row may take, bytes.
pub const LIMIT: u64 = 1 << 30;

/// Where a piece ends: rows, bytes of text.
const PIECE_ROWS: usize = 8192;
const PIECE_BYTES: u64 = 16 << 20;

/// Columns that an error lists.
const LISTED: usize = 40;

/// A column to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name; a field of a struct with the names of the structs before it: `meta.text`.
    pub path: String,
    pub kind: WantedKind,
}

/// Which types a column may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedKind {
    /// Strings.
    Text,
    /// Strings, and integers, floating-point numbers and booleans as JSON writes them. Numbers that JSON does not have
    /// are `NaN`, `Infinity` and `-Infinity`, as Python writes them.
    Scalar,
}

/// Some rows of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// The number of the first of them in the file, from 1.
    pub first: u64,
    pub rows: usize,
    /// In the order of what was wanted.
    pub columns: Vec<LargeStringArray>,
    /// Rows with invalid UTF-8, by their numbers in the file, and how many sequences became U+FFFD.
    pub invalid: Vec<(u64, u64)>,
}

#[derive(Debug, thiserror::Error)]
pub enum ColumnsError {
    #[error("cannot read `{name}`")]
    Read {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("`{name}` cannot be read as {format}: {cause}; the file is damaged or not complete")]
    Damaged {
        name: String,
        format: &'static str,
        cause: String,
    },
    #[error("`{name}` does not have a column `{column}`; it has {columns}")]
    Missing {
        name: String,
        column: String,
        columns: String,
    },
    #[error("`{name}` has several columns `{column}`: rename one of them")]
    Ambiguous { name: String, column: String },
    #[error("column `{column}` of `{name}` has the type {found}, and {wanted} is needed; the columns are {columns}")]
    Type {
        name: String,
        column: String,
        found: String,
        wanted: &'static str,
        columns: String,
    },
    #[error("{what} of `{name}` needs more than {LIMIT} bytes of memory; write the file again with smaller {remedy}")]
    Large {
        name: String,
        what: String,
        remedy: &'static str,
    },
}

/// Copies what a reader has into an unnamed file in `folder`, for formats that are not read from front to back.
///
/// # Errors
/// If it cannot be read or written.
pub fn seekable(reader: &mut dyn Read, folder: &Utf8Path) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(folder)?;
    io::copy(reader, &mut file)?;
    file.rewind()?;
    Ok(file)
}

/// The type of a column, as errors name it.
fn describe(found: &DataType) -> String {
    match found {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "binary".to_owned()
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => format!("list of {}", describe(item.data_type())),
        DataType::Struct(_) => "struct".to_owned(),
        DataType::Map(..) => "map".to_owned(),
        DataType::Dictionary(_, value) => describe(value),
        other => other.to_string().to_lowercase(),
    }
}

/// The columns of a table, those in structs by their paths.
struct Listing {
    columns: Vec<(String, DataType)>,
}

impl Listing {
    fn of(schema: &Schema) -> Self {
        let mut listing = Self { columns: Vec::new() };
        for field in schema.fields() {
            listing.add(String::new(), field, 0);
        }
        listing
    }

    fn add(&mut self, prefix: String, field: &Field, depth: usize) {
        let path = format!("{prefix}{}", field.name());
        match field.data_type() {
            // As deep as Arrow's own check of a schema allows.
            DataType::Struct(fields) if depth < 64 => {
                for field in fields {
                    self.add(format!("{path}."), field, depth + 1);
                }
            }
            other => self.columns.push((path, other.clone())),
        }
    }

    fn text(&self) -> String {
        let shown = self.columns.iter().take(LISTED);
        let mut text: Vec<String> = shown
            .map(|(path, found)| format!("`{path}` ({})", describe(found)))
            .collect();
        match self.columns.len() {
            0 => return "no columns".to_owned(),
            all if all > LISTED => text.push(format!("{} more", all - LISTED)),
            _ => {}
        }
        text.join(", ")
    }

    /// The only column with this path, if it is one that `kind` accepts.
    fn find(&self, name: &str, wanted: &Wanted) -> Result<&DataType, ColumnsError> {
        let mut found = self.columns.iter().filter(|(path, _)| *path == wanted.path);
        let struct_path = format!("{}.", wanted.path);
        let column = match (found.next(), found.next()) {
            (Some((_, column)), None) => column,
            (Some(_), Some(_)) => {
                return Err(ColumnsError::Ambiguous {
                    name: name.to_owned(),
                    column: wanted.path.clone(),
                });
            }
            _ if self.columns.iter().any(|(path, _)| path.starts_with(&struct_path)) => {
                return Err(self.wrong_type(name, wanted, "struct"));
            }
            _ => {
                return Err(ColumnsError::Missing {
                    name: name.to_owned(),
                    column: wanted.path.clone(),
                    columns: self.text(),
                });
            }
        };
        if !wanted.kind.accepts(column) {
            return Err(self.wrong_type(name, wanted, &describe(column)));
        }
        Ok(column)
    }

    fn wrong_type(&self, name: &str, wanted: &Wanted, found: &str) -> ColumnsError {
        ColumnsError::Type {
            name: name.to_owned(),
            column: wanted.path.clone(),
            found: found.to_owned(),
            wanted: match wanted.kind {
                WantedKind::Text => "string",
                WantedKind::Scalar => "string, a number or a boolean",
            },
            columns: self.text(),
        }
    }
}

impl WantedKind {
    fn accepts(self, found: &DataType) -> bool {
        let value = match found {
            DataType::Dictionary(_, value) => value,
            other => other,
        };
        let is_text = matches!(value, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        is_text || (self == Self::Scalar && (value.is_integer() || value.is_floating() || *value == DataType::Boolean))
    }
}

/// A value of a row.
enum Value<'a> {
    Null,
    /// Not checked.
    Bytes(&'a [u8]),
    Text(&'a str),
    Number(String),
}

impl Value<'_> {
    fn of_float(number: f64, shortest: String) -> Self {
        Self::Number(match number {
            _ if number.is_nan() => "NaN".to_owned(),
            f64::INFINITY => "Infinity".to_owned(),
            f64::NEG_INFINITY => "-Infinity".to_owned(),
            _ => shortest,
        })
    }

    fn f64(number: f64) -> Self {
        Self::of_float(number, serde_json::to_string(&number).unwrap_or_default())
    }

    fn f32(number: f32) -> Self {
        Self::of_float(number.into(), serde_json::to_string(&number).unwrap_or_default())
    }

    fn length(&self) -> u64 {
        match self {
            Self::Null => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Text(text) => text.len() as u64,
            Self::Number(text) => text.len() as u64,
        }
    }
}

/// Collects rows, and passes them on in pieces.
struct Pieces<'a, E> {
    name: &'a str,
    visit: &'a mut dyn FnMut(Rows) -> Result<(), E>,
    /// The row after those that were passed on.
    first: u64,
    rows: usize,
    bytes: u64,
    columns: Vec<LargeStringBuilder>,
    invalid: Vec<(u64, u64)>,
}

impl<'a, E: From<ColumnsError>> Pieces<'a, E> {
    fn new(name: &'a str, columns: usize, visit: &'a mut dyn FnMut(Rows) -> Result<(), E>) -> Self {
        Self {
            name,
            visit,
            first: 1,
            rows: 0,
            bytes: 0,
            columns: (0..columns).map(|_| LargeStringBuilder::new()).collect(),
            invalid: Vec::new(),
        }
    }

    /// The number of the next row.
    fn next(&self) -> u64 {
        self.first + self.rows as u64
    }

    fn row<'v>(&mut self, values: impl Iterator<Item = Value<'v>> + Clone) -> Result<(), E> {
        let length = values.clone().map(|value| value.length()).fold(0, u64::saturating_add);
        if length > LIMIT {
            return Err(ColumnsError::Large {
                name: self.name.to_owned(),
                what: format!("row {}", self.next()),
                remedy: "rows",
            }
            .into());
        }
        if self.rows == PIECE_ROWS || (self.rows > 0 && self.bytes + length > PIECE_BYTES) {
            self.flush()?;
        }
        let mut invalid = 0;
        for (column, value) in self.columns.iter_mut().zip(values) {
            match value {
                Value::Null => column.append_null(),
                Value::Text(text) => column.append_value(text),
                Value::Number(text) => column.append_value(text),
                Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => column.append_value(text),
                    Err(_) => {
                        let (text, sequences) = super::encoding::decode_utf8(bytes.to_vec());
                        column.append_value(text);
                        invalid += sequences;
                    }
                },
            }
        }
        if invalid > 0 {
            self.invalid.push((self.next(), invalid));
        }
        self.rows += 1;
        self.bytes += length;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), E> {
        let rows = std::mem::take(&mut self.rows);
        if rows == 0 {
            return Ok(());
        }
        let first = self.first;
        self.first += rows as u64;
        self.bytes = 0;
        let columns: Vec<LargeStringArray> = self.columns.iter_mut().map(LargeStringBuilder::finish).collect();
        // The next piece is about as long, and is not copied while it grows.
        let room = |column: &LargeStringArray| LargeStringBuilder::with_capacity(rows, column.value_data().len());
        self.columns = columns.iter().map(room).collect();
        let invalid = std::mem::take(&mut self.invalid);
        (self.visit)(Rows {
            first,
            rows,
            columns,
            invalid,
        })
    }

    /// Passes on the last piece; returns the number of rows of the file.
    fn finish(mut self) -> Result<u64, E> {
        self.flush()?;
        Ok(self.first - 1)
    }
}

/// Runs a decoder. The parquet and arrow crates panic on some damaged files: on negative lengths, on slices outside of
/// a buffer, on levels that do not fit their values. This is the only place where that is caught.
fn guarded<T>(name: &str, format: &'static str, decode: impl FnOnce() -> Result<T, String>) -> Result<T, ColumnsError> {
    let decoded = guard::catch(decode).unwrap_or_else(Err);
    decoded.map_err(|cause| ColumnsError::Damaged {
        name: name.to_owned(),
        format,
        cause,
    })
}
