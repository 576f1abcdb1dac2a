//! Debian packages through `apt-get` with a private state.
//!
//! In: a package, and a suite or the system's own. Out: the exact version and the `.deb`. Works for any user and changes
//! nothing in the system: lists, status and settings are in a folder of the cache; mirror and key come from the system's
//! sources. apt checks signatures as usual.

use std::fs::{File, TryLockError};
use std::process::Command;
use std::time::{Duration, SystemTime};

use camino::{Utf8Path, Utf8PathBuf};

use super::client::{self, Output};
use super::files::only_file;
use super::registry::is_network;
use super::{FetchError, Package, SourceContext};
use crate::errors::FileError;
use crate::progress::ProgressReporter;

/// Package lists older than this are fetched again to find the newest version. A pinned version that is in the lists is
/// fetched with them at any age.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

const REMEDY: &str = "Debian packages need apt, which every Debian has";
const DEFAULT_KEY: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

pub(super) fn fetch(
    package: &Package,
    suite: Option<&str>,
    context: SourceContext<'_>,
    progress: ProgressReporter<'_>,
) -> Result<(String, Utf8PathBuf), FetchError> {
    let mirror = Mirror::of_system(Utf8Path::new("/"), suite)?;
    let state = State::open(&mirror, context.cache)?;
    let newest_wanted = package.version.is_none();
    if !state.has_lists() || (newest_wanted && !state.is_fresh()) {
        state.update(package, progress)?;
    }
    match state.download(package, context, progress)? {
        Downloaded::File(version, path) => Ok((version, path)),
        // The lists may be outdated: try again with new ones, unless they are new.
        Downloaded::NotThere(_) if !state.is_new() => {
            state.update(package, progress)?;
            match state.download(package, context, progress)? {
                Downloaded::File(version, path) => Ok((version, path)),
                Downloaded::NotThere(output) => Err(state.gone(package, context, &output, progress)?),
            }
        }
        Downloaded::NotThere(output) => Err(state.gone(package, context, &output, progress)?),
    }
}

/// The suite of a package that names none; a lock names it.
pub(super) fn own_suite() -> Result<String, FetchError> {
    Mirror::of_system(Utf8Path::new("/"), None).map(|mirror| mirror.suite)
}

/// The mirror of Debian's packages in the system's sources.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirror {
    uri: String,
    suite: String,
    key: Key,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    File(String),
    /// An ASCII-armoured key in the sources file itself.
    Inline(String),
    /// The keys that apt trusts by default.
    Trusted,
}

/// One entry of the system's sources, for one URI and one suite.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    uri: String,
    suite: String,
    key: Key,
}

impl Mirror {
    fn of_system(root: &Utf8Path, suite: Option<&str>) -> Result<Self, FetchError> {
        let folder = root.join("etc/apt");
        let mut paths = vec![folder.join("sources.list")];
        if let Ok(listing) = folder.join("sources.list.d").read_dir_utf8() {
            paths.extend(listing.flatten().map(|entry| entry.path().to_owned()));
        }
        paths.sort();
        let mut entries = Vec::new();
        for path in &paths {
            let Ok(text) = std::fs::read_to_string(path) else {
                continue;
            };
            match path.extension() {
                Some("list") => entries.extend(text.lines().filter_map(one_line).flatten()),
                Some("sources") => entries.extend(stanzas(&text).iter().flat_map(|stanza| stanza_entries(stanza))),
                _ => {}
            }
        }
        let codename = std::fs::read_to_string(root.join("etc/os-release"))
            .ok()
            .and_then(|text| {
                Some(
                    text.lines()
                        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?
                        .trim_matches('"')
                        .to_owned(),
                )
            });
        choose(&entries, codename.as_deref(), suite).ok_or_else(|| FetchError::NoMirror {
            searched: format!("`{folder}/sources.list` and `{folder}/sources.list.d`"),
            remedy: "on another system, take the package from another registry or name its file with `file:`",
        })
    }
}

/// The entry of the system's release. Updates and security are ignored, because their versions do not stay available.
fn choose(entries: &[Entry], codename: Option<&str>, suite: Option<&str>) -> Option<Mirror> {
    let debian = |entry: &&Entry| {
        let path = entry.uri.trim_end_matches('/');
        path.ends_with("/debian")
            || matches!(&entry.key, Key::File(key) if key.contains("debian-archive")) && !path.ends_with("-security")
    };
    let own = |entry: &&Entry| codename.is_none_or(|codename| entry.suite == codename);
    let plain = |entry: &&Entry| !entry.suite.contains(['-', '/']);
    let debians = || entries.iter().filter(debian).filter(plain);
    let entry = debians().find(own).or_else(|| debians().next())?;
    let key = match &entry.key {
        Key::Trusted if Utf8Path::new(DEFAULT_KEY).is_file() => Key::File(DEFAULT_KEY.to_owned()),
        key => key.clone(),
    };
    Some(Mirror {
        uri: entry.uri.clone(),
        suite: suite.unwrap_or(&entry.suite).to_owned(),
        key,
    })
}

