//! Arrow IPC: files, which have a footer, and streams, as the Hugging Face library writes both.
//!
//! In: a file or a stream. Out: [`Rows`]. Messages are read here, so that the lengths which they state are compared
//! with what there is before memory is taken; the arrow-ipc crate decodes them, only the wanted columns. Memory holds
//! one batch. Source: Apache Arrow, "Arrow Columnar Format: Serialization and Interprocess Communication". Not here:
//! conversion of values (`super`).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowDictionaryKeyType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, DictionaryArray, RecordBatch};
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::{read_dictionary, read_record_batch};
use arrow_ipc::{Message, MessageHeader, root_as_footer, root_as_message};
use arrow_schema::{DataType, Schema};

use super::{ColumnsError, LIMIT, Listing, Pieces, Rows, Value, Wanted, guarded};

const FORMAT: &str = "Arrow";
const MAGIC: &[u8; 6] = b"ARROW1";

/// The longest description of a batch, or footer of a file, bytes.
const DESCRIPTION: u64 = 64 << 20;

/// Reads the wanted columns of an Arrow file or of a stream in a file: the Hugging Face library names both `.arrow`. As
/// [`read_arrow_file`] and [`read_arrow_stream`].
///
/// # Errors
/// As these.
pub fn read_arrow<E: From<ColumnsError>>(
    mut file: File,
    name: &str,
    wanted: &[Wanted],
    visit: &mut dyn FnMut(Rows) -> Result<(), E>,
) -> Result<u64, E> {
    let mut first = Vec::new();
    let read = (&mut file).take(MAGIC.len() as u64).read_to_end(&mut first);
    read.and_then(|_| file.rewind()).map_err(reading(name))?;
    if first == MAGIC {
        return read_arrow_file(file, name, wanted, visit);
    }
    read_arrow_stream(&mut file, name, wanted, visit)
}

/// Reads the wanted columns of an Arrow file; `name` is for errors. Returns the number of its rows.
///
/// # Errors
/// Errors of `visit`; the file is damaged or too large; a column is missing, or has another type.
pub fn read_arrow_file<E: From<ColumnsError>>(
    mut file: File,
    name: &str,
    wanted: &[Wanted],
    visit: &mut dyn FnMut(Rows) -> Result<(), E>,
) -> Result<u64, E> {
    let footer = footer(&mut file, name)?;
    let (mut table, blocks) = guarded(name, FORMAT, || {
        let footer = root_as_footer(&footer).map_err(|error| error.to_string())?;
        let schema = footer.schema().ok_or("its footer has no schema")?;
        let blocks = [footer.dictionaries(), footer.recordBatches()];
        let blocks = blocks.into_iter().flatten().flatten();
        let blocks: Vec<(i64, i32, i64)> = blocks
            .map(|block| (block.offset(), block.metaDataLength(), block.bodyLength()))
            .collect();
        Ok((Table::new(name, schema, wanted), blocks))
    })
    .and_then(|(table, blocks)| Ok((table?, blocks)))?;
    let mut pieces = Pieces::new(name, wanted.len(), visit);
    for (offset, description, body) in blocks {
        let seek = |offset: i64| u64::try_from(offset).ok();
        let start = seek(offset).ok_or_else(|| damaged(name, "a batch starts before the file".to_owned()))?;
        file.seek(SeekFrom::Start(start)).map_err(reading(name))?;
        let mut reader = BufReader::new(&mut file);
        let message = next_message(&mut reader, name)?;
        let message = message.ok_or_else(|| damaged(name, "a batch is missing".to_owned()))?;
        let same = i64::try_from(message.body.len()) == Ok(body) && i64::from(description) >= 8;
        if !same {
            return Err(damaged(
                name,
                "its footer states another length of a batch than the batch".to_owned(),
            )
            .into());
        }
        table.message(&message, &mut pieces)?;
    }
    pieces.finish()
}

/// Reads the wanted columns of an Arrow stream; `name` is for errors. Returns the number of its rows.
///
/// # Errors
/// Errors of `visit`; the stream is damaged, cut off or too large; a column is missing, or has another type.
pub fn read_arrow_stream<E: From<ColumnsError>>(
    reader: &mut dyn Read,
    name: &str,
    wanted: &[Wanted],
    visit: &mut dyn FnMut(Rows) -> Result<(), E>,
) -> Result<u64, E> {
    let mut reader = BufReader::with_capacity(1 << 20, reader);
    let first = next_message(&mut reader, name)?;
    let first = first.ok_or_else(|| damaged(name, "it has no schema".to_owned()))?;
    let mut table = guarded(name, FORMAT, || {
        let message = root_as_message(&first.description).map_err(|error| error.to_string())?;
        let schema = message.header_as_schema().ok_or("it does not begin with a schema")?;
        Ok(Table::new(name, schema, wanted))
    })??;
    let mut pieces = Pieces::new(name, wanted.len(), visit);
    while let Some(message) = next_message(&mut reader, name)? {
        table.message(&message, &mut pieces)?;
    }
    pieces.finish()
}

