use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use camino::Utf8PathBuf;
use serde_json::json;

use super::*;

/// A server that answers each request with a function of its number, from 0, and its head. The connection is closed after
/// the answer.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answer: impl Fn(usize, &str, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}/file", listener.local_addr().expect("an address"));
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (log, answer) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|length| length > 0) {}
                let length = |line: &str| line.strip_prefix("content-length: ")?.parse().ok();
                let mut body = vec![0; head.lines().find_map(length).unwrap_or(0)];
                reader.read_exact(&mut body).expect("a body");
                let number = {
                    let mut log = log.lock().expect("no thread panicked");
                    log.push(head.clone());
                    log.len() - 1
                };
                let answer = Arc::clone(&answer);
                // One that stalls does not keep others from being answered; a client may close the connection.
                std::thread::spawn(move || answer(number, &head, &mut stream));
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> usize {
        self.requests.lock().expect("no thread panicked").len()
    }
}

/// Keeps a connection open without a word until the client closes it.
fn stall(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.read_to_end(&mut Vec::new()).map(drop)
}

fn full(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
    )?;
    stream.write_all(body)
}

/// Limits that tests can reach without waiting.
const SHORT: Limits = Limits {
    bytes: 1 << 20,
    answer: Duration::from_millis(200),
    pace: Pace::AtLeast {
        bytes: 64,
        each: Duration::from_millis(200),
    },
    tries: 3,
    pause: Duration::ZERO,
    longest_pause: Duration::from_secs(1),
};

struct Target {
    _folder: tempfile::TempDir,
    path: Utf8PathBuf,
}

impl Target {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = Utf8PathBuf::try_from(folder.path().join("file")).expect("UTF-8");
        Self { _folder: folder, path }
    }

    fn get(&self, server: &Server) -> Result<u64, HttpError> {
        get(&server.address, &self.path, &SHORT, ProgressReporter::none())
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).expect("the file")
    }
}

fn ask(server: &Server, key: Option<&Secret>) -> Result<Value, HttpError> {
    post(&server.address, key, &json!({"a": 1}), &SHORT, ProgressReporter::none())
}

#[test]
fn an_endless_answer_ends_at_the_limit() {
    let endless = Server::start(|_, _, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            stream.write_all(&[b' '; 4096])?;
        }
    });
    let target = Target::new();
    let error = target.get(&endless).expect_err("endless");
    assert!(
        matches!(error, HttpError::TooLarge { limit, .. } if limit == SHORT.bytes),
        "{error}"
    );
    assert_eq!(target.bytes(), b"", "the disk has its space back");
    let error = ask(&endless, None).expect_err("endless");
    assert!(matches!(error, HttpError::TooLarge { .. }), "{error}");
    // A stated length is enough.
    let large = Server::start(|_, _, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n")?;
        stall(stream)
    });
    assert!(matches!(target.get(&large), Err(HttpError::TooLarge { .. })));
    // Neither is asked again.
    assert_eq!((endless.requests(), large.requests()), (2, 1));
}

#[test]
fn a_server_that_stalls_is_left() {
    let silent = Server::start(|_, _, stream| stall(stream));
    let error = Target::new().get(&silent).expect_err("silent");
    assert!(matches!(error, HttpError::NoAnswer { .. }), "{error}");
    assert!(matches!(ask(&silent, None), Err(HttpError::NoAnswer { .. })));
    let slow = Server::start(|_, _, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")?;
        stream.write_all(b"a few")?;
        stall(stream)
    });
    let error = Target::new().get(&slow).expect_err("slow").to_string();
    assert!(
        error.ends_with("is too slow: 5 bytes came, then less than 64 in 0.2 s"),
        "{error}"
    );
    assert_eq!(slow.requests(), 3, "a connection may have died without a word");
}

#[test]
fn cancelling_ends_a_transfer() {
    let silent = Server::start(|_, _, stream| stall(stream));
    let cancel = AtomicBool::new(true);
    let progress = ProgressReporter::new(&|_| {}, &cancel);
    let limits = Limits::for_file(1);
    assert!(matches!(
        get(&silent.address, &Target::new().path, &limits, progress),
        Err(HttpError::Cancelled(_))
    ));
    assert!(matches!(
        post(&silent.address, None, &json!({}), &Limits::for_reply(), progress),
        Err(HttpError::Cancelled(_))
    ));
}

/// A transfer that is cut resumes where it was, if the bytes are still the same.
#[test]
fn a_cut_transfer_resumes() {
    let cut = |stream: &mut TcpStream, tag: &str, bytes: &[u8]| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: {tag}\r\n\r\n")?;
        stream.write_all(bytes)
    };
    let same = Server::start(move |number, head, stream| {
        if number == 0 {
            return cut(stream, "\"a\"", b"01234");
        }
        assert!(head.contains("range: bytes=5-\r\n") && head.contains("if-range: \"a\"\r\n"));
        full(
            stream,
            "206 Partial Content",
            "Content-Range: bytes 5-9/10\r\n",
            b"56789",
        )
    });
    let target = Target::new();
    assert_eq!(target.get(&same).expect("resumed"), 10);
    assert_eq!(target.bytes(), b"0123456789");
    // Other bytes meanwhile: all of them are fetched. Without a strong tag nothing is resumed.
    for tag in ["\"a\"", "W/\"a\""] {
        let changed = Server::start(move |number, head, stream| {
            if number == 0 {
                return cut(stream, tag, b"01234");
            }
            assert_eq!(head.contains("range"), tag == "\"a\"");
            full(stream, "200 OK", "", b"abcdefghij")
        });
        assert_eq!(target.get(&changed).expect("fetched"), 10);
        assert_eq!(target.bytes(), b"abcdefghij");
    }
    // A range that was not asked for is not appended.
    let wrong = Server::start(move |number, _, stream| match number {
        0 => cut(stream, "\"a\"", b"01234"),
        1 => full(
            stream,
            "206 Partial Content",
            "Content-Range: bytes 4-9/10\r\n",
            b"456789",
        ),
        _ => full(stream, "200 OK", "", b"abcdefghij"),
    });
    target.get(&wrong).expect("fetched");
    assert_eq!(target.bytes(), b"abcdefghij");
}

