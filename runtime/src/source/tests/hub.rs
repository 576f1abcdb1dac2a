use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sha2::Digest;

use super::server::{Answer, Request, SHORT, Server, noise};
use super::*;
use crate::source::hub::Hub;
use crate::source::reference::{Repository, RepositoryKind};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A repository as the hub serves it: files with a digest (LFS) are redirected to another server, with a signed address.
struct HubServer {
    hub: Server,
    storage: Server,
    /// The authorization of every request to the two servers.
    tokens: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct File {
    name: &'static str,
    bytes: Vec<u8>,
    is_lfs: bool,
}

fn file(name: &'static str, bytes: &[u8], is_lfs: bool) -> File {
    let bytes = bytes.to_vec();
    File { name, bytes, is_lfs }
}

fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl HubServer {
    /// `path` is `models/maker/model` or `datasets/maker/data`; `gate` has the token that a gated repository needs. The
    /// storage serves `stored` bytes in place of a file's own.
    fn start(
        path: &'static str,
        files: &[File],
        gate: Option<&'static str>,
        stored: BTreeMap<String, Vec<u8>>,
    ) -> Self {
        let tokens: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&tokens);
        let content: BTreeMap<String, Vec<u8>> = files
            .iter()
            .map(|file| (format!("/{}", sha256(&file.bytes)), file.bytes.clone()))
            .collect();
        let content: BTreeMap<String, Vec<u8>> = content.into_iter().chain(stored).collect();
        let storage = Server::start(None, move |request| {
            log.lock()
                .expect("no thread panicked")
                .push(format!("storage {}", request.header("authorization")));
            let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
            match content.get(path) {
                Some(bytes) if query.contains("X-Amz-Signature=") => Answer::of_file(bytes, "\"storage\"", request),
                _ => Answer::new(403, "no signature"),
            }
        });
        let (log, files, elsewhere) = (Arc::clone(&tokens), files.to_vec(), storage.address.clone());
        let hub = Server::start(None, move |request: &Request| {
            log.lock()
                .expect("no thread panicked")
                .push(format!("hub {}", request.header("authorization")));
            if gate.is_some_and(|token| request.header("authorization") != format!("Bearer {token}")) {
                let status = if request.header("authorization").is_empty() {
                    401
                } else {
                    403
                };
                return Answer::new(status, "Access to this dataset is restricted").with("X-Error-Code", "GatedRepo");
            }
            let about = |revision: &str| format!("/api/{path}/revision/{revision}?blobs=true");
            if [about("main"), about(COMMIT), about("refs%2Fconvert%2Fparquet")].contains(&request.target) {
                let siblings: Vec<_> = files
                    .iter()
                    .map(|file| {
                        let digest = sha256(&file.bytes);
                        let mut sibling = serde_json::json!({
                            "rfilename": file.name, "blobId": &digest[..40], "size": file.bytes.len()
                        });
                        if file.is_lfs {
                            sibling["lfs"] =
                                serde_json::json!({"sha256": digest, "size": file.bytes.len(), "pointerSize": 134});
                        }
                        sibling
                    })
                    .collect();
                return Answer::new(
                    200,
                    serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string(),
                );
            }
            let start = format!("/{}/resolve/{COMMIT}/", path.strip_prefix("models/").unwrap_or(path));
            let name = request.target.strip_prefix(&start).unwrap_or_default();
            match files.iter().find(|file| file.name == name) {
                Some(file) if file.is_lfs => {
                    let digest = sha256(&file.bytes);
                    let to = format!("{elsewhere}/{digest}?X-Amz-Expires=3600&X-Amz-Signature=0123456789");
                    Answer::new(302, "")
                        .with("Location", to)
                        .with("X-Linked-Etag", format!("\"{digest}\""))
                        .with("X-Linked-Size", file.bytes.len().to_string())
                        .with("X-Repo-Commit", COMMIT)
                }
                Some(file) => Answer::of_file(&file.bytes, "\"git\"", request),
                None => Answer::new(404, "Entry not found"),
            }
        });
        Self { hub, storage, tokens }
    }

    fn requests(&self) -> usize {
        self.hub.requests().len() + self.storage.requests().len()
    }
}

/// A place for the cache, and a hub.
struct Place {
    _guard: tempfile::TempDir,
    root: Utf8PathBuf,
    hub: Hub,
}

impl Place {
    fn new(server: &HubServer, token: Option<&str>) -> Self {
        let guard = tempfile::tempdir().expect("a folder");
        let root = Utf8PathBuf::try_from(guard.path().to_owned()).expect("UTF-8");
        let hub = Hub {
            endpoint: server.hub.address.clone(),
            cache: root.join("hub"),
            token: token.map(crate::redact::Secret::new),
        };
        Self {
            _guard: guard,
            root,
            hub,
        }
    }

