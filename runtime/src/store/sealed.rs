//! Small records that show whether they are complete and in their own place: JSON, then a line with the BLAKE3 of the
//! bytes before it. The JSON has the version of the format, and the kind and the key of the record.

use std::fs::{self, File};
use std::io::{self, Write};

use camino::{Utf8Path, Utf8PathBuf};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::sync_folder;
use crate::{make_below, regular};

/// The version of the store's format that this build reads and writes.
pub const FORMAT: &str = "3.0";

/// What a record describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// The result of a node.
    Result,
    /// An unfinished checkpoint.
    Partial,
    /// A result, by the contents of its inputs.
    Realised,
    /// The node of an experiment.
    Name,
    /// The files of a run.
    Run,
    /// The numerics classes of a kind of machine.
    Class,
}

impl RecordKind {
    /// The folder of the store that has these records.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Result => "actions",
            Self::Partial => "partial",
            Self::Realised => "realised",
            Self::Name => "names",
            Self::Run => "runs",
            Self::Class => "classes",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Partial => "partial",
            Self::Realised => "realised",
            Self::Name => "name",
            Self::Run => "run",
            Self::Class => "class",
        }
    }
}

/// The kind and the key of a record: they give its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub kind: RecordKind,
    pub key: String,
}

impl Address {
    pub fn new(kind: RecordKind, key: impl ToString) -> Self {
        let key = key.to_string();
        Self { kind, key }
    }

    pub fn path(&self, root: &Utf8Path) -> Utf8PathBuf {
        let path = root.join(self.kind.folder()).join(&self.key);
        if self.kind == RecordKind::Run {
            path.join("checksums")
        } else {
            path
        }
    }

    /// The address of a file in the folder of its kind.
    pub fn of(kind: RecordKind, root: &Utf8Path, path: &Utf8Path) -> Self {
        let inside = path.strip_prefix(root.join(kind.folder())).unwrap_or(path);
        Self::new(kind, inside)
    }
}

/// Why a record cannot be used.
#[derive(Debug)]
pub enum Unusable {
    /// It is not the record that was written there.
    Damaged(String),
    /// Another Aurora wrote it.
    Format(String),
    /// Nothing is known about it.
    Unreadable(io::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<T> {
    format_version: String,
    kind: RecordKind,
    key: String,
    value: T,
}

/// What records of every version have.
#[derive(Deserialize)]
struct Head {
    format_version: String,
}

/// Reads a record; `None` if there is none.
///
/// # Errors
/// It cannot be read, is damaged, has another format, or is the record of another address.
pub fn read<T: DeserializeOwned>(root: &Utf8Path, address: &Address) -> Result<Option<T>, Unusable> {
    let Some(body) = body(&address.path(root))? else {
        return Ok(None);
    };
    let damaged = |error: serde_json::Error| Unusable::Damaged(error.to_string());
    let Head { format_version } = serde_json::from_str(&body).map_err(damaged)?;
    if format_version != FORMAT {
        return Err(Unusable::Format(format_version));
    }
    let sealed: Sealed<T> = serde_json::from_str(&body).map_err(damaged)?;
    if sealed.kind != address.kind || sealed.key != address.key {
        return Err(Unusable::Damaged(format!(
            "it is the record of {} `{}`",
            sealed.kind.name(),
            sealed.key
        )));
    }
    Ok(Some(sealed.value))
}

/// The format of a record, if it is undamaged.
pub fn format_of(path: &Utf8Path) -> Option<String> {
    let body = body(path).ok().flatten()?;
    let head: Head = serde_json::from_str(&body).ok()?;
    Some(head.format_version)
}

fn body(path: &Utf8Path) -> Result<Option<String>, Unusable> {
    let mut text = match regular::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData || regular::is_not_a_file(&error) => {
            return Err(Unusable::Damaged(error.to_string()));
        }
        Err(error) => return Err(Unusable::Unreadable(error)),
    };
    let Some((body, seal)) = text.trim_end_matches('\n').rsplit_once('\n') else {
        return Err(Unusable::Damaged("it does not have a checksum".to_string()));
    };
    if blake3::hash(body.as_bytes()).to_hex().as_str() != seal || !text.ends_with('\n') {
        return Err(Unusable::Damaged(
            "its bytes are not the ones that were written".to_string(),
        ));
    }
    let length = body.len();
    text.truncate(length);
    Ok(Some(text))
}

/// Writes a record to a temporary file, syncs it and renames it.
///
/// # Errors
/// One of these fails; then an older record still exists.
pub fn write<T: Serialize>(root: &Utf8Path, address: &Address, value: &T) -> io::Result<()> {
    let path = address.path(root);
    let body = serde_json::to_string(&Sealed {
        format_version: FORMAT.to_owned(),
        kind: address.kind,
        key: address.key.clone(),
        value,
    })
    .map_err(io::Error::other)?;
    let tmp = root.join("tmp");
    make_below(root, &tmp)?;
    let mut file = tempfile::Builder::new().prefix("record-").tempfile_in(&tmp)?;
    writeln!(file, "{body}\n{}", blake3::hash(body.as_bytes()).to_hex())?;
    file.as_file().sync_all()?;
    move_folder_away(&tmp, &path)?;
    file.persist(&path).map_err(|error| error.error)?;
    if let Some(folder) = path.parent() {
        sync_folder(folder)?;
    }
    File::open(&path).map(drop)
}

/// Moves a folder that is in place of a file to `tmp`: a file can be renamed over anything else.
///
/// # Errors
/// The folder cannot be moved.
pub fn move_folder_away(tmp: &Utf8Path, path: &Utf8Path) -> io::Result<()> {
    if !fs::symlink_metadata(path).is_ok_and(|status| status.is_dir()) {
        return Ok(());
    }
    let away = tempfile::Builder::new().prefix("folder-").tempdir_in(tmp)?.keep();
    fs::rename(path, away.join("moved"))
}
