//! Sources of files: references, fetching by the usual package clients, and archives.
//!
//! In: a reference of a spec, and a pin of a lock. Out: files with their BLAKE3, or the members of such files. Nothing is
//! installed or built, and nothing runs as another user. Not here: the store, what members mean (`data`).
//!
//! | Module | What it fetches |
//! |---|---|
//! | `files`, `folders` | files of the project and of named roots |
//! | `web`, `cloud`, `hub` | files by HTTP, objects of S3, Google and Azure, repositories of the Hugging Face hub |
//! | `debian`, `registry`, `client` | packages, by the clients of their registries |
//! | `selection`, `partial`, `parallel` | for all of them: which files are meant, downloads that continue, files at once |

use aurora_compiler::graph::Pin;
use camino::{Utf8Path, Utf8PathBuf};

use crate::errors::FileError;
use crate::http::{HttpError, Limits};
use crate::progress::{Cancelled, ProgressReporter, ProgressUnit};
use archive::InputFile;
pub(crate) use files::content_in_memory;
pub use folders::Folders;
pub use reference::{Package, ReferenceError, Registry, SourceAddress};

pub mod archive;
pub(crate) mod client;
mod cloud;
mod debian;
mod files;
mod folders;
mod hub;
mod parallel;
mod partial;
mod reference;
mod registry;
mod selection;
pub mod unpack;
mod web;

/// A fetched source. Its files are in the scratch folder; files of `file:` are in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The reference with its exact version: what a lock pins.
    pub reference: SourceAddress,
    /// Sorted by name.
    pub files: Vec<InputFile>,
    pub bytes: u64,
    /// BLAKE3 (hexadecimal) of the manifest of the files, as in [`Pin`].
    pub content: String,
    /// Files and folders that were left out: hidden and temporary ones, links to folders, pickles of a repository.
    pub skipped: u64,
}

