//! PyPI, crates.io and npm through `pip`, `cargo` and `npm`.
//!
//! In: a package, with or without a version. Out: the exact version and the file as the registry serves it. Nothing is
//! installed, no dependency is used, and no code of a package runs: a Python package without a wheel is refused, because
//! `pip` would build its metadata. The clients start in `/`: they search the current folder and those above it for
//! settings, which may name programs (`.cargo/config.toml`, `rust-toolchain.toml`) or send variables (`.npmrc`), and the
//! project's folder may be someone else's.

use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest, Sha256};

use super::client::{self, Output};
use super::files::only_file;
use super::{FetchError, Package, SourceContext};
use crate::errors::FileError;
use crate::progress::ProgressReporter;

/// Texts with which a client reports a network error.
const NETWORK: [&str; 22] = [
    "Temporary failure in name resolution",
    "Name or service not known",
    "NewConnectionError",
    "ConnectTimeoutError",
    "Max retries exceeded",
    "Failed to establish a new connection",
    "ProxyError",
    "ReadTimeoutError",
    "Could not resolve host",
    "Couldn't resolve host",
    "Could not connect",
    "Failed to connect",
    "failed to download from",
    "spurious network error",
    "Connection refused",
    "Connection timed out",
    "timed out",
    "ENOTFOUND",
    "ECONNREFUSED",
    "EAI_AGAIN",
    "ETIMEDOUT",
    "Temporary failure resolving",
];

pub(super) fn is_network(output: &Output) -> bool {
    NETWORK
        .iter()
        .any(|words| output.error.contains(words) || output.out.contains(words))
}

fn network(package: &Package, output: &Output) -> FetchError {
    FetchError::Network {
        reference: package.to_string(),
        cause: output.cause(),
    }
}

/// The version, or an error that names the newest version.
fn gone(package: &Package, context: SourceContext<'_>, newest: Option<String>, output: &Output) -> FetchError {
    if package.version.is_none() || newest.is_none() {
        return FetchError::NoPackage {
            reference: package.to_string(),
            cause: output.cause(),
        };
    }
    FetchError::Gone {
        reference: package.to_string(),
        name: context.name.to_owned(),
        newest,
    }
}

fn failed(package: &Package, cause: impl Into<String>) -> FetchError {
    FetchError::Failed {
        reference: package.to_string(),
        cause: cause.into(),
    }
}

/// A folder without settings of a project.
const OUTSIDE: &str = "/";

const PIP: &str = "on Debian, run `apt-get install python3-pip`";

pub(super) fn pypi(
    package: &Package,
    context: SourceContext<'_>,
    progress: ProgressReporter<'_>,
) -> Result<(String, Utf8PathBuf), FetchError> {
    let wanted = match &package.version {
        Some(version) => format!("{}=={version}", package.name),
        None => package.name.clone(),
    };
    let pip = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command
            .args(["-m", "pip"])
            .args(arguments)
            .current_dir(OUTSIDE)
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        client::run(
            &mut command,
            "on Debian, run `apt-get install python3 python3-pip`",
            progress,
        )
    };
    // A wheel for any Python and any machine: the same file everywhere. Nothing is ever built.
    let download = [
        "download",
        "--no-deps",
        "--no-input",
        "--ignore-requires-python",
        "--progress-bar=off",
        "--retries=2",
        "--only-binary=:all:",
        "--platform=any",
        "--implementation=py",
        "--abi=none",
    ];
    let folder = absolute(context.scratch)?;
    let output = pip(&[&download[..], &["--dest", folder.as_str(), "--", &wanted]].concat())?;
    if output.error.contains("No module named pip") {
        return Err(client::ClientError::Missing {
            program: "python3 -m pip".to_owned(),
            remedy: PIP,
        }
        .into());
    }
    if !output.status.success() {
        if is_network(&output) {
            return Err(network(package, &output));
        }
        if output.error.contains("No matching distribution found") {
            // Lists versions without a wheel too, and builds none.
            let listed = pip(&[
                "index",
                "versions",
                "--pre",
                "--ignore-requires-python",
                "--",
                &package.name,
            ])?;
            if is_listed(&listed.out, package.version.as_deref()) {
                let reference = package.to_string();
                return Err(FetchError::NoWheel { reference });
            }
            let newest = newest_in(&output.error, "from versions: ");
            return Err(gone(package, context, newest, &output));
        }
        return Err(failed(package, output.cause()));
    }
    let path = only_file(context.scratch, ".whl")?
        .ok_or_else(|| failed(package, "pip succeeded but did not leave exactly one wheel"))?;
    let version = match &package.version {
        Some(version) => version.clone(),
        None => version_in_name(&path)
            .ok_or_else(|| failed(package, format!("the name of `{path}` does not contain a version")))?,
    };
    Ok((version, path))
}

