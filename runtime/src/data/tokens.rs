//! Token files: Megatron's indexed dataset, a `.bin` of token ids and an `.idx` with the starts of the documents.
//!
//! In: documents as token ids, one after the other; or two files. Out: the two files, written in constant memory; or
//! token ids at any position, read through a memory map. A document is one sequence, its end-of-document token inside.
//! Not here: where the ids come from (`tokenizer`), which positions are read when (`order`).

mod mask;
mod stream;

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use camino::{Utf8Path, Utf8PathBuf};
use memmap2::Mmap;

use crate::errors::FileError;

pub use mask::Mask;
pub use stream::TokenStream;

/// "MMIDIDX" and two NULs.
const MAGIC: [u8; 9] = *b"MMIDIDX\0\0";
/// The caches of older tools, which have another format.
const LEGACY_MAGIC: [u8; 8] = *b"TNTIDX\0\0";
const VERSION: u64 = 1;
/// Magic, version, type code, number of sequences, number of document boundaries.
const HEADER: usize = 34;

#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("token {token} does not fit a vocabulary of {vocabulary} entries")]
    OutsideVocabulary { token: u32, vocabulary: u32 },
    #[error("a document without tokens cannot be stored: readers would lose it")]
    EmptyDocument,
    #[error("a document of {tokens} tokens is too long for the format (2^31 - 1)")]
    LongDocument { tokens: usize },
    #[error("`{path}` is not a Megatron index: it starts with {found}")]
    NoIndex { path: Utf8PathBuf, found: String },
    #[error(
        "`{path}` is a cached index of the old format `TNTIDX`, which is not supported; write it again as `.bin`/`.idx`"
    )]
    OldIndex { path: Utf8PathBuf },
    #[error("`{path}` is an index of version {found}; only version {VERSION} is known")]
    UnknownVersion { path: Utf8PathBuf, found: u64 },
    #[error("`{path}` has elements of type code {found}; token ids are 4 (i32) or 8 (u16)")]
    ElementType { path: Utf8PathBuf, found: u8 },
    #[error(
        "`{path}` has {found} bytes, but its {sequences} sequences and {boundaries} document boundaries need {needed}"
    )]
    IndexLength {
        path: Utf8PathBuf,
        found: u64,
        needed: u128,
        sequences: u64,
        boundaries: u64,
    },
    #[error(
        "`{path}` is damaged: sequence {sequence} starts at byte {found}, where the lengths before it sum to {expected}"
    )]
    Offset {
        path: Utf8PathBuf,
        sequence: u64,
        found: i64,
        expected: u64,
    },
    #[error("`{path}` is damaged: sequence {sequence} has {length} tokens")]
    SequenceLength {
        path: Utf8PathBuf,
        sequence: u64,
        length: i32,
    },
    #[error("`{path}` is damaged: document boundary {boundary} is {found}, after {before}, of {sequences} sequences")]
    Boundary {
        path: Utf8PathBuf,
        boundary: u64,
        found: i64,
        before: i64,
        sequences: u64,
    },
    #[error("the index of `{path}` is damaged: document {document} starts at token {start} of {of}, or after its end")]
    DocumentStart {
        path: Utf8PathBuf,
        document: u64,
        start: u64,
        of: u64,
    },
    #[error("`{path}` has {found} bytes, but its index counts {expected}")]
    BinLength {
        path: Utf8PathBuf,
        found: u64,
        expected: u64,
    },
    #[error("`{path}` does not have tokens {start}..{end}: it has {of} tokens")]
    OutOfRange {
        path: Utf8PathBuf,
        start: u64,
        end: u64,
        of: u64,
    },
    #[error("`{path}` does not have document {document}: it has {of} documents")]
    NoSuchDocument { path: Utf8PathBuf, document: u64, of: u64 },
    #[error("`{path}` is damaged: token {position} is {token}")]
    NegativeToken {
        path: Utf8PathBuf,
        position: u64,
        token: i32,
    },
    #[error("`{path}` has {found} bytes for {expected} tokens")]
    MaskLength {
        path: Utf8PathBuf,
        found: u64,
        expected: u64,
    },
    #[error("there are no token files")]
    NoFiles,
}

/// How one token id is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenWidth {
    U16,
    I32,
}

