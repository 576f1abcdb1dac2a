//! `documents.jsonl` and similar files: one `{"id": …, "text": …}` per line.
//!
//! In: a file. Out: its documents in batches, parsed on all threads, in the order of the file. Memory: one batch.

use std::fs::File;
use std::io::{BufRead, BufReader};

use camino::{Utf8Path, Utf8PathBuf};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::errors::FileError;

/// Bytes of a batch, before its last line is completed.
const BATCH: usize = 16 << 20;

/// One document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The member's path, with `#n` if the member has several documents.
    pub id: String,
    /// One paragraph per line.
    pub text: String,
    /// The byte from which on the text is trained on; `None` for the complete text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<usize>,
}

#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("line {line} of `{path}` is not a valid document")]
    Malformed {
        path: Utf8PathBuf,
        line: u64,
        #[source]
        source: serde_json::Error,
    },
}

/// Reads a file batch by batch.
#[derive(Debug)]
pub struct Batches {
    path: Utf8PathBuf,
    lines: BufReader<File>,
    /// Lines before the next one.
    read: u64,
    /// The byte at which the next line starts.
    at: u64,
}

impl Batches {
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Utf8Path) -> Result<Self, DocumentsError> {
        let file = File::open(path).map_err(FileError::reading(path))?;
        Ok(Self {
            path: path.to_owned(),
            lines: BufReader::with_capacity(1 << 20, file),
            read: 0,
            at: 0,
        })
    }

    /// The results of `work` for the next documents, computed on all threads; `None` at the end of the file.
    ///
    /// # Errors
    /// If the file cannot be read or a line is not a valid document.
    pub fn next<T: Send>(&mut self, work: impl Fn(Document) -> T + Sync) -> Result<Option<Vec<T>>, DocumentsError> {
        self.next_located(|document, _| work(document))
    }

    /// As [`next`](Self::next); `work` also takes the byte of the file at which the document's line starts.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_located<T: Send>(
        &mut self,
        work: impl Fn(Document, u64) -> T + Sync,
    ) -> Result<Option<Vec<T>>, DocumentsError> {
        let (mut batch, mut size) = (Vec::new(), 0);
        while size < BATCH {
            let mut line = Vec::new();
            let read = self.lines.read_until(b'\n', &mut line);
            let read = read.map_err(FileError::reading(&self.path))?;
            if read == 0 {
                break;
            }
            size += line.len();
            batch.push((self.at, line));
            self.at += read as u64;
        }
        if batch.is_empty() {
            return Ok(None);
        }
        let first = self.read + 1;
        self.read += batch.len() as u64;
        let path = &self.path;
        let parse = |(at, (start, line)): (usize, (u64, Vec<u8>))| match serde_json::from_slice(&line) {
            Ok(document) => Ok(work(document, start)),
            Err(source) => Err(DocumentsError::Malformed {
                path: path.clone(),
                line: first + at as u64,
                source,
            }),
        };
        batch
            .into_par_iter()
            .enumerate()
            .map(parse)
            .collect::<Result<Vec<T>, _>>()
            .map(Some)
    }
}
