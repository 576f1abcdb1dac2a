//! The HTTP client of the object stores: limits, retries, proxies and redaction are those of this module.
//!
//! In: a request that `object_store` has signed. Out: its answer, whole in memory: objects are read in ranges. A call blocks
//! its thread, so it is for a runtime that does nothing else. A request that fails for a passing reason is repeated, a
//! bounded number of times; `object_store` itself repeats none. Requests are never redirected: they have a signature.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError as StoreError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};

use super::exchange::{Exchange, Request, is_this_machine, without_query};
use super::{ERROR_BODY, Failure, HttpError, Limits, Tries, is_passing, refused};
use crate::progress::ProgressReporter;
use crate::redact;

/// The shortest value of a header that is removed from what a server says, bytes.
const SHORTEST_SECRET: usize = 8;

/// Makes clients for object stores.
#[derive(Clone, Debug)]
pub struct Connector {
    limits: Limits,
    cancel: Arc<AtomicBool>,
}

impl Connector {
    /// A client whose calls end once `cancel` is set.
    pub fn new(limits: Limits, cancel: Arc<AtomicBool>) -> Self {
        Self { limits, cancel }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.clone())))
    }
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the request is not text")]
    NotText,
    #[error("an encrypted store is reached by `https:`; `http:` is for a store on this machine")]
    NotEncrypted,
}

#[derive(Debug)]
struct Service(Connector);

type Call<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, StoreError>> + Send + 'a>>;

impl HttpService for Service {
    fn call<'life0, 'async_trait>(&'life0 self, request: HttpRequest) -> Call<'async_trait>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let failed = |error: ServiceError| {
            let kind = match &error {
                ServiceError::Http(HttpError::Unreachable { .. }) => HttpErrorKind::Connect,
                ServiceError::Http(HttpError::NoAnswer { .. } | HttpError::Slow { .. }) => HttpErrorKind::Timeout,
                ServiceError::Http(HttpError::Cut { .. }) => HttpErrorKind::Interrupted,
                _ => HttpErrorKind::Unknown,
            };
            StoreError::new(kind, error)
        };
        Box::pin(ready(self.answer(request).map_err(failed)))
    }
}

impl Service {
    fn answer(&self, request: HttpRequest) -> Result<HttpResponse, ServiceError> {
        let Connector { limits, cancel } = &self.0;
        let progress = ProgressReporter::new(&|_| {}, cancel);
        let (parts, body) = request.into_parts();
        let method = match parts.method.as_str() {
            "HEAD" => "HEAD",
            "PUT" => "PUT",
            "POST" => "POST",
            _ => "GET",
        };
        let mut headers = Vec::new();
        for (name, value) in &parts.headers {
            let value = value.to_str().map_err(|_| ServiceError::NotText)?;
            headers.push((name.as_str().to_owned(), value.to_owned()));
        }
        let body = body.as_bytes().map(|body| body.to_vec());
        let body = body.filter(|body| !body.is_empty() || matches!(method, "PUT" | "POST"));
        let address = parts.uri.to_string();
        is_encrypted(&address)?;
        let attempt = || -> Result<HttpResponse, Failure> {
            let request = Request {
                method,
                body: body.clone(),
                headers: headers.clone(),
                redirects: false,
                ..Request::get(&address, None)
            };
            let exchange = Exchange::start(request, limits, progress)?;
            let head = exchange.head().map_err(Failure::may_pass)?;
            if is_passing(head.status) {
                return Err(refused(exchange, &head));
            }
            let mut bytes = exchange.bytes(limits.bytes).map_err(Failure::may_pass)?;
            // A proxy may state another length than that of the range.
            let mut stated = [head.length, head.range].into_iter().flatten();
            if let Some(stated) = stated.find(|stated| method != "HEAD" && *stated != bytes.len() as u64) {
                return Err(exchange.cut(bytes.len() as u64, format!("it states {stated} bytes")));
            }
            if !(200..300).contains(&head.status) {
                bytes = said(&bytes, &headers, &address).into_bytes();
            }
            let mut answer = HttpResponse::new(bytes.into());
            *answer.status_mut() = head.code;
            *answer.headers_mut() = head.headers;
            Ok(answer)
        };
        let mut tries = Tries::new(limits);
        loop {
            match attempt() {
                Ok(answer) => return Ok(answer),
                Err(mut failure) => {
                    if let HttpError::Status { body, .. } = &mut failure.error {
                        *body = said(body.as_bytes(), &headers, &address);
                    }
                    tries.wait(failure, without_query(&address), progress)?;
                }
            }
        }
    }
}

/// Requests go over encrypted connections, except to this machine and to the one that gives a virtual machine its identity.
fn is_encrypted(address: &str) -> Result<(), ServiceError> {
    let rest = address.strip_prefix("http://");
    let host = rest.map(|rest| rest.split(['/', ':']).next().unwrap_or_default());
    let is_identity = matches!(
        host,
        Some("169.254.169.254" | "169.254.170.2" | "metadata.google.internal")
    );
    match host.is_none() || is_identity || is_this_machine(address) {
        true => Ok(()),
        false => Err(ServiceError::NotEncrypted),
    }
}

/// What a server says, without the values of the headers and of the address that it may repeat: they have keys and
/// signatures.
fn said(bytes: &[u8], headers: &[(String, String)], address: &str) -> String {
    let mut text = redact::message(&String::from_utf8_lossy(bytes)).into_owned();
    let query = address.split_once('?').map_or("", |(_, query)| query);
    for (name, value) in query.split('&').filter_map(|parameter| parameter.split_once('=')) {
        let name = name.to_ascii_lowercase();
        let is_secret = ["sig", "token", "credential", "key"]
            .iter()
            .any(|part| name.contains(part));
        if is_secret && value.len() >= SHORTEST_SECRET {
            text = text.replace(value, "***");
        }
    }
    for (name, value) in headers {
        if !matches!(name.as_str(), "authorization" | "x-amz-security-token") && !name.contains("token") {
            continue;
        }
        // `AWS4-HMAC-SHA256 Credential=…, Signature=…`: the values, not their names.
        let parts = value.split([',', ' ']).filter_map(|part| Some(part.split_once('=')?.1));
        let parts = parts.filter(|part| part.len() >= SHORTEST_SECRET);
        for secret in std::iter::once(value.as_str()).chain(parts) {
            text = text.replace(secret, "***");
        }
    }
    match text.char_indices().nth(ERROR_BODY) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
