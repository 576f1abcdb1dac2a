//! Files of the project, and the content of any set of files.
//!
//! In: a path or a glob pattern. Out: the files, sorted by name. The content of one file is its BLAKE3; that of several
//! is the BLAKE3 of their manifest, so that renaming a file changes the content.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use globset::GlobBuilder;

use super::FetchError;
use super::archive::InputFile;
use crate::errors::FileError;

/// The files that match a pattern, relative to `root`; names use `/` on every system.
pub(super) fn find(pattern: &str, root: &Utf8Path) -> Result<Vec<InputFile>, FetchError> {
    let path = root.join(pattern);
    if path.is_file() {
        return Ok(vec![InputFile {
            name: pattern.to_owned(),
            path,
        }]);
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
                found.push(InputFile {
                    name,
                    path: entry.path().to_owned(),
                });
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
pub(super) fn content(files: &[InputFile]) -> Result<(u64, String), FetchError> {
    let mut hashes = Vec::with_capacity(files.len());
    let mut bytes = 0;
    for file in files {
        let reading = FileError::reading(&file.path);
        let length = std::fs::metadata(&file.path).map_err(reading)?.len();
        let mut hasher = blake3::Hasher::new();
        hasher.update_mmap_rayon(&file.path).map_err(reading)?;
        bytes += length;
        hashes.push((length, hasher.finalize()));
    }
    if let [(_, hash)] = hashes.as_slice() {
        return Ok((bytes, hash.to_hex().to_string()));
    }
    let mut manifest = blake3::Hasher::new();
    for (file, (length, hash)) in files.iter().zip(&hashes) {
        manifest.update(&(file.name.len() as u64).to_le_bytes());
        manifest.update(file.name.as_bytes());
        manifest.update(&length.to_le_bytes());
        manifest.update(hash.as_bytes());
    }
    Ok((bytes, manifest.finalize().to_hex().to_string()))
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
