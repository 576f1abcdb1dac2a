//! Locks of a store: one type for the lock of the whole store and for those of results.
//!
//! In: the name of a lock. Out: the lock, or who holds it. Never waits.
//!
//! ```text
//! locks/NAME/flock                     the file that is locked (flock)
//! locks/NAME/SHARING.METHOD.NONCE      a claim: describes a process that holds the lock; its name is unique
//! settings                             `store_lock = flock` or `store_lock = file`; without the file: flock
//! ```
//!
//! With `flock`, the operating system decides and a claim only says who holds the lock. Some file systems of clusters do not
//! have flock, or have it on each host for itself. With `file`, the claims decide: a process creates its own (`O_EXCL`), then
//! lists the others, and withdraws if there is one that excludes it. Of two processes at least one sees the other. A claim is
//! stale if its process has ended on this host, or, where it cannot be checked whether its process runs, if it has not been refreshed for
//! `LEASE`; all times are those of the file system, so clocks may differ. Because names are unique, everybody may delete a stale claim.
//!
//! The two methods do not exclude each other, so a claim of the other method is an error.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::{StoreError, entries, failed};
use crate::process::ProcessIdentity;
use crate::{make_below, regular};

/// A claim with the method `file` that has not been refreshed for so long is stale.
const LEASE: Duration = Duration::from_secs(120);
/// Claims are refreshed this often: a lease outlasts caches of attributes (NFS: up to 60 s) and a busy host.
const REFRESH: Duration = Duration::from_secs(15);

/// The file with the settings of a store.
const SETTINGS: &str = "settings";

/// How the processes of a store exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Flock,
    File,
}

impl Method {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "flock" => Some(Self::Flock),
            "file" => Some(Self::File),
            _ => None,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flock => "flock",
            Self::File => "file",
        })
    }
}

/// Whether others may hold a lock at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    Shared,
    Exclusive,
}

impl Sharing {
    fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Exclusive => "exclusive",
        }
    }
}

/// A process that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub process: ProcessIdentity,
    /// The process ids of this host, since it was started: only in them does the id of the process have a meaning.
    space: String,
    /// The beginning of its command line.
    pub command: String,
}

impl Holder {
    fn own() -> Self {
        let arguments = std::env::args_os().take(3).enumerate().map(|(index, argument)| {
            let argument = argument.to_string_lossy().into_owned();
            let name = argument.rsplit('/').next().unwrap_or_default();
            if index == 0 { name.to_owned() } else { argument }
        });
        Self {
            process: ProcessIdentity::own(),
            space: process_space(),
            command: arguments.collect::<Vec<_>>().join(" "),
        }
    }

    /// Whether the process runs; `None` if that is not known: only the host on which it runs knows it.
    fn is_running(&self) -> Option<bool> {
        (self.space == process_space()).then(|| self.process.is_running())?
    }

    fn has_ended(&self) -> bool {
        self.is_running() == Some(false)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProcessIdentity { host, id, .. } = &self.process;
        write!(f, "process {id} on {host} (`{}`)", self.command)
    }
}

/// Identifies the start of this host and the namespace of process ids: containers of one host have their own.
fn process_space() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), namespace.display())
}

/// The result of an attempt to lock.
pub enum Attempt {
    Locked(Held),
    /// Other processes hold it: those that are known, which may be none.
    HeldBy(Vec<Holder>),
}

/// A lock; dropping it releases it.
#[must_use]
pub struct Held {
    claim: Utf8PathBuf,
    leases: Arc<Leases>,
    /// Closing it releases the lock, if the method is `flock`.
    _file: Option<File>,
}

impl Held {
    /// The unique part of its claim's name.
    pub fn nonce(&self) -> &str {
        nonce_of(&self.claim)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.leases.end(&self.claim);
        drop(fs::remove_file(&self.claim));
    }
}

/// The locks of a store.
pub struct Locks {
    root: Utf8PathBuf,
    method: Method,
    leases: Arc<Leases>,
}

