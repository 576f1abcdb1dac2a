use super::*;

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = Utf8PathBuf::try_from(folder.path().to_owned()).expect("UTF-8");
    for (name, text) in [
        ("data/b.txt", "two"),
        ("data/a.txt", "one"),
        ("data/deep/c.txt", "three"),
        ("x.md", "no"),
    ] {
        let file = path.join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("created");
        std::fs::write(file, text).expect("written");
    }
    (folder, path)
}

fn get(root: &Utf8Path, text: &str, pinned: Option<&Pin>, offline: bool) -> Result<Fetched, FetchError> {
    let context = SourceContext {
        name: "finnish",
        project: root,
        scratch: root,
        cache: root,
        offline,
        at_most: None,
    };
    fetch(
        &text.parse().expect("a reference"),
        pinned,
        context,
        ProgressReporter::none(),
    )
}

#[test]
fn one_file_is_its_hash_and_several_are_their_manifests() {
    let (_guard, root) = folder();
    let one = get(&root, "file:data/a.txt", None, true).expect("fetched");
    assert_eq!((one.bytes, one.files.len()), (3, 1));
    assert_eq!(one.content, blake3::hash(b"one").to_hex().as_str());
    let names = |fetched: &Fetched| fetched.files.iter().map(|file| file.name.clone()).collect::<Vec<_>>();
    let flat = get(&root, "file:data/*.txt", None, false).expect("fetched");
    assert_eq!(names(&flat), ["data/a.txt", "data/b.txt"]);
    let deep = get(&root, "file:**/*.txt", None, false).expect("fetched");
    assert_eq!(names(&deep), ["data/a.txt", "data/b.txt", "data/deep/c.txt"]);
    assert_eq!(deep.bytes, 11);
    // Swapped contents or a renamed file change the content.
    std::fs::write(root.join("data/a.txt"), "two").expect("written");
    std::fs::write(root.join("data/b.txt"), "one").expect("written");
    assert_ne!(
        get(&root, "file:data/*.txt", None, false).expect("fetched").content,
        flat.content
    );
    let error = get(&root, "file:data/*.json", None, false)
        .expect_err("none")
        .to_string();
    assert!(error.starts_with("no file matches `data/*.json`"), "{error}");
}

#[test]
fn a_changed_file_is_refused_with_both_contents() {
    let (_guard, root) = folder();
    let fetched = get(&root, "file:data/a.txt", None, false).expect("fetched");
    let pin = Pin {
        from: String::new(),
        files: Vec::new(),
        reference: fetched.reference.to_string(),
        bytes: fetched.bytes,
        content: fetched.content,
    };
    assert!(get(&root, "file:data/a.txt", Some(&pin), false).is_ok());
    std::fs::write(root.join("data/a.txt"), "One").expect("written");
    let error = get(&root, "file:data/a.txt", Some(&pin), false)
        .expect_err("changed")
        .to_string();
    assert!(
        error.contains(&pin.content) && error.contains(blake3::hash(b"One").to_hex().as_str()),
        "{error}"
    );
    assert!(error.contains("`aurora lock --upgrade finnish`"), "{error}");
}

#[test]
fn offline_fetches_nothing() {
    let (_guard, root) = folder();
    let error = get(&root, "pkg:pypi/x@1", None, true).expect_err("offline").to_string();
    assert_eq!(
        error,
        "`pkg:pypi/x@1` is not available here, and `--offline` forbids fetching it"
    );
}

