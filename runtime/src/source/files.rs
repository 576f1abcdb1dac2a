//! Files of the project, and the content of any set of files.
//!
//! In: a path or a glob pattern. Out: the files, sorted by name. The content of one file is its BLAKE3; that of several
//! is the BLAKE3 of their manifest, so that renaming a file changes the content.

use std::io;

use aurora_compiler::hash::source_content;
use camino::{Utf8Path, Utf8PathBuf};
use globset::GlobBuilder;

use super::FetchError;
use super::archive::InputFile;
use crate::errors::FileError;
use crate::progress::ProgressReporter;
use crate::regular;

/// The files that match a pattern, relative to `root`; names use `/` on every system.
///
/// # Errors
/// [`FetchError::NoFile`]; [`FetchError::Outside`] if a symbolic link leads out of `root`; a folder cannot be read.
pub(super) fn find(pattern: &str, root: &Utf8Path) -> Result<Vec<InputFile>, FetchError> {
    let found = matches(pattern, root)?;
    let inside = root.canonicalize_utf8().map_err(FileError::reading(root))?;
    for file in &found {
        let target = file.path.canonicalize_utf8().map_err(FileError::reading(&file.path))?;
        if !target.starts_with(&inside) {
            let path = file.path.clone();
            return Err(FetchError::Outside { path, target });
        }
    }
    Ok(found)
}

fn matches(pattern: &str, root: &Utf8Path) -> Result<Vec<InputFile>, FetchError> {
    let path = root.join(pattern);
    if path.is_file() {
        return Ok(vec![InputFile::new(pattern.to_owned(), path)]);
    }
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    let glob = glob
        .map_err(|source| FetchError::Pattern {
            pattern: pattern.to_owned(),
            source,
        })?
        .compile_matcher();
    // Only the folder before the first wildcard is searched.
    let literal = pattern.find(['*', '?', '[', '{']).map_or(pattern, |at| &pattern[..at]);
    let start = literal.rfind('/').map_or("", |at| &literal[..at]);
    let mut found = Vec::new();
    let mut folders = vec![start.to_owned()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        let reading = FileError::reading(&path);
        let listing = match root.join(&folder).read_dir_utf8() {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(reading(error).into()),
        };
        for entry in listing {
            let entry = entry.map_err(reading)?;
            let name = if folder.is_empty() {
                entry.file_name().to_owned()
            } else {
                format!("{folder}/{}", entry.file_name())
            };
            let kind = entry.file_type().map_err(reading)?;
            if kind.is_dir() {
                folders.push(name);
            } else if glob.is_match(&name) && entry.path().is_file() {
                found.push(InputFile::new(name, entry.path().to_owned()));
            }
        }
    }
    if found.is_empty() {
        return Err(FetchError::NoFile {
            pattern: pattern.to_owned(),
            root: root.to_owned(),
        });
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
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