impl Locks {
    /// Reads how the processes of this store exclude each other.
    ///
    /// # Errors
    /// The settings cannot be read, or a line is not valid.
    pub fn of(root: &Utf8Path) -> Result<Self, StoreError> {
        let path = root.join(SETTINGS);
        let mut method = Method::Flock;
        for line in settings(&path)?.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let value = line.split_once('=').filter(|(name, _)| name.trim() == "store_lock");
            method = value
                .and_then(|(_, value)| Method::parse(value.trim()))
                .ok_or_else(|| StoreError::Setting {
                    path: path.clone(),
                    line: line.to_owned(),
                })?;
        }
        Ok(Self {
            root: root.to_owned(),
            method,
            leases: Arc::default(),
        })
    }

    /// Locks, if no other process holds the lock in a way that excludes this one.
    ///
    /// # Errors
    /// A file of the lock cannot be created, the file system does not have flock, or a process uses the other method.
    pub fn try_lock(&self, name: &str, sharing: Sharing) -> Result<Attempt, StoreError> {
        let folder = self.root.join("locks").join(name);
        make_below(&self.root, &folder).map_err(failed("make", &folder))?;
        let file = match self.method {
            Method::File => None,
            Method::Flock => match flock(&folder.join("flock"), sharing)? {
                Some(file) => Some(file),
                None => {
                    let others = claims(&folder)?.into_iter();
                    return Ok(Attempt::HeldBy(running(others)));
                }
            },
        };
        let text = serde_json::to_string(&Holder::own()).map_err(|error| failed("lock", &folder)(error.into()))?;
        let path = folder.join(format!("{}.{}.{}", sharing.name(), self.method, nonce()));
        let now = self.create(&path, &text).map_err(failed("lock", &path))?;
        let held = Held {
            claim: path,
            leases: Arc::clone(&self.leases),
            _file: file,
        };
        let mut others = Vec::new();
        let all = claims(&folder)?;
        if !all.iter().any(|claim| claim.path == held.claim) {
            // The folder was moved away: what is locked is not the store at this path.
            return Err(failed("lock", &held.claim)(io::ErrorKind::NotFound.into()));
        }
        for other in all.into_iter().filter(|other| other.path != held.claim) {
            // With flock, nobody else holds a lock that is held exclusively.
            let is_left =
                self.method == Method::Flock && other.method == Method::Flock && sharing == Sharing::Exclusive;
            if is_left || other.is_stale(now) {
                remove(&other.path)?;
            } else if other.method != self.method {
                return Err(StoreError::OtherLocks {
                    claim: other.path,
                    own: self.method.to_string(),
                });
            } else if self.method == Method::File && [sharing, other.sharing].contains(&Sharing::Exclusive) {
                others.push(other);
            }
        }
        if !others.is_empty() {
            return Ok(Attempt::HeldBy(running(others.into_iter())));
        }
        if self.method == Method::File {
            Leases::keep(&self.leases, &held.claim, text).map_err(failed("lock", &held.claim))?;
        }
        Ok(Attempt::Locked(held))
    }

    /// The nonces of all claims to a lock.
    ///
    /// # Errors
    /// The claims cannot be listed.
    pub fn nonces(&self, name: &str) -> Result<Vec<String>, StoreError> {
        let folder = self.root.join("locks").join(name);
        let paths = entries(&folder, 0).map_err(failed("list", &folder))?;
        let nonces = paths.iter().map(|path| nonce_of(path).to_owned());
        Ok(nonces.filter(|nonce| !nonce.is_empty()).collect())
    }

    /// Creates a claim, and returns the time of the file system.
    fn create(&self, path: &Utf8Path, text: &str) -> io::Result<SystemTime> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| match self.method {
            // Before the others are listed, they must see it.
            Method::File => file.sync_all(),
            Method::Flock => Ok(()),
        });
        if let Err(error) = written {
            drop(fs::remove_file(path));
            return Err(error);
        }
        file.metadata()?.modified()
    }
}

/// The text of a store's settings; empty if there is none.
fn settings(path: &Utf8Path) -> Result<String, StoreError> {
    match regular::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(failed("read", path)),
    }
}

