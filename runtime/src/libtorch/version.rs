//! Versions of libtorch, and the files that state them.

use std::fmt;

use camino::Utf8Path;

/// A version of libtorch, such as `2.13.0+cu130`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The release, such as `2.13.0`.
    release: String,
    /// What the build adds to it, such as `cu130`, `rocm6.4` or `cpu`.
    local: Option<String>,
    /// The first two numbers of the release. Programs built for one version can load every other one with the same two.
    series: (u32, u32),
}

impl Version {
    /// Parses a version; `None` if it does not begin with two numbers.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (release, local) = match text.split_once('+') {
            Some((release, local)) => (release, Some(local.to_owned())),
            None => (text, None),
        };
        Some(Self {
            release: release.to_owned(),
            local,
            series: series(release)?,
        })
    }

    /// Reads the version of the libtorch with this library folder; `None` if no file states it.
    ///
    /// A libtorch folder has `build-version` next to `lib`, or in it if only `lib` was copied; the Python package `torch`
    /// has `version.py` next to `lib`.
    pub(super) fn of(libraries: &Utf8Path) -> Option<Self> {
        let stated = |path: &Utf8Path| Self::parse(&std::fs::read_to_string(path).ok()?);
        // `lib` may be a link into a libtorch folder.
        let real = libraries.canonicalize_utf8().ok()?;
        let folder = real.parent().unwrap_or(&real);
        stated(&libraries.join("build-version"))
            .or_else(|| stated(&folder.join("build-version")))
            .or_else(|| of_package(&std::fs::read_to_string(folder.join("version.py")).ok()?))
    }

    /// The release without what the build adds, as a lock pins it.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The first two numbers, such as `2.13`.
    pub fn series(&self) -> String {
        let (major, minor) = self.series;
        format!("{major}.{minor}")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.release)?;
        match &self.local {
            Some(local) => write!(f, "+{local}"),
            None => Ok(()),
        }
    }
}

/// The first two numbers of a release.
pub(super) fn series(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split('.');
    let mut next = || numbers.next()?.parse().ok();
    Some((next()?, next()?))
}

/// The version in the text of `torch/version.py`.
fn of_package(text: &str) -> Option<Version> {
    let line = text.lines().find(|line| line.starts_with("__version__"))?;
    Version::parse(line.split(['\'', '"']).nth(1)?)
}