impl TokenWidth {
    /// Megatron's rule: two bytes below 65,500 entries.
    pub fn of_vocabulary(vocabulary: u32) -> Self {
        if vocabulary < 65_500 { Self::U16 } else { Self::I32 }
    }

    pub fn bytes(self) -> u64 {
        match self {
            Self::U16 => 2,
            Self::I32 => 4,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::U16 => 8,
            Self::I32 => 4,
        }
    }
}

/// Counts of a finished writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub documents: u64,
    pub tokens: u64,
}

/// Writes documents one by one. Lengths are written to the index file at once; [`TokenWriter::finish`] adds the counts and
/// the offsets, which are known only at the end. Memory does not grow with the corpus.
#[derive(Debug)]
pub struct TokenWriter {
    bin: BufWriter<File>,
    idx: BufWriter<File>,
    bin_path: Utf8PathBuf,
    idx_path: Utf8PathBuf,
    vocabulary: u32,
    element: TokenWidth,
    written: Written,
    buffer: Vec<u8>,
}

impl TokenWriter {
    /// Creates both files. `vocabulary` is the number of entries, which decides the element type and bounds the ids.
    ///
    /// # Errors
    /// If a file cannot be created.
    pub fn create(bin: &Utf8Path, idx: &Utf8Path, vocabulary: u32) -> Result<Self, TokensError> {
        let element = TokenWidth::of_vocabulary(vocabulary);
        let mut writer = Self {
            bin: BufWriter::with_capacity(1 << 20, create(bin)?),
            idx: BufWriter::with_capacity(1 << 16, create(idx)?),
            bin_path: bin.to_owned(),
            idx_path: idx.to_owned(),
            vocabulary,
            element,
            written: Written {
                documents: 0,
                tokens: 0,
            },
            buffer: Vec::new(),
        };
        writer.idx.write_all(&[0; HEADER]).map_err(FileError::writing(idx))?;
        Ok(writer)
    }

    /// Adds one document, its end-of-document token included.
    ///
    /// # Errors
    /// If the document is empty, too long, has an id outside the vocabulary, or it cannot be written.
    pub fn push(&mut self, document: &[u32]) -> Result<(), TokensError> {
        if document.is_empty() {
            return Err(TokensError::EmptyDocument);
        }
        let length = i32::try_from(document.len()).map_err(|_| TokensError::LongDocument { tokens: document.len() })?;
        if let Some(&token) = document
            .iter()
            .find(|&&token| token >= self.vocabulary || token > i32::MAX as u32)
        {
            return Err(TokensError::OutsideVocabulary {
                token,
                vocabulary: self.vocabulary,
            });
        }
        self.buffer.clear();
        match self.element {
            TokenWidth::U16 => self
                .buffer
                .extend(document.iter().flat_map(|&token| (token as u16).to_le_bytes())),
            TokenWidth::I32 => self
                .buffer
                .extend(document.iter().flat_map(|&token| token.to_le_bytes())),
        }
        self.bin
            .write_all(&self.buffer)
            .map_err(FileError::writing(&self.bin_path))?;
        self.idx
            .write_all(&length.to_le_bytes())
            .map_err(FileError::writing(&self.idx_path))?;
        self.written.documents += 1;
        self.written.tokens += document.len() as u64;
        Ok(())
    }

    /// Fills in the rest of the index and closes both files.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> Result<Written, TokensError> {
        self.bin.flush().map_err(FileError::writing(&self.bin_path))?;
        let path = self.idx_path.clone();
        self.finish_index().map_err(FileError::writing(&path))?;
        Ok(self.written)
    }

    fn finish_index(&mut self) -> io::Result<()> {
        let documents = self.written.documents;
        let mut header = Vec::with_capacity(HEADER);
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.push(self.element.code());
        header.extend(documents.to_le_bytes());
        header.extend((documents + 1).to_le_bytes());
        self.idx.seek(SeekFrom::Start(0))?;
        self.idx.write_all(&header)?;
        self.idx.seek(SeekFrom::End(0))?;

        let mut lengths = io::BufReader::new(File::open(&self.idx_path)?);
        lengths.seek(SeekFrom::Start(HEADER as u64))?;
        let mut offset = 0u64;
        for _ in 0..documents {
            let mut length = [0; 4];
            lengths.read_exact(&mut length)?;
            self.idx.write_all(&offset.to_le_bytes())?;
            offset += u64::from(u32::from_le_bytes(length)) * self.element.bytes();
        }
        for boundary in 0..=documents {
            self.idx.write_all(&boundary.to_le_bytes())?;
        }
        self.idx.flush()
    }
}