/// Gives a store that is inside of another one the same settings: it is on the same file system.
///
/// # Errors
/// They cannot be read or written.
pub fn copy_settings(from: &Utf8Path, to: &Utf8Path) -> Result<(), StoreError> {
    let text = settings(&from.join(SETTINGS))?;
    if text.is_empty() {
        return Ok(());
    }
    let path = to.join(SETTINGS);
    fs::create_dir_all(to).map_err(failed("make", to))?;
    crate::write_atomically(&path, text.as_bytes()).map_err(failed("write", &path))
}

/// Opens and locks a file; `None` if another process has locked it. A pipe in its place is an error: opening it does not wait.
fn flock(path: &Utf8Path, sharing: Sharing) -> Result<Option<File>, StoreError> {
    let mut options = OpenOptions::new();
    // Network file systems lock for reading only what is open for reading.
    let options = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).map_err(failed("lock", path))?;
    if !file.metadata().map_err(failed("lock", path))?.is_file() {
        return Err(failed("lock", path)(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        )));
    }
    let locked = match sharing {
        Sharing::Shared => file.try_lock_shared(),
        Sharing::Exclusive => file.try_lock(),
    };
    match locked {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(match source.raw_os_error() {
            Some(libc::ENOLCK | libc::ENOSYS | libc::EOPNOTSUPP | libc::EINVAL) => StoreError::NoFlock {
                path: path.to_owned(),
                source,
            },
            _ => failed("lock", path)(source),
        }),
    }
}

/// A file that says that a process holds a lock.
struct Claim {
    path: Utf8PathBuf,
    sharing: Sharing,
    method: Method,
    /// None while the process writes it.
    holder: Option<Holder>,
    refreshed: SystemTime,
}

impl Claim {
    /// Reads a claim; `None` if the file is not one, or is deleted meanwhile.
    fn read(path: Utf8PathBuf) -> io::Result<Option<Self>> {
        let mut name = path.file_name().unwrap_or_default().splitn(3, '.');
        let sharing = match name.next() {
            Some("shared") => Sharing::Shared,
            Some("exclusive") => Sharing::Exclusive,
            _ => return Ok(None),
        };
        let Some(method) = name.next().and_then(Method::parse) else {
            return Ok(None);
        };
        // Opening the file, not asking for its status, makes a network file system report its current time.
        let read = || -> io::Result<(SystemTime, Vec<u8>)> {
            let mut file = regular::open(&path)?;
            let refreshed = file.metadata()?.modified()?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            Ok((refreshed, text))
        };
        let (refreshed, text) = match read() {
            Ok(read) => read,
            // On a network file system, a file may be deleted while it is open.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(Some(Self {
            holder: serde_json::from_slice(&text).ok(),
            path,
            sharing,
            method,
            refreshed,
        }))
    }

    fn is_stale(&self, now: SystemTime) -> bool {
        match self.holder.as_ref().and_then(Holder::is_running) {
            Some(running) => !running,
            // The lease decides only where nothing is known about the process: a suspended one keeps its lock.
            None => {
                let age = now.duration_since(self.refreshed).unwrap_or_default();
                self.method == Method::File && age > LEASE
            }
        }
    }
}

fn claims(folder: &Utf8Path) -> Result<Vec<Claim>, StoreError> {
    let paths = entries(folder, 0).map_err(failed("list", folder))?;
    let mut found = Vec::new();
    for path in paths {
        let claim = Claim::read(path.clone()).map_err(failed("read", &path))?;
        found.extend(claim);
    }
    Ok(found)
}

/// The processes of claims, without those that have ended.
fn running(claims: impl Iterator<Item = Claim>) -> Vec<Holder> {
    let holders = claims.filter_map(|claim| claim.holder);
    holders.filter(|holder| !holder.has_ended()).collect()
}

