//! What a program sees of the machine's files: interpreters, libraries and three devices, read-only.
//!
//! No `/etc`, `/home`, `/root`, `/tmp`, `/proc`, `/var`, and of `/usr` and `/usr/local` not all: containers often keep a
//! project in `/usr/src`.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};

const FOLDERS: &[&str] = &[
    "/usr/bin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/bin",
    "/lib",
    "/lib64",
];
/// The last one tells the loader where libraries are.
const FILES: &[&str] = &["/dev/null", "/dev/zero", "/dev/urandom", "/etc/ld.so.cache"];

/// An entry of the new root; the path is absolute, here and there.
pub enum Entry {
    /// A folder or a file as it is here.
    Folder(&'static str),
    File(&'static str),
    /// `/bin` is often a link to `usr/bin`.
    Link(&'static str, PathBuf),
}

/// The entries that this machine has.
pub fn entries() -> Vec<Entry> {
    let folders = FOLDERS.iter().filter_map(|path| match fs::read_link(path) {
        Ok(target) => Some(Entry::Link(path, target)),
        Err(_) => Path::new(path).is_dir().then_some(Entry::Folder(path)),
    });
    let files = FILES.iter().filter(|path| Path::new(path).exists());
    folders.chain(files.map(|path| Entry::File(path))).collect()
}

/// The folder of the view in which a path lies.
pub fn shown(path: &Path) -> Option<&'static str> {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let path = real(path);
    FOLDERS.iter().copied().find(|folder| {
        let folder = real(Path::new(folder));
        folder.is_dir() && path.starts_with(folder)
    })
}

/// What a program may do in its own folder.
pub fn own_access(writable: bool) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    if writable { read | write } else { read }
}

/// A Landlock ruleset that grants the view and nothing else: no file, port, signal or abstract socket. A kernel before
/// Linux 6.2 is refused: there a file could be emptied that cannot be written.
pub fn ruleset() -> Result<Option<OwnedFd>, RulesetError> {
    // The newest kernel whose rights have been considered here.
    let known = ABI::V7;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V3))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(known))?
        .handle_access(AccessNet::from_all(known))?
        .scope(Scope::from_all(known))?
        .create()?;
    for entry in entries() {
        let (path, access) = match entry {
            Entry::Folder(path) => (path, AccessFs::from_read(known)),
            Entry::File(path) if path.starts_with("/dev/") => (path, AccessFs::ReadFile | AccessFs::WriteFile),
            Entry::File(path) => (path, AccessFs::ReadFile.into()),
            Entry::Link(..) => continue,
        };
        // A folder that is gone by now is one that nobody sees.
        if let Ok(folder) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(folder, access))?;
        }
    }
    Ok(ruleset.into())
}
