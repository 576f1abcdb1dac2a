//! `tokens.mask`: one byte per token, 1 if it is trained on.

use std::fs::File;
use std::io::{BufWriter, Write};

use camino::{Utf8Path, Utf8PathBuf};

use super::{TokensError, create};
use crate::errors::FileError;

/// Writes which tokens are trained on; writes no file if all are.
pub struct Mask {
    path: Utf8PathBuf,
    file: BufWriter<File>,
    some_are_read: bool,
}

impl Mask {
    /// # Errors
    /// If the file cannot be created.
    pub fn create(path: &Utf8Path) -> Result<Self, TokensError> {
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(create(path)?),
            some_are_read: false,
        })
    }

    /// Adds a document: the number of tokens that are only read, and of those that are trained on.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn push(&mut self, read: usize, trained: usize) -> Result<(), TokensError> {
        self.some_are_read |= read > 0;
        let bytes: Vec<u8> = std::iter::repeat_n(0, read)
            .chain(std::iter::repeat_n(1, trained))
            .collect();
        Ok(self.file.write_all(&bytes).map_err(FileError::writing(&self.path))?)
    }

    /// Closes the file, or deletes it if all tokens are trained on.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> Result<(), TokensError> {
        let path = self.path.clone();
        let done = self.file.flush().and_then(|()| {
            if self.some_are_read {
                Ok(())
            } else {
                std::fs::remove_file(&path)
            }
        });
        Ok(done.map_err(FileError::writing(&path))?)
    }
}
