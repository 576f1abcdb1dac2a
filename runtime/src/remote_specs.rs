//! Files that a spec imports from the web and from packages: their texts, by the pins of a lock.
//!
//! In: the address of a file, as `compose` writes it. Out: its text and its pin. Texts are taken from the store if it has
//! them. A pin never changes silently: another text at the same address is an error that names both.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, SystemTime};

use aurora_compiler::compose::remote::split;
use aurora_compiler::lock::LockedImport;
use camino::{Utf8Path, Utf8PathBuf};

use crate::errors::chain;
use crate::http::{self, Limits};
use crate::progress::ProgressReporter;
use crate::regular;
use crate::source::archive::read_member;
use crate::source::{self, Folders, SourceAddress, SourceContext};
use crate::store::hash_file;

/// The largest file.
const LARGEST: u64 = 4 << 20;

/// What may be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// Nothing: only texts in the store.
    Nothing,
    /// Texts that a lock pins.
    Pinned,
    /// Also texts that no lock pins; they are pinned then.
    Anything,
}

impl Fetch {
    /// What a command may fetch that works `offline`, or that is `locked`.
    pub fn allowed(offline: bool, locked: bool) -> Self {
        match (offline, locked) {
            (true, _) => Self::Nothing,
            (false, true) => Self::Pinned,
            (false, false) => Self::Anything,
        }
    }
}

/// The imports of one spec.
#[derive(Debug)]
pub struct Imports {
    /// The store; its folder `imports` has the texts by their digests.
    pub store: Utf8PathBuf,
    pub pinned: BTreeMap<String, LockedImport>,
    pub fetch: Fetch,
    /// The pins of all texts that were read.
    pub taken: BTreeMap<String, LockedImport>,
}

impl Imports {
    /// The text of an address.
    ///
    /// # Errors
    /// It is not in the store and must not be fetched, it cannot be fetched, or it differs from the pinned text.
    pub fn text(&mut self, address: &str) -> Result<String, String> {
        let pin = self.pinned.get(address).cloned();
        if let Some(pin) = &pin
            && let Some(text) = self.kept(pin)
        {
            self.taken.insert(address.to_owned(), pin.clone());
            return Ok(text);
        }
        match (&pin, self.fetch) {
            (None, Fetch::Nothing | Fetch::Pinned) => {
                return Err("no lock pins its text; run `aurora lock SPEC` to pin it".to_owned());
            }
            (Some(pin), Fetch::Nothing) => {
                let content = &pin.content;
                return Err(format!(
                    "its text ({content}) is not in the store; run `aurora lock SPEC` to fetch it"
                ));
            }
            _ => {}
        }
        let text = fetch(address)?;
        let found = LockedImport {
            bytes: text.len() as u64,
            content: crate::content_of(text.as_bytes()),
        };
        if let Some(pin) = pin.filter(|pin| *pin != found) {
            return Err(format!(
                "its text has changed: the lock pins {}, the fetched text is {}; run `aurora lock SPEC --upgrade {address}` to accept it",
                pin.content, found.content
            ));
        }
        let kept = self.path(&found);
        let keeping = |error: std::io::Error| format!("cannot write `{kept}`: {error}");
        std::fs::create_dir_all(self.folder()).map_err(keeping)?;
        crate::write_atomically(&kept, text.as_bytes()).map_err(keeping)?;
        self.taken.insert(address.to_owned(), found);
        Ok(text)
    }

    fn folder(&self) -> Utf8PathBuf {
        self.store.join("imports")
    }

    fn path(&self, pin: &LockedImport) -> Utf8PathBuf {
        self.folder().join(&pin.content)
    }

    /// A text of the store, if it is there and undamaged.
    fn kept(&self, pin: &LockedImport) -> Option<String> {
        let is_digest = pin.content.bytes().all(|byte| byte.is_ascii_hexdigit());
        let text = regular::read_to_string(&self.path(pin)).ok().filter(|_| is_digest)?;
        (crate::content_of(text.as_bytes()) == pin.content).then_some(text)
    }
}

/// The files of a store's folder `imports`, by name.
fn texts(store: &Utf8Path) -> io::Result<Vec<Utf8PathBuf>> {
    let listed = match store.join("imports").read_dir_utf8() {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = listed
        .map(|entry| entry.map(camino::Utf8DirEntry::into_path))
        .collect::<io::Result<Vec<_>>>()?;
    found.sort();
    Ok(found)
}

/// Verifies the texts of a store, whose names are their digests. Returns what is wrong, by paths inside the store.
///
/// # Errors
/// The folder of the texts cannot be listed.
pub fn verify(store: &Utf8Path) -> io::Result<Vec<(Utf8PathBuf, String)>> {
    let mut found = Vec::new();
    // A process that was killed while it wrote a text leaves a file with another name.
    let partial = |path: &Utf8PathBuf| path.file_name().is_some_and(|name| name.starts_with(crate::PARTIAL));
    for path in texts(store)?.into_iter().filter(|path| !partial(path)) {
        let cause = match hash_file(&path) {
            Ok(actual) if path.file_name() == Some(actual.as_str()) => continue,
            Ok(actual) => format!("its bytes hash to {actual}"),
            Err(error) => error.to_string(),
        };
        let name = path.file_name().unwrap_or_default();
        found.push((Utf8Path::new("imports").join(name), cause));
    }
    Ok(found)
}

/// Deletes the texts of a store that none of these pins names, if they were written before `since` (seconds since
/// 1970). Returns their bytes.
///
/// # Errors
/// A text cannot be listed or deleted.
pub fn collect(store: &Utf8Path, pinned: &[LockedImport], since: Option<u64>, dry_run: bool) -> io::Result<u64> {
    let since = since.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let mut bytes = 0;
    for path in texts(store)? {
        let status = std::fs::symlink_metadata(&path)?;
        let young = match since {
            Some(since) => status.modified()? >= since,
            None => false,
        };
        if young || status.is_dir() || pinned.iter().any(|pin| Some(pin.content.as_str()) == path.file_name()) {
            continue;
        }
        bytes += status.len();
        if !dry_run {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(bytes)
}

fn fetch(address: &str) -> Result<String, String> {
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let scratch = Utf8Path::from_path(scratch.path()).ok_or("the folder for temporary files is not UTF-8")?;
    let bytes = match address.strip_prefix("pkg:") {
        Some(_) => of_package(address, scratch)?,
        None => of_web(address, scratch)?,
    };
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

fn of_package(address: &str, scratch: &Utf8Path) -> Result<Vec<u8>, String> {
    let (package, member) = split(address).ok_or("it does not name a file of a package")?;
    let reference: SourceAddress = package
        .parse()
        .map_err(|error: source::ReferenceError| error.to_string())?;
    let context = SourceContext {
        name: address,
        folders: &Folders::default(),
        scratch,
        cache: &crate::cache_folder(),
        offline: false,
        at_most: None,
        limits: None,
    };
    let fetched = source::fetch(&reference, None, context, ProgressReporter::none()).map_err(|error| chain(&error))?;
    read_member(&fetched.files, member, LARGEST).map_err(|error| chain(&error))
}

fn of_web(address: &str, scratch: &Utf8Path) -> Result<Vec<u8>, String> {
    let came = scratch.join("came");
    http::get(address, &came, &Limits::for_file(LARGEST), ProgressReporter::none()).map_err(|error| chain(&error))?;
    std::fs::read(&came).map_err(|error| error.to_string())
}
