//! One request and its answer. A thread waits for the server, and the caller watches the clock.

use std::io::{self, Read};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use aurora_compiler::server::ServerAddress;
use ureq::config::Config;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::{Agent, AsSendBody, Body};

use super::{Again, Failure, HttpError, Limits, POLL_INTERVAL, Pace};
use crate::progress::ProgressReporter;
use crate::redact::{self, Secret};

/// Bytes that are read at a time.
const AT_ONCE: usize = 64 << 10;

/// Keeps connections for later requests.
static AGENT: LazyLock<Agent> = LazyLock::new(|| {
    let config = Config::builder()
        .http_status_as_error(false)
        .user_agent(concat!("aurora/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_resolve(Some(Duration::from_secs(30)));
    config.build().into()
});

/// What is asked for.
pub(super) struct Request {
    pub address: String,
    pub method: &'static str,
    /// Sent to the named server only: such a request is not redirected, and within this machine it goes to no proxy.
    pub body: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
    pub authorization: Option<Secret>,
    /// The number of bytes that are there, and the `ETag` that they had.
    pub resume: Option<(u64, String)>,
    /// Whether the answer may come from where the server redirects to. Keys are not sent there.
    pub redirects: bool,
}

impl Request {
    pub fn get(address: &str, authorization: Option<Secret>) -> Self {
        Self {
            address: address.to_owned(),
            method: "GET",
            body: None,
            headers: Vec::new(),
            authorization,
            resume: None,
            redirects: true,
        }
    }
}

/// Status and headers of an answer.
pub(super) struct Head {
    pub status: u16,
    pub code: StatusCode,
    /// The length of the body, if it is stated.
    pub length: Option<u64>,
    /// A strong `ETag`.
    pub etag: Option<String>,
    /// Where the range of a partial answer starts.
    pub start: Option<u64>,
    /// The length of the range of a partial answer.
    pub range: Option<u64>,
    /// The length of all bytes, if the range that was asked for begins at their end.
    pub complete: Option<u64>,
    pub retry_after: Option<Duration>,
    pub headers: HeaderMap,
}

impl Head {
    fn of(response: &Response<Body>) -> Self {
        let headers = response.headers();
        let text = |name: &str| text(headers, name);
        Self {
            status: response.status().as_u16(),
            code: response.status(),
            length: text("content-length").and_then(|length| length.parse().ok()),
            etag: text("etag").filter(|tag| tag.starts_with('"')).map(str::to_owned),
            start: text("content-range")
                .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()),
            range: text("content-range").and_then(|range| {
                let (start, end) = range.strip_prefix("bytes ")?.split('/').next()?.split_once('-')?;
                let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
                end.checked_sub(start)?.checked_add(1)
            }),
            complete: text("content-range").and_then(|range| range.strip_prefix("bytes */")?.parse().ok()),
            retry_after: text("retry-after").and_then(|seconds| seconds.parse().ok().map(Duration::from_secs)),
            headers: headers.clone(),
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// An address without the parameters of its query.
pub(super) fn without_query(address: &str) -> &str {
    address.split('?').next().unwrap_or(address)
}

/// Whether an address is of a server of this machine.
pub(super) fn is_this_machine(address: &str) -> bool {
    let start = address.find("://").map_or(0, |at| at + 3);
    let end = address[start..].find(['/', '?']).map_or(address.len(), |at| start + at);
    ServerAddress::parse(&address[..end]).is_ok_and(|server| server.is_this_machine())
}

/// Parts of an answer, in their order.
enum Part {
    Head(Head),
    Bytes(Vec<u8>),
    End,
    Failed(ureq::Error),
}

/// A request that was sent.
pub(super) struct Exchange<'a> {
    address: String,
    parts: Receiver<Part>,
    started: Instant,
    limits: &'a Limits,
    progress: ProgressReporter<'a>,
}

impl<'a> Exchange<'a> {
    pub fn start(request: Request, limits: &'a Limits, progress: ProgressReporter<'a>) -> Result<Self, HttpError> {
        // Requests that are not redirected are signed; a signature may be in the query.
        let address = match request.redirects {
            true => request.address.clone(),
            false => without_query(&request.address).to_owned(),
        };
        let (to, parts) = sync_channel(4);
        // Ends the thread some time after the caller has given up.
        let longest = match limits.pace {
            Pace::AtLeast { each, .. } => each.max(limits.answer),
            Pace::Within(time) => time.max(limits.answer),
        };
        let thread = std::thread::Builder::new().name("http".to_owned());
        let wait = move || {
            let result = transfer(&request, longest + Duration::from_secs(1), &to);
            // Nobody may listen any more.
            let _ = to.send(result.map_or_else(Part::Failed, |()| Part::End));
        };
        thread.spawn(wait).map_err(HttpError::Thread)?;
        Ok(Self {
            address,
            parts,
            started: Instant::now(),
            limits,
            progress,
        })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// The next part; `None` if none comes before `deadline`.
    fn next(&self, deadline: Instant) -> Result<Option<Part>, Failure> {
        loop {
            self.progress.check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.parts.recv_timeout(left.min(POLL_INTERVAL)) {
                Ok(part) => return Ok(Some(part)),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.cut(0, "its thread ended".to_owned())),
            }
        }
    }

    /// Waits for the answer.
    pub fn head(&self) -> Result<Head, Failure> {
        match self.next(self.started + self.limits.answer)? {
            Some(Part::Head(head)) => Ok(head),
            Some(Part::Failed(error)) => Err(self.failed(0, error)),
            Some(Part::Bytes(_) | Part::End) | None => Err(HttpError::NoAnswer {
                address: self.address.clone(),
                limit: self.limits.answer,
            }
            .into()),
        }
    }

    /// Reads the body.
    pub fn body(&self, take: &mut dyn FnMut(&[u8]) -> Result<(), HttpError>) -> Result<(), Failure> {
        let (least, period) = match self.limits.pace {
            Pace::AtLeast { bytes, each } => (bytes, each),
            Pace::Within(time) => (u64::MAX, time),
        };
        let (mut received, mut since, mut in_period) = (0, Instant::now(), 0);
        loop {
            match self.next(since + period)? {
                Some(Part::Bytes(bytes)) => {
                    take(&bytes)?;
                    received += bytes.len() as u64;
                    in_period += bytes.len() as u64;
                }
                Some(Part::End) => return Ok(()),
                Some(Part::Failed(error)) => return Err(self.failed(received, error)),
                Some(Part::Head(_)) | None => {}
            }
            if since.elapsed() < period {
                continue;
            }
            if in_period < least {
                let error = HttpError::Slow {
                    address: self.address.clone(),
                    received,
                    pace: self.limits.pace,
                };
                // A connection that died without a word; what came is not lost.
                let again = if received > 0 { Again::After(None) } else { Again::No };
                return Err(Failure { error, again });
            }
            (since, in_period) = (Instant::now(), 0);
        }
    }

    /// The body in memory.
    pub fn bytes(&self, limit: u64) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        self.body(&mut |bytes| {
            if (all.len() + bytes.len()) as u64 > limit {
                return Err(self.too_large());
            }
            all.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(all)
    }

    pub fn too_large(&self) -> HttpError {
        HttpError::TooLarge {
            address: self.address.clone(),
            limit: self.limits.bytes,
        }
    }

    pub fn cut(&self, received: u64, cause: String) -> Failure {
        Failure {
            error: HttpError::Cut {
                address: self.address.clone(),
                received,
                cause,
            },
            again: Again::After(None),
        }
    }

    /// Another try may succeed if a connection that existed was lost.
    fn failed(&self, received: u64, error: ureq::Error) -> Failure {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let cause = redact::message(&error.to_string()).into_owned();
        match error {
            ureq::Error::Io(error)
                if matches!(
                    error.kind(),
                    BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
                ) =>
            {
                self.cut(received, cause)
            }
            _ => HttpError::Unreachable {
                address: self.address.clone(),
                cause,
            }
            .into(),
        }
    }
}

/// Sends a request and passes on the answer until nobody listens.
fn transfer(request: &Request, silence: Duration, to: &SyncSender<Part>) -> Result<(), ureq::Error> {
    let https_only = request.address.starts_with("https:");
    let silence = Some(silence);
    let mut headers = request.headers.clone();
    if let Some(authorization) = &request.authorization {
        headers.push(("Authorization".to_owned(), authorization.reveal().to_owned()));
    }
    if let Some((from, tag)) = &request.resume {
        let range = [("Range", format!("bytes={from}-")), ("If-Range", tag.clone())];
        headers.extend(range.map(|(name, value)| (name.to_owned(), value)));
    }
    let named = || {
        let start = ureq::http::Request::builder()
            .method(request.method)
            .uri(&request.address);
        headers
            .iter()
            .fold(start, |request, (name, value)| request.header(name, value))
    };
    let response = match &request.body {
        Some(body) => run(named().body(body.as_slice())?, request, https_only, silence)?,
        None => run(named().body(())?, request, https_only, silence)?,
    };
    if to.send(Part::Head(Head::of(&response))).is_err() {
        return Ok(());
    }
    let mut body = response.into_body().into_reader();
    loop {
        let mut bytes = vec![0; AT_ONCE];
        let count = body.read(&mut bytes).map_err(ureq::Error::Io)?;
        bytes.truncate(count);
        if count == 0 || to.send(Part::Bytes(bytes)).is_err() {
            return Ok(());
        }
    }
}

fn run(
    with_body: ureq::http::Request<impl AsSendBody>,
    request: &Request,
    https_only: bool,
    silence: Option<Duration>,
) -> Result<Response<Body>, ureq::Error> {
    let mut config = AGENT
        .configure_request(with_body)
        .https_only(https_only)
        .timeout_per_read(silence)
        .timeout_per_write(silence);
    if request.body.is_some() || !request.redirects {
        config = config.max_redirects(0);
        if is_this_machine(&request.address) {
            config = config.proxy(None);
        }
    }
    AGENT.run(config.build())
}
