//! Small records that show whether they are complete: JSON, then a line with the BLAKE3 of the bytes before it.

use std::fs::{self, File};
use std::io::{self, Write};

use camino::Utf8Path;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::sync_folder;

/// Reads a record; `None` if there is none.
///
/// # Errors
/// The record is damaged or cannot be read.
pub fn read<T: DeserializeOwned>(path: &Utf8Path) -> Result<Option<T>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let Some((body, seal)) = text.trim_end_matches('\n').rsplit_once('\n') else {
        return Err("it does not have a checksum".to_string());
    };
    if blake3::hash(body.as_bytes()).to_hex().as_str() != seal || !text.ends_with('\n') {
        return Err("its bytes are not the ones that were written".to_string());
    }
    serde_json::from_str(body).map(Some).map_err(|error| error.to_string())
}

/// Writes a record to a temporary file, syncs it and renames it.
///
/// # Errors
/// One of these fails; then an older record still exists.
pub fn write<T: Serialize>(tmp: &Utf8Path, path: &Utf8Path, value: &T) -> io::Result<()> {
    let body = serde_json::to_string(value).map_err(io::Error::other)?;
    let mut file = tempfile::Builder::new().prefix("record-").tempfile_in(tmp)?;
    writeln!(file, "{body}\n{}", blake3::hash(body.as_bytes()).to_hex())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    if let Some(folder) = path.parent() {
        sync_folder(folder)?;
    }
    File::open(path).map(drop)
}
