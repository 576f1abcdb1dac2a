use std::sync::atomic::{AtomicUsize, Ordering};

use super::server::{Answer, Fault, Faults, SHORT, Server, noise};
use super::*;

/// A scratch folder and a cache; the cache outlives a fetch.
struct Place {
    _guard: tempfile::TempDir,
    root: Utf8PathBuf,
    fetches: AtomicUsize,
}

impl Place {
    fn new() -> Self {
        let guard = tempfile::tempdir().expect("a folder");
        let root = Utf8PathBuf::try_from(guard.path().to_owned()).expect("UTF-8");
        Self {
            _guard: guard,
            root,
            fetches: AtomicUsize::new(0),
        }
    }

    fn fetch(&self, address: &str, pinned: Option<&Pin>) -> Result<Fetched, FetchError> {
        let number = self.fetches.fetch_add(1, Ordering::Relaxed);
        let scratch = self.root.join(format!("scratch-{number}"));
        std::fs::create_dir(&scratch).expect("made");
        let context = SourceContext {
            name: "german",
            folders: &Folders::default(),
            scratch: &scratch,
            cache: &self.root,
            offline: false,
            at_most: None,
            limits: Some(&SHORT),
        };
        let reference: SourceAddress = address.parse().expect("a reference");
        fetch(&reference, pinned, context, ProgressReporter::none())
    }
}

fn bytes(fetched: &Fetched) -> Vec<u8> {
    std::fs::read(&fetched.files[0].path).expect("read")
}

#[test]
fn files_come_complete_through_faults() {
    const KINDS: &[Fault] = &[
        Fault::Error,
        Fault::Stall,
        Fault::StallInBody,
        Fault::Cut,
        Fault::LongerLength,
    ];
    let faults = Faults::new(14, KINDS);
    let server = Server::start(Some(faults.clone()), |request| {
        let name = request.target.trim_start_matches('/');
        Answer::of_file(
            &noise(name, 1000 + name.len() * 10_000),
            &format!("\"{name}\""),
            request,
        )
    });
    let place = Place::new();
    let names: Vec<String> = (0..60).map(|number| format!("de-{number:03}.jsonl")).collect();
    for name in &names {
        let fetched = place.fetch(&format!("{}/{name}", server.address), None).expect(name);
        assert_eq!(bytes(&fetched), noise(name, 1000 + name.len() * 10_000), "{name}");
        assert_eq!(fetched.files[0].name, *name);
    }
    let occurred = faults.occurred.lock().expect("no thread panicked").clone();
    assert_eq!(occurred.len(), KINDS.len(), "every kind occurred: {occurred:?}");
    assert!(faults.most_attempts() <= SHORT.tries, "bounded");
}

/// A server that states too little cannot be found out by the transfer, but by the pin.
#[test]
fn a_shorter_length_is_found_by_the_pin() {
    let server = Server::start(None, |request| match request.target.as_str() {
        "/true/x" => Answer::new(200, "0123456789"),
        _ => Answer::new(200, "01234"),
    });
    let place = Place::new();
    let fetched = place
        .fetch(&format!("{}/true/x", server.address), None)
        .expect("fetched");
    let pin = Pin {
        from: String::new(),
        reference: format!("{}/short/x", server.address),
        bytes: fetched.bytes,
        content: fetched.content,
        files: vec!["x".to_owned()],
    };
    let error = place
        .fetch(&format!("{}/short/x", server.address), Some(&pin))
        .expect_err("short");
    assert!(matches!(error, FetchError::Changed { .. }), "{error}");
}

#[test]
fn an_interrupted_download_continues_in_the_next_process() {
    let whole = noise("whole", 100_000);
    for is_same in [true, false] {
        let (count, served) = (AtomicUsize::new(0), whole.clone());
        let server = Server::start(None, move |request| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            // The first process never gets more than a beginning.
            if number < SHORT.tries as usize {
                let mut answer = Answer::of_file(&served, "\"1\"", request);
                answer.body.truncate(1000);
                return answer.with("X", "cut").with("Content-Length", "100000");
            }
            let (bytes, tag) = if is_same {
                (served.clone(), "\"1\"")
            } else {
                (noise("other", 90_000), "\"2\"")
            };
            Answer::of_file(&bytes, tag, request)
        });
        let place = Place::new();
        let address = format!("{}/x.bin", server.address);
        let error = place.fetch(&address, None).expect_err("cut").to_string();
        assert!(error.starts_with("cannot fetch `http://127.0.0.1"), "{error}");
        let fetched = place.fetch(&address, None).expect("continued");
        let expected = if is_same { whole.clone() } else { noise("other", 90_000) };
        assert_eq!(bytes(&fetched), expected);
        let requests = server.requests();
        let last = requests.last().expect("a request");
        assert!(last.contains("bytes="), "{requests:?}");
        assert_eq!(
            std::fs::read_dir(place.root.join("downloads")).expect("listed").count(),
            0,
            "nothing is left"
        );
    }
}

#[test]
fn a_file_that_is_not_there_is_an_error_with_its_address() {
    let server = Server::start(None, |_| Answer::new(404, "no such file"));
    let error = Place::new()
        .fetch(&format!("{}/x", server.address), None)
        .expect_err("missing");
    let error = crate::errors::chain(&error);
    assert!(error.contains("status 404") && error.contains("/x"), "{error}");
    assert_eq!(server.requests().len(), 1);
}
