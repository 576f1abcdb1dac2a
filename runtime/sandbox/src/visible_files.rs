//! The files of the machine that a program sees: interpreters, libraries and three devices, read-only.
//!
//! Not `/etc`, `/home`, `/root`, `/tmp`, `/proc`, `/var`, and only parts of `/usr` and `/usr/local`: containers often
//! have a project in `/usr/src`.

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
/// The last one lists libraries for the dynamic loader.
const FILES: &[&str] = &["/dev/null", "/dev/zero", "/dev/urandom", "/etc/ld.so.cache"];

/// An entry of the new root; paths are absolute, inside and outside.
pub enum VisibleFile {
    /// A folder or a file of this machine.
    Folder(&'static str),
    File(&'static str),
    /// A symbolic link: `/bin` often links to `usr/bin`.
    Link(&'static str, PathBuf),
}

/// The entries that exist on this machine.
pub fn entries() -> Vec<VisibleFile> {
    let folders = FOLDERS.iter().filter_map(|path| match fs::read_link(path) {
        Ok(target) => Some(VisibleFile::Link(path, target)),
        Err(_) => Path::new(path).is_dir().then_some(VisibleFile::Folder(path)),
    });
    let files = FILES.iter().filter(|path| Path::new(path).exists());
    folders.chain(files.map(|path| VisibleFile::File(path))).collect()
}

/// The visible folder that contains a path, if there is one.
pub fn visible(path: &Path) -> Option<&'static str> {
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

/// A Landlock ruleset that allows the visible files and nothing else: no other file, no port, signal or abstract
/// socket. Kernels before Linux 6.2 are refused: on them a read-only file could be truncated.
pub fn ruleset() -> Result<Option<OwnedFd>, RulesetError> {
    // The newest ABI whose rights this code considers.
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
            VisibleFile::Folder(path) => (path, AccessFs::from_read(known)),
            VisibleFile::File(path) if path.starts_with("/dev/") => (path, AccessFs::ReadFile | AccessFs::WriteFile),
            VisibleFile::File(path) => (path, AccessFs::ReadFile.into()),
            VisibleFile::Link(..) => continue,
        };
        // A folder that was removed meanwhile is not visible.
        if let Ok(folder) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(folder, access))?;
        }
    }
    Ok(ruleset.into())
}