fn remove(path: &Utf8Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn nonce_of(claim: &Utf8Path) -> &str {
    claim.extension().unwrap_or_default()
}

/// A name that no other claim has.
fn nonce() -> String {
    static CLAIMS: AtomicU64 = AtomicU64::new(0);
    let number = CLAIMS.fetch_add(1, Ordering::Relaxed);
    let process = ProcessIdentity::own();
    let text = format!("{process:?} {} {number} {:?}", process_space(), SystemTime::now());
    blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
}

/// The claims of this process that a thread refreshes. The thread runs while there are any.
#[derive(Default)]
struct Leases {
    kept: Mutex<Kept>,
    changed: Condvar,
}

#[derive(Default)]
struct Kept {
    claims: BTreeMap<Utf8PathBuf, String>,
    is_refreshing: bool,
}

impl Leases {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(leases: &Arc<Self>, claim: &Utf8Path, text: String) -> io::Result<()> {
        let mut kept = leases.kept();
        if !kept.is_refreshing {
            let own = Arc::clone(leases);
            let thread = std::thread::Builder::new().name("leases".to_owned());
            thread.spawn(move || own.refresh())?;
            kept.is_refreshing = true;
        }
        kept.claims.insert(claim.to_owned(), text);
        Ok(())
    }

    fn end(&self, claim: &Utf8Path) {
        self.kept().claims.remove(claim);
        self.changed.notify_all();
    }

    fn refresh(&self) {
        let mut kept = self.kept();
        loop {
            let waited = self
                .changed
                .wait_timeout_while(kept, REFRESH, |kept| !kept.claims.is_empty());
            kept = waited.unwrap_or_else(PoisonError::into_inner).0;
            if kept.claims.is_empty() {
                kept.is_refreshing = false;
                return;
            }
            kept.write();
        }
    }
}

impl Kept {
    /// Writes the claims again, which sets their time by the clock of the file system. A claim that was deleted as stale, while
    /// this process was suspended, is made again.
    fn write(&self) {
        for (path, text) in &self.claims {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).open(path);
            // What fails now is tried again before the lease ends.
            drop(file.and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::store::Store;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new(settings: &str) -> Self {
            let folder = Self(tempfile::tempdir().expect("a folder"));
            fs::write(folder.root().join(SETTINGS), settings).expect("settings");
            folder
        }

        fn root(&self) -> &Utf8Path {
            Utf8Path::from_path(self.0.path()).expect("UTF-8")
        }

        fn attempt(&self, sharing: Sharing) -> Result<Attempt, StoreError> {
            Locks::of(self.root()).expect("settings").try_lock("node", sharing)
        }

        fn locks(&self) -> bool {
            matches!(self.attempt(Sharing::Exclusive), Ok(Attempt::Locked(_)))
        }

        /// Writes a claim of a process, which was refreshed `age` ago.
        fn claim(&self, holder: &Holder, age: Duration) -> Utf8PathBuf {
            let path = self
                .root()
                .join("locks/node")
                .join(format!("exclusive.file.{}", nonce()));
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(&path, serde_json::to_string(holder).expect("a text")).expect("a claim");
            let file = File::options().write(true).open(&path).expect("a claim");
            file.set_modified(SystemTime::now() - age).expect("a time");
            path
        }
    }

    fn elsewhere() -> Holder {
        Holder {
            space: "another host".to_owned(),
            ..Holder::own()
        }
    }

    #[test]
    fn both_methods_exclude_and_name_the_holder() {
        for settings in ["", "# a comment\nstore_lock = file\n"] {
            let folder = Folder::new(settings);
            let shared = folder.attempt(Sharing::Shared).expect("a lock");
            let other = folder.attempt(Sharing::Shared).expect("a lock");
            assert!(matches!(other, Attempt::Locked(_)));
            drop(other);
            let Ok(Attempt::HeldBy(holders)) = folder.attempt(Sharing::Exclusive) else {
                panic!("a shared lock excludes an exclusive one");
            };
            assert_eq!(holders, [Holder::own()]);
            drop(shared);
            let alone = folder.attempt(Sharing::Exclusive).expect("a lock");
            assert!(matches!(folder.attempt(Sharing::Shared), Ok(Attempt::HeldBy(of)) if of == [Holder::own()]));
            assert!(!folder.locks());
            drop(alone);
            assert!(folder.locks());
            let opened = Store::open(folder.root()).expect("a store");
            let error = Store::open_alone(folder.root()).map(drop).expect_err("it is open");
            let id = std::process::id();
            assert!(error.to_string().contains(&format!(": process {id} on ")), "{error}");
            drop(opened);
            drop(Store::open_alone(folder.root()).expect("a store"));
        }
    }

    #[test]
    fn a_claim_is_stale_if_its_process_has_ended_or_its_lease() {
        let folder = Folder::new("store_lock = file");
        let mut ended = Holder::own();
        ended.process.started = ended.process.started.map(|ticks| ticks - 1);
        let claim = folder.claim(&ended, Duration::ZERO);
        assert!(folder.locks() && !claim.exists());
        let claim = folder.claim(&elsewhere(), Duration::ZERO);
        assert!(
            !folder.locks() && claim.exists(),
            "only the other host knows its processes"
        );
        fs::remove_file(&claim).expect("a claim");
        // A process of another namespace or host is not looked for on this one.
        ended.space = "another host".to_owned();
        let claim = folder.claim(&ended, LEASE / 2);
        assert!(!folder.locks() && claim.exists());
        fs::write(&claim, "").expect("a claim");
        assert!(!folder.locks() && claim.exists(), "its process is writing it");
        let claim = folder.claim(&elsewhere(), LEASE * 2);
        assert!(!folder.locks() && !claim.exists());
        // This process runs, however long it was suspended.
        let claim = folder.claim(&Holder::own(), LEASE * 2);
        assert!(!folder.locks() && claim.exists());
    }

    /// Network file systems lock for reading only what is open for reading.
    #[test]
    fn the_locked_file_is_open_for_reading_and_writing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8Path::from_path(folder.path()).expect("UTF-8").join("flock");
        let file = flock(&path, Sharing::Shared).expect("a lock").expect("nobody holds it");
        let flags = rustix::fs::fcntl_getfl(&file).expect("flags");
        assert_eq!(flags & rustix::fs::OFlags::RWMODE, rustix::fs::OFlags::RDWR);
    }

    #[test]
    fn leases_are_refreshed() {
        let folder = Folder::new("store_lock = file");
        let locks = Locks::of(folder.root()).expect("settings");
        let Ok(Attempt::Locked(held)) = locks.try_lock("node", Sharing::Exclusive) else {
            panic!("no process has locked it");
        };
        let old = SystemTime::now() - LEASE * 2;
        let file = File::options().write(true).open(&held.claim).expect("a claim");
        file.set_modified(old).expect("a time");
        locks.leases.kept().write();
        assert!(file.metadata().expect("a status").modified().expect("a time") > old);
        fs::remove_file(&held.claim).expect("a claim");
        assert!(locks.leases.kept().is_refreshing);
        locks.leases.kept().write();
        assert!(!folder.locks(), "the claim was made again");
        let claim = held.claim.clone();
        drop(held);
        locks.leases.kept().write();
        assert!(!claim.exists());
    }

    #[test]
    fn processes_with_different_methods_are_refused() {
        for [first, second] in [["flock", "file"], ["file", "flock"]] {
            let folder = Folder::new(&format!("store_lock = {first}"));
            let open = Store::open(folder.root()).expect("a store");
            fs::write(folder.root().join(SETTINGS), format!("store_lock = {second}")).expect("settings");
            let error = Store::open(folder.root()).map(drop).expect_err("another method");
            assert!(matches!(error, StoreError::OtherLocks { .. }), "{error}");
            drop(open);
            drop(Store::open(folder.root()).expect("a store"));
        }
    }

    #[test]
    fn settings_are_read_strictly() {
        for text in [
            "store_lock = files",
            "store_lock",
            "lock = file",
            "store_lock = file\nx",
        ] {
            let folder = Folder::new(text);
            let error = Store::open(folder.root()).map(drop).expect_err("not a setting");
            assert!(error.to_string().contains("is not a setting of a store"), "{error}");
        }
    }

    /// Many attempts at the same time: never do two succeed.
    #[test]
    fn claims_exclude_each_other() {
        let folder = Folder::new("store_lock = file");
        let held = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut successes = 0;
                    while successes < 25 {
                        let Attempt::Locked(lock) = folder.attempt(Sharing::Exclusive).expect("an attempt") else {
                            std::thread::yield_now();
                            continue;
                        };
                        assert!(!held.swap(true, Ordering::SeqCst), "two hold it");
                        successes += 1;
                        held.store(false, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
    }
}