fn create(path: &Utf8Path) -> Result<File, FileError> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(FileError::writing(path))
}

/// One pair of files, memory-mapped. Opening it reads and checks the whole index; token ids are read on demand.
#[derive(Debug)]
pub struct TokenFile {
    bin: Mmap,
    idx: Mmap,
    /// One byte per token: 1 if it is trained on. Without it, all tokens are trained on.
    mask: Option<Mmap>,
    bin_path: Utf8PathBuf,
    element: TokenWidth,
    num_sequences: u64,
    num_documents: u64,
    num_tokens: u64,
}

impl TokenFile {
    /// Opens two files and checks that they belong together: the index has the length that its counts require, its
    /// offsets are the sums of its lengths, its document boundaries increase, and the `.bin` ends where the last sequence does.
    ///
    /// # Errors
    /// If a file cannot be read, is of another format, or fails a check.
    pub fn open(bin: &Utf8Path, idx: &Utf8Path) -> Result<Self, TokensError> {
        let mut file = Self::mapped(bin, idx)?;
        file.num_tokens = file.check(idx)?;
        file.check_bin()?;
        Ok(file)
    }

    /// As [`open`](Self::open), in constant time: reads the ends of the index only. For files whose bytes the store has
    /// verified; an entry that disagrees with the others is an error where it is used.
    ///
    /// # Errors
    /// If a file cannot be read or is of another format, or its length is not that of the other.
    pub fn open_verified(bin: &Utf8Path, idx: &Utf8Path) -> Result<Self, TokensError> {
        let mut file = Self::mapped(bin, idx)?;
        if let Some(last) = file.num_sequences.checked_sub(1) {
            let (offset, length) = (file.offset(last), file.length(last));
            let end = u64::try_from(offset).ok().zip(u64::try_from(length).ok());
            let (offset, length) = end.ok_or_else(|| TokensError::SequenceLength {
                path: idx.to_owned(),
                sequence: last,
                length,
            })?;
            file.num_tokens = offset / file.element.bytes() + length;
        }
        file.check_bin()?;
        Ok(file)
    }

    fn mapped(bin: &Utf8Path, idx: &Utf8Path) -> Result<Self, TokensError> {
        let (bin_map, idx_map) = (map(bin)?, map(idx)?);
        let header = header(idx, &idx_map)?;
        Ok(Self {
            bin: bin_map,
            idx: idx_map,
            mask: None,
            bin_path: bin.to_owned(),
            element: header.element,
            num_sequences: header.sequences,
            num_documents: header.boundaries - 1,
            num_tokens: 0,
        })
    }

    fn check_bin(&self) -> Result<(), TokensError> {
        let (found, expected) = (self.bin.len() as u64, self.num_tokens.checked_mul(self.element.bytes()));
        if expected == Some(found) {
            return Ok(());
        }
        Err(TokensError::BinLength {
            path: self.bin_path.clone(),
            found,
            expected: expected.unwrap_or(u64::MAX),
        })
    }

    /// Opens two files and the mask of the tokens that are trained on.
    ///
    /// # Errors
    /// If it cannot be read, or does not have one byte per token.
    pub fn masked(self, mask: &Utf8Path) -> Result<Self, TokensError> {
        let map = map(mask)?;
        if map.len() as u64 != self.num_tokens {
            return Err(TokensError::MaskLength {
                path: mask.to_owned(),
                found: map.len() as u64,
                expected: self.num_tokens,
            });
        }
        Ok(Self {
            mask: Some(map),
            ..self
        })
    }

