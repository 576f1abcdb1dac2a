//! Files that are being downloaded: they survive the process, so that the next one continues.
//!
//! In: what identifies the bytes (an address, or an object with its version). Out: a path in the cache that only this process
//! writes to. When the bytes are complete they are moved to the folder of the fetch. Nothing here decides which bytes are
//! right: that is the content that the lock pins.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use camino::{Utf8Path, Utf8PathBuf};

use crate::content_of;
use crate::errors::FileError;

/// The folder in the cache.
const FOLDER: &str = "downloads";

/// A file that is being downloaded, and the lock on it.
#[derive(Debug)]
pub(super) struct Partial {
    path: Utf8PathBuf,
    lock: Option<(File, Utf8PathBuf)>,
}

impl Partial {
    /// The file for these bytes. If another process downloads the same, this one downloads to `scratch`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn open(cache: &Utf8Path, identity: &str, scratch: &Utf8Path) -> Result<Self, FileError> {
        let folder = cache.join(FOLDER);
        fs::create_dir_all(&folder).map_err(FileError::writing(&folder))?;
        let name = content_of(identity.as_bytes());
        let lock = folder.join(format!("{name}.lock"));
        let file = File::create(&lock).map_err(FileError::writing(&lock))?;
        // A lock that was removed meanwhile locks nothing.
        let is_there = |file: &File| -> std::io::Result<bool> {
            let (held, named) = (file.metadata()?, fs::metadata(&lock)?);
            Ok((held.dev(), held.ino()) == (named.dev(), named.ino()))
        };
        Ok(match file.try_lock().is_ok() && is_there(&file).unwrap_or(false) {
            true => Self {
                path: folder.join(&name),
                lock: Some((file, lock)),
            },
            false => Self {
                path: scratch.join(format!("{name}.part")),
                lock: None,
            },
        })
    }

    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Moves the complete file, which may be to another disk.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn finish(self, to: &Utf8Path) -> Result<(), FileError> {
        let writing = FileError::writing(to);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(writing)?;
        }
        if fs::rename(&self.path, to).is_err() {
            fs::copy(&self.path, to).map_err(writing)?;
            fs::remove_file(&self.path).map_err(FileError::writing(&self.path))?;
        }
        // Removed while the lock is held, so that no other process uses it.
        if let Some((_held, lock)) = &self.lock {
            fs::remove_file(lock).map_err(FileError::writing(lock))?;
        }
        Ok(())
    }
}
