//! The bytes of a file of weights, read part by part.
//!
//! Files are read, not mapped: another process may shorten one meanwhile, and access to a page that no longer exists would
//! end this process.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use camino::Utf8Path;

use crate::regular;

/// Bytes that are compared at once.
const COMPARED_AT_ONCE: usize = 1 << 20;

#[derive(Debug)]
pub enum WeightBytes {
    /// A file, and its length when it was opened.
    File(File, usize),
    Memory(Vec<u8>),
}

impl WeightBytes {
    /// # Errors
    /// The file cannot be opened, or there is something else in its place.
    pub fn open(path: &Utf8Path) -> io::Result<Self> {
        let file = regular::open(path)?;
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        Ok(Self::File(file, length))
    }

    pub fn length(&self) -> usize {
        match self {
            Self::File(_, length) => *length,
            Self::Memory(bytes) => bytes.len(),
        }
    }

    /// Reads from the beginning, once.
    pub fn reader(&self) -> Box<dyn Read + '_> {
        match self {
            Self::File(file, _) => Box::new(BufReader::new(file)),
            Self::Memory(bytes) => Box::new(bytes.as_slice()),
        }
    }

    /// # Errors
    /// They cannot be read: the range ends after the file, which may have been shortened.
    pub fn read(&self, range: Range<usize>) -> io::Result<Vec<u8>> {
        if range.start > range.end || range.end > self.length() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match self {
            Self::File(file, _) => {
                let mut bytes = vec![0; range.len()];
                file.read_exact_at(&mut bytes, range.start as u64)?;
                Ok(bytes)
            }
            Self::Memory(bytes) => Ok(bytes[range].to_vec()),
        }
    }

    /// Whether two ranges have equal bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn equal(one: (&Self, Range<usize>), other: (&Self, Range<usize>)) -> io::Result<bool> {
        if one.1.len() != other.1.len() {
            return Ok(false);
        }
        for at in (0..one.1.len()).step_by(COMPARED_AT_ONCE) {
            let part = |(bytes, range): (&Self, &Range<usize>)| {
                let start = range.start + at;
                bytes.read(start..range.end.min(start + COMPARED_AT_ONCE))
            };
            if part((one.0, &one.1))? != part((other.0, &other.1))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
