//! Parquet files: the wanted columns, some rows at a time.
//!
//! In: a file. Out: [`Rows`]. Each column is read with the crate's own column reader: its strings are parts of the page
//! or the dictionary that has them, so a dictionary costs its own length, however often its values occur. Rows are
//! counted against what the file states. Not here: pages (`pages`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::parquet_to_arrow_schema;
use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};

use super::pages::CheckedPages;
use super::{ColumnsError, LIMIT, Listing, PIECE_BYTES, Pieces, Rows, Value, Wanted, guarded, thrift};

const FORMAT: &str = "Parquet";

/// Rows that are decoded at a time, at most.
const STEP: u64 = 1024;

/// Reads the wanted columns of a file; `name` is for errors. Returns the number of its rows.
///
/// # Errors
/// Errors of `visit`; the file is damaged or too large; a column is missing, or has another type.
pub fn read_parquet<E: From<ColumnsError>>(
    file: File,
    name: &str,
    wanted: &[Wanted],
    visit: &mut dyn FnMut(Rows) -> Result<(), E>,
) -> Result<u64, E> {
    let footer = footer(&file, name)?;
    let metadata = guarded(name, FORMAT, || decode_footer(&footer))?;
    let schema = metadata.file_metadata().schema_descr();
    let leaves = guarded(name, FORMAT, || Ok(find_leaves(schema, name, wanted)))??;
    let file = Arc::new(file);
    let mut pieces = Pieces::new(name, leaves.len(), visit);
    for group in metadata.row_groups() {
        let mut columns = guarded(name, FORMAT, || columns(&file, group, &leaves))?;
        read_group(name, group, &mut columns, &mut pieces)?;
    }
    let rows = pieces.finish()?;
    let stated = metadata.file_metadata().num_rows();
    if u64::try_from(stated) != Ok(rows) {
        return Err(damaged(name, format!("it states {stated} rows and has {rows}")).into());
    }
    Ok(rows)
}

fn damaged(name: &str, cause: String) -> ColumnsError {
    ColumnsError::Damaged {
        name: name.to_owned(),
        format: FORMAT,
        cause,
    }
}

/// The footer of a file, without its length and the magic number.
fn footer(file: &File, name: &str) -> Result<Vec<u8>, ColumnsError> {
    let reading = |source| ColumnsError::Read {
        name: name.to_owned(),
        source,
    };
    let length = file.metadata().map_err(reading)?.len();
    let mut end = [0; 8];
    if length < 12 {
        return Err(damaged(name, format!("it has {length} bytes")));
    }
    file.read_exact_at(&mut end, length - 8).map_err(reading)?;
    let [a, b, c, d, magic @ ..] = end;
    match &magic {
        b"PAR1" => {}
        b"PARE" => return Err(damaged(name, "it is encrypted".to_owned())),
        _ => return Err(damaged(name, "it does not end with `PAR1`".to_owned())),
    }
    let stated = u64::from(u32::from_le_bytes([a, b, c, d]));
    let start = (length - 8).checked_sub(stated).filter(|_| stated <= LIMIT);
    let start = start.ok_or_else(|| damaged(name, format!("its footer of {stated} bytes does not fit")))?;
    let mut footer = vec![0; usize::try_from(stated).unwrap_or(0)];
    file.read_exact_at(&mut footer, start).map_err(reading)?;
    Ok(footer)
}

fn decode_footer(footer: &[u8]) -> Result<ParquetMetaData, String> {
    if !thrift::is_schema_valid(footer) {
        return Err("its schema is not valid".to_owned());
    }
    ParquetMetaDataReader::decode_metadata(footer).map_err(cause)
}

fn cause(error: ParquetError) -> String {
    let text = error.to_string();
    text.strip_prefix("Parquet error: ").map(str::to_owned).unwrap_or(text)
}

/// How the values of a column are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    Text,
    Boolean,
    Signed,
    Unsigned,
    Half,
    Float,
}

/// The columns of a file; the index of each wanted one, and how it is stored.
fn find_leaves(schema: &SchemaDescriptor, name: &str, wanted: &[Wanted]) -> Result<Vec<(usize, Stored)>, ColumnsError> {
    let arrow = parquet_to_arrow_schema(schema, None).unwrap_or_else(|_| physical_schema(schema));
    let mut listing = Listing::of(&arrow);
    let path = |column: &ColumnDescPtr| column.path().parts().join(".");
    // Enumerations and JSON are text to Parquet, and bytes to Arrow.
    for (listed, found) in &mut listing.columns {
        let mut same = schema.columns().iter().filter(|column| path(column) == *listed);
        if same.any(|column| stored(column) == Some(Stored::Text)) {
            *found = DataType::Utf8;
        }
    }
    let leaf = |wanted: &Wanted| {
        let found = listing.find(name, wanted)?;
        let mut leaves = schema.columns().iter().enumerate();
        let leaf = leaves.find(|(_, column)| path(column) == wanted.path);
        let leaf = leaf.filter(|(_, column)| column.max_rep_level() == 0);
        leaf.and_then(|(index, column)| Some((index, stored(column)?)))
            .ok_or_else(|| listing.wrong_type(name, wanted, &super::describe(found)))
    };
    wanted.iter().map(leaf).collect()
}

