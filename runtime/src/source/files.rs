//! Local files of a source, and the content of any set of files.
//!
//! In: a path or a glob pattern below a folder. Out: the files, sorted by their names, and what was skipped. A name is
//! relative to the source's root: the folder that is named, or the one before the first part with a wildcard. The content
//! is the BLAKE3 of the manifest of all files, so that renaming a file changes the content and moving all of them does not.
//! Not here: which folder a root is bound to (`folders`).

use std::{fs, io};

use aurora_compiler::file_source;
use aurora_compiler::hash::source_content;
use camino::{Utf8Path, Utf8PathBuf};

use super::FetchError;
use super::archive::InputFile;
use super::selection::Selection;
use crate::errors::FileError;
use crate::progress::ProgressReporter;
use crate::regular;

/// Files of a source, and the number of entries that were left out: hidden and temporary ones, links to folders, and what
/// is not a file.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub files: Vec<InputFile>,
    pub skipped: u64,
}

impl From<InputFile> for Found {
    fn from(file: InputFile) -> Self {
        Self {
            files: vec![file],
            skipped: 0,
        }
    }
}

/// The files that a path or a pattern below `folder` names. A folder means everything under it.
///
/// # Errors
/// [`FetchError::NoFile`]; [`FetchError::Outside`] if a symbolic link leads out of `folder`; something cannot be read.
pub(super) fn find(pattern: &str, folder: &Utf8Path) -> Result<Found, FetchError> {
    let path = folder.join(pattern);
    let found = if !file_source::is_pattern(pattern) && path.is_dir() {
        below(&Selection::everything(), &path)?
    } else if path.is_file() {
        // An explicit name is read, whatever it is. A name with the characters of a pattern is one, too.
        let name = path.file_name().unwrap_or(pattern).to_owned();
        let files = vec![InputFile::new(name, path)];
        Found { files, skipped: 0 }
    } else {
        let (root, rest) = file_source::split(pattern);
        match file_source::is_pattern(rest) {
            true => below(&Selection::new(rest)?, &folder.join(root))?,
            // It does not exist, or is not a file: opening it says which.
            false if path.symlink_metadata().is_ok() => {
                return Err(FileError::reading(&path)(regular_error(&path)).into());
            }
            false => Found::default(),
        }
    };
    if found.files.is_empty() {
        return Err(FetchError::NoFile {
            pattern: pattern.to_owned(),
            root: folder.to_owned(),
            skipped: found.skipped,
        });
    }
    let inside = folder.canonicalize_utf8().map_err(FileError::reading(folder))?;
    for file in &found.files {
        let target = file.path.canonicalize_utf8().map_err(FileError::reading(&file.path))?;
        if !target.starts_with(&inside) {
            let (path, folder) = (file.path.clone(), folder.to_owned());
            return Err(FetchError::Outside { path, target, folder });
        }
    }
    Ok(found)
}

fn regular_error(path: &Utf8Path) -> io::Error {
    let opened = regular::open(path).map(drop);
    opened
        .err()
        .unwrap_or_else(|| io::Error::other("it is not a regular file"))
}

/// The files of a folder on this machine.
fn below(selection: &Selection, root: &Utf8Path) -> Result<Found, FetchError> {
    let mut found = Found::default();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        let reading = FileError::reading(&path);
        let listing = match path.read_dir_utf8() {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder.is_empty() => continue,
            Err(error) => return Err(reading(error).into()),
        };
        for entry in listing {
            let entry = entry.map_err(reading)?;
            let name = format!("{folder}{}", entry.file_name());
            let kind = entry.file_type().map_err(reading)?;
            if kind.is_symlink() && entry.path().is_dir() {
                // Not followed: it may lead to a folder above it.
                found.skipped += u64::from(selection.is_recursive());
            } else if kind.is_dir() {
                match selection.enters(entry.file_name()) {
                    true => folders.push(format!("{name}/")),
                    false => found.skipped += u64::from(selection.is_recursive()),
                }
            } else {
                match selection.of(&name) {
                    // A link whose target is missing is a file that is missing, not one to leave out.
                    Some(true)
                        if fs::metadata(entry.path())
                            .map_err(FileError::reading(entry.path()))?
                            .is_file() =>
                    {
                        found.files.push(InputFile::new(name, entry.into_path()));
                    }
                    Some(_) => found.skipped += 1,
                    None => {}
                }
            }
        }
    }
    found.files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Bytes and content of files in the given order.
pub(super) fn content(files: &[InputFile], progress: ProgressReporter<'_>) -> Result<(u64, String), FetchError> {
    let mut hashes = Vec::with_capacity(files.len());
    for file in files {
        let hash = regular::open(&file.path).and_then(|file| regular::hash(&file, || progress.check()));
        progress.check()?;
        hashes.push(hash.map_err(FileError::reading(&file.path))?);
    }
    let named = files.iter().zip(&hashes);
    let content = source_content(named.map(|(file, (bytes, hash))| (file.name.as_str(), *bytes, *hash.as_bytes())));
    Ok((hashes.iter().map(|(bytes, _)| bytes).sum(), content.to_hex()))
}

/// The same content of files that were read, by name.
pub fn content_in_memory(files: &[(String, Vec<u8>)]) -> String {
    let named = files.iter();
    let named = named.map(|(name, bytes)| (name.as_str(), bytes.len() as u64, *blake3::hash(bytes).as_bytes()));
    source_content(named).to_hex()
}

/// The only file in a folder that a client has written.
pub(super) fn only_file(folder: &Utf8Path, ending: &str) -> Result<Option<Utf8PathBuf>, FetchError> {
    let reading = FileError::reading(folder);
    let mut found = Vec::new();
    for entry in folder.read_dir_utf8().map_err(reading)? {
        let entry = entry.map_err(reading)?;
        if entry.file_name().ends_with(ending) && entry.path().is_file() {
            found.push(entry.path().to_owned());
        }
    }
    Ok(if found.len() == 1 { found.pop() } else { None })
}