fn damaged(name: &str, cause: String) -> ColumnsError {
    ColumnsError::Damaged {
        name: name.to_owned(),
        format: FORMAT,
        cause,
    }
}

/// Turns the error of a read into one that names the file; the end of the file within a message is damage.
fn reading(name: &str) -> impl Fn(io::Error) -> ColumnsError + Copy {
    move |source| match source.kind() {
        io::ErrorKind::UnexpectedEof => damaged(name, "it ends within a batch".to_owned()),
        _ => ColumnsError::Read {
            name: name.to_owned(),
            source,
        },
    }
}

fn too_large(name: &str) -> ColumnsError {
    ColumnsError::Large {
        name: name.to_owned(),
        what: "a batch".to_owned(),
        remedy: "batches",
    }
}

fn footer(file: &mut File, name: &str) -> Result<Vec<u8>, ColumnsError> {
    let length = file.metadata().map_err(reading(name))?.len();
    let mut end = [0; 10];
    if length < 20 {
        return Err(damaged(name, format!("it has {length} bytes")));
    }
    file.seek(SeekFrom::Start(length - 10)).map_err(reading(name))?;
    file.read_exact(&mut end).map_err(reading(name))?;
    let [a, b, c, d, magic @ ..] = end;
    if magic != *MAGIC {
        return Err(damaged(name, "it does not end with `ARROW1`".to_owned()));
    }
    let stated = u64::from(u32::from_le_bytes([a, b, c, d]));
    let start = (length - 10).checked_sub(stated).filter(|_| stated <= DESCRIPTION);
    let start = start.ok_or_else(|| damaged(name, format!("its footer of {stated} bytes does not fit")))?;
    file.seek(SeekFrom::Start(start)).map_err(reading(name))?;
    exactly(file, stated).map_err(reading(name))
}

