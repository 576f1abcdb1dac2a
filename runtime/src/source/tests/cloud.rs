use super::server::{Answer, Fault, Faults, Request, SHORT, Server, noise};
use super::*;
use crate::source::cloud::Settings;
use crate::source::reference::Objects;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// Fetches with the variables of a store.
fn fetch_from(
    text: &str,
    variables: &[(&str, &str)],
    root: &Utf8Path,
    pinned: Option<&[String]>,
) -> Result<files::Found, FetchError> {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let settings = Settings::of(variables);
    let scratch = tempfile::Builder::new()
        .prefix("scratch")
        .tempdir_in(root)
        .expect("a folder")
        .keep();
    let scratch = Utf8PathBuf::try_from(scratch).expect("UTF-8");
    let context = SourceContext {
        name: "german",
        folders: &Folders::default(),
        scratch: &scratch,
        cache: root,
        offline: false,
        at_most: None,
        limits: Some(&SHORT),
    };
    let SourceAddress::Objects(objects) = text.parse().expect("a reference") else {
        panic!("not objects");
    };
    let objects: Objects = objects;
    crate::source::cloud::fetch(&objects, &settings, pinned, context, ProgressReporter::none())
}

fn temporary() -> (tempfile::TempDir, Utf8PathBuf) {
    let guard = tempfile::tempdir().expect("a folder");
    let root = Utf8PathBuf::try_from(guard.path().to_owned()).expect("UTF-8");
    (guard, root)
}

/// A server of S3 over a folder (s3s-fs), which checks signatures.
fn s3(folder: &Utf8Path, faults: Option<Faults>) -> Server {
    let mut service = s3s::service::S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder).expect("a folder"));
    service.set_auth(s3s::auth::SimpleAuth::from_single("AKIAEXAMPLE", SECRET));
    let service = service.build();
    Server::start(faults, move |request| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut asked = ureq::http::Request::builder()
                .method(request.method.as_str())
                .uri(&request.target);
            for (name, value) in &request.headers {
                asked = asked.header(name, value);
            }
            let asked = asked.body(s3s::Body::from(request.body.clone())).expect("a request");
            let (parts, mut body) = service.call(asked).await.expect("an answer").into_parts();
            let body = body.store_all_limited(1 << 30).await.expect("a body");
            let mut answer = Answer::new(parts.status.as_u16(), body.to_vec());
            for (name, value) in &parts.headers {
                if !matches!(name.as_str(), "content-length" | "connection" | "transfer-encoding") {
                    answer = answer.with(name.as_str(), value.to_str().expect("text"));
                }
            }
            answer
        })
    })
}

fn of_s3(server: &Server) -> [(&str, &str); 4] {
    [
        ("AWS_ENDPOINT_URL", &server.address),
        ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "eu-north-1"),
    ]
}

/// Every kind at 5% of the answers of a real server, on lists and on ranges.
#[test]
fn objects_come_complete_through_faults() {
    const KINDS: &[Fault] = &[
        Fault::Error,
        Fault::Stall,
        Fault::StallInBody,
        Fault::Cut,
        Fault::LongerLength,
        Fault::ShorterLength,
    ];
    let (_guard, root) = temporary();
    // Several ranges, exactly one, one byte more, and none.
    let sizes = |number: usize| [200_000, 64 << 10, (64 << 10) + 1, 0, 1, 30_000][number % 6];
    let name = |number: usize| format!("{:02}/part-{number:03}.jsonl", number % 4);
    for number in 0..90 {
        let path = root.join("served/corpora/de").join(name(number));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, noise(&name(number), sizes(number))).expect("written");
    }
    let faults = Faults::new(3, KINDS);
    let server = s3(&root.join("served"), Some(faults.clone()));
    let found = fetch_from("s3://corpora/de/**/*.jsonl", &of_s3(&server), &root, None).expect("fetched");
    let mut names: Vec<String> = (0..90).map(name).collect();
    names.sort();
    assert_eq!(
        found.files.iter().map(|file| file.name.clone()).collect::<Vec<_>>(),
        names,
        "none is lost"
    );
    for number in 0..90 {
        let file = found
            .files
            .iter()
            .find(|file| file.name == name(number))
            .expect("there");
        let bytes = std::fs::read(&file.path).expect("read");
        assert!(bytes == noise(&name(number), sizes(number)), "{}", file.name);
    }
    let occurred = faults.occurred.lock().expect("no thread panicked").clone();
    assert_eq!(occurred.len(), KINDS.len(), "every kind occurred: {occurred:?}");
    assert!(
        faults.most_attempts() <= SHORT.tries,
        "bounded: {}",
        faults.most_attempts()
    );
}