    fn fetch(
        &self,
        text: &str,
        pinned: Option<&[String]>,
        offline: bool,
    ) -> Result<(String, files::Found), FetchError> {
        let scratch = tempfile::Builder::new()
            .prefix("scratch")
            .tempdir_in(&self.root)
            .expect("a folder")
            .keep();
        let scratch = Utf8PathBuf::try_from(scratch).expect("UTF-8");
        let context = SourceContext {
            name: "weights",
            folders: &Folders::default(),
            scratch: &scratch,
            cache: &self.root,
            offline,
            at_most: None,
            limits: Some(&SHORT),
        };
        let SourceAddress::Hub(repository) = text.parse().expect("a reference") else {
            panic!("not a repository");
        };
        self.hub.fetch(&repository, pinned, context, ProgressReporter::none())
    }
}

fn names(found: &files::Found) -> Vec<String> {
    found.files.iter().map(|file| file.name.clone()).collect()
}

fn model() -> HubServer {
    let files = [
        file("config.json", b"{}", false),
        file("sub/model.safetensors", b"weights", true),
        file("pytorch_model.bin", b"code", true),
        file(".gitattributes", b"*", false),
    ];
    HubServer::start("models/maker/model", &files, None, BTreeMap::new())
}

#[test]
fn a_repository_of_the_hub_comes_into_the_cache_and_stays_there() {
    let server = model();
    let place = Place::new(&server, None);
    let missing = place.fetch("hf:maker/model@main", None, true);
    assert!(
        matches!(missing, Err(FetchError::Offline { .. })),
        "nothing is there yet"
    );
    let (commit, found) = place.fetch("hf:maker/model", None, false).expect("fetched");
    assert_eq!(commit, COMMIT);
    assert_eq!(names(&found), ["config.json", "sub/model.safetensors"], "no pickle");
    assert_eq!(found.skipped, 2);
    assert_eq!(std::fs::read(&found.files[1].path).expect("read"), b"weights");
    // In the format of Hugging Face's tools.
    let cache = place.root.join("hub/models--maker--model");
    assert_eq!(std::fs::read_to_string(cache.join("refs/main")).expect("read"), COMMIT);
    let link = std::fs::read_link(cache.join("snapshots").join(COMMIT).join("sub/model.safetensors")).expect("a link");
    assert_eq!(
        link.to_str(),
        Some(format!("../../../blobs/{}", sha256(b"weights")).as_str())
    );
    // Files pinned by a commit come from the cache without a request; offline, a branch does too.
    let before = server.requests();
    let pinned = names(&found);
    let again = place
        .fetch(&format!("hf:maker/model@{COMMIT}"), Some(&pinned), false)
        .expect("cached");
    assert_eq!(names(&again.1), pinned);
    assert_eq!(
        names(&place.fetch("hf:maker/model@main", None, true).expect("cached").1),
        pinned
    );
    assert_eq!(server.requests(), before);
    assert!(!server.hub.requests().iter().any(|line| line.contains("pytorch_model")));
    let error = place
        .fetch("hf:maker/model@no-such-branch", None, false)
        .map(drop)
        .expect_err("missing");
    assert!(matches!(error, FetchError::Hub { .. }), "{error}");
}

#[test]
fn other_bytes_than_the_hub_states_are_refused() {
    let digest = sha256(b"weights");
    let other = BTreeMap::from([(format!("/{digest}"), b"weighty".to_vec())]);
    let server = HubServer::start(
        "models/maker/model",
        &[file("a.safetensors", b"weights", true)],
        None,
        other,
    );
    let place = Place::new(&server, None);
    let error = place
        .fetch("hf:maker/model", None, false)
        .map(drop)
        .expect_err("other bytes");
    assert!(matches!(error, FetchError::Checksum { .. }), "{error}");
    let branch = place.root.join("hub/models--maker--model/refs/main");
    assert!(!branch.exists(), "a branch is known when its files are there");
}

/// Shards by configuration and split, as `push_to_hub` and the hub's own conversion write them.
fn dataset(gate: Option<&'static str>) -> HubServer {
    let shard = |name: &str| noise(name, 100_000);
    let names = [
        "de/train-00000-of-00002.parquet",
        "de/train-00001-of-00002.parquet",
        "de/train-extra.parquet",
        "de/test-00000-of-00001.parquet",
        "converted/train/0000.parquet",
        "converted/train/0001.parquet",
    ];
    let mut files: Vec<File> = names.map(|name| file(name, &shard(name), true)).to_vec();
    files.extend([
        file("README.md", b"# Data", false),
        file(".gitattributes", b"*", false),
        file("load.py", b"code", false),
    ]);
    HubServer::start("datasets/maker/data", &files, gate, BTreeMap::new())
}