/// Exactly `length` bytes; memory is taken only for what there is.
fn exactly(reader: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// An encapsulated message: its description, and the buffers that it describes.
struct Encapsulated {
    description: Vec<u8>,
    body: Vec<u8>,
}

/// The next message; `None` at the end of the stream.
fn next_message(reader: &mut impl Read, name: &str) -> Result<Option<Encapsulated>, ColumnsError> {
    let mut word = [0; 4];
    // A stream ends with a length of 0, or where its file ends.
    if !exactly_or_end(reader, &mut word).map_err(reading(name))? {
        return Ok(None);
    }
    // Before the length; streams of versions before 0.15 do not have it.
    if word == [0xff; 4] {
        reader.read_exact(&mut word).map_err(reading(name))?;
    }
    let length = u32::from_le_bytes(word);
    if length == 0 {
        return Ok(None);
    }
    if u64::from(length) > DESCRIPTION {
        return Err(damaged(
            name,
            format!("the description of a batch states {length} bytes"),
        ));
    }
    let description = exactly(reader, length.into()).map_err(reading(name))?;
    let stated = guarded(name, FORMAT, || {
        let message = root_as_message(&description).map_err(|error| error.to_string())?;
        Ok(message.bodyLength())
    })?;
    let stated = u64::try_from(stated).map_err(|_| damaged(name, "a batch states a negative length".to_owned()))?;
    if stated > LIMIT {
        return Err(too_large(name));
    }
    let body = exactly(reader, stated).map_err(reading(name))?;
    let unpacked = guarded(name, FORMAT, || unpacked(&description, &body))?;
    if unpacked > LIMIT {
        return Err(too_large(name));
    }
    Ok(Some(Encapsulated { description, body }))
}

/// Fills the word; `false` if the stream ends before it.
fn exactly_or_end(reader: &mut impl Read, word: &mut [u8; 4]) -> io::Result<bool> {
    let bytes = {
        let mut bytes = Vec::new();
        reader.take(4).read_to_end(&mut bytes)?;
        bytes
    };
    match bytes.len() {
        0 => Ok(false),
        4 => {
            word.copy_from_slice(&bytes);
            Ok(true)
        }
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The bytes that the buffers of a message state to unpack to.
fn unpacked(description: &[u8], body: &[u8]) -> Result<u64, String> {
    let message = root_as_message(description).map_err(|error| error.to_string())?;
    let batch = match message.header_type() {
        MessageHeader::DictionaryBatch => message.header_as_dictionary_batch().and_then(|batch| batch.data()),
        _ => message.header_as_record_batch(),
    };
    let Some(batch) = batch else { return Ok(0) };
    // Each row of a batch without buffers would still be counted.
    if u64::try_from(batch.length()).is_ok_and(|rows| rows > LIMIT) || batch.length() < 0 {
        return Err("a batch states a wrong number of rows".to_owned());
    }
    let (mut all, is_packed) = (0u64, batch.compression().is_some());
    for buffer in batch.buffers().into_iter().flatten() {
        let (start, length) = (usize::try_from(buffer.offset()), usize::try_from(buffer.length()));
        let bytes = match (start, length) {
            (Ok(start), Ok(length)) => start.checked_add(length).and_then(|end| body.get(start..end)),
            _ => None,
        };
        let bytes = bytes.ok_or("a buffer lies outside of its batch")?;
        let stated = match bytes.first_chunk() {
            Some(length) if is_packed => i64::from_le_bytes(*length),
            _ => -1,
        };
        // A buffer that packing would make longer states -1 and is stored as it is.
        all = all.saturating_add(u64::try_from(stated).unwrap_or(bytes.len() as u64));
    }
    Ok(all)
}

/// The schema of a file, and the dictionaries that were read.
struct Table<'a> {
    name: &'a str,
    schema: Arc<Schema>,
    dictionaries: HashMap<i64, ArrayRef>,
    /// Of each wanted column, the place of its first segment in the projection, and the names of the fields below it.
    wanted: Vec<(usize, Vec<String>)>,
    /// Top-level columns, each once.
    projection: Vec<usize>,
}

impl<'a> Table<'a> {
    fn new(name: &'a str, schema: arrow_ipc::Schema<'_>, wanted: &[Wanted]) -> Result<Self, ColumnsError> {
        if !schema.endianness().equals_to_target_endianness() {
            return Err(damaged(name, "its numbers are big-endian".to_owned()));
        }
        let schema = try_fb_to_schema(schema).map_err(|error| damaged(name, error.to_string()))?;
        let listing = Listing::of(&schema);
        let mut table = Self {
            name,
            dictionaries: HashMap::new(),
            wanted: Vec::new(),
            projection: Vec::new(),
            schema: Arc::new(schema),
        };
        for column in wanted {
            let found = listing.find(name, column)?;
            let place = table.place(&column.path);
            table
                .wanted
                .push(place.ok_or_else(|| listing.wrong_type(name, column, &super::describe(found)))?);
        }
        Ok(table)
    }

    fn place(&mut self, path: &str) -> Option<(usize, Vec<String>)> {
        let (index, rest) = self.schema.fields().iter().enumerate().find_map(|(index, field)| {
            let rest = path.strip_prefix(field.name().as_str())?;
            let rest = if rest.is_empty() { rest } else { rest.strip_prefix('.')? };
            below(field.data_type(), rest).map(|rest| (index, rest))
        })?;
        let known = self.projection.iter().position(|&known| known == index);
        let place = known.unwrap_or_else(|| {
            self.projection.push(index);
            self.projection.len() - 1
        });
        Some((place, rest))
    }

    /// Reads a batch or a dictionary.
    fn message<E: From<ColumnsError>>(
        &mut self,
        encapsulated: &Encapsulated,
        pieces: &mut Pieces<'_, E>,
    ) -> Result<(), E> {
        let batch = guarded(self.name, FORMAT, || {
            let message = root_as_message(&encapsulated.description).map_err(|error| error.to_string())?;
            self.decode(message, &encapsulated.body)
        })?;
        let Some(batch) = batch else { return Ok(()) };
        let columns = guarded(self.name, FORMAT, || {
            let column = |(place, below): &(usize, Vec<String>)| Column::new(batch.column(*place), below);
            self.wanted
                .iter()
                .map(column)
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| "a column has another type than the schema".to_owned())
        })?;
        for row in 0..batch.num_rows() {
            pieces.row(columns.iter().map(|column| column.value(row)))?;
        }
        Ok(())
    }

    fn decode(&mut self, message: Message<'_>, body: &[u8]) -> Result<Option<RecordBatch>, String> {
        let version = message.version();
        let text = |error: arrow_schema::ArrowError| error.to_string();
        match message.header_type() {
            MessageHeader::RecordBatch => {
                let batch = message.header_as_record_batch().ok_or("a batch has no description")?;
                let schema = Arc::clone(&self.schema);
                let projection = Some(&self.projection[..]);
                let body = body.into();
                let batch = read_record_batch(&body, batch, schema, &self.dictionaries, projection, &version);
                batch.map(Some).map_err(text)
            }
            MessageHeader::DictionaryBatch => {
                let batch = message
                    .header_as_dictionary_batch()
                    .ok_or("a dictionary has no description")?;
                read_dictionary(&body.into(), batch, &self.schema, &mut self.dictionaries, &version).map_err(text)?;
                Ok(None)
            }
            MessageHeader::NONE => Ok(None),
            other => Err(format!("it has a message of type {other:?} among its batches")),
        }
    }
}

/// The names of the fields of structs that a path goes through, below a column.
fn below(found: &DataType, path: &str) -> Option<Vec<String>> {
    let fields = match (found, path) {
        (DataType::Struct(_), "") => return None,
        (_, "") => return Some(Vec::new()),
        (DataType::Struct(fields), _) => fields,
        _ => return None,
    };
    fields.iter().find_map(|field| {
        let rest = path.strip_prefix(field.name().as_str())?;
        let rest = if rest.is_empty() { rest } else { rest.strip_prefix('.')? };
        let mut names = vec![field.name().clone()];
        names.extend(below(field.data_type(), rest)?);
        Some(names)
    })
}

/// A wanted column of a batch, with the structs around it.
struct Column {
    around: Vec<ArrayRef>,
    values: ArrayRef,
    /// For a dictionary: the key of each row.
    keys: Option<Vec<Option<usize>>>,
}

impl Column {
    fn new(column: &ArrayRef, below: &[String]) -> Option<Self> {
        let mut around = Vec::new();
        let mut values = Arc::clone(column);
        for name in below {
            let inner = Arc::clone(values.as_struct_opt()?.column_by_name(name)?);
            around.push(std::mem::replace(&mut values, inner));
        }
        let (keys, values) = match values.data_type() {
            DataType::Dictionary(key, _) => {
                let (keys, values) = match **key {
                    DataType::Int8 => dictionary::<Int8Type>(&values)?,
                    DataType::Int16 => dictionary::<Int16Type>(&values)?,
                    DataType::Int32 => dictionary::<Int32Type>(&values)?,
                    DataType::Int64 => dictionary::<Int64Type>(&values)?,
                    DataType::UInt8 => dictionary::<UInt8Type>(&values)?,
                    DataType::UInt16 => dictionary::<UInt16Type>(&values)?,
                    DataType::UInt32 => dictionary::<UInt32Type>(&values)?,
                    _ => dictionary::<UInt64Type>(&values)?,
                };
                (Some(keys), values)
            }
            _ => (None, values),
        };
        Some(Self { around, values, keys })
    }

    fn value(&self, row: usize) -> Value<'_> {
        let row = match &self.keys {
            _ if self.around.iter().any(|array| array.is_null(row)) => None,
            Some(keys) => keys.get(row).copied().flatten(),
            None => Some(row),
        };
        let Some(row) = row.filter(|&row| row < self.values.len() && self.values.is_valid(row)) else {
            return Value::Null;
        };
        let values = &self.values;
        macro_rules! integer {
            ($type:ty) => {
                Value::Number(values.as_primitive::<$type>().value(row).to_string())
            };
        }
        match values.data_type() {
            DataType::Utf8 => Value::Text(values.as_string::<i32>().value(row)),
            DataType::LargeUtf8 => Value::Text(values.as_string::<i64>().value(row)),
            DataType::Utf8View => Value::Text(values.as_string_view().value(row)),
            DataType::Boolean => Value::Number(values.as_boolean().value(row).to_string()),
            DataType::Int8 => integer!(Int8Type),
            DataType::Int16 => integer!(Int16Type),
            DataType::Int32 => integer!(Int32Type),
            DataType::Int64 => integer!(Int64Type),
            DataType::UInt8 => integer!(UInt8Type),
            DataType::UInt16 => integer!(UInt16Type),
            DataType::UInt32 => integer!(UInt32Type),
            DataType::UInt64 => integer!(UInt64Type),
            DataType::Float16 => Value::f32(values.as_primitive::<Float16Type>().value(row).to_f32()),
            DataType::Float32 => Value::f32(values.as_primitive::<Float32Type>().value(row)),
            DataType::Float64 => Value::f64(values.as_primitive::<Float64Type>().value(row)),
            // `Listing::find` lets no other type pass.
            _ => Value::Null,
        }
    }
}

/// The key of each row, and the values of a dictionary.
fn dictionary<K: ArrowDictionaryKeyType>(array: &ArrayRef) -> Option<(Vec<Option<usize>>, ArrayRef)> {
    let array: &DictionaryArray<K> = array.as_dictionary_opt()?;
    let keys = (0..array.len()).map(|row| array.key(row)).collect();
    Some((keys, Arc::clone(array.values())))
}
