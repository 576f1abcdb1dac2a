//! HTTP for all that Aurora transfers itself: imports, the hub, the interfaces of judges.
//!
//! In: an address, and limits of size and time. Out: a file, or the answer to a POST. Proxies are those of the environment
//! (`ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), certificates those of the system. A cut transfer is resumed, and
//! a busy server is asked again, a bounded number of times. The caller's thread watches the time and cancellation; a second
//! thread waits for the server. Not here: which address, what the bytes mean, and package clients (`source::client`).

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use camino::Utf8Path;
use serde_json::Value;

use crate::errors::FileError;
use crate::progress::{Cancelled, ProgressReporter};
use crate::redact::{self, Secret};
pub use download::Download;
use exchange::{Exchange, Head, Request};
pub use service::{Connector, ServiceError};

mod download;
mod exchange;
mod service;

/// How often a wait is interrupted to look whether the work is cancelled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Bytes of an error's body that are read.
const ERROR_BODY: usize = 64 << 10;

/// Characters of an error's body that a message has.
const ERROR_TEXT: usize = 600;

/// A transfer that brought this many bytes before it was cut counts as a first try.
const WORTH_RESUMING: u64 = 1 << 20;

/// The limits of a transfer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest body, bytes.
    pub bytes: u64,
    /// Time to the first byte of an answer.
    pub answer: Duration,
    pub pace: Pace,
    /// How often a server is asked, the first time included.
    pub tries: u32,
    /// The pause before the second try; each later one is twice as long.
    pub pause: Duration,
    /// The longest pause that a server may ask for.
    pub longest_pause: Duration,
}

/// How slow the body of an answer may be.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// At least this many bytes in each period.
    AtLeast { bytes: u64, each: Duration },
    /// All of it in this time.
    Within(Duration),
}

impl Limits {
    /// For a file of at most `bytes`.
    pub const fn for_file(bytes: u64) -> Self {
        Self {
            bytes,
            answer: Duration::from_secs(60),
            pace: Pace::AtLeast {
                bytes: 64 << 10,
                each: Duration::from_secs(60),
            },
            tries: 4,
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(120),
        }
    }

    /// For the reply of a model, which may compute for a while before it sends anything.
    pub const fn for_reply() -> Self {
        Self {
            bytes: 16 << 20,
            answer: Duration::from_secs(300),
            pace: Pace::Within(Duration::from_secs(300)),
            ..Self::for_file(0)
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("cannot get an answer from `{address}`: {cause}")]
    Unreachable { address: String, cause: String },
    #[error("`{address}` answers with status {status}{}", text(body))]
    Status { address: String, status: u16, body: String },
    #[error("`{address}` has more than {limit} bytes, the most that is read of it")]
    TooLarge { address: String, limit: u64 },
    #[error("`{address}` does not answer within {} s", limit.as_secs_f64())]
    NoAnswer { address: String, limit: Duration },
    #[error("`{address}` is too slow: {received} bytes came, then less than {}", slowest(*pace))]
    Slow { address: String, received: u64, pace: Pace },
    #[error("`{address}` ended the transfer after {received} bytes: {cause}")]
    Cut {
        address: String,
        received: u64,
        cause: String,
    },
    #[error("`{address}` asks to wait {} s, longer than the {} s that are waited", asked.as_secs(), longest.as_secs_f64())]
    Busy {
        address: String,
        asked: Duration,
        longest: Duration,
    },
    #[error("the answer of `{address}` is not JSON: {cause}")]
    NotJson { address: String, cause: String },
    #[error("cannot start a thread for a transfer")]
    Thread(#[source] std::io::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

fn text(body: &str) -> String {
    if body.is_empty() {
        return String::new();
    }
    format!(": {body}")
}

fn slowest(pace: Pace) -> String {
    match pace {
        Pace::AtLeast { bytes, each } => format!("{bytes} in {} s", each.as_secs_f64()),
        Pace::Within(time) => format!("the rest in {} s", time.as_secs_f64()),
    }
}

/// An error, and whether another try may succeed.
struct Failure {
    error: HttpError,
    again: Again,
}

enum Again {
    No,
    /// After a pause, at least the one that the server asks for.
    After(Option<Duration>),
}

impl Failure {
    /// For what may be asked twice: another connection may be answered.
    fn may_pass(self) -> Self {
        let passes = matches!(self.error, HttpError::NoAnswer { .. } | HttpError::Slow { .. });
        Self {
            again: match self.again {
                Again::No if passes => Again::After(None),
                again => again,
            },
            ..self
        }
    }
}

impl<E: Into<HttpError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            error: error.into(),
            again: Again::No,
        }
    }
}

