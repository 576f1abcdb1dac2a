//! Repositories of the Hugging Face hub, through its cache.
//!
//! In: a repository of models or of a dataset, a revision, and a path or pattern of files. Out: the commit and the files of
//! that commit, in the cache that Hugging Face's tools share (`HF_HUB_CACHE`, else `hub` in `HF_HOME`, else `~/.cache/huggingface/hub`): files that these tools have
//! fetched are not fetched again, and the other way round.
//!
//! ```text
//! models--ORGANISATION--NAME/refs/REVISION           the commit of a branch or tag; `datasets--` for a dataset
//! models--ORGANISATION--NAME/blobs/ETAG              the bytes of a file
//! models--ORGANISATION--NAME/snapshots/COMMIT/FILE   a link to its bytes
//! ```
//!
//! Pickles are neither fetched nor read from the cache. A file is as long as the hub states, or an error. The token is that
//! of Hugging Face's tools: `HF_TOKEN`, else the file that `hf auth login` writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};

use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use aurora_compiler::file_source;
use aurora_compiler::server::ServerAddress;

use super::archive::InputFile;
use super::files::Found;
use super::parallel::{Meter, each};
use super::partial::Partial;
use super::reference::{Repository, RepositoryKind};
use super::selection::Selection;
use super::{FetchError, SourceContext};
use crate::errors::FileError;
use crate::http::{Download, HttpError, Limits};
use crate::progress::ProgressReporter;
use crate::redact::Secret;

/// What the files of a repository may have, unless the spec states it: more than the largest published models. Bytes.
const REPOSITORY_LIMIT: u64 = 2 << 40;

/// The largest answer about a revision, bytes; it names each file.
const ANSWER_LIMIT: u64 = 64 << 20;

/// The largest token, bytes.
const TOKEN_LIMIT: u64 = 64 << 10;