#[test]
fn a_length_that_is_not_true_is_an_error() {
    let short = Server::start(|_, _, stream| write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234"));
    let error = Target::new().get(&short).expect_err("cut");
    assert!(matches!(error, HttpError::Cut { received: 5, .. }), "{error}");
    assert_eq!(short.requests(), 3);
}

#[test]
fn a_busy_server_is_asked_again() {
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        let busy = Server::start(move |number, _, stream| match number {
            0 | 1 => full(stream, status, "Retry-After: 0\r\n", b"later"),
            _ => full(stream, "200 OK", "", b"{\"b\": 2}"),
        });
        assert_eq!(ask(&busy, None).expect("an answer"), json!({"b": 2}));
        assert_eq!(busy.requests(), 3);
    }
    let always = Server::start(|_, _, stream| full(stream, "500 Internal Server Error", "", b"broken"));
    let error = ask(&always, None).expect_err("broken").to_string();
    assert!(error.ends_with("answers with status 500: broken"), "{error}");
    assert_eq!(always.requests(), 3);
    let long = Server::start(|_, _, stream| full(stream, "429 Too Many Requests", "Retry-After: 3600\r\n", b""));
    let error = ask(&long, None).expect_err("an hour").to_string();
    assert!(error.contains("asks to wait 3600 s"), "{error}");
    assert_eq!(long.requests(), 1);
    // Any other status is final.
    let missing = Server::start(|_, _, stream| full(stream, "404 Not Found", "", b""));
    assert!(matches!(
        Target::new().get(&missing),
        Err(HttpError::Status { status: 404, .. })
    ));
    assert_eq!(missing.requests(), 1);
}

#[test]
fn a_server_cannot_repeat_a_key() {
    let key = Secret::new("sk-0123456789abcdef");
    let echo = Server::start(|number, head, stream| {
        let authorization = head
            .lines()
            .find(|line| line.starts_with("authorization"))
            .unwrap_or_default();
        match number {
            0 => full(
                stream,
                "200 OK",
                "",
                json!({ "said": authorization }).to_string().as_bytes(),
            ),
            1 => full(stream, "401 Unauthorized", "", authorization.as_bytes()),
            _ => full(stream, "200 OK", "", authorization.as_bytes()),
        }
    });
    assert_eq!(
        ask(&echo, Some(&key)).expect("an answer"),
        json!({"said": "authorization: ***"})
    );
    for _ in 0..2 {
        let error = ask(&echo, Some(&key)).expect_err("an error").to_string();
        assert!(!error.contains("0123456789"), "{error}");
    }
    // A key after a long text is not cut before it is found.
    let long = Server::start(|_, _, stream| {
        let body = "x".repeat(ERROR_TEXT - 4) + "sk-0123456789abcdef";
        full(stream, "401 Unauthorized", "", body.as_bytes())
    });
    let error = ask(&long, Some(&key)).expect_err("refused").to_string();
    assert!(error.ends_with("x***"), "{error}");
}

#[test]
fn passwords_in_addresses_are_sent_but_not_shown() {
    let server = Server::start(|_, head, stream| {
        let basic = head
            .lines()
            .find(|line| line.starts_with("authorization"))
            .unwrap_or_default();
        full(stream, "403 Forbidden", "", format!("not hunter 2, {basic}").as_bytes())
    });
    let address = server.address.replacen("://", "://me:hunter%202@", 1);
    let error = get(&address, &Target::new().path, &SHORT, ProgressReporter::none());
    let error = error.expect_err("refused").to_string();
    assert_eq!(
        error,
        format!(
            "`{}` answers with status 403: not ***, authorization: ***",
            server.address
        )
    );
    let requests = server.requests.lock().expect("no thread panicked");
    assert!(
        requests[0].contains("authorization: Basic bWU6aHVudGVyIDI=\r\n"),
        "{requests:?}"
    );
}

/// What is posted goes to the server that was named, and to no other one.
#[test]
fn posts_are_not_redirected() {
    let there = Server::start(|_, _, stream| full(stream, "200 OK", "", b"{}"));
    for status in ["302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let to = there.address.clone();
        let moved = Server::start(move |_, _, stream| full(stream, status, &format!("Location: {to}\r\n"), b""));
        let error = ask(&moved, Some(&Secret::new("a long key")))
            .expect_err("not followed")
            .to_string();
        assert!(error.contains(&status[..3]), "{error}");
    }
    assert_eq!(there.requests(), 0);
}

#[test]
fn redirects_are_followed_but_not_out_of_encryption_nor_to_files() {
    let target = Target::new();
    let there = Server::start(|_, _, stream| full(stream, "200 OK", "", b"here"));
    let to = there.address.clone();
    let moved = Server::start(move |_, _, stream| full(stream, "302 Found", &format!("Location: {to}\r\n"), b""));
    assert_eq!(target.get(&moved).expect("followed"), 4);
    let local = Server::start(|_, _, stream| full(stream, "302 Found", "Location: file:///etc/passwd\r\n", b""));
    assert!(target.get(&local).is_err());
    let circle = Server::start(|_, _, stream| full(stream, "302 Found", "Location: /file\r\n", b""));
    assert!(target.get(&circle).is_err());
    assert!(circle.requests() <= 11);
}