/// Downloads an address to a file, and returns its length. A user name and a password in the address are sent, and not
/// shown. An encrypted address redirects to encrypted ones only.
///
/// # Errors
/// [`HttpError`]. The file may then have the beginning of the bytes, never more than the limit.
pub fn get(address: &str, to: &Utf8Path, limits: &Limits, progress: ProgressReporter<'_>) -> Result<u64, HttpError> {
    Download::new(address, None, limits, progress).to(to)
}

/// Posts JSON, with a key or the password in the address, and reads the JSON answer, in which no text has a secret of this process.
///
/// # Errors
/// [`HttpError`].
pub fn post(
    address: &str,
    key: Option<&Secret>,
    body: &Value,
    limits: &Limits,
    progress: ProgressReporter<'_>,
) -> Result<Value, HttpError> {
    let (address, basic) = basic(address);
    let address = address.as_str();
    let authorization = key
        .map(|key| Secret::new(&format!("Bearer {}", key.reveal())))
        .or(basic);
    let body = body.to_string();
    let mut tries = Tries::new(limits);
    loop {
        let attempt = || -> Result<Value, Failure> {
            let request = Request {
                body: Some(body.clone().into_bytes()),
                headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
                method: "POST",
                ..Request::get(address, authorization.clone())
            };
            let exchange = Exchange::start(request, limits, progress)?;
            let head = exchange.head()?;
            if !(200..300).contains(&head.status) {
                return Err(refused(exchange, &head));
            }
            let answer = exchange.bytes(limits.bytes)?;
            let mut value: Value = serde_json::from_slice(&answer).map_err(|error| HttpError::NotJson {
                address: address.to_owned(),
                cause: redact::message(&error.to_string()).into_owned(),
            })?;
            redact::json(&mut value);
            Ok(value)
        };
        match attempt() {
            Ok(value) => return Ok(value),
            Err(failure) => tries.wait(failure, address, progress)?,
        }
    }
}

/// An address without its user name and password, and the header that has them.
fn basic(address: &str) -> (String, Option<Secret>) {
    let (address, credentials) = redact::split_credentials(address);
    let header = credentials.map(|credentials| {
        // The password alone is a secret too.
        let decoded = percent_decoded(credentials.reveal());
        let text = String::from_utf8_lossy(&decoded);
        Secret::new(text.split_once(':').map_or("", |(_, password)| password));
        Secret::new(&format!("Basic {}", BASE64_STANDARD.encode(&decoded)))
    });
    (address, header)
}

/// Bytes with `%XX` decoded; a `%` without two digits is itself.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%');
        let code = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    bytes
}

/// Whether a later request may have another status.
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// The error of an answer that is not a success, with the beginning of what the server says.
fn refused(exchange: Exchange<'_>, head: &Head) -> Failure {
    let mut body = Vec::new();
    // The status is the error even if its text does not come, or is long.
    let _ = exchange.body(&mut |bytes| {
        body.extend_from_slice(bytes);
        if body.len() > ERROR_BODY {
            return Err(exchange.too_large());
        }
        Ok(())
    });
    // First without secrets, then shortened: a part of a secret would not be found.
    let body = redact::message(String::from_utf8_lossy(&body).trim()).into_owned();
    let body = match body.char_indices().nth(ERROR_TEXT) {
        Some((end, _)) => format!("{}…", &body[..end]),
        None => body,
    };
    Failure {
        error: HttpError::Status {
            address: exchange.address().to_owned(),
            status: head.status,
            body,
        },
        again: if is_passing(head.status) {
            Again::After(head.retry_after)
        } else {
            Again::No
        },
    }
}

/// Counts tries and waits between them.
struct Tries<'a> {
    limits: &'a Limits,
    done: u32,
    pause: Duration,
}

impl<'a> Tries<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            done: 0,
            pause: limits.pause,
        }
    }

    /// Waits before the next try, or returns the error if there is none.
    fn wait(&mut self, failure: Failure, address: &str, progress: ProgressReporter<'_>) -> Result<(), HttpError> {
        let Again::After(asked) = failure.again else {
            return Err(failure.error);
        };
        self.done += 1;
        if self.done >= self.limits.tries {
            return Err(failure.error);
        }
        if let Some(asked) = asked.filter(|asked| *asked > self.limits.longest_pause) {
            return Err(HttpError::Busy {
                address: address.to_owned(),
                asked,
                longest: self.limits.longest_pause,
            });
        }
        let end = Instant::now() + self.pause.max(asked.unwrap_or_default());
        self.pause = self.pause.saturating_mul(2).min(self.limits.longest_pause);
        loop {
            progress.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(POLL_INTERVAL));
        }
    }
}

#[cfg(test)]
mod tests;