/// `from versions: 1.0, 1.1)` names the newest last.
fn newest_in(text: &str, before: &str) -> Option<String> {
    let list = text.split(before).nth(1)?.split([')', '\n']).next()?;
    let newest = list.rsplit(',').map(str::trim).find(|version| !version.is_empty())?;
    (newest != "none").then(|| newest.to_owned())
}

/// The output of `pip index versions` has this version, or any: `Available versions: 1.1, 1.0`.
fn is_listed(text: &str, version: Option<&str>) -> bool {
    let listed = text.lines().find_map(|line| line.strip_prefix("Available versions: "));
    listed.is_some_and(|list| version.is_none_or(|version| list.split(", ").any(|listed| listed == version)))
}

/// `name-VERSION-py3-none-any.whl`: names of wheels have no `-`.
fn version_in_name(path: &Utf8Path) -> Option<String> {
    let name = path.file_name()?.strip_suffix(".whl")?;
    name.split('-').nth(1).map(str::to_owned)
}

/// The path for a client that starts in another folder.
fn absolute(path: &Utf8Path) -> Result<Utf8PathBuf, FileError> {
    camino::absolute_utf8(path).map_err(FileError::reading(path))
}

pub(super) fn cargo(
    package: &Package,
    context: SourceContext<'_>,
    progress: ProgressReporter<'_>,
) -> Result<(String, Utf8PathBuf), FetchError> {
    let folder = absolute(context.scratch)?.join("package");
    let requirement = package
        .version
        .as_ref()
        .map_or("*".to_owned(), |version| format!("={version}"));
    let manifest = format!(
        "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[lib]\npath = \"lib.rs\"\n\
         [dependencies]\n{} = \"{requirement}\"\n[workspace]\n",
        package.name
    );
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(FileError::writing(&path))
    };
    std::fs::create_dir(&folder).map_err(FileError::writing(&folder))?;
    write("Cargo.toml", &manifest)?;
    write("lib.rs", "")?;
    // A private registry home would ignore the user's locks, settings and mirrors.
    let mut command = Command::new("cargo");
    command
        .args(["fetch", "--manifest-path", folder.join("Cargo.toml").as_str()])
        .current_dir(OUTSIDE);
    let output = client::run(
        &mut command,
        "install it from https://rustup.rs, or on Debian with `apt-get install cargo`",
        progress,
    )?;
    if !output.status.success() {
        if is_network(&output) {
            return Err(network(package, &output));
        }
        let newest = newest_first(&output.error, "candidate versions found which didn't match: ");
        if newest.is_some() || output.error.contains("no matching package named") || output.error.contains("is yanked")
        {
            return Err(gone(package, context, newest, &output));
        }
        return Err(failed(package, output.cause()));
    }
    let lock = folder.join("Cargo.lock");
    let text = std::fs::read_to_string(&lock).map_err(FileError::reading(&lock))?;
    let (version, stated) =
        locked(&text, &package.name).ok_or_else(|| failed(package, "cargo's lock does not name it with a checksum"))?;
    let home = cargo_home().ok_or_else(|| failed(package, "neither CARGO_HOME nor HOME is set"))?;
    let cache = home.join("registry/cache");
    let name = format!("{}-{version}.crate", package.name);
    let reading = FileError::reading(&cache);
    // One folder for each registry that this user has ever used; the checksum says which file it is.
    for entry in cache.read_dir_utf8().map_err(reading)? {
        let path = entry.map_err(reading)?.path().join(&name);
        if !path.is_file() {
            continue;
        }
        let bytes = std::fs::read(&path).map_err(FileError::reading(&path))?;
        let found: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if found != stated {
            return Err(FetchError::Checksum { path, found, stated });
        }
        let copy = context.scratch.join(&name);
        std::fs::write(&copy, bytes).map_err(FileError::writing(&copy))?;
        return Ok((version, copy));
    }
    Err(failed(
        package,
        format!("cargo succeeded but `{cache}` does not have `{name}`"),
    ))
}

/// Cargo names the newest first, and the last ones as `...`.
fn newest_first(text: &str, before: &str) -> Option<String> {
    let list = text.split(before).nth(1)?.lines().next()?;
    list.split(',')
        .map(str::trim)
        .next()
        .filter(|version| !version.is_empty())
        .map(str::to_owned)
}

