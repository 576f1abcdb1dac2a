//! Sources of files: references, fetching by the usual package clients, and archives.
//!
//! In: a reference of a spec, and a pin of a lock. Out: files with their BLAKE3, or the members of such files. Nothing is installed or built, and nothing runs as another user. Not here: the store, what members mean (`data`).

use aurora_compiler::graph::Pin;
use camino::{Utf8Path, Utf8PathBuf};

use crate::errors::FileError;
use crate::http::HttpError;
use crate::progress::{Cancelled, ProgressReporter, ProgressUnit};
use archive::InputFile;
pub(crate) use files::content_in_memory;
pub use reference::{Package, ReferenceError, Registry, SourceAddress};

pub mod archive;
pub(crate) mod client;
mod debian;
mod files;
mod hub;
mod reference;
mod registry;
pub mod unpack;

/// A fetched source. Its files are in the scratch folder; files of `file:` are in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The reference with its exact version: what a lock pins.
    pub reference: SourceAddress,
    /// Sorted by name.
    pub files: Vec<InputFile>,
    pub bytes: u64,
    /// BLAKE3 (hexadecimal) of the file, or of the manifest of the files, as in [`Pin`].
    pub content: String,
}

/// The context of a fetch.
#[derive(Clone, Copy, Debug)]
pub struct SourceContext<'a> {
    /// The name of the `source` block, for messages.
    pub name: &'a str,
    /// The folder that `file:` is relative to.
    pub project: &'a Utf8Path,
    /// An empty folder for this fetch.
    pub scratch: &'a Utf8Path,
    /// A folder that fetches share, for package lists. Nothing in it changes a result.
    pub cache: &'a Utf8Path,
    /// Do not use the network.
    pub offline: bool,
    /// The most bytes that the source may have, if the spec states them.
    pub at_most: Option<u64>,
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
    #[error("no file matches `{pattern}` in `{root}`")]
    NoFile { pattern: String, root: Utf8PathBuf },
    #[error("`{path}` leads to `{target}`, which is outside the project: copy the file into the project")]
    Outside { path: Utf8PathBuf, target: Utf8PathBuf },
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
        "`{reference}` is not to be had from the hub (status {status}): it does not exist, or needs an account; \
         what another tool has fetched into {cache} is used"
    )]
    Hub {
        reference: String,
        status: u16,
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
    let (reference, files) = match &wanted {
        SourceAddress::Hub { repository, revision } => {
            let pinned: Option<&[String]> = pinned.map(|pin| &pin.files[..]);
            let hub = hub::Hub::of_environment();
            let (commit, files) = hub.fetch(repository, revision.as_deref(), pinned, context, progress)?;
            (wanted.with_version(&commit), files)
        }
        SourceAddress::File { pattern } => (wanted.clone(), files::find(pattern, context.project)?),
        SourceAddress::Package(package) => {
            if context.offline {
                return Err(FetchError::Offline {
                    reference: wanted.to_string(),
                });
            }
            let (version, path) = match &package.registry {
                Registry::Deb { suite } => debian::fetch(package, suite.as_deref(), context, progress)?,
                Registry::PyPi => registry::pypi(package, context, progress)?,
                Registry::Cargo => registry::cargo(package, context, progress)?,
                Registry::Npm => registry::npm(package, context, progress)?,
            };
            (wanted.with_version(&version), vec![InputFile::from(path.as_path())])
        }
    };
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
    })
}

#[cfg(test)]
mod tests;
