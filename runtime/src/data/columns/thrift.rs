//! The compact protocol of Thrift, as far as the lengths that Parquet states are read.
//!
//! In: bytes of a page header or a footer. Out: its lengths, before the parquet crate takes memory for them. Source:
//! Apache Thrift, "Thrift Compact protocol encoding"; Apache Parquet, parquet.thrift. Not here: everything else that
//! these structures have, which the parquet crate reads.

/// How deep structures, and groups of a schema, may be nested.
const DEPTH: usize = 64;

/// The lengths of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PageHeader {
    /// Bytes of the header itself.
    pub(super) length: u64,
    /// 0 data, 1 index, 2 dictionary, 3 data of version 2.
    pub(super) kind: i64,
    pub(super) unpacked: i64,
    pub(super) packed: i64,
    /// Bytes of a page of version 2 that are never compressed.
    pub(super) levels: i64,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A field of a structure: its number and the code of its type.
type Field = (i64, u8);

const BYTE: u8 = 3;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// The next field of a structure; `Some(None)` at its end.
    fn field(&mut self, before: i64) -> Option<Option<Field>> {
        let head = self.byte()?;
        if head == 0 {
            return Some(None);
        }
        let number = match head >> 4 {
            0 => self.signed()?,
            step => before.checked_add(step.into())?,
        };
        Some(Some((number, head & 15)))
    }

    /// The length of a list, and the type of its elements.
    fn list(&mut self) -> Option<(u64, u8)> {
        let head = self.byte()?;
        let length = match head >> 4 {
            15 => self.unsigned()?,
            short => short.into(),
        };
        Some((length, head & 15))
    }

    fn forward(&mut self, bytes: u64) -> Option<()> {
        self.at = self.at.checked_add(usize::try_from(bytes).ok()?)?;
        (self.at <= self.bytes.len()).then_some(())
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > DEPTH {
            return None;
        }
        match kind {
            // A boolean of a structure is in its type; one of a list has a byte, which `list` below takes.
            1 | 2 => Some(()),
            BYTE => self.forward(1),
            4..=6 => self.unsigned().map(|_| ()),
            DOUBLE => self.forward(8),
            BINARY => {
                let length = self.unsigned()?;
                self.forward(length)
            }
            LIST | SET => {
                let (length, element) = self.list()?;
                for _ in 0..length {
                    self.element(element, depth)?;
                }
                Some(())
            }
            MAP => {
                let length = self.unsigned()?;
                let kinds = if length > 0 { self.byte()? } else { 0 };
                for _ in 0..length {
                    self.element(kinds >> 4, depth)?;
                    self.element(kinds & 15, depth)?;
                }
                Some(())
            }
            STRUCT => self.fields(depth, |_, _| Some(false)),
            _ => None,
        }
    }

    fn element(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            1 | 2 => self.forward(1),
            other => self.skip(other, depth + 1),
        }
    }

    /// Reads a structure. `take` reads the value of a field and returns whether it did.
    fn fields(&mut self, depth: usize, mut take: impl FnMut(&mut Self, Field) -> Option<bool>) -> Option<()> {
        let mut number = 0;
        while let Some(field) = self.field(number)? {
            number = field.0;
            if !take(self, field)? {
                self.skip(field.1, depth + 1)?;
            }
        }
        Some(())
    }
}

/// The header of the page that `bytes` begin with; `None` if it is not one, or does not end in them.
pub(super) fn page_header(bytes: &[u8]) -> Option<PageHeader> {
    let mut reader = Reader { bytes, at: 0 };
    let mut header = PageHeader::default();
    reader.fields(0, |reader, field| {
        match field {
            (1, 5) => header.kind = reader.signed()?,
            (2, 5) => header.unpacked = reader.signed()?,
            (3, 5) => header.packed = reader.signed()?,
            // `definition_levels_byte_length` and `repetition_levels_byte_length` of `data_page_header_v2`.
            (8, STRUCT) => reader.fields(1, |reader, field| {
                if let (5 | 6, 5) = field {
                    header.levels = header.levels.checked_add(reader.signed()?)?;
                    return Some(true);
                }
                Some(false)
            })?,
            _ => return Some(false),
        }
        Some(true)
    })?;
    header.length = reader.at as u64;
    Some(header)
}

/// Whether the groups of the schema in a footer have as many children as they state, and are not nested too deeply.
pub(super) fn is_schema_valid(footer: &[u8]) -> bool {
    let mut reader = Reader { bytes: footer, at: 0 };
    let mut children: Option<Vec<u64>> = None;
    let read = reader.fields(0, |reader, field| {
        if field != (2, LIST) || children.is_some() {
            return Some(false);
        }
        let (length, element) = reader.list()?;
        let mut counts = Vec::new();
        for _ in 0..length {
            if element != STRUCT {
                return None;
            }
            let mut count = 0;
            reader.fields(1, |reader, field| {
                if field != (5, 5) {
                    return Some(false);
                }
                count = reader.signed()?;
                Some(true)
            })?;
            counts.push(u64::try_from(count).ok()?);
        }
        children = Some(counts);
        Some(true)
    });
    let Some(children) = children.filter(|_| read.is_some()) else {
        return false;
    };
    // The children that the groups around an element still lack.
    let mut open: Vec<u64> = Vec::new();
    for (at, &count) in children.iter().enumerate() {
        if let Some(lacking) = open.last_mut() {
            *lacking -= 1;
        } else if at > 0 {
            return false;
        }
        if count > 0 {
            open.push(count);
        }
        while open.last() == Some(&0) {
            open.pop();
        }
        if open.len() > DEPTH {
            return false;
        }
    }
    open.is_empty()
}