/// The columns by their physical types, for a schema that Arrow does not have.
fn physical_schema(schema: &SchemaDescriptor) -> Schema {
    let field = |column: &ColumnDescPtr| {
        let found = match column.physical_type() {
            PhysicalType::BOOLEAN => DataType::Boolean,
            PhysicalType::INT32 => DataType::Int32,
            PhysicalType::INT64 => DataType::Int64,
            PhysicalType::FLOAT => DataType::Float32,
            PhysicalType::DOUBLE => DataType::Float64,
            _ => DataType::Binary,
        };
        let found = match column.max_rep_level() {
            0 => found,
            _ => DataType::new_list(found, true),
        };
        Field::new(column.path().parts().join("."), found, true)
    };
    Schema::new(schema.columns().iter().map(field).collect::<Vec<_>>())
}

/// How a column is stored; `None` for types that are not text, numbers or booleans.
fn stored(column: &ColumnDescPtr) -> Option<Stored> {
    use ConvertedType as Old;
    let (logical, old) = (column.logical_type_ref(), column.converted_type());
    match (column.physical_type(), logical) {
        (PhysicalType::BYTE_ARRAY, Some(LogicalType::String | LogicalType::Enum | LogicalType::Json)) => {
            Some(Stored::Text)
        }
        (PhysicalType::BYTE_ARRAY, None) => matches!(old, Old::UTF8 | Old::ENUM | Old::JSON).then_some(Stored::Text),
        (PhysicalType::BOOLEAN, _) => Some(Stored::Boolean),
        (PhysicalType::FLOAT | PhysicalType::DOUBLE, _) => Some(Stored::Float),
        (PhysicalType::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::Float16)) => Some(Stored::Half),
        (PhysicalType::INT32 | PhysicalType::INT64, Some(LogicalType::Integer(integer))) => match integer.is_signed {
            true => Some(Stored::Signed),
            false => Some(Stored::Unsigned),
        },
        (PhysicalType::INT32 | PhysicalType::INT64, None) => match old {
            Old::NONE | Old::INT_8 | Old::INT_16 | Old::INT_32 | Old::INT_64 => Some(Stored::Signed),
            Old::UINT_8 | Old::UINT_16 | Old::UINT_32 | Old::UINT_64 => Some(Stored::Unsigned),
            _ => None,
        },
        _ => None,
    }
}

/// A column of a row group, and the values of the rows that were decoded last.
struct Column {
    reader: ColumnReader,
    stored: Stored,
    /// The definition level of a value that is not null.
    defined: i16,
    levels: Vec<i16>,
    values: Values,
    /// For each decoded row, the place of its value in `values`.
    places: Vec<Option<usize>>,
}

#[derive(Default)]
struct Values {
    bytes: Vec<ByteArray>,
    fixed: Vec<FixedLenByteArray>,
    booleans: Vec<bool>,
    int32: Vec<i32>,
    int64: Vec<i64>,
    float: Vec<f32>,
    double: Vec<f64>,
}

fn columns(file: &Arc<File>, group: &RowGroupMetaData, leaves: &[(usize, Stored)]) -> Result<Vec<Column>, String> {
    let rows = usize::try_from(group.num_rows()).map_err(|_| "a row group states a negative number of rows")?;
    let column = |&(leaf, stored): &(usize, Stored)| {
        let chunk = group.columns().get(leaf).ok_or("a row group lacks a column")?;
        if let Some(other) = chunk.file_path() {
            return Err(format!("its columns are in another file, `{other}`"));
        }
        let descriptor = chunk.column_descr_ptr();
        let pages = CheckedPages::new(file, chunk, rows).map_err(cause)?;
        Ok(Column {
            defined: descriptor.max_def_level(),
            reader: get_column_reader(descriptor, Box::new(pages)),
            stored,
            levels: Vec::new(),
            values: Values::default(),
            places: Vec::new(),
        })
    };
    leaves.iter().map(column).collect()
}

