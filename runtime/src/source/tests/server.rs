//! A server for tests, which may fail in chosen ways: deterministic by a seed, whatever the order of the requests.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::http::{Limits, Pace};

/// Limits that tests can reach without waiting.
pub const SHORT: Limits = Limits {
    bytes: 1 << 30,
    answer: Duration::from_millis(300),
    pace: Pace::AtLeast {
        bytes: 1,
        each: Duration::from_millis(300),
    },
    tries: 6,
    pause: Duration::ZERO,
    longest_pause: Duration::from_secs(1),
};

pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, body) = (Vec::new(), body.into());
        Self { status, headers, body }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The bytes that a request asks for, with their tag, as servers of files answer.
    pub fn of_file(bytes: &[u8], tag: &str, request: &Request) -> Self {
        let range = request.header("range").strip_prefix("bytes=").and_then(|range| {
            let (start, end) = range.split_once('-')?;
            let start: usize = start.parse().ok()?;
            let end = end.parse().map_or(bytes.len(), |end: usize| (end + 1).min(bytes.len()));
            Some((start, end))
        });
        let is_same = matches!(request.header("if-range"), "") || request.header("if-range") == tag;
        let answer = match range.filter(|_| is_same) {
            Some((start, _)) if start >= bytes.len() => {
                Self::new(416, "").with("Content-Range", format!("bytes */{}", bytes.len()))
            }
            Some((start, end)) => Self::new(206, &bytes[start..end])
                .with("Content-Range", format!("bytes {start}-{}/{}", end - 1, bytes.len())),
            None => Self::new(200, bytes),
        };
        answer
            .with("ETag", tag)
            .with("Last-Modified", "Sat, 28 Nov 2026 10:00:00 GMT")
    }
}

/// What goes wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Error,
    Stall,
    StallInBody,
    Cut,
    LongerLength,
    ShorterLength,
}

/// What goes wrong with the answers of a server, and how often each kind occurred.
#[derive(Clone)]
pub struct Faults {
    seed: u64,
    kinds: &'static [Fault],
    /// The number of requests by target and range.
    attempts: Arc<Mutex<BTreeMap<String, u32>>>,
    pub occurred: Arc<Mutex<BTreeMap<Fault, u32>>>,
}

impl Faults {
    /// Each kind occurs in 5% of the answers.
    pub fn new(seed: u64, kinds: &'static [Fault]) -> Self {
        Self {
            seed,
            kinds,
            attempts: Arc::default(),
            occurred: Arc::default(),
        }
    }

    fn of(&self, request: &Request) -> Option<Fault> {
        let what = format!("{} {}", request.target, request.header("range"));
        let attempt = {
            let mut attempts = self.attempts.lock().expect("no thread panicked");
            let attempt = attempts.entry(what.clone()).or_default();
            *attempt += 1;
            *attempt
        };
        let hash = blake3::hash(format!("{} {what} {attempt}", self.seed).as_bytes());
        let at = usize::from(u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]));
        let fault = *self.kinds.get(at * 20 / 65536)?;
        *self
            .occurred
            .lock()
            .expect("no thread panicked")
            .entry(fault)
            .or_default() += 1;
        Some(fault)
    }

    /// The most requests for one range of one file.
    pub fn most_attempts(&self) -> u32 {
        self.attempts
            .lock()
            .expect("no thread panicked")
            .values()
            .copied()
            .max()
            .unwrap_or(0)
    }
}

/// Answers until the process ends. Each connection is closed after its answer.
pub struct Server {
    /// `http://127.0.0.1:PORT`
    pub address: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(faults: Option<Faults>, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (lines, answer) = (Arc::clone(&log), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (lines, answer, faults) = (Arc::clone(&lines), Arc::clone(&answer), faults.clone());
                // One that stalls does not keep others from being answered.
                std::thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    let line = format!("{} {} {}", request.method, request.target, request.header("range"));
                    lines.lock().expect("no thread panicked").push(line.trim().to_owned());
                    let fault = faults.and_then(|faults| faults.of(&request));
                    // A client may close the connection.
                    let _ = send(stream, &answer(&request), fault);
                });
            }
        });
        Self { address, log }
    }

    /// `METHOD TARGET RANGE` of every request.
    pub fn requests(&self) -> Vec<String> {
        self.log.lock().expect("no thread panicked").clone()
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        method,
        target,
        headers,
        body,
    })
}

fn send(mut stream: TcpStream, answer: &Answer, fault: Option<Fault>) -> std::io::Result<()> {
    let broken = Answer::new(500, "<Error><Code>InternalError</Code></Error>");
    let answer = if fault == Some(Fault::Error) { &broken } else { answer };
    let stall = |mut stream: TcpStream| stream.read_to_end(&mut Vec::new()).map(drop);
    if fault == Some(Fault::Stall) {
        return stall(stream);
    }
    let (body, half) = (&answer.body, answer.body.len() / 2);
    let (stated, sent) = match fault {
        Some(Fault::Cut | Fault::StallInBody) => (body.len(), half),
        Some(Fault::LongerLength) => (body.len() + 7, body.len()),
        Some(Fault::ShorterLength) => (half, half),
        _ => (body.len(), body.len()),
    };
    let headers: String = answer
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    // An answer may state a length of its own.
    let own = answer.headers.iter().any(|(name, _)| name == "Content-Length");
    let length = if own {
        String::new()
    } else {
        format!("Content-Length: {stated}\r\n")
    };
    write!(
        stream,
        "HTTP/1.1 {} X\r\n{length}Connection: close\r\n{headers}\r\n",
        answer.status
    )?;
    stream.write_all(&body[..sent])?;
    match fault {
        Some(Fault::StallInBody) if sent < stated => stall(stream),
        _ => Ok(()),
    }
}

/// Bytes that look random, the same for the same name.
pub fn noise(name: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(name.as_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}
