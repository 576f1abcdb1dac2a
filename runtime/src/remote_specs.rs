//! Files that a spec imports from the web and from packages: their texts, by the pins of a lock.
//!
//! In: the address of a file, as `compose` spells it. Out: its text, out of the store where it is there, and pinned. A pin is
//! never moved silently: another text under the same address is an error that names both.

use std::collections::BTreeMap;

use aurora_compiler::compose::remote::split;
use aurora_compiler::lock::LockedImport;
use camino::{Utf8Path, Utf8PathBuf};

use crate::errors::chain;
use crate::progress::Watch;
use crate::source::archive::read_member;
use crate::source::{self, Context, Reference, web};

/// A library of definitions is not larger.
const LARGEST: u64 = 4 << 20;

/// What may be brought from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// Nothing: what is not in the store is not there.
    Nothing,
    /// What a lock pins.
    Pinned,
    /// What no lock pins as well; it is pinned then.
    Anything,
}

impl Fetch {
    /// What a command may fetch that works `offline`, or keeps to its lock.
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
    /// The store; texts lie in its folder `imports`, each under its digest.
    pub store: Utf8PathBuf,
    pub pinned: BTreeMap<String, LockedImport>,
    pub fetch: Fetch,
    /// What has been read: what a lock pins from now on.
    pub taken: BTreeMap<String, LockedImport>,
}

impl Imports {
    /// The text of an address.
    ///
    /// # Errors
    /// In words: it is neither in the store nor may it be fetched, it cannot be fetched, or it is another text than the pinned one.
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
                return Err("no lock pins its text; `aurora lock SPEC` does".to_owned());
            }
            (Some(pin), Fetch::Nothing) => {
                let content = &pin.content;
                return Err(format!(
                    "its text ({content}) is not in the store; `aurora lock SPEC` brings it"
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
                "its text has changed: the lock pins {}, what came is {}; `aurora lock SPEC --upgrade {address}` accepts it",
                pin.content, found.content
            ));
        }
        let kept = self.path(&found);
        let keeping = |error: std::io::Error| format!("it cannot be kept in `{kept}`: {error}");
        std::fs::create_dir_all(self.folder()).map_err(keeping)?;
        crate::write_whole(&kept, text.as_bytes()).map_err(keeping)?;
        self.taken.insert(address.to_owned(), found);
        Ok(text)
    }

    fn folder(&self) -> Utf8PathBuf {
        self.store.join("imports")
    }

    fn path(&self, pin: &LockedImport) -> Utf8PathBuf {
        self.folder().join(&pin.content)
    }

    /// A text of the store, if it is there and whole.
    fn kept(&self, pin: &LockedImport) -> Option<String> {
        let is_digest = pin.content.bytes().all(|byte| byte.is_ascii_hexdigit());
        let text = std::fs::read_to_string(self.path(pin)).ok().filter(|_| is_digest)?;
        (crate::content_of(text.as_bytes()) == pin.content).then_some(text)
    }
}

/// Removes the texts of a store that none of these pins names; says how many bytes they have.
///
/// # Errors
/// A text cannot be removed.
pub fn collect(store: &Utf8Path, pinned: &[LockedImport], dry_run: bool) -> std::io::Result<u64> {
    let Ok(folder) = store.join("imports").read_dir_utf8() else {
        return Ok(0);
    };
    let mut bytes = 0;
    for entry in folder {
        let entry = entry?;
        if pinned.iter().any(|pin| pin.content == entry.file_name()) {
            continue;
        }
        bytes += entry.metadata()?.len();
        if !dry_run {
            std::fs::remove_file(entry.path())?;
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
    let (package, member) = split(address).ok_or("it names no file of a package")?;
    let reference: Reference = package
        .parse()
        .map_err(|error: source::ReferenceError| error.to_string())?;
    let context = Context {
        name: address,
        project: scratch,
        scratch,
        cache: &crate::cache_folder(),
        offline: false,
    };
    let fetched = source::fetch(&reference, None, context, Watch::nobody()).map_err(|error| chain(&error))?;
    read_member(&fetched.files, member, LARGEST).map_err(|error| chain(&error))
}

fn of_web(address: &str, scratch: &Utf8Path) -> Result<Vec<u8>, String> {
    let came = scratch.join("came");
    let output = web::get(address, &came, Some(LARGEST), Watch::nobody()).map_err(|error| chain(&error))?;
    if !output.status.success() {
        return Err(output.cause());
    }
    let mut file = std::fs::File::open(&came).map_err(|error| error.to_string())?;
    let bytes = source::archive::read_whole(&mut file, LARGEST).map_err(|error| error.to_string())?;
    bytes.ok_or_else(|| format!("it has more than {LARGEST} bytes"))
}
