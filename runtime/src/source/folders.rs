//! The folders that `file:` sources are in: the project's, and named roots outside it.
//!
//! In: bindings of the command line (`--root NAME=FOLDER`) and of `roots.toml` in the user's configuration folder:
//!
//! ```text
//! scratch = "/scratch/me"
//! ```
//!
//! Out: the folder of a root. The binding is not part of the identity of a source: it differs between machines.
//! Not here: which files are in it (`files`).

use std::collections::BTreeMap;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};

use super::FetchError;
use crate::errors::FileError;
use crate::{config_folder, regular};

/// The name of the file with bindings in the user's configuration folder.
const ROOTS: &str = "roots.toml";

/// The largest file with bindings, bytes.
const LIMIT: u64 = 1 << 20;

/// The folders of a command.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// The folder of the project, which a path without a root is relative to.
    pub project: Utf8PathBuf,
    /// The bindings of the command line. They take precedence over those of the user's configuration.
    pub roots: BTreeMap<String, Utf8PathBuf>,
    /// The user's configuration folder, if there is one.
    pub configuration: Option<Utf8PathBuf>,
}

impl Folders {
    /// Of a project, with the user's configuration.
    pub fn of(project: &Utf8Path, roots: BTreeMap<String, Utf8PathBuf>) -> Self {
        Self {
            project: project.to_owned(),
            roots,
            configuration: config_folder(),
        }
    }

    /// The folder of a root, or of the project.
    ///
    /// # Errors
    /// The root is not bound, its folder does not exist, or the bindings cannot be read.
    pub(super) fn folder(&self, root: Option<&str>) -> Result<Utf8PathBuf, FetchError> {
        let Some(name) = root else {
            return Ok(self.project.clone());
        };
        let file = self.configuration.as_ref().map(|folder| folder.join(ROOTS));
        let bound = match (self.roots.get(name), &file) {
            (Some(folder), _) => Some(folder.clone()),
            (None, Some(file)) => configured(file)?.remove(name),
            (None, None) => None,
        };
        let folder = bound.ok_or_else(|| FetchError::UnboundRoot {
            root: name.to_owned(),
            file: file.unwrap_or_else(|| Utf8PathBuf::from(ROOTS)),
        })?;
        match folder.is_dir() {
            true => Ok(folder),
            false => Err(FetchError::NoRoot {
                root: name.to_owned(),
                folder,
            }),
        }
    }
}

/// The bindings of a file; none if it does not exist.
fn configured(file: &Utf8Path) -> Result<BTreeMap<String, Utf8PathBuf>, FetchError> {
    let text = match regular::read_text(file, LIMIT) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(FileError::reading(file)(error).into()),
    };
    let malformed = |cause: String| FetchError::Roots {
        file: file.to_owned(),
        cause,
    };
    let bindings: BTreeMap<String, Utf8PathBuf> =
        toml::from_str(&text).map_err(|error| malformed(error.to_string().trim_end().to_owned()))?;
    match bindings.iter().find(|(_, folder)| !folder.is_absolute()) {
        Some((name, folder)) => Err(malformed(format!(
            "`{name}` is bound to `{folder}`, which is not an absolute path"
        ))),
        None => Ok(bindings),
    }
}
