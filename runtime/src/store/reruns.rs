//! Stores of repetitions, in the folder `rerun/` of the store of the project.
//!
//! In: what is repeated, as text. Out: an empty store or, after an interruption, that of the same repetition. Not here: the
//! comparison with the lock (`aurora rerun`).
//!
//! ```text
//! rerun/KEY.N        a store; KEY is a digest of what is repeated, N distinguishes repetitions at the same time
//! rerun/KEY.N/of     the lock that is repeated, as JSON
//! ```
//!
//! A repetition has its store alone, and deletes it when its results have been compared. `aurora gc` deletes one that nobody
//! has open, and that cannot be resumed or has not changed for [`RESUMABLE`].

use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use aurora_compiler::hash::digest_of;
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::lock::{Attempt, Locks, Sharing, copy_settings};
use super::{Store, StoreError, entries, failed, files_below};
use crate::{regular, write_atomically};

/// How long a repetition that has stopped is kept.
pub const RESUMABLE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

const FOLDER: &str = "rerun";
const OF: &str = "of";

/// The lock that a repetition repeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepeatedLock {
    /// As the project sees it.
    pub path: String,
    /// BLAKE3 of its text.
    pub content: String,
}

/// The store of a repetition, which this process has alone.
pub struct Repetition {
    pub store: Store,
    /// An earlier process has left it.
    pub is_resumed: bool,
    parent: Utf8PathBuf,
}

impl Repetition {
    /// Opens the store of a repetition inside the store `parent`. `options` are those of the repetition that may change how
    /// results are computed: a repetition with others does not use its results.
    ///
    /// # Errors
    /// A folder cannot be created or written to.
    pub fn open(parent: &Utf8Path, lock: &RepeatedLock, options: &str) -> Result<Self, StoreError> {
        let key = &digest_of([(lock.content.as_str(), 0, ""), (options, 0, "")]).to_hex()[..16];
        let mut number = 1;
        loop {
            let root = parent.join(FOLDER).join(format!("{key}.{number}"));
            let is_resumed = root.join(OF).is_file();
            copy_settings(parent, &root)?;
            let store = match Store::open_alone(&root) {
                Ok(store) => store,
                Err(StoreError::Busy { .. }) => {
                    number += 1;
                    continue;
                }
                // The repetition that had it has ended, and moved it away.
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let of = root.join(OF);
            let text = serde_json::to_string(lock).map_err(|error| failed("write", &of)(error.into()))?;
            write_atomically(&of, text.as_bytes()).map_err(failed("write", &of))?;
            return Ok(Self {
                store,
                is_resumed,
                parent: parent.to_owned(),
            });
        }
    }

    /// Deletes the store.
    ///
    /// # Errors
    /// It cannot be moved or deleted.
    pub fn delete(self) -> Result<(), StoreError> {
        delete(&self.parent, self.store.root())
    }
}

/// Deletes the store of a repetition while its lock is held. It is moved first: another process then makes a new one.
fn delete(parent: &Utf8Path, root: &Utf8Path) -> Result<(), StoreError> {
    let tmp = parent.join("tmp");
    fs::create_dir_all(&tmp).map_err(failed("make", &tmp))?;
    let away = tempfile::Builder::new().prefix("rerun-").tempdir_in(&tmp);
    let away = away.map_err(failed("create a folder in", &tmp))?;
    let moved = Utf8PathBuf::try_from(away.path().join("store"))
        .map_err(|error| failed("move", root)(error.into_io_error()))?;
    fs::rename(root, moved).map_err(failed("move", root))?;
    match away.close() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", root)(error)),
        _ => Ok(()),
    }
}

/// The store of a repetition that a collection has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftRepetition {
    /// Path inside the store.
    pub path: Utf8PathBuf,
    pub bytes: u64,
    /// Why it is kept; none if it is deleted.
    pub kept: Option<String>,
}

/// Deletes the stores of repetitions that are not needed any more; with `dry`, only lists them. `is_current` answers whether a
/// lock still has the text that was repeated.
///
/// # Errors
/// A folder cannot be read or deleted.
pub fn collect_repetitions(
    parent: &Utf8Path,
    is_current: &dyn Fn(&RepeatedLock) -> bool,
    dry: bool,
) -> Result<Vec<LeftRepetition>, StoreError> {
    let folder = parent.join(FOLDER);
    let mut found = Vec::new();
    for root in entries(&folder, 0).map_err(failed("list", &folder))? {
        match collect_one(parent, &root, is_current, dry) {
            // Its repetition has ended and moved it away.
            Err(_) if root.symlink_metadata().is_err() => {}
            left => found.push(left?),
        }
    }
    Ok(found)
}