/// Version and checksum of a package in the text of a Cargo.lock.
fn locked(lock: &str, name: &str) -> Option<(String, String)> {
    lock.split("[[package]]").find_map(|block| {
        let field = |key: &str| {
            let prefix = format!("{key} = \"");
            block
                .lines()
                .find_map(|line| Some(line.strip_prefix(&prefix)?.trim_end_matches('"').to_owned()))
        };
        (field("name")? == name).then_some(())?;
        Some((field("version")?, field("checksum")?))
    })
}

fn cargo_home() -> Option<Utf8PathBuf> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    set("CARGO_HOME")
        .map(Utf8PathBuf::from)
        .or_else(|| Some(Utf8PathBuf::from(set("HOME")?).join(".cargo")))
}

pub(super) fn npm(
    package: &Package,
    context: SourceContext<'_>,
    progress: ProgressReporter<'_>,
) -> Result<(String, Utf8PathBuf), FetchError> {
    let wanted = match &package.version {
        Some(version) => format!("{}@{version}", package.name),
        None => package.name.clone(),
    };
    let folder = absolute(context.scratch)?;
    let npm = |arguments: &[&str]| {
        let mut command = Command::new("npm");
        command.args(arguments).current_dir(OUTSIDE);
        client::run(&mut command, "on Debian, run `apt-get install npm`", progress)
    };
    // Its default timeout is minutes long.
    let pack = [
        "pack",
        "--json",
        "--ignore-scripts",
        "--fetch-retries=1",
        "--fetch-retry-mintimeout=1000",
        "--fetch-retry-maxtimeout=3000",
        "--pack-destination",
        folder.as_str(),
    ];
    let output = npm(&[&pack[..], &["--", &wanted]].concat())?;
    if !output.status.success() {
        if is_network(&output) {
            return Err(network(package, &output));
        }
        if ["ETARGET", "E404"]
            .iter()
            .any(|code| output.error.contains(code) || output.out.contains(code))
        {
            let newest = npm(&["view", "--fetch-retries=1", "--", &package.name, "version"])?;
            let newest = newest
                .status
                .success()
                .then(|| newest.out.trim().to_owned())
                .filter(|v| !v.is_empty());
            return Err(gone(package, context, newest, &output));
        }
        return Err(failed(package, output.cause()));
    }
    let packed: serde_json::Value = serde_json::from_str(&output.out).unwrap_or_default();
    // Some versions of npm answer with a list, others with an object by name.
    let packed = packed
        .get(0)
        .or_else(|| packed.as_object()?.values().next())
        .unwrap_or(&packed);
    let version = packed
        .get("version")
        .and_then(serde_json::Value::as_str)
        .map(str::to_owned)
        .or(package.version.clone());
    let version = version.ok_or_else(|| failed(package, "npm does not report the version that it packed"))?;
    let path = only_file(context.scratch, ".tgz")?;
    Ok((
        version,
        path.ok_or_else(|| failed(package, "npm succeeded but did not leave exactly one file"))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_words_are_understood() {
        let pip = "ERROR: Could not find a version that satisfies the requirement x==9 (from versions: 1.0, 1.1, 2.0rc1)\n\
                   ERROR: No matching distribution found for x==9";
        assert_eq!(newest_in(pip, "from versions: ").as_deref(), Some("2.0rc1"));
        assert_eq!(newest_in("(from versions: none)", "from versions: "), None);
        let cargo = "error: failed to select a version for the requirement `x = \"=9.0.0\"`\n\
                     candidate versions found which didn't match: 1.3.0, 1.2.0, ...\nlocation searched: crates.io index";
        assert_eq!(
            newest_first(cargo, "candidate versions found which didn't match: ").as_deref(),
            Some("1.3.0")
        );
        let lock = "version = 4\n\n[[package]]\nname = \"fetch\"\nversion = \"0.0.0\"\n\n[[package]]\nname = \"x\"\n\
                    version = \"1.3.0\"\nsource = \"registry\"\nchecksum = \"ab12\"\n";
        assert_eq!(locked(lock, "x"), Some(("1.3.0".into(), "ab12".into())));
        assert_eq!(locked(lock, "fetch"), None);
        let wheel = Utf8Path::new("a_b-1.0-py3-none-any.whl");
        assert_eq!(version_in_name(wheel).as_deref(), Some("1.0"));
        assert_eq!(version_in_name(Utf8Path::new("a-b-2.1.tar.gz")), None);
        let listed = "a (1.10)\nAvailable versions: 1.10, 1.0\n";
        assert!(is_listed(listed, None) && is_listed(listed, Some("1.0")));
        assert!(!is_listed(listed, Some("1.1")) && !is_listed("ERROR", None));
    }
}