/// A hub with the paths that the tests need: answers until it is dropped. Counts requests by path.
struct HubServer {
    endpoint: String,
    seen: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl HubServer {
    fn start(weights: &'static [u8]) -> Self {
        use std::io::{BufRead, BufReader, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let seen: std::sync::Arc<std::sync::Mutex<Vec<String>>> = std::sync::Arc::default();
        let log = std::sync::Arc::clone(&seen);
        let stated = {
            use sha2::Digest;
            let digest = sha2::Sha256::digest(b"weights");
            digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
                let Some(Ok(request)) = lines.next() else { continue };
                lines
                    .by_ref()
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .for_each(drop);
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                log.lock().expect("no thread panicked").push(path.clone());
                let info = format!(
                    "{{\"sha\":\"{COMMIT}\",\"siblings\":[{{\"rfilename\":\"config.json\",\"blobId\":\"abc1\",\"size\":2}},\
                     {{\"rfilename\":\"sub/model.safetensors\",\"blobId\":\"abc2\",\"size\":7,\"lfs\":{{\"sha256\":\"{stated}\"}}}},\
                     {{\"rfilename\":\"pytorch_model.bin\",\"blobId\":\"abc3\",\"size\":4}}]}}"
                );
                let body: Option<&[u8]> = if path == "/api/models/maker/model/revision/main?blobs=true" {
                    Some(info.as_bytes())
                } else if path == format!("/maker/model/resolve/{COMMIT}/config.json") {
                    Some(b"{}")
                } else if path == format!("/maker/model/resolve/{COMMIT}/sub/model.safetensors") {
                    Some(weights)
                } else {
                    None
                };
                let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
                let body = body.unwrap_or_default();
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
            }
        });
        Self { endpoint, seen }
    }
}

#[test]
fn a_repository_of_the_hub_comes_into_the_cache_and_stays_there() {
    let (_guard, root) = folder();
    let server = HubServer::start(b"weights");
    let hub = hub::Hub {
        endpoint: server.endpoint.clone(),
        cache: root.join("hub"),
    };
    let scratch = root.join("scratch");
    std::fs::create_dir(&scratch).expect("made");
    let get = |revision: &str, pinned: Option<&[String]>, offline: bool| {
        let context = SourceContext {
            name: "weights",
            project: &root,
            scratch: &scratch,
            cache: &root,
            offline,
            at_most: None,
        };
        hub.fetch("maker/model", Some(revision), pinned, context, ProgressReporter::none())
    };
    assert!(
        matches!(get("main", None, true), Err(FetchError::Offline { .. })),
        "nothing is there yet"
    );
    let (commit, files) = get("main", None, false).expect("fetched");
    assert_eq!(commit, COMMIT);
    let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
    assert_eq!(names, ["config.json", "sub/model.safetensors"], "no pickle");
    assert_eq!(std::fs::read(&files[1].path).expect("read"), b"weights");
    // In the format of Hugging Face's tools.
    let cache = root.join("hub/models--maker--model");
    assert_eq!(std::fs::read_to_string(cache.join("refs/main")).expect("read"), COMMIT);
    let link = std::fs::read_link(cache.join("snapshots").join(COMMIT).join("config.json")).expect("a link");
    assert_eq!(link.to_str(), Some("../../blobs/abc1"));
    // Files pinned by a commit come from the cache without a request; offline, a branch does too.
    let request_count = || server.seen.lock().expect("no thread panicked").len();
    let before = request_count();
    assert_eq!(
        get(COMMIT, Some(&names), false).expect("cached"),
        (commit.clone(), files.clone())
    );
    assert_eq!(get("main", None, true).expect("cached"), (commit, files));
    assert_eq!(request_count(), before);
    assert!(
        !server
            .seen
            .lock()
            .expect("no thread panicked")
            .iter()
            .any(|path| path.contains("pytorch_model"))
    );
    assert!(matches!(
        get("no-such-branch", None, false),
        Err(FetchError::Hub { .. })
    ));
}

#[test]
fn other_bytes_than_the_hub_states_are_refused() {
    let (_guard, root) = folder();
    let server = HubServer::start(b"weighty");
    let hub = hub::Hub {
        endpoint: server.endpoint,
        cache: root.join("hub"),
    };
    let context = SourceContext {
        name: "weights",
        project: &root,
        scratch: &root,
        cache: &root,
        offline: false,
        at_most: None,
    };
    let error = hub
        .fetch("maker/model", None, None, context, ProgressReporter::none())
        .expect_err("other bytes");
    assert!(matches!(error, FetchError::Checksum { .. }), "{error}");
    assert!(
        !root.join("hub/models--maker--model/refs/main").exists(),
        "a branch is known when its files are there"
    );
}