/// The context of a fetch.
#[derive(Clone, Copy, Debug)]
pub struct SourceContext<'a> {
    /// The name of the `source` block, for messages.
    pub name: &'a str,
    /// The folders that `file:` is relative to.
    pub folders: &'a Folders,
    /// An empty folder for this fetch.
    pub scratch: &'a Utf8Path,
    /// A folder that fetches share, for package lists and unfinished downloads. Nothing in it changes a result.
    pub cache: &'a Utf8Path,
    /// Do not use the network.
    pub offline: bool,
    /// The most bytes that the source may have, if the spec states them.
    pub at_most: Option<u64>,
    /// The limits of time of each transfer, if they are not the usual ones.
    pub limits: Option<&'a Limits>,
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("`{pattern}` is not a file pattern")]
    Pattern {
        pattern: String,
        #[source]
        source: globset::Error,
    },
    #[error("no file matches `{pattern}` in `{root}`{}", left_out(*skipped))]
    NoFile {
        pattern: String,
        root: Utf8PathBuf,
        skipped: u64,
    },
    #[error(
        "`{path}` leads to `{target}`, which is outside `{folder}`: copy the file, or name the folder that it is in by a root, \
         such as `file:scratch:/PATH` with `--root scratch={}`",
        target.parent().unwrap_or(target)
    )]
    Outside {
        path: Utf8PathBuf,
        target: Utf8PathBuf,
        folder: Utf8PathBuf,
    },
    #[error(
        "the root `{root}` is not bound to a folder on this machine: add `--root {root}=FOLDER` to the command, or the line \
         `{root} = \"FOLDER\"` to `{file}`"
    )]
    UnboundRoot { root: String, file: Utf8PathBuf },
    #[error("the root `{root}` is bound to `{folder}`, which is not a folder")]
    NoRoot { root: String, folder: Utf8PathBuf },
    #[error("`{file}` is not a list of roots, with lines such as `scratch = \"/scratch/me\"`: {cause}")]
    Roots { file: Utf8PathBuf, cause: String },
    #[error("no object matches `{reference}`{}", left_out(*skipped))]
    NoObject { reference: String, skipped: u64 },
    #[error("cannot fetch `{reference}`: {cause}\n{remedy}")]
    Store {
        reference: String,
        cause: String,
        remedy: &'static str,
        /// A part of the answer may be missing: another one may be complete.
        is_cut: bool,
    },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{reference}` is not available here, and `--offline` forbids fetching it")]
    Offline { reference: String },
    #[error(transparent)]
    Client(#[from] client::ClientError),
    #[error("cannot reach the registry of `{reference}`; the package itself may be fine:\n{cause}")]
    Network { reference: String, cause: String },
    #[error(
        "`{reference}` is no longer available; {}; run `aurora lock --upgrade {name}` to change this pin",
        newest.as_ref().map_or("the registry does not have another version".to_owned(), |newest| format!("the newest version is {newest}"))
    )]
    Gone {
        reference: String,
        name: String,
        newest: Option<String>,
    },
    #[error("the registry does not have the package `{reference}`:\n{cause}")]
    NoPackage { reference: String, cause: String },
    #[error(
        "`{reference}` has no wheel for every Python and machine; a source distribution is not fetched, because building it \
         runs its code; name a version with a wheel, or download the archive and name its file with `file:`"
    )]
    NoWheel { reference: String },
    #[error("cannot fetch `{reference}`:\n{cause}")]
    Failed { reference: String, cause: String },
    #[error("`{path}` has SHA-256 {found}, but the registry states {stated}")]
    Checksum {
        path: Utf8PathBuf,
        found: String,
        stated: String,
    },
    #[error(
        "source `{name}` ({reference}) has changed: the lock pins content {pinned}, what came is {found}; \
         `aurora lock --upgrade {name}` accepts it"
    )]
    Changed {
        name: String,
        reference: String,
        pinned: String,
        found: String,
    },
    #[error("{searched} do not name a Debian mirror with the component `main`; {remedy}")]
    NoMirror { searched: String, remedy: &'static str },
    #[error(
        "the hub does not have `{reference}` (status 404): check {page} and the revision; what another tool has fetched \
         into {cache} is used"
    )]
    Hub {
        reference: String,
        page: String,
        cache: Utf8PathBuf,
    },
    #[error(
        "the hub does not give `{reference}` to you (status {status}; {token}): it is private or gated, or does not exist; \
         open {page} and accept its conditions, then set HF_TOKEN to a token of your account, or log in with \
         `hf auth login`; what another tool has fetched into {cache} is used"
    )]
    Gated {
        reference: String,
        status: u16,
        page: String,
        token: &'static str,
        cache: Utf8PathBuf,
    },
    #[error(
        "`{reference}` has more than {limit} bytes, the most that is fetched; if it is the right one, write a larger \
         `at_most` in source `{name}`"
    )]
    TooLarge {
        reference: String,
        name: String,
        limit: u64,
    },
    #[error("cannot fetch `{reference}`")]
    Transfer {
        reference: String,
        #[source]
        source: HttpError,
    },
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

fn left_out(skipped: u64) -> String {
    match skipped {
        0 => String::new(),
        _ => format!("; {skipped} hidden or temporary entries were left out: name one explicitly to read it"),
    }
}

impl FetchError {
    /// The error of a transfer.
    fn of_transfer(reference: &str, error: HttpError) -> Self {
        match error {
            HttpError::Cancelled(cancelled) => cancelled.into(),
            HttpError::File(error) => error.into(),
            error => Self::Transfer {
                reference: reference.to_owned(),
                source: error,
            },
        }
    }
}

/// Fetches a reference, at the version of the pin if there is one, and checks the content against the pin.
///
/// # Errors
/// If a client is missing (with the remedy), the registry cannot be reached, the version is not available, or the content is not
/// the pinned one.
pub fn fetch(
    reference: &SourceAddress,
    pinned: Option<&Pin>,
    context: SourceContext<'_>,
    progress: ProgressReporter<'_>,
) -> Result<Fetched, FetchError> {
    progress.check()?;
    let mut wanted = match pinned {
        Some(pin) => pin.reference.parse()?,
        None => reference.clone(),
    };
    if let SourceAddress::Package(Package {
        registry: Registry::Deb { suite: suite @ None },
        ..
    }) = &mut wanted
        && !context.offline
    {
        *suite = Some(debian::own_suite()?);
    }
    let pinned_files: Option<&[String]> = pinned.map(|pin| &pin.files[..]);
    let offline = || FetchError::Offline {
        reference: wanted.to_string(),
    };
    let (reference, found) = match &wanted {
        SourceAddress::Hub(repository) => {
            let hub = hub::Hub::of_environment();
            let (commit, found) = hub.fetch(repository, pinned_files, context, progress)?;
            (wanted.with_version(&commit), found)
        }
        SourceAddress::File { root, pattern } => {
            let folder = context.folders.folder(root.as_deref())?;
            (wanted.clone(), files::find(pattern, &folder)?)
        }
        _ if context.offline => return Err(offline()),
        SourceAddress::Web { address } => {
            let file = web::fetch(address, context, progress)?;
            (wanted.clone(), files::Found::from(file))
        }
        SourceAddress::Objects(objects) => {
            let settings = cloud::Settings::of_environment();
            let found = cloud::fetch(objects, &settings, pinned_files, context, progress)?;
            (wanted.clone(), found)
        }
        SourceAddress::Package(package) => {
            let (version, path) = match &package.registry {
                Registry::Deb { suite } => debian::fetch(package, suite.as_deref(), context, progress)?,
                Registry::PyPi => registry::pypi(package, context, progress)?,
                Registry::Cargo => registry::cargo(package, context, progress)?,
                Registry::Npm => registry::npm(package, context, progress)?,
            };
            let file = InputFile::from(path.as_path());
            (wanted.with_version(&version), files::Found::from(file))
        }
    };
    let files::Found { files, skipped } = found;
    let (bytes, content) = files::content(&files, progress)?;
    progress.report(bytes, Some(bytes), ProgressUnit::Bytes);
    if let Some(pin) = pinned
        && pin.content != content
    {
        return Err(FetchError::Changed {
            name: context.name.to_owned(),
            reference: reference.to_string(),
            pinned: pin.content.clone(),
            found: content,
        });
    }
    Ok(Fetched {
        reference,
        files,
        bytes,
        content,
        skipped,
    })
}

#[cfg(test)]
mod tests;