    /// Checks the index; returns the sum of its lengths, in tokens.
    fn check(&self, idx: &Utf8Path) -> Result<u64, TokensError> {
        let mut tokens = 0u64;
        for sequence in 0..self.num_sequences {
            let length = self.length(sequence);
            let added = u64::try_from(length).map_err(|_| TokensError::SequenceLength {
                path: idx.to_owned(),
                sequence,
                length,
            })?;
            let (found, expected) = (self.offset(sequence), tokens * self.element.bytes());
            if u64::try_from(found) != Ok(expected) {
                return Err(TokensError::Offset {
                    path: idx.to_owned(),
                    sequence,
                    found,
                    expected,
                });
            }
            tokens += added;
        }
        let mut before = 0;
        for boundary in 0..=self.num_documents {
            let found = self.boundary(boundary);
            let wrong_end = boundary == self.num_documents && u64::try_from(found) != Ok(self.num_sequences);
            if found < before || (boundary == 0 && found != 0) || wrong_end {
                let sequences = self.num_sequences;
                return Err(TokensError::Boundary {
                    path: idx.to_owned(),
                    boundary,
                    found,
                    before,
                    sequences,
                });
            }
            before = found;
        }
        Ok(tokens)
    }

    pub fn num_tokens(&self) -> u64 {
        self.num_tokens
    }

    pub fn num_documents(&self) -> u64 {
        self.num_documents
    }

    pub fn element(&self) -> TokenWidth {
        self.element
    }

    /// The tokens of document `i`, as positions in the concatenation of all documents.
    ///
    /// # Errors
    /// The file does not have this document.
    pub fn document(&self, i: u64) -> Result<Range<u64>, TokensError> {
        if i >= self.num_documents {
            let path = self.bin_path.clone();
            return Err(TokensError::NoSuchDocument {
                path,
                document: i,
                of: self.num_documents,
            });
        }
        let (start, end) = (self.document_start(i)?, self.document_start(i + 1)?);
        if start > end {
            return Err(self.damaged_start(i, start));
        }
        Ok(start..end)
    }

    /// The document that the token at `position` belongs to.
    ///
    /// # Errors
    /// There is no such position.
    pub fn document_at(&self, position: u64) -> Result<u64, TokensError> {
        if position >= self.num_tokens {
            return Err(self.out_of_range(position, position.saturating_add(1)));
        }
        last_at_or_before(self.num_documents, self.num_tokens, position, |document| {
            self.document_start(document)
        })
    }

    /// Reads `out.len()` token ids from position `start` on, across documents.
    ///
    /// # Errors
    /// If the range reaches past the end, or an id is negative.
    pub fn read(&self, start: u64, out: &mut [i64]) -> Result<(), TokensError> {
        let end = start
            .checked_add(out.len() as u64)
            .filter(|&end| end <= self.num_tokens);
        let Some(end) = end else {
            return Err(self.out_of_range(start, start.saturating_add(out.len() as u64)));
        };
        let width = self.element.bytes();
        let bytes = &self.bin[(start * width) as usize..(end * width) as usize];
        match self.element {
            TokenWidth::U16 => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = i64::from(u16::from_le_bytes(*bytes));
                }
            }
            TokenWidth::I32 => {
                for (at, (out, bytes)) in out.iter_mut().zip(bytes.as_chunks().0).enumerate() {
                    let token = i32::from_le_bytes(*bytes);
                    if token < 0 {
                        let position = start + at as u64;
                        return Err(TokensError::NegativeToken {
                            path: self.bin_path.clone(),
                            position,
                            token,
                        });
                    }
                    *out = i64::from(token);
                }
            }
        }
        Ok(())
    }

    fn out_of_range(&self, start: u64, end: u64) -> TokensError {
        TokensError::OutOfRange {
            path: self.bin_path.clone(),
            start,
            end,
            of: self.num_tokens,
        }
    }

    fn document_start(&self, i: u64) -> Result<u64, TokensError> {
        let sequence = u64::try_from(self.boundary(i)).unwrap_or(u64::MAX);
        if sequence == self.num_sequences {
            return Ok(self.num_tokens);
        }
        let start = if sequence < self.num_sequences {
            u64::try_from(self.offset(sequence)).map_or(u64::MAX, |offset| offset / self.element.bytes())
        } else {
            u64::MAX
        };
        if start > self.num_tokens {
            return Err(self.damaged_start(i, start));
        }
        Ok(start)
    }

    fn damaged_start(&self, document: u64, start: u64) -> TokensError {
        TokensError::DocumentStart {
            path: self.bin_path.clone(),
            document,
            start,
            of: self.num_tokens,
        }
    }

    fn length(&self, sequence: u64) -> i32 {
        i32::from_le_bytes(self.index_bytes(HEADER as u64 + 4 * sequence))
    }

    fn offset(&self, sequence: u64) -> i64 {
        i64::from_le_bytes(self.index_bytes(HEADER as u64 + 4 * self.num_sequences + 8 * sequence))
    }

    fn boundary(&self, i: u64) -> i64 {
        i64::from_le_bytes(self.index_bytes(HEADER as u64 + 12 * self.num_sequences + 8 * i))
    }

    /// The arrays are not aligned, so they are copied out. In range since the length was checked against the counts.
    fn index_bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.idx[at as usize..at as usize + N]);
        bytes
    }
}