/// Reads all rows of a row group.
fn read_group<E: From<ColumnsError>>(
    name: &str,
    group: &RowGroupMetaData,
    columns: &mut [Column],
    pieces: &mut Pieces<'_, E>,
) -> Result<(), E> {
    let mut left = u64::try_from(group.num_rows()).unwrap_or(0);
    if columns.is_empty() {
        return Ok(());
    }
    // Rows that have about as many bytes as a piece, together; at first, by what the file states.
    let chunks = group.columns().iter();
    let stated: u64 = chunks
        .map(|chunk| chunk.uncompressed_size().unsigned_abs())
        .fold(0, u64::saturating_add);
    let fitting = |bytes: u64, rows: u64| (PIECE_BYTES.saturating_mul(rows) / bytes.max(1)).clamp(1, STEP);
    let mut step = fitting(stated, left).min(STEP / 4);
    while left > 0 {
        let rows = step.min(left);
        guarded(name, FORMAT, || {
            columns.iter_mut().try_for_each(|column| column.decode(rows))
        })?;
        let mut bytes = 0u64;
        for row in 0..usize::try_from(rows).unwrap_or(0) {
            let values = columns.iter().map(|column| column.value(row));
            bytes = values
                .clone()
                .map(|value| value.length())
                .fold(bytes, u64::saturating_add);
            pieces.row(values)?;
        }
        left -= rows;
        step = fitting(bytes, rows).min(step.saturating_mul(2));
    }
    // A page more than there are rows would be lost in silence.
    guarded(name, FORMAT, || {
        columns.iter_mut().try_for_each(|column| match column.read(1)? {
            0 => Ok(()),
            _ => Err("a column has more values than its row group has rows".to_owned()),
        })
    })?;
    Ok(())
}

impl Column {
    /// Decodes exactly the next `rows` rows.
    fn decode(&mut self, rows: u64) -> Result<(), String> {
        let read = self.read(rows)?;
        if read != rows {
            return Err(format!(
                "a column ends {} rows before its row group",
                rows - read.min(rows)
            ));
        }
        let mut next = 0;
        self.places.clear();
        for row in 0..usize::try_from(rows).unwrap_or(0) {
            let is_null = self.defined > 0 && self.levels.get(row) != Some(&self.defined);
            self.places.push((!is_null).then_some(next));
            next += usize::from(!is_null);
        }
        Ok(())
    }

    fn read(&mut self, rows: u64) -> Result<u64, String> {
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        self.levels.clear();
        let (levels, values) = (&mut self.levels, &mut self.values);
        macro_rules! read {
            ($reader:expr, $values:ident) => {{
                values.$values.clear();
                let mut all = 0;
                while all < rows {
                    let (read, ..) = $reader
                        .read_records(rows - all, Some(&mut *levels), None, &mut values.$values)
                        .map_err(cause)?;
                    if read == 0 {
                        break;
                    }
                    all += read;
                }
                all
            }};
        }
        let read = match &mut self.reader {
            ColumnReader::BoolColumnReader(reader) => read!(reader, booleans),
            ColumnReader::Int32ColumnReader(reader) => read!(reader, int32),
            ColumnReader::Int64ColumnReader(reader) => read!(reader, int64),
            ColumnReader::FloatColumnReader(reader) => read!(reader, float),
            ColumnReader::DoubleColumnReader(reader) => read!(reader, double),
            ColumnReader::ByteArrayColumnReader(reader) => read!(reader, bytes),
            ColumnReader::FixedLenByteArrayColumnReader(reader) => read!(reader, fixed),
            ColumnReader::Int96ColumnReader(_) => return Err("a column has another type than its schema".to_owned()),
        };
        Ok(read as u64)
    }

    /// The value of a decoded row.
    fn value(&self, row: usize) -> Value<'_> {
        let Some(place) = self.places.get(row).copied().flatten() else {
            return Value::Null;
        };
        let values = &self.values;
        let number = |text: String| Value::Number(text);
        let found = match (self.stored, &self.reader) {
            (Stored::Text, _) => values.bytes.get(place).map(|bytes| Value::Bytes(bytes.data())),
            (Stored::Boolean, _) => values.booleans.get(place).map(|value| number(value.to_string())),
            (Stored::Signed, ColumnReader::Int32ColumnReader(_)) => {
                values.int32.get(place).map(|value| number(value.to_string()))
            }
            (Stored::Unsigned, ColumnReader::Int32ColumnReader(_)) => values
                .int32
                .get(place)
                .map(|value| number(value.cast_unsigned().to_string())),
            (Stored::Signed, _) => values.int64.get(place).map(|value| number(value.to_string())),
            (Stored::Unsigned, _) => values
                .int64
                .get(place)
                .map(|value| number(value.cast_unsigned().to_string())),
            (Stored::Half, _) => values.fixed.get(place).map(|value| {
                let bytes = value.data().first_chunk().copied().unwrap_or_default();
                Value::f32(half::f16::from_le_bytes(bytes).to_f32())
            }),
            (Stored::Float, ColumnReader::FloatColumnReader(_)) => values.float.get(place).map(|&v| Value::f32(v)),
            (Stored::Float, _) => values.double.get(place).map(|&value| Value::f64(value)),
        };
        found.unwrap_or(Value::Null)
    }
}
