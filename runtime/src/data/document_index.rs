//! `documents.idx`: where the documents of token files are in their `train.jsonl`, and which document has an id.
//!
//! In: the id of each document and the byte at which its line starts, in the order of the tokens. Out: a file that is
//! memory-mapped: the line of document `n` is found in constant time, the documents of an id by a binary search. No text and no
//! id is copied: both are read from the lines. Memory of the writer: one of 256 parts of the table. Not here: the tokens of a
//! document (`tokens`).
//!
//! ```text
//! "AURDOCS\0", version u64, documents u64, files u64          all numbers little-endian
//! files × u64        documents up to the end of each file of documents
//! documents × u64    byte at which the line of the document starts in its file
//! documents × 16     first 8 bytes of the BLAKE3 of an id as u64, number of the document; sorted
//! ```

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use camino::{Utf8Path, Utf8PathBuf};
use memmap2::Mmap;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::documents::Document;
use crate::errors::FileError;

/// The file's name in the result of a tokens node.
pub const DOCUMENT_INDEX: &str = "documents.idx";

const MAGIC: [u8; 8] = *b"AURDOCS\0";
const VERSION: u64 = 1;
/// Magic, version, documents, files.
const HEADER: usize = 32;
/// Bytes of an entry of the sorted table.
const ENTRY: usize = 16;
/// The table is sorted in parts: one for each first byte of an id's digest.
const PARTS: usize = 256;
/// Entries of a part that are collected before they are written.
const COLLECTED: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum DocumentIndexError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{path}` is not an index of documents: {cause}")]
    NotAnIndex { path: Utf8PathBuf, cause: String },
    #[error("`{path}` is an index of {found} files of documents, but there are {given}")]
    Files {
        path: Utf8PathBuf,
        found: u64,
        given: usize,
    },
    #[error("`{path}` does not have document {document}: it has {of} documents")]
    NoSuchDocument { path: Utf8PathBuf, document: u64, of: u64 },
    #[error("`{path}` is damaged or is not the file that the index was made from: no line starts at byte {at}")]
    NoLine { path: Utf8PathBuf, at: u64 },
    #[error("the line at byte {at} of `{path}` is not a valid document")]
    Malformed {
        path: Utf8PathBuf,
        at: u64,
        #[source]
        source: serde_json::Error,
    },
}

/// The number by which an id is found.
pub fn id_digest(id: &str) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&blake3::hash(id.as_bytes()).as_bytes()[..8]);
    u64::from_be_bytes(word)
}

/// Writes an index, document by document.
#[derive(Debug)]
pub struct DocumentIndexWriter {
    path: Utf8PathBuf,
    file: BufWriter<File>,
    /// The digests of the ids in the order of the documents; deleted with the value.
    digests: BufWriter<File>,
    /// Entries of each part of the table.
    counts: [u64; PARTS],
    documents: u64,
    /// Documents up to the end of each file.
    ends: Vec<u64>,
    files: usize,
}

impl DocumentIndexWriter {
    /// Creates the index of the documents of `files` files.
    ///
    /// # Errors
    /// A file cannot be created.
    pub fn create(path: &Utf8Path, files: usize) -> Result<Self, FileError> {
        let writing = FileError::writing(path);
        let folder = path.parent().unwrap_or(Utf8Path::new("."));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map(BufWriter::new)
            .map_err(writing)?;
        // The header and the ends are known last.
        file.write_all(&vec![0; HEADER + 8 * files]).map_err(writing)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            digests: tempfile::tempfile_in(folder).map(BufWriter::new).map_err(writing)?,
            counts: [0; PARTS],
            documents: 0,
            ends: Vec::with_capacity(files),
            files,
        })
    }

    /// Adds the next document of the current file: the [digest](id_digest) of its id, and the byte at which its line starts.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn push(&mut self, digest: u64, start: u64) -> Result<(), FileError> {
        let mut write = || -> io::Result<()> {
            self.file.write_all(&start.to_le_bytes())?;
            self.digests.write_all(&digest.to_le_bytes())
        };
        write().map_err(FileError::writing(&self.path))?;
        self.counts[part_of(digest)] += 1;
        self.documents += 1;
        Ok(())
    }

    /// The following documents are of the next file.
    pub fn end_file(&mut self) {
        self.ends.push(self.documents);
    }

    /// Writes the table and closes the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> Result<(), FileError> {
        let path = self.path.clone();
        self.finish_file().map_err(FileError::writing(&path))
    }

    fn finish_file(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let file = self.file.get_ref();
        let mut header = Vec::with_capacity(HEADER + 8 * self.files);
        header.extend(MAGIC);
        for word in [VERSION, self.documents, self.files as u64] {
            header.extend(word.to_le_bytes());
        }
        // A file without a call of `end_file` has no documents.
        self.ends.resize(self.files, self.documents);
        header.extend(self.ends.iter().flat_map(|end| end.to_le_bytes()));
        file.write_all_at(&header, 0)?;

        let mut at = header.len() as u64 + 8 * self.documents;
        let starts = self.counts.map(|count| {
            let start = at;
            at += count * ENTRY as u64;
            start
        });
        self.digests.seek(SeekFrom::Start(0))?;
        let mut digests = BufReader::with_capacity(1 << 20, self.digests.get_ref());
        let mut parts: Vec<Vec<u8>> = vec![Vec::new(); PARTS];
        let mut ends = starts;
        for document in 0..self.documents {
            let mut digest = [0; 8];
            digests.read_exact(&mut digest)?;
            let part = part_of(u64::from_le_bytes(digest));
            parts[part].extend(digest);
            parts[part].extend(document.to_le_bytes());
            if parts[part].len() >= COLLECTED * ENTRY {
                file.write_all_at(&parts[part], ends[part])?;
                ends[part] += parts[part].len() as u64;
                parts[part].clear();
            }
        }
        for ((collected, end), (start, count)) in parts.iter().zip(ends).zip(starts.into_iter().zip(self.counts)) {
            file.write_all_at(collected, end)?;
            sort_part(file, start, count)?;
        }
        Ok(())
    }
}

fn part_of(digest: u64) -> usize {
    (digest >> 56) as usize
}

fn sort_part(file: &File, start: u64, count: u64) -> io::Result<()> {
    let mut bytes = vec![0; count as usize * ENTRY];
    file.read_exact_at(&mut bytes, start)?;
    let mut entries: Vec<(u64, u64)> = bytes.as_chunks().0.iter().map(entry).collect();
    entries.sort_unstable();
    bytes.clear();
    for (digest, document) in entries {
        bytes.extend(digest.to_le_bytes());
        bytes.extend(document.to_le_bytes());
    }
    file.write_all_at(&bytes, start)
}

/// A digest and the number of its document.
fn entry(bytes: &[u8; ENTRY]) -> (u64, u64) {
    let both = u128::from_le_bytes(*bytes);
    (both as u64, (both >> 64) as u64)
}

/// An index that is memory-mapped.
#[derive(Debug)]
pub struct DocumentIndex {
    path: Utf8PathBuf,
    map: Mmap,
    documents: u64,
    files: u64,
}

impl DocumentIndex {
    /// Opens an index, in constant time.
    ///
    /// # Errors
    /// It cannot be read, is of another format, or does not have the length that its counts require.
    pub fn open(path: &Utf8Path) -> Result<Self, DocumentIndexError> {
        let map = map(path)?;
        let wrong = |cause: String| DocumentIndexError::NotAnIndex {
            path: path.to_owned(),
            cause,
        };
        if map.len() < HEADER || map[..8] != MAGIC {
            return Err(wrong("it does not begin with `AURDOCS`".to_owned()));
        }
        let [version, documents, files] = [8, 16, 24].map(|at| word(&map, at));
        if version != VERSION {
            return Err(wrong(format!(
                "it has version {version}; only version {VERSION} is known"
            )));
        }
        let needed = HEADER as u128 + 8 * u128::from(files) + (8 + ENTRY as u128) * u128::from(documents);
        if needed != map.len() as u128 {
            let found = map.len();
            return Err(wrong(format!("it has {found} bytes, but its counts need {needed}")));
        }
        Ok(Self {
            path: path.to_owned(),
            map,
            documents,
            files,
        })
    }

    pub fn num_documents(&self) -> u64 {
        self.documents
    }

    /// The file of a document, and the byte at which its line starts.
    ///
    /// # Errors
    /// There is no such document.
    pub fn line(&self, document: u64) -> Result<(usize, u64), DocumentIndexError> {
        if document >= self.documents {
            return Err(DocumentIndexError::NoSuchDocument {
                path: self.path.clone(),
                document,
                of: self.documents,
            });
        }
        let ends = HEADER as u64;
        let file = (0..self.files)
            .find(|file| self.word(ends + 8 * file) > document)
            .unwrap_or(self.files);
        Ok((file as usize, self.word(ends + 8 * self.files + 8 * document)))
    }

    /// The documents whose ids have this [digest](id_digest). Almost always they have the id that is looked for; who asks reads
    /// their lines.
    pub fn candidates(&self, digest: u64) -> Vec<u64> {
        let table = HEADER as u64 + 8 * self.files + 8 * self.documents;
        let at = |index: u64| {
            let start = (table + ENTRY as u64 * index) as usize;
            self.map[start..]
                .first_chunk()
                .map(entry)
                .unwrap_or((u64::MAX, u64::MAX))
        };
        let (mut low, mut high) = (0, self.documents);
        while low < high {
            let middle = low + (high - low) / 2;
            if at(middle).0 < digest {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let equal = (low..self.documents).map(at).take_while(|(found, _)| *found == digest);
        equal.map(|(_, document)| document).collect()
    }

    fn word(&self, at: u64) -> u64 {
        word(&self.map, at as usize)
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes))
}

fn map(path: &Utf8Path) -> Result<Mmap, FileError> {
    let reading = FileError::reading(path);
    let file = File::open(path).map_err(reading)?;
    // SAFETY: the files are in the store, which never writes to a published file.
    unsafe { Mmap::map(&file) }.map_err(reading)
}

/// The documents of token files, by number and by id.
#[derive(Debug)]
pub struct IndexedDocuments {
    index: DocumentIndex,
    files: Vec<(Utf8PathBuf, Mmap)>,
}

impl IndexedDocuments {
    /// Opens an index and the files of documents that it was made from, in their order.
    ///
    /// # Errors
    /// A file cannot be read, or the index is of another number of files.
    pub fn open(index: &Utf8Path, files: &[Utf8PathBuf]) -> Result<Self, DocumentIndexError> {
        let opened = DocumentIndex::open(index)?;
        if opened.files != files.len() as u64 {
            return Err(DocumentIndexError::Files {
                path: index.to_owned(),
                found: opened.files,
                given: files.len(),
            });
        }
        let map = |path: &Utf8PathBuf| Ok::<_, FileError>((path.clone(), map(path)?));
        Ok(Self {
            index: opened,
            files: files.iter().map(map).collect::<Result<_, _>>()?,
        })
    }

    pub fn num_documents(&self) -> u64 {
        self.index.num_documents()
    }

    /// The id of a document. Reads the beginning of its line.
    ///
    /// # Errors
    /// There is no such document, or its line is not a document.
    pub fn id(&self, document: u64) -> Result<String, DocumentIndexError> {
        let (path, at, line) = self.line(document)?;
        // Aurora writes the id first: the text after it need not be parsed.
        if let Some(rest) = line.strip_prefix(b"{\"id\":")
            && let Some(Ok(id)) = serde_json::Deserializer::from_slice(rest).into_iter::<String>().next()
        {
            return Ok(id);
        }
        #[derive(Deserialize)]
        struct Identified {
            id: String,
        }
        let parsed: Identified = first_value(path, at, line)?;
        Ok(parsed.id)
    }

    /// A complete document.
    ///
    /// # Errors
    /// As [`id`](Self::id).
    pub fn document(&self, document: u64) -> Result<Document, DocumentIndexError> {
        let (path, at, line) = self.line(document)?;
        first_value(path, at, line)
    }

    /// The numbers of the documents with an id, in order; several if sources give several documents the same one.
    ///
    /// # Errors
    /// A line is not a document.
    pub fn find(&self, id: &str) -> Result<Vec<u64>, DocumentIndexError> {
        let mut found = Vec::new();
        for document in self.index.candidates(id_digest(id)) {
            if self.id(document)? == id {
                found.push(document);
            }
        }
        Ok(found)
    }

    /// The file of a document, the byte at which its line starts, and the bytes from there on.
    fn line(&self, document: u64) -> Result<(&Utf8Path, u64, &[u8]), DocumentIndexError> {
        let (file, at) = self.index.line(document)?;
        let (path, bytes) = self.files.get(file).ok_or_else(|| DocumentIndexError::NotAnIndex {
            path: self.index.path.clone(),
            cause: format!("document {document} is in none of its files"),
        })?;
        let start = usize::try_from(at).ok().filter(|&start| start < bytes.len());
        let begins = |start: &usize| *start == 0 || bytes[*start - 1] == b'\n';
        let start = start
            .filter(begins)
            .ok_or_else(|| DocumentIndexError::NoLine { path: path.clone(), at })?;
        Ok((path, at, &bytes[start..]))
    }
}

/// Parses the value with which some bytes begin; what follows is not read.
fn first_value<T: DeserializeOwned>(path: &Utf8Path, at: u64, bytes: &[u8]) -> Result<T, DocumentIndexError> {
    let value = serde_json::Deserializer::from_slice(bytes).into_iter().next();
    let path = || path.to_owned();
    match value {
        Some(parsed) => parsed.map_err(|source| DocumentIndexError::Malformed {
            path: path(),
            at,
            source,
        }),
        None => Err(DocumentIndexError::NoLine { path: path(), at }),
    }
}

#[cfg(test)]
mod tests;