/// The last of `documents` documents that starts at or before `position`, where all have `tokens` tokens together.
///
/// Documents of one source have similar lengths, so a straight line leads near it: a few guesses leave a small range, and read
/// fewer pages of the index than halving all of it. Whatever the lengths are, halving takes over after these guesses.
///
/// # Errors
/// Those of `start`, which returns the position at which a document starts.
pub fn last_at_or_before<E>(
    documents: u64,
    tokens: u64,
    position: u64,
    start: impl Fn(u64) -> Result<u64, E>,
) -> Result<u64, E> {
    const GUESSES: usize = 4;
    let (mut low, mut high) = (0, documents);
    // Where `low` and `high` start.
    let (mut first, mut end) = (0, tokens);
    let mut guesses = 0;
    while low + 1 < high {
        let width = high - low;
        let probes = if guesses < GUESSES && first <= position && position < end {
            guesses += 1;
            let along = u128::from(position - first) * u128::from(width) / u128::from(end - first);
            let guess = low + along as u64;
            let margin = width.isqrt();
            [guess.saturating_sub(margin), guess.saturating_add(margin)]
        } else {
            [low + width / 2; 2]
        };
        for probe in probes {
            if low + 1 >= high {
                break;
            }
            let probe = probe.clamp(low + 1, high - 1);
            let found = start(probe)?;
            if found <= position {
                (low, first) = (probe, found);
            } else {
                (high, end) = (probe, found);
            }
        }
    }
    Ok(low)
}

fn map(path: &Utf8Path) -> Result<Mmap, FileError> {
    let reading = FileError::reading(path);
    let file = File::open(path).map_err(reading)?;
    // SAFETY: the files are in the store, which never writes to a published file.
    unsafe { Mmap::map(&file) }.map_err(reading)
}

struct Header {
    element: TokenWidth,
    sequences: u64,
    boundaries: u64,
}

fn header(path: &Utf8Path, bytes: &[u8]) -> Result<Header, TokensError> {
    let path = || path.to_owned();
    if bytes.starts_with(&LEGACY_MAGIC) {
        return Err(TokensError::OldIndex { path: path() });
    }
    let no_index = || {
        let start: Vec<String> = bytes.iter().take(9).map(|byte| format!("{byte:02x}")).collect();
        let found = if start.is_empty() {
            "nothing: it is empty".into()
        } else {
            format!("bytes {}", start.join(" "))
        };
        TokensError::NoIndex { path: path(), found }
    };
    if !bytes.starts_with(&MAGIC) {
        return Err(no_index());
    }
    let word = |at: usize| {
        bytes
            .get(at..at + 8)
            .and_then(|b| b.try_into().ok())
            .map(u64::from_le_bytes)
    };
    let (Some(version), Some(&code), Some(sequences), Some(boundaries)) = (word(9), bytes.get(17), word(18), word(26))
    else {
        return Err(TokensError::IndexLength {
            path: path(),
            found: bytes.len() as u64,
            needed: HEADER as u128,
            sequences: 0,
            boundaries: 0,
        });
    };
    if version != VERSION {
        return Err(TokensError::UnknownVersion {
            path: path(),
            found: version,
        });
    }
    let element = match code {
        8 => TokenWidth::U16,
        4 => TokenWidth::I32,
        found => return Err(TokensError::ElementType { path: path(), found }),
    };
    let needed = HEADER as u128 + 12 * u128::from(sequences) + 8 * u128::from(boundaries);
    if boundaries == 0 || needed != bytes.len() as u128 {
        return Err(TokensError::IndexLength {
            path: path(),
            found: bytes.len() as u64,
            needed,
            sequences,
            boundaries,
        });
    }
    Ok(Header {
        element,
        sequences,
        boundaries,
    })
}

#[cfg(test)]
mod tests;
