//! The header of a GGUF file: metadata, and the list of its tensors.
//!
//! In: any bytes. Out: plain data. Every length is compared with the available bytes before memory is allocated for it. Not
//! here: what the metadata means.

use std::collections::BTreeMap;
use std::io::Read;

use super::GgufError;

/// Elements of all lists together, each of which takes more memory than its bytes in the file. Files have far fewer: a
/// vocabulary has about 10⁵ entries, a model about 10³ tensors.
const MOST_ELEMENTS: u64 = 1 << 23;
const MOST_ENTRIES: u64 = 1 << 16;
/// In bytes. The longest texts of files are templates of some kB.
const LONGEST_TEXT: u64 = 1 << 26;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    Integer(i128),
    Number(f64),
    Flag(bool),
    Text(String),
    List(Vec<Fact>),
}

impl Fact {
    /// Its kind and beginning, for messages.
    pub fn describe(&self) -> String {
        match self {
            Self::Integer(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Flag(value) => value.to_string(),
            Self::Text(text) => format!("`{}`", text.chars().take(40).collect::<String>()),
            Self::List(list) => format!("a list of {}", list.len()),
        }
    }
}

/// A tensor as the file lists it.
pub struct GgufTensor {
    pub name: String,
    /// The fastest dimension first.
    pub dimensions: Vec<u64>,
    pub code: u32,
    pub offset: u64,
    /// The position of its entry.
    pub at: usize,
}

pub struct Reader<'a> {
    file: &'a str,
    bytes: &'a mut dyn Read,
    /// Of the whole file, in bytes.
    length: usize,
    at: usize,
    /// Of the lists so far.
    elements: u64,
}

impl<'a> Reader<'a> {
    /// `bytes` are the `length` bytes of the file, from its beginning.
    pub fn new(file: &'a str, bytes: &'a mut dyn Read, length: usize) -> Self {
        Self {
            file,
            bytes,
            length,
            at: 0,
            elements: 0,
        }
    }

    /// The position of the next byte.
    pub fn at(&self) -> usize {
        self.at
    }

    fn damaged(&self, what: impl Into<String>) -> GgufError {
        GgufError::Damaged {
            file: self.file.to_owned(),
            at: self.at,
            what: what.into(),
        }
    }

    fn take(&mut self, count: u64) -> Result<Vec<u8>, GgufError> {
        let left = self.length - self.at;
        let count = usize::try_from(count).ok().filter(|count| *count <= left);
        let count =
            count.ok_or_else(|| self.damaged(format!("it announces more than the {left} bytes that follow")))?;
        let mut taken = vec![0; count];
        self.fill(&mut taken)?;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let left = self.length - self.at;
        if N > left {
            return Err(self.damaged(format!("it announces more than the {left} bytes that follow")));
        }
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), GgufError> {
        self.bytes.read_exact(bytes).map_err(|source| GgufError::Read {
            file: self.file.to_owned(),
            source,
        })?;
        self.at += bytes.len();
        Ok(())
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String, GgufError> {
        let length = self.u64()?;
        if length > LONGEST_TEXT {
            return Err(self.damaged(format!("a text of {length} bytes")));
        }
        let bytes = self.take(length)?;
        String::from_utf8(bytes).map_err(|_| self.damaged("a text is not UTF-8"))
    }

    fn fact(&mut self, kind: u32) -> Result<Fact, GgufError> {
        Ok(match kind {
            0 => Fact::Integer(self.array::<1>()?[0].into()),
            1 => Fact::Integer(i8::from_le_bytes(self.array()?).into()),
            2 => Fact::Integer(u16::from_le_bytes(self.array()?).into()),
            3 => Fact::Integer(i16::from_le_bytes(self.array()?).into()),
            4 => Fact::Integer(self.u32()?.into()),
            5 => Fact::Integer(i32::from_le_bytes(self.array()?).into()),
            6 => {
                let number = f32::from_le_bytes(self.array()?);
                // The decimal number, such as 1e-5, not the nearest binary number.
                Fact::Number(number.to_string().parse().unwrap_or(f64::from(number)))
            }
            7 => Fact::Flag(self.array::<1>()?[0] != 0),
            8 => Fact::Text(self.text()?),
            9 => {
                let kind = self.u32()?;
                if kind == 9 {
                    return Err(self.damaged("a list of lists"));
                }
                let count = self.u64()?;
                let left = (self.length - self.at) as u64;
                self.elements = self.elements.saturating_add(count);
                if count > left || self.elements > MOST_ELEMENTS {
                    return Err(self.damaged(format!("a list of {count} elements")));
                }
                Fact::List((0..count).map(|_| self.fact(kind)).collect::<Result<_, _>>()?)
            }
            10 => Fact::Integer(self.u64()?.into()),
            11 => Fact::Integer(i64::from_le_bytes(self.array()?).into()),
            12 => Fact::Number(f64::from_le_bytes(self.array()?)),
            other => return Err(self.damaged(format!("a value of unknown type {other}"))),
        })
    }

    /// The metadata and the list of tensors.
    pub fn head(&mut self) -> Result<(BTreeMap<String, Fact>, Vec<GgufTensor>), GgufError> {
        if self.length < 4 || self.array()? != *b"GGUF" {
            return Err(GgufError::NoGguf {
                file: self.file.to_owned(),
            });
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version {
                file: self.file.to_owned(),
                version,
            });
        }
        let (tensors, entries) = (self.u64()?, self.u64()?);
        if tensors > MOST_ENTRIES || entries > MOST_ENTRIES {
            return Err(self.damaged(format!("{tensors} tensors and {entries} facts")));
        }
        let mut facts = BTreeMap::new();
        for _ in 0..entries {
            let (key, kind) = (self.text()?, self.u32()?);
            let fact = self.fact(kind)?;
            if facts.insert(key.clone(), fact).is_some() {
                return Err(self.damaged(format!("`{key}` occurs twice")));
            }
        }
        let mut infos: Vec<GgufTensor> = Vec::new();
        for _ in 0..tensors {
            let at = self.at;
            let name = self.text()?;
            let count = self.u32()?;
            if !(1..=4).contains(&count) {
                return Err(self.damaged(format!("tensor `{name}` has {count} dimensions")));
            }
            let dimensions = (0..count).map(|_| self.u64()).collect::<Result<_, _>>()?;
            let (code, offset) = (self.u32()?, self.u64()?);
            infos.push(GgufTensor {
                name,
                dimensions,
                code,
                offset,
                at,
            });
        }
        Ok((facts, infos))
    }
}