#[test]
fn names_are_relative_to_the_prefix_and_pins_are_kept_to() {
    let (_guard, root) = temporary();
    for name in [
        "de/a.jsonl",
        "de/sub/b.jsonl",
        "de/.hidden",
        "de/c.txt~",
        "de.txt",
        "dex/d.jsonl",
        "ä b+c%20&.txt",
    ] {
        write(&root.join("served/corpora"), name, name);
    }
    let server = s3(&root.join("served"), None);
    let fetch = |text: &str, pinned: Option<&[String]>| fetch_from(text, &of_s3(&server), &root, pinned);
    let names = |found: files::Found| found.files.into_iter().map(|file| file.name).collect::<Vec<_>>();
    for (text, expected, skipped) in [
        ("s3://corpora/de", vec!["a.jsonl", "sub/b.jsonl"], 2),
        ("s3://corpora/de/", vec!["a.jsonl", "sub/b.jsonl"], 2),
        ("s3://corpora/de/*", vec!["a.jsonl"], 2),
        ("s3://corpora/de/a.jsonl", vec!["a.jsonl"], 0),
        ("s3://corpora/de/.hidden", vec![".hidden"], 0),
        (
            "s3://corpora/d*/**/*.jsonl",
            vec!["de/a.jsonl", "de/sub/b.jsonl", "dex/d.jsonl"],
            0,
        ),
        ("s3://corpora/ä b+c%20&.txt", vec!["ä b+c%20&.txt"], 0),
    ] {
        let found = fetch(text, None).expect(text);
        assert_eq!(found.skipped, skipped, "{text}");
        assert_eq!(names(found), expected, "{text}");
    }
    let error = fetch("s3://corpora/fr/*", None)
        .map(drop)
        .expect_err("none")
        .to_string();
    assert_eq!(error, "no object matches `s3://corpora/fr/*`");
    let error = fetch("s3://nowhere/x", None)
        .map(drop)
        .expect_err("no bucket")
        .to_string();
    assert!(
        error.contains("NoSuchBucket") && error.contains("check the name of the bucket"),
        "{error}"
    );
    // A lock pins the names: what was added meanwhile is not read, and what is missing is an error.
    let pinned = ["a.jsonl".to_owned()];
    assert_eq!(names(fetch("s3://corpora/de", Some(&pinned)).expect("pinned")), pinned);
    let gone = ["a.jsonl".to_owned(), "z.jsonl".to_owned()];
    let error = fetch("s3://corpora/de", Some(&gone))
        .map(drop)
        .expect_err("gone")
        .to_string();
    assert!(error.contains("does not have `z.jsonl` any more"), "{error}");
}

/// A server repeats every header and the address; no word of the credentials is in the error.
#[test]
fn no_error_has_a_credential() {
    let (_guard, root) = temporary();
    for status in [400, 403, 500] {
        let echo = Server::start(None, move |request: &Request| {
            let body: String = request
                .headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}\n"))
                .collect();
            Answer::new(status, format!("{} {body} {SECRET}", request.target))
        });
        let s3 = [
            &of_s3(&echo)[..],
            &[("AWS_SESSION_TOKEN", "session/token+of+the+user==")],
        ]
        .concat();
        let azure = [
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            (
                "AZURE_STORAGE_SAS_TOKEN",
                "sv=2024-01-01&sp=rl&sig=c2lnbmF0dXJlLW9mLXRoZS11c2Vy",
            ),
            ("AZURE_ENDPOINT", &*echo.address),
        ];
        for (text, variables) in [("s3://corpora/x", &s3[..]), ("az://corpora/x", &azure[..])] {
            let error = fetch_from(text, variables, &root, None).map(drop).expect_err("refused");
            let error = format!("{} {error:?}", crate::errors::chain(&error));
            for secret in ["EXAMPLEKEY", "AKIAEXAMPLE", "session/token", "c2lnbmF0dXJl"] {
                assert!(!error.contains(secret), "{secret} in {error}");
            }
        }
    }
    // Wrong credentials come with the remedy.
    std::fs::create_dir_all(root.join("served/corpora")).expect("made");
    let server = s3(&root.join("served"), None);
    let mut wrong = of_s3(&server);
    wrong[2].1 = "another key";
    let error = fetch_from("s3://corpora/x", &wrong, &root, None)
        .map(drop)
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("SignatureDoesNotMatch") && error.contains("AWS_ACCESS_KEY_ID"),
        "{error}"
    );
    // An endpoint elsewhere is encrypted.
    let mut far = of_s3(&server);
    far[0].1 = "http://storage.example.org";
    let error = fetch_from("s3://corpora/x", &far, &root, None)
        .map(drop)
        .expect_err("refused")
        .to_string();
    assert!(error.contains("`http:` is for a store on this machine"), "{error}");
}