#[test]
fn a_dataset_works_online_and_offline_from_the_cache() {
    let server = dataset(None);
    let place = Place::new(&server, None);
    let shards = ["de/train-00000-of-00002.parquet", "de/train-00001-of-00002.parquet"];
    let pinned = format!("hf:datasets/maker/data@{COMMIT}:de/train");
    let (commit, found) = place.fetch(&pinned, None, false).expect("fetched");
    assert_eq!(
        (commit.as_str(), names(&found)),
        (COMMIT, shards.map(str::to_owned).to_vec())
    );
    for file in &found.files {
        assert!(
            std::fs::read(&file.path).expect("read") == noise(&file.name, 100_000),
            "{}",
            file.name
        );
    }
    let cache = place.root.join("hub/datasets--maker--data");
    assert!(cache.join("snapshots").join(COMMIT).join(shards[0]).is_file());
    let before = server.requests();
    let offline = place.fetch(&pinned, None, true).expect("offline");
    assert_eq!(names(&offline.1), shards);
    let files = shards.map(str::to_owned);
    assert_eq!(
        names(&place.fetch(&pinned, Some(&files), true).expect("pinned").1),
        shards
    );
    assert_eq!(server.requests(), before, "nothing was asked");
    let other = place.fetch(&format!("hf:datasets/maker/data@{COMMIT}:de/test"), None, true);
    assert!(
        matches!(other.map(drop), Err(FetchError::Offline { .. })),
        "it was never fetched"
    );
}

#[test]
fn a_path_is_a_file_a_folder_shards_or_a_pattern() {
    let server = dataset(None);
    let place = Place::new(&server, None);
    let get = |rest: &str| {
        place
            .fetch(&format!("hf:datasets/maker/data{rest}"), None, false)
            .map(|(_, found)| found)
    };
    for (rest, expected) in [
        (
            "@main:converted/train",
            vec!["converted/train/0000.parquet", "converted/train/0001.parquet"],
        ),
        (
            ":converted/train/",
            vec!["converted/train/0000.parquet", "converted/train/0001.parquet"],
        ),
        ("@refs/convert/parquet:de/test", vec!["de/test-00000-of-00001.parquet"]),
        (":de/train-extra.parquet", vec!["de/train-extra.parquet"]),
        (":de/*-extra.parquet", vec!["de/train-extra.parquet"]),
        (":*.md", vec!["README.md"]),
    ] {
        assert_eq!(names(&get(rest).expect(rest)), expected, "{rest}");
    }
    let all = get("").expect("all");
    assert_eq!((all.files.len(), all.skipped), (7, 2), "without code and hidden files");
    let error = get(":fr/train").map(drop).expect_err("none").to_string();
    assert!(
        error.contains("no file matches `fr/train`; there is for example `de/train-"),
        "{error}"
    );
}

/// The token goes to the hub, not to the storage that it redirects to; no error has it.
#[test]
fn a_gated_dataset_needs_a_token_and_says_how() {
    let server = dataset(Some("hf_a-token-of-the-user"));
    for (token, status) in [
        (None, "status 401; no token was sent"),
        (Some("hf_another-token"), "status 403; the token was not accepted"),
    ] {
        let place = Place::new(&server, token);
        let error = place
            .fetch("hf:datasets/maker/data", None, false)
            .map(drop)
            .expect_err("gated")
            .to_string();
        assert!(error.contains(status), "{error}");
        let page = format!(
            "open {}/datasets/maker/data and accept its conditions",
            server.hub.address
        );
        assert!(error.contains(&page) && error.contains("set HF_TOKEN"), "{error}");
        assert!(!error.contains("hf_a"), "{error}");
    }
    let place = Place::new(&server, Some("hf_a-token-of-the-user"));
    place
        .fetch("hf:datasets/maker/data:de/train", None, false)
        .expect("fetched");
    let tokens = server.tokens.lock().expect("no thread panicked");
    assert!(
        tokens
            .iter()
            .filter(|line| line.starts_with("storage"))
            .all(|line| line == "storage "),
        "{tokens:?}"
    );
    assert!(tokens.iter().any(|line| line == "hub Bearer hf_a-token-of-the-user"));
}

#[test]
fn shards_are_told_from_other_names() {
    let repository = |pattern: &str| Repository {
        kind: RepositoryKind::Dataset,
        name: "a/b".to_owned(),
        revision: None,
        pattern: Some(pattern.to_owned()),
    };
    let there = [
        "de/train-0-of-2.parquet",
        "de/train-1-of-2.jsonl.zst",
        "de/train-old-of-2.parquet",
        "de/training-0-of-1.parquet",
    ];
    let (found, _) = crate::source::hub::select(&repository("de/train"), &there).expect("selected");
    assert_eq!(found, there[..2]);
}
