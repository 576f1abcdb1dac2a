//! The files of the machine that a program sees: interpreters, libraries and three devices, read-only; with the network,
//! also those that name hosts and certificates.
//!
//! Not the rest of `/etc`, `/home`, `/root`, `/tmp`, `/proc`, `/var`, and only parts of `/usr` and `/usr/local`: containers often
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

/// What a program with the network needs to find hosts and to check their certificates; no private keys.
const NETWORK_FOLDERS: &[&str] = &[
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];
const NETWORK_FILES: &[&str] = &[
    "/etc/gai.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/openssl.cnf",
];

/// An entry of the new root; paths are absolute, inside and outside.
pub enum VisibleFile {
    /// A folder or a file of this machine.
    Folder(&'static str),
    File(&'static str),
    /// A symbolic link: `/bin` often links to `usr/bin`.
    Link(&'static str, PathBuf),
}

/// The entries that exist on this machine.
pub fn entries(network: bool) -> Vec<VisibleFile> {
    let (more_folders, more_files) = if network {
        (NETWORK_FOLDERS, NETWORK_FILES)
    } else {
        (&[][..], &[][..])
    };
    let all = FOLDERS.iter().chain(more_folders);
    let folders = all.filter_map(|path| match fs::read_link(path) {
        Ok(target) => Some(VisibleFile::Link(path, target)),
        Err(_) => Path::new(path).is_dir().then_some(VisibleFile::Folder(path)),
    });
    let files = FILES.iter().chain(more_files).filter(|path| Path::new(path).exists());
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

/// A Landlock ruleset that allows the visible files and nothing else: no other file, no signal or abstract socket, and
/// without the network no port. Kernels before Linux 6.2 are refused: on them a read-only file could be truncated.
pub fn ruleset(network: bool) -> Result<Option<OwnedFd>, RulesetError> {
    // The newest ABI whose rights this code considers.
    let known = ABI::V7;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V3))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(known))?
        .scope(Scope::from_all(known))?;
    ruleset = if network {
        ruleset.handle_access(AccessNet::BindTcp)?
    } else {
        ruleset.handle_access(AccessNet::from_all(known))?
    };
    let mut ruleset = ruleset.create()?;
    for entry in entries(network) {
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