const TAG: &str = "\"0123456789abcdef\"";

/// The three stores with one object of 200,000 bytes, without signatures.
fn any_store(request: &Request, bytes: &[u8]) -> Answer {
    let path = request.target.split('?').next().unwrap_or_default();
    if path.ends_with("jsonl") {
        return Answer::of_file(bytes, TAG, request);
    }
    let (length, time) = (bytes.len(), "Sat, 28 Nov 2026 10:00:00 GMT");
    let list = match request.target.contains("comp=list") {
        true => format!(
            "<EnumerationResults><Blobs><Blob><Name>de/a.jsonl</Name><Properties><Last-Modified>{time}</Last-Modified>\
             <Content-Length>{length}</Content-Length><Content-Type>x</Content-Type><Etag>0123456789abcdef</Etag>\
             <ResourceType>file</ResourceType></Properties></Blob></Blobs><NextMarker/></EnumerationResults>"
        ),
        false => format!(
            "<ListBucketResult><Contents><Key>de/a.jsonl</Key><Size>{length}</Size><LastModified>2026-11-28T10:00:00Z\
             </LastModified><ETag>{}</ETag></Contents></ListBucketResult>",
            TAG.replace('"', "&quot;")
        ),
    };
    Answer::new(200, list)
}

#[test]
fn the_three_stores_are_read_and_interrupted_downloads_continue() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let bytes = noise("object", 200_000);
    for (text, names) in [
        (
            "s3://corpora/de",
            ["AWS_ENDPOINT_URL", "AWS_SKIP_SIGNATURE", "AWS_REGION"],
        ),
        ("gs://corpora/de/*", ["GOOGLE_BASE_URL", "GOOGLE_SKIP_SIGNATURE", ""]),
        (
            "az://corpora/de",
            ["AZURE_ENDPOINT", "AZURE_SKIP_SIGNATURE", "AZURE_STORAGE_ACCOUNT_NAME"],
        ),
    ] {
        let (_guard, root) = temporary();
        let is_broken = Arc::new(AtomicBool::new(true));
        let (broken, served) = (Arc::clone(&is_broken), bytes.clone());
        let server = Server::start(None, move |request| {
            // The first process gets one range.
            match broken.load(Ordering::Relaxed) && request.header("range").starts_with("bytes=65536-") {
                true => Answer::new(503, "later"),
                false => any_store(request, &served),
            }
        });
        let variables = [(names[0], &*server.address), (names[1], "true"), (names[2], "account")];
        let error = fetch_from(text, &variables, &root, None)
            .map(drop)
            .expect_err("broken")
            .to_string();
        assert!(error.contains("503"), "{text}: {error}");
        is_broken.store(false, Ordering::Relaxed);
        let before = server.requests().len();
        let found = fetch_from(text, &variables, &root, None).expect(text);
        assert_eq!(found.files[0].name, "a.jsonl");
        assert!(std::fs::read(&found.files[0].path).expect("read") == bytes, "{text}");
        let ranges: Vec<String> = server.requests()[before..]
            .iter()
            .filter(|line| line.contains("bytes="))
            .cloned()
            .collect();
        assert_eq!(
            ranges.len(),
            3,
            "{text}: the first range is not fetched again: {ranges:?}"
        );
    }
}

#[test]
fn an_object_that_changes_meanwhile_is_an_error() {
    let (_guard, root) = temporary();
    let bytes = noise("object", 200_000);
    let server = Server::start(None, move |request| match request.header("if-match") {
        tag if request.header("range").starts_with("bytes=65536-") && tag == TAG => Answer::new(412, "changed"),
        _ => any_store(request, &bytes),
    });
    let variables = [("AWS_ENDPOINT_URL", &*server.address), ("AWS_SKIP_SIGNATURE", "true")];
    let error = fetch_from("s3://corpora/de", &variables, &root, None)
        .map(drop)
        .expect_err("changed")
        .to_string();
    assert!(error.contains("has changed while it was fetched"), "{error}");
}