fn collect_one(
    parent: &Utf8Path,
    root: &Utf8Path,
    is_current: &dyn Fn(&RepeatedLock) -> bool,
    dry: bool,
) -> Result<LeftRepetition, StoreError> {
    // Before this collection changes it.
    let idle = idle(root).map_err(failed("read", root))?;
    let of = regular::read_to_string(&root.join(OF)).ok();
    let of: Option<RepeatedLock> = of.and_then(|text| serde_json::from_str(&text).ok());
    let mut left = LeftRepetition {
        path: root.strip_prefix(parent).unwrap_or(root).to_owned(),
        bytes: bytes_below(root).map_err(failed("read", root))?,
        kept: None,
    };
    if !root.is_dir() {
        if !dry {
            fs::remove_file(root).map_err(failed("remove", root))?;
        }
        return Ok(left);
    }
    let lock = Locks::of(root)?.try_lock("store", Sharing::Exclusive)?;
    left.kept = match (&lock, of) {
        (Attempt::HeldBy(holders), _) => Some(match holders.first() {
            Some(holder) => format!("{holder} has it open"),
            None => "a process has it open".to_owned(),
        }),
        (Attempt::Locked(_), Some(of)) if idle < RESUMABLE && is_current(&of) => {
            let days = RESUMABLE.saturating_sub(idle).as_secs().div_ceil(24 * 60 * 60);
            Some(format!(
                "`aurora rerun {}` resumes it; kept for {days} more days",
                of.path
            ))
        }
        (Attempt::Locked(_), _) => None,
    };
    if left.kept.is_none() && !dry {
        delete(parent, root)?;
    }
    Ok(left)
}

/// The time since the last change of a store: each result, checkpoint and temporary file changes one of its folders.
fn idle(root: &Utf8Path) -> io::Result<Duration> {
    let mut last = fs::symlink_metadata(root)?.modified()?;
    for path in entries(root, 0).unwrap_or_default() {
        last = last.max(fs::symlink_metadata(&path)?.modified()?);
    }
    Ok(SystemTime::now().duration_since(last).unwrap_or_default())
}

fn bytes_below(root: &Utf8Path) -> io::Result<u64> {
    if !root.is_dir() {
        return Ok(fs::symlink_metadata(root)?.len());
    }
    let mut bytes = 0;
    for path in files_below(root)? {
        // A process that has it open may delete files.
        bytes += fs::symlink_metadata(&path).map_or(0, |status| status.len());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn lock(content: &str) -> RepeatedLock {
        RepeatedLock {
            path: "lockfiles/small.lock".to_owned(),
            content: content.to_owned(),
        }
    }

    /// Makes a store look as if nothing had changed for this long.
    fn make_old(root: &Utf8Path, age: Duration) {
        for path in entries(root, 0).expect("entries").iter().chain([&root.to_owned()]) {
            let file = File::open(path).expect("a file");
            file.set_modified(SystemTime::now() - age).expect("a time");
        }
    }

    #[test]
    fn a_repetition_is_resumed_and_collected_by_the_rule() {
        let folder = tempfile::tempdir().expect("a folder");
        let parent = Utf8Path::from_path(folder.path()).expect("UTF-8");
        let open = |content: &str, options: &str| Repetition::open(parent, &lock(content), options).expect("a store");
        let collect = |current: bool| collect_repetitions(parent, &|_| current, false).expect("a collection");
        let first = open("a", "");
        let root = first.store.root().to_owned();
        assert!(!first.is_resumed);
        // Repetitions at the same time, and with other options, have their own stores.
        for other in [open("a", ""), open("a", "fresh"), open("b", "")] {
            assert!(!other.is_resumed && other.store.root() != root);
            other.delete().expect("deleted");
        }
        let kept = collect(true);
        assert_eq!(kept.len(), 1);
        assert!(
            kept[0].kept.as_ref().is_some_and(|why| why.contains("has it open")),
            "{kept:?}"
        );
        drop(first);
        let kept = collect(true);
        let why = kept[0].kept.as_deref().unwrap_or_default();
        assert_eq!(
            why,
            "`aurora rerun lockfiles/small.lock` resumes it; kept for 7 more days"
        );
        let again = open("a", "");
        assert!(again.is_resumed && again.store.root() == root);
        drop(again);
        make_old(&root, RESUMABLE * 2);
        let listed = collect_repetitions(parent, &|_| true, true).expect("a list");
        assert!(listed[0].kept.is_none() && root.exists(), "a dry run deletes nothing");
        assert_eq!(collect(true), listed);
        assert!(!root.exists());
        // It ends while it is examined.
        let leaving = open("a", "").store.root().to_owned();
        let vanish = |_: &RepeatedLock| {
            fs::remove_dir_all(&leaving).expect("removed");
            false
        };
        assert_eq!(collect_repetitions(parent, &vanish, false).expect("a collection"), []);
        // Its lock has changed.
        drop(open("a", ""));
        assert_eq!(collect(false)[0].kept, None);
        assert_eq!(entries(&parent.join(FOLDER), 0).expect("a list"), [""; 0]);
        assert_eq!(entries(&parent.join("tmp"), 0).expect("a list"), [""; 0]);
    }
}