/// `deb [signed-by=… arch=…] URI SUITE COMPONENT…`
fn one_line(line: &str) -> Option<Vec<Entry>> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let mut key = Key::Trusted;
    if let Some(after) = rest.strip_prefix('[') {
        let (options, after) = after.split_once(']')?;
        rest = after.trim_start();
        if let Some(file) = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
        {
            key = Key::File(file.to_owned());
        }
    }
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    words.any(|component| component == "main").then(|| {
        vec![Entry {
            uri: uri.to_owned(),
            suite: suite.to_owned(),
            key,
        }]
    })
}

/// Fields of each stanza, names in lower case; continued lines are joined by line breaks.
fn stanzas(text: &str) -> Vec<Vec<(String, String)>> {
    let mut stanzas: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for line in text.lines() {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanzas.last_mut().and_then(|stanza| stanza.last_mut()) {
                value.push('\n');
                // A line with a single dot means an empty line.
                value.push_str(if line.trim() == "." { "" } else { line.trim() });
            }
        } else if let (Some(stanza), Some((name, value))) = (stanzas.last_mut(), line.split_once(':')) {
            stanza.push((name.trim().to_lowercase(), value.trim().to_owned()));
        }
    }
    stanzas
}

fn stanza_entries(stanza: &[(String, String)]) -> Vec<Entry> {
    let field = |name: &str| {
        stanza
            .iter()
            .find(|(field, _)| field == name)
            .map_or("", |(_, value)| value.as_str())
    };
    let has = |name: &str, word: &str| field(name).split_whitespace().any(|other| other == word);
    if !has("types", "deb") || !has("components", "main") || field("enabled").eq_ignore_ascii_case("no") {
        return Vec::new();
    }
    let key = match field("signed-by").trim() {
        "" => Key::Trusted,
        key if key.contains("-----BEGIN") => Key::Inline(key.to_owned()),
        key => Key::File(key.split_whitespace().next().unwrap_or_default().to_owned()),
    };
    let mut entries = Vec::new();
    for uri in field("uris").split_whitespace() {
        for suite in field("suites").split_whitespace() {
            entries.push(Entry {
                uri: uri.to_owned(),
                suite: suite.to_owned(),
                key: key.clone(),
            });
        }
    }
    entries
}

/// A private state of apt for one suite of one mirror, shared by all fetches.
struct State {
    folder: Utf8PathBuf,
}

enum Downloaded {
    File(String, Utf8PathBuf),
    NotThere(Output),
}

impl State {
    /// The folder's name depends on mirror, suite and key, so that a changed system never uses old lists.
    fn open(mirror: &Mirror, cache: &Utf8Path) -> Result<Self, FetchError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{mirror:?}").as_bytes());
        let name = format!("{}-{}", mirror.suite, &hasher.finalize().to_hex()[..16]);
        let folder = cache.join("apt").join(name);
        let write = |path: Utf8PathBuf, text: &str| -> Result<(), FileError> {
            // Another thread or process may write the same text: replace the file in one step.
            crate::write_atomically(&path, text.as_bytes()).map_err(FileError::writing(&path))
        };
        for part in [
            "state/lists/partial",
            "cache/archives/partial",
            "etc/sources.list.d",
            "etc/preferences.d",
        ] {
            let path = folder.join(part);
            std::fs::create_dir_all(&path).map_err(FileError::writing(&path))?;
        }
        let signed_by = match &mirror.key {
            Key::File(path) => format!("[signed-by={path}] "),
            Key::Inline(key) => {
                let path = folder.join("etc/key.asc");
                write(path.clone(), &format!("{key}\n"))?;
                format!("[signed-by={path}] ")
            }
            Key::Trusted => String::new(),
        };
        write(folder.join("state/status"), "")?;
        write(
            folder.join("etc/sources.list"),
            &format!("deb {signed_by}{} {} main\n", mirror.uri, mirror.suite),
        )?;
        let settings = format!(
            "Dir::State \"{folder}/state\";\nDir::State::status \"{folder}/state/status\";\nDir::Cache \"{folder}/cache\";\n\
             Dir::Etc::sourcelist \"{folder}/etc/sources.list\";\nDir::Etc::sourceparts \"{folder}/etc/sources.list.d\";\n\
             Dir::Etc::preferencesparts \"{folder}/etc/preferences.d\";\nDir::Etc::preferences \"/dev/null\";\n\
             Acquire::Languages \"none\";\nAcquire::Retries \"2\";\nDebug::NoLocking \"1\";\nAPT::Sandbox::User \"root\";\n"
        );
        write(folder.join("apt.conf"), &settings)?;
        Ok(Self { folder })
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", self.folder.join("apt.conf"))
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn stamp(&self) -> Utf8PathBuf {
        self.folder.join("updated")
    }

