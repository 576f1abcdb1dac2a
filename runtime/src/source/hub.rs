//! Repositories of the Hugging Face hub, through its cache.
//!
//! In: a repository and a revision. Out: the commit and the files of that commit, in the cache that Hugging Face's
//! tools share (`HF_HUB_CACHE`, else `hub` in `HF_HOME`, else `~/.cache/huggingface/hub`): files that these tools have
//! fetched are not fetched again, and the other way round.
//!
//! ```text
//! models--ORGANISATION--NAME/refs/REVISION           the commit of a branch or tag
//! models--ORGANISATION--NAME/blobs/ETAG              the bytes of a file
//! models--ORGANISATION--NAME/snapshots/COMMIT/FILE   a link to its bytes
//! ```
//!
//! Pickles are neither fetched nor read from the cache. A file is as long as the hub states, or an error.

use std::fs;
use std::io::{self, Read};

use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::archive::InputFile;
use super::{FetchError, SourceContext};
use crate::errors::FileError;
use crate::http::{self, HttpError, Limits};
use crate::progress::ProgressReporter;

/// What the files of a repository may have, unless the spec states it: more than the largest published models. Bytes.
const REPOSITORY_LIMIT: u64 = 2 << 40;

/// The largest answer about a revision, bytes; it names each file.
const ANSWER_LIMIT: u64 = 64 << 20;

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

fn is_wanted(name: &str) -> bool {
    let hidden = name.split('/').any(|part| part.starts_with('.') || part.is_empty());
    !hidden && !LEFT_OUT.iter().any(|ending| name.ends_with(ending))
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
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: folder("HF_HUB_CACHE").unwrap_or_else(|| folder("HF_HOME").unwrap_or_else(home).join("hub")),
        }
    }

    /// The commit of a revision and its files; only those in `pinned`, if a lock pins them.
    ///
    /// # Errors
    /// The hub cannot be reached or does not have the revision; a file has other bytes than the hub states.
    pub fn fetch(
        &self,
        repository: &str,
        revision: Option<&str>,
        pinned: Option<&[String]>,
        context: SourceContext<'_>,
        progress: ProgressReporter<'_>,
    ) -> Result<(String, Vec<InputFile>), FetchError> {
        let revision = revision.unwrap_or("main");
        Repository {
            hub: self,
            name: repository,
            reference: format!("hf:{repository}@{revision}"),
            folder: self.cache.join(format!("models--{}", repository.replace('/', "--"))),
            context,
            progress,
        }
        .fetch(revision, pinned)
    }
}

/// A repository of which a revision is fetched.
struct Repository<'a> {
    hub: &'a Hub,
    name: &'a str,
    /// For messages, with the revision.
    reference: String,
    /// In the cache.
    folder: Utf8PathBuf,
    context: SourceContext<'a>,
    progress: ProgressReporter<'a>,
}

impl Repository<'_> {
    fn failed(&self, cause: String) -> FetchError {
        FetchError::Failed {
            reference: self.reference.clone(),
            cause,
        }
    }

    fn fetch(&self, revision: &str, pinned: Option<&[String]>) -> Result<(String, Vec<InputFile>), FetchError> {
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
            && let Some(files) = self.in_cache(commit, pinned)?
        {
            return Ok((commit.to_owned(), files));
        }
        if self.context.offline {
            let reference = self.reference.clone();
            return Err(FetchError::Offline { reference });
        }
        let info = self.info(revision)?;
        let mut wanted = Vec::new();
        for sibling in &info.siblings {
            let name = &sibling.rfilename;
            if !pinned.map_or_else(|| is_wanted(name), |pinned| pinned.contains(name)) {
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
        let file = |sibling: &&Sibling| -> Result<InputFile, FetchError> {
            let path = self.file(&info.sha, sibling)?;
            Ok(InputFile::new(sibling.rfilename.clone(), path))
        };
        let mut files = wanted.iter().map(file).collect::<Result<Vec<_>, _>>()?;
        if files.is_empty() {
            return Err(self.failed("it has no usable file; pickles are never fetched".to_owned()));
        }
        files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if !is_commit(revision) {
            let path = reference();
            fs::create_dir_all(path.parent().unwrap_or(&self.folder)).map_err(FileError::writing(&path))?;
            crate::write_atomically(&path, info.sha.as_bytes()).map_err(FileError::writing(&path))?;
        }
        Ok((info.sha, files))
    }

    /// A commit never changes: pinned files of it are read from the cache without a request.
    fn in_cache(&self, commit: &str, pinned: Option<&[String]>) -> Result<Option<Vec<InputFile>>, FetchError> {
        let found = snapshot(&self.folder.join("snapshots").join(commit))?;
        let Some(pinned) = pinned else {
            return Ok(Some(found).filter(|found| self.context.offline && !found.is_empty()));
        };
        let one = |name: &String| found.iter().find(|file| file.name == *name).cloned();
        Ok(pinned.iter().map(one).collect())
    }

    /// The hub's answer about a revision.
    fn info(&self, revision: &str) -> Result<HubRevision, FetchError> {
        let address = format!(
            "{}/api/models/{}/revision/{}?blobs=true",
            self.hub.endpoint,
            self.name,
            revision.replace('/', "%2F")
        );
        let answer = self.context.scratch.join("revision.json");
        self.get(&address, &answer, ANSWER_LIMIT)?;
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
            let came = self.context.scratch.join("file");
            let address = format!("{}/{}/resolve/{commit}/{}", self.hub.endpoint, self.name, escaped(name));
            let length = self.get(&address, &came, size)?;
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

    /// Downloads an address to a file, and returns its length.
    fn get(&self, address: &str, to: &Utf8Path, limit: u64) -> Result<u64, FetchError> {
        let reference = || self.reference.clone();
        http::get(address, to, &Limits::for_file(limit), self.progress).map_err(|error| match error {
            HttpError::Status {
                status: status @ (401 | 403 | 404),
                ..
            } => FetchError::Hub {
                reference: reference(),
                status,
                cache: self.hub.cache.clone(),
            },
            HttpError::Cancelled(cancelled) => cancelled.into(),
            HttpError::File(error) => error.into(),
            error => FetchError::Transfer {
                reference: reference(),
                source: error,
            },
        })
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
            } else if entry.path().is_file() && is_wanted(&name) {
                found.push(InputFile::new(name, entry.into_path()));
            }
        }
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}