/// Extensions of files with pickles or code in the repository of a dataset.
const LEFT_OUT_OF_DATASETS: [&str; 7] = [".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".py", ".joblib"];

/// Extensions of files with pickles, code, or the weights for other frameworks.
const LEFT_OUT: [&str; 14] = [
    ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".ot", ".onnx", ".tflite", ".npz", ".py",
    ".joblib",
];

/// The addresses of the hub and of its cache.
#[derive(Clone, Debug)]
pub(super) struct Hub {
    pub endpoint: String,
    pub cache: Utf8PathBuf,
    /// Of the user's account, for private and gated repositories.
    pub token: Option<Secret>,
}

/// The hub's answer about a revision.
#[derive(Deserialize)]
struct HubRevision {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
}

/// Whether a file of a repository is used, before its pattern is looked at.
fn is_wanted(kind: RepositoryKind, name: &str) -> bool {
    let left_out = match kind {
        RepositoryKind::Model => &LEFT_OUT[..],
        RepositoryKind::Dataset => &LEFT_OUT_OF_DATASETS[..],
    };
    !name.split('/').any(str::is_empty) && !left_out.iter().any(|ending| name.ends_with(ending))
}

/// The names that a repository's path or pattern means, and the number of those that are left out.
///
/// A path is a file, else everything in the folder, else its shards (`de/train` is `de/train-00000-of-00008.parquet`).
pub(super) fn select(repository: &Repository, names: &[&str]) -> Result<(Vec<String>, u64), FetchError> {
    let path = repository.pattern.as_deref().map(|path| path.trim_end_matches('/'));
    let selection = match path {
        Some(pattern) if file_source::is_pattern(pattern) => Selection::new(pattern)?,
        _ => Selection::everything(),
    };
    let meant: Vec<&str> = match path.filter(|path| !file_source::is_pattern(path)) {
        Some(path) => {
            let beginning = |start: String| names.iter().filter(move |name| name.starts_with(&start)).copied();
            let file: Vec<&str> = names.iter().filter(|name| **name == path).copied().collect();
            let folder: Vec<&str> = beginning(format!("{path}/")).collect();
            let shards: Vec<&str> = beginning(format!("{path}-"))
                .filter(|name| is_shard(&name[path.len()..]))
                .collect();
            [file, folder, shards]
                .into_iter()
                .find(|found| !found.is_empty())
                .unwrap_or_default()
        }
        None => names.to_vec(),
    };
    let (mut wanted, mut skipped) = (Vec::new(), 0);
    for name in meant {
        match selection.of(name) {
            Some(true) if is_wanted(repository.kind, name) => wanted.push(name.to_owned()),
            Some(_) => skipped += 1,
            None => {}
        }
    }
    wanted.sort_unstable();
    Ok((wanted, skipped))
}

/// Whether this is how the name of a shard ends: `-00000-of-00008.parquet`.
fn is_shard(rest: &str) -> bool {
    let numbers = rest.strip_prefix('-').and_then(|rest| rest.split_once("-of-"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers
        .is_some_and(|(at, rest)| is_number(at) && rest.split('.').next().is_some_and(is_number) && !rest.contains('/'))
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Hub {
    /// Both as Hugging Face's tools find them.
    pub fn of_environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let folder = |name: &str| set(name).map(Utf8PathBuf::from);
        let home = || {
            let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
            cache.unwrap_or_else(crate::cache_folder).join("huggingface")
        };
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let home = folder("HF_HOME").unwrap_or_else(home);
        let kept = || {
            let path = folder("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
            crate::regular::read_text(&path, TOKEN_LIMIT).ok()
        };
        let token = set("HF_TOKEN").or_else(kept).filter(|token| !token.trim().is_empty());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: folder("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            token: token.map(|token| Secret::new(&token)),
        }
    }

    /// The commit of a revision and its files; only those in `pinned`, if a lock pins them.
    ///
    /// # Errors
    /// The hub cannot be reached or does not have the revision; a file has other bytes than the hub states.
    pub fn fetch(
        &self,
        repository: &Repository,
        pinned: Option<&[String]>,
        context: SourceContext<'_>,
        progress: ProgressReporter<'_>,
    ) -> Result<(String, Found), FetchError> {
        let revision = repository.revision.as_deref().unwrap_or("main");
        let kind = match repository.kind {
            RepositoryKind::Model => "models",
            RepositoryKind::Dataset => "datasets",
        };
        let known = Repository {
            revision: Some(revision.to_owned()),
            ..repository.clone()
        };
        RepositoryFetch {
            hub: self,
            repository,
            kind,
            reference: known.to_string(),
            folder: self
                .cache
                .join(format!("{kind}--{}", repository.name.replace('/', "--"))),
            context,
            progress,
        }
        .fetch(revision, pinned)
    }
}

/// A repository of which a revision is fetched.
struct RepositoryFetch<'a> {
    hub: &'a Hub,
    repository: &'a Repository,
    /// `models` or `datasets`, as in addresses.
    kind: &'static str,
    /// For messages, with the revision.
    reference: String,
    /// In the cache.
    folder: Utf8PathBuf,
    context: SourceContext<'a>,
    progress: ProgressReporter<'a>,
}

impl RepositoryFetch<'_> {
    fn failed(&self, cause: String) -> FetchError {
        FetchError::Failed {
            reference: self.reference.clone(),
            cause,
        }
    }

    fn fetch(&self, revision: &str, pinned: Option<&[String]>) -> Result<(String, Found), FetchError> {
        let reference = || self.folder.join("refs").join(revision);
        let known = if is_commit(revision) {
            Some(revision.to_owned())
        } else if self.context.offline {
            let text = fs::read_to_string(reference()).ok();
            text.map(|text| text.trim().to_owned())
        } else {
            None
        };
        if let Some(commit) = known.as_deref().filter(|commit| is_commit(commit))
            && let Some(found) = self.in_cache(commit, pinned)?
        {
            return Ok((commit.to_owned(), found));
        }
        if self.context.offline {
            let reference = self.reference.clone();
            return Err(FetchError::Offline { reference });
        }
        let info = self.info(revision)?;
        let names: Vec<&str> = info.siblings.iter().map(|sibling| sibling.rfilename.as_str()).collect();
        let (meant, skipped) = match pinned {
            Some(pinned) => (pinned.to_vec(), 0),
            None => select(self.repository, &names)?,
        };
        let meant: BTreeSet<String> = meant.into_iter().collect();
        let mut wanted = Vec::new();
        for sibling in &info.siblings {
            let name = &sibling.rfilename;
            if !meant.contains(name) {
                continue;
            }
            if name.starts_with('/') || name.split('/').any(|part| part == ".." || part.is_empty()) {
                return Err(self.failed(format!("the hub names a file `{name}`")));
            }
            wanted.push(sibling);
        }
        // A sum that no number holds is too large, too.
        let bytes = wanted
            .iter()
            .try_fold(0u64, |sum, sibling| sum.checked_add(sibling.size.unwrap_or(0)));
        let limit = self.context.at_most.unwrap_or(REPOSITORY_LIMIT);
        if bytes.is_none_or(|bytes| bytes > limit) {
            return Err(FetchError::TooLarge {
                reference: self.reference.clone(),
                name: self.context.name.to_owned(),
                limit,
            });
        }
        let meter = Meter::new(bytes, self.progress);
        let mut files = each(&wanted, |sibling: &&Sibling| {
            let path = self.file(&info.sha, sibling)?;
            meter.add(sibling.size.unwrap_or(0));
            Ok(InputFile::new(sibling.rfilename.clone(), path))
        })?;
        if files.is_empty() {
            let cause = match &self.repository.pattern {
                Some(pattern) => {
                    let example = names.iter().find(|name| is_wanted(self.repository.kind, name));
                    let example = example.map(|name| format!("; there is for example `{name}`"));
                    format!("no file matches `{pattern}`{}", example.unwrap_or_default())
                }
                None => "it has no usable file; pickles are never fetched".to_owned(),
            };
            return Err(self.failed(cause));
        }
        files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if !is_commit(revision) {
            let path = reference();
            fs::create_dir_all(path.parent().unwrap_or(&self.folder)).map_err(FileError::writing(&path))?;
            crate::write_atomically(&path, info.sha.as_bytes()).map_err(FileError::writing(&path))?;
        }
        Ok((info.sha, Found { files, skipped }))
    }

    /// A commit never changes: pinned files of it are read from the cache without a request.
    fn in_cache(&self, commit: &str, pinned: Option<&[String]>) -> Result<Option<Found>, FetchError> {
        let there = snapshot(&self.folder.join("snapshots").join(commit))?;
        let by_name: BTreeMap<&str, &InputFile> = there.iter().map(|file| (file.name.as_str(), file)).collect();
        let (meant, skipped) = match pinned {
            Some(pinned) => (pinned.to_vec(), 0),
            // Another tool may have fetched a part of the files only: they are all that is known without the hub.
            None if self.context.offline => {
                let names: Vec<&str> = there.iter().map(|file| file.name.as_str()).collect();
                select(self.repository, &names)?
            }
            None => return Ok(None),
        };
        let one = |name: &String| by_name.get(name.as_str()).map(|file| (*file).clone());
        let files: Option<Vec<InputFile>> = meant.iter().map(one).collect();
        Ok(files
            .filter(|files| !files.is_empty())
            .map(|files| Found { files, skipped }))
    }

    /// The hub's answer about a revision.
    fn info(&self, revision: &str) -> Result<HubRevision, FetchError> {
        let address = format!(
            "{}/api/{}/{}/revision/{}?blobs=true",
            self.hub.endpoint,
            self.kind,
            self.repository.name,
            revision.replace('/', "%2F")
        );
        let answer = self.context.scratch.join("revision.json");
        self.download(&address, ANSWER_LIMIT, |download| download.to(&answer))?;
        let text = fs::read(&answer).map_err(FileError::reading(&answer))?;
        let info: HubRevision =
            serde_json::from_slice(&text).map_err(|error| self.failed(format!("the hub's answer: {error}")))?;
        if !is_commit(&info.sha) {
            return Err(self.failed(format!("the hub names `{}` as its commit", info.sha)));
        }
        Ok(info)
    }

    /// A file of a commit in the cache, fetched if it is missing.
    fn file(&self, commit: &str, sibling: &Sibling) -> Result<Utf8PathBuf, FetchError> {
        let (name, folder) = (&sibling.rfilename, &self.folder);
        let link = folder.join("snapshots").join(commit).join(name);
        if link.is_file() {
            return Ok(link);
        }
        let stated = sibling.lfs.as_ref().map(|lfs| lfs.sha256.as_str());
        let etag = stated
            .or(sibling.blob.as_deref())
            .filter(|etag| etag.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let etag = etag.ok_or_else(|| self.failed(format!("the hub does not state a digest of `{name}`")))?;
        let size = sibling
            .size
            .ok_or_else(|| self.failed(format!("the hub does not state the length of `{name}`")))?;
        let blob = folder.join("blobs").join(etag);
        if !blob.is_file() {
            let place = match self.repository.kind {
                RepositoryKind::Model => "",
                RepositoryKind::Dataset => "datasets/",
            };
            let (endpoint, repository) = (&self.hub.endpoint, &self.repository.name);
            let address = format!("{endpoint}/{place}{repository}/resolve/{commit}/{}", escaped(name));
            let partial = Partial::open(self.context.cache, &format!("{address} {etag}"), self.context.scratch)?;
            let length = self.download(&address, size, |download| download.resume(partial.path()))?;
            let came = self.context.scratch.join(etag);
            partial.finish(&came)?;
            if size != length {
                let cause = format!("`{name}` has {length} bytes, but the hub states {size}");
                return Err(self.failed(cause));
            }
            if let Some(stated) = stated {
                let found = sha256(&came)?;
                if found != stated {
                    return Err(FetchError::Checksum {
                        path: Utf8PathBuf::from(name),
                        found,
                        stated: stated.to_owned(),
                    });
                }
            }
            put(&came, &blob)?;
        }
        let parent = link.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(FileError::writing(parent))?;
        let up = "../".repeat(2 + name.matches('/').count());
        match std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(FileError::writing(&link)(error).into()),
            _ => Ok(link),
        }
    }

    /// Downloads from an address of the hub.
    fn download<T>(
        &self,
        address: &str,
        limit: u64,
        get: impl FnOnce(Download<'_>) -> Result<T, HttpError>,
    ) -> Result<T, FetchError> {
        let limits = Limits {
            bytes: limit,
            ..self.context.limits.copied().unwrap_or(Limits::for_file(limit))
        };
        // A token is only sent over an encrypted connection, or to this machine.
        let is_safe = ServerAddress::parse(&self.hub.endpoint).is_ok_and(|server| server.keeps_secrets());
        let token = self.hub.token.as_ref().filter(|_| is_safe);
        // Several files come at once: the meter counts their bytes.
        let download = Download::new(address, token, &limits, self.progress.quiet());
        get(download).map_err(|error| match error {
            HttpError::Status {
                status: status @ (401 | 403),
                ..
            } => FetchError::Gated {
                reference: self.reference.clone(),
                status,
                page: self.page(),
                token: if token.is_some() {
                    "the token was not accepted"
                } else {
                    "no token was sent"
                },
                cache: self.hub.cache.clone(),
            },
            HttpError::Status { status: 404, .. } => FetchError::Hub {
                reference: self.reference.clone(),
                page: self.page(),
                cache: self.hub.cache.clone(),
            },
            error => FetchError::of_transfer(&self.reference, error),
        })
    }

    /// The page of the repository, for people.
    fn page(&self) -> String {
        match self.repository.kind {
            RepositoryKind::Model => format!("{}/{}", self.hub.endpoint, self.repository.name),
            RepositoryKind::Dataset => format!("{}/datasets/{}", self.hub.endpoint, self.repository.name),
        }
    }
}

/// A path, encoded for an address.
fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// Moves a file into the cache, which may be on another disk.
fn put(from: &Utf8Path, to: &Utf8Path) -> Result<(), FetchError> {
    let folder = to.parent().unwrap_or(to);
    fs::create_dir_all(folder).map_err(FileError::writing(folder))?;
    if fs::rename(from, to).is_ok() {
        return Ok(());
    }
    let mut own = tempfile::NamedTempFile::new_in(folder).map_err(FileError::writing(folder))?;
    let mut bytes = fs::File::open(from).map_err(FileError::reading(from))?;
    io::copy(&mut bytes, &mut own).map_err(FileError::writing(to))?;
    own.as_file().sync_all().map_err(FileError::writing(to))?;
    own.persist(to).map_err(|error| FileError::writing(to)(error.error))?;
    Ok(())
}

fn sha256(path: &Utf8Path) -> Result<String, FetchError> {
    let mut file = fs::File::open(path).map_err(FileError::reading(path))?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(FileError::reading(path))? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The files of a commit in the cache, by name.
fn snapshot(root: &Utf8Path) -> Result<Vec<InputFile>, FetchError> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        let listing = match path.read_dir_utf8() {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(FileError::reading(&path)(error).into()),
        };
        for entry in listing {
            let entry = entry.map_err(FileError::reading(&path))?;
            let name = format!("{folder}{}", entry.file_name());
            if entry.path().is_dir() {
                folders.push(format!("{name}/"));
            } else if entry.path().is_file() {
                found.push(InputFile::new(name, entry.into_path()));
            }
        }
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}