    fn has_lists(&self) -> bool {
        self.stamp().is_file()
    }

    /// The clock determines only when lists are fetched, never the content of a pin.
    fn age(&self) -> Option<Duration> {
        SystemTime::now()
            .duration_since(std::fs::metadata(self.stamp()).ok()?.modified().ok()?)
            .ok()
    }

    fn is_fresh(&self) -> bool {
        self.age().is_some_and(|age| age < FRESH)
    }

    fn is_new(&self) -> bool {
        self.age().is_some_and(|age| age < Duration::from_secs(600))
    }

    fn lock_file(&self) -> Result<File, FileError> {
        let path = self.folder.join("lock");
        File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(FileError::writing(&path))
    }

    /// Fetches the package lists under a lock; a process that waited for it finds new lists.
    fn update(&self, package: &Package, progress: ProgressReporter<'_>) -> Result<(), FetchError> {
        let lock = self.lock_file()?;
        let path = self.folder.join("lock");
        let locking = FileError::writing(&path);
        let before = self.age();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => progress.check()?,
                Err(TryLockError::Error(error)) => return Err(locking(error).into()),
            }
            std::thread::sleep(client::POLL_INTERVAL);
        }
        let after = self.age();
        if after.is_some() && after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            return Ok(());
        }
        let output = client::run_locked(self.apt("apt-get").args(["update", "-q"]), &lock, REMEDY, progress)?;
        // apt succeeds even if it could not fetch some lists, and keeps the old ones.
        let failed =
            !output.status.success() || output.error.contains("Failed to fetch") || output.error.contains("\nE: ");
        if failed {
            let (reference, cause) = (package.to_string(), output.cause());
            return Err(if is_network(&output) || output.error.contains("Failed to fetch") {
                FetchError::Network { reference, cause }
            } else {
                FetchError::Failed { reference, cause }
            });
        }
        Ok(std::fs::write(self.stamp(), "").map_err(FileError::writing(&self.stamp()))?)
    }

    fn download(
        &self,
        package: &Package,
        context: SourceContext<'_>,
        progress: ProgressReporter<'_>,
    ) -> Result<Downloaded, FetchError> {
        let lock = self.lock_file()?;
        lock.lock_shared()
            .map_err(FileError::writing(&self.folder.join("lock")))?;
        let wanted = match &package.version {
            Some(version) => format!("{}={version}", package.name),
            None => package.name.clone(),
        };
        let mut command = self.apt("apt-get");
        command
            .args(["download", "-q", "--", &wanted])
            .current_dir(context.scratch);
        let output = client::run_locked(&mut command, &lock, REMEDY, progress)?;
        if output.status.success() {
            let path = only_file(context.scratch, ".deb")?.ok_or_else(|| FetchError::Failed {
                reference: package.to_string(),
                cause: "apt-get succeeded but did not leave exactly one file".to_owned(),
            })?;
            let version = match &package.version {
                Some(version) => Some(version.clone()),
                None => path
                    .file_name()
                    .and_then(|name| name.split('_').nth(1))
                    .map(|version| version.replace("%3a", ":")),
            };
            let version = version.ok_or_else(|| FetchError::Failed {
                reference: package.to_string(),
                cause: format!("the name of `{path}` does not contain a version"),
            })?;
            return Ok(Downloaded::File(version, path));
        }
        let missing = [
            "was not found",
            "Unable to locate package",
            "404",
            "Can't find a source to download",
        ];
        if missing.iter().any(|words| output.error.contains(words)) {
            return Ok(Downloaded::NotThere(output));
        }
        let (reference, cause) = (package.to_string(), output.cause());
        Err(if is_network(&output) || output.error.contains("Failed to fetch") {
            FetchError::Network { reference, cause }
        } else {
            FetchError::Failed { reference, cause }
        })
    }

    fn gone(
        &self,
        package: &Package,
        context: SourceContext<'_>,
        output: &Output,
        progress: ProgressReporter<'_>,
    ) -> Result<FetchError, FetchError> {
        let listed = client::run(
            self.apt("apt-cache").args(["madison", "--", &package.name]),
            REMEDY,
            progress,
        )?;
        let newest = listed
            .out
            .lines()
            .next()
            .and_then(|line| line.split('|').nth(1))
            .map(|version| version.trim().to_owned());
        Ok(match (&newest, &package.version) {
            (None, _) | (_, None) => FetchError::NoPackage {
                reference: package.to_string(),
                cause: output.cause(),
            },
            _ => FetchError::Gone {
                reference: package.to_string(),
                name: context.name.to_owned(),
                newest,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "Types: deb\n# a comment\nURIs: http://deb.debian.org/debian\nSuites: bookworm bookworm-updates\n\
        Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
        Types: deb\nURIs: http://deb.debian.org/debian-security\nSuites: bookworm-security\nComponents: main\n\
        Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";

    fn system(files: &[(&str, &str)]) -> (tempfile::TempDir, Utf8PathBuf) {
        let guard = tempfile::tempdir().expect("a temporary folder");
        let root = Utf8PathBuf::try_from(guard.path().to_owned()).expect("UTF-8");
        std::fs::create_dir_all(root.join("etc/apt/sources.list.d")).expect("created");
        for (name, text) in files {
            std::fs::write(root.join(name), text).expect("written");
        }
        (guard, root)
    }

    fn mirror(files: &[(&str, &str)], suite: Option<&str>) -> Option<(String, String, Key)> {
        let (_guard, root) = system(files);
        Mirror::of_system(&root, suite)
            .ok()
            .map(|mirror| (mirror.uri, mirror.suite, mirror.key))
    }

    #[test]
    fn the_systems_mirror_is_found_in_both_formats() {
        let key = || Key::File(DEFAULT_KEY.to_owned());
        let release = ("etc/os-release", "ID=debian\nVERSION_CODENAME=bookworm\n");
        let found = mirror(&[release, ("etc/apt/sources.list.d/debian.sources", DEB822)], None);
        assert_eq!(
            found,
            Some(("http://deb.debian.org/debian".into(), "bookworm".into(), key()))
        );
        let line = "# deb http://old/debian x main\ndeb-src http://m/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://m/debian/ bookworm contrib main # note\n";
        let found = mirror(&[release, ("etc/apt/sources.list", line)], Some("trixie"));
        assert_eq!(
            found,
            Some(("http://m/debian/".into(), "trixie".into(), Key::File("/k.gpg".into())))
        );
    }

    #[test]
    fn others_than_debians_main_are_not_taken() {
        let other =
            "Types: deb\nURIs: https://example.org/apt\nSuites: bookworm\nComponents: main\nSigned-By: /other.gpg\n";
        assert_eq!(mirror(&[("etc/apt/sources.list.d/a.sources", other)], None), None);
        let off = DEB822.replace("Types: deb\n", "Types: deb\nEnabled: no\n");
        assert_eq!(mirror(&[("etc/apt/sources.list.d/a.sources", &off)], None), None);
        assert_eq!(
            mirror(
                &[("etc/apt/sources.list", "deb http://m/debian bookworm contrib\n")],
                None
            ),
            None
        );
        assert_eq!(mirror(&[("etc/apt/sources.list.d/a.sources.bak", DEB822)], None), None);
        let (_guard, root) = system(&[]);
        let error = Mirror::of_system(&root, None).expect_err("none").to_string();
        assert!(error.contains("name its file with `file:`"), "{error}");
    }

    #[test]
    fn a_key_in_the_sources_file_is_written_out() {
        let text = "Types: deb\nURIs: http://m/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n \
                    -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n";
        let (_guard, root) = system(&[("etc/apt/sources.list.d/a.sources", text)]);
        let mirror = Mirror::of_system(&root, None).expect("a mirror");
        let state = State::open(&mirror, &root).expect("opened");
        let key = std::fs::read_to_string(state.folder.join("etc/key.asc")).expect("read");
        assert_eq!(
            key,
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----\n"
        );
        let list = std::fs::read_to_string(state.folder.join("etc/sources.list")).expect("read");
        assert_eq!(
            list,
            format!(
                "deb [signed-by={}] http://m/debian bookworm main\n",
                state.folder.join("etc/key.asc")
            )
        );
    }

    #[test]
    fn many_threads_may_open_one_state() {
        let (_guard, root) = system(&[("etc/apt/sources.list", "deb http://deb.example/debian bookworm main\n")]);
        let found = Mirror::of_system(&root, Some("bookworm")).expect("a mirror");
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..20).all(|_| State::open(&found, &root).is_ok())))
                .collect();
            assert!(threads.into_iter().all(|thread| thread.join().expect("no panic")));
        });
    }
}
