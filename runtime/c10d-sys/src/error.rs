//! Errors of c10d and Gloo, and their kinds.

use std::error;
use std::ffi::{CString, c_char, c_int};
use std::fmt;

use crate::raw;

/// The kind of an error, derived from its text: Gloo's errors have no types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The connection to a peer was closed.
    Closed,
    /// Nothing happened within the time limit.
    TimedOut,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    text: String,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, text: String) -> Self {
        Self { kind, text }
    }

    /// Parses an error text of c10d or Gloo.
    fn from_library(text: &str) -> Self {
        // The source location comes first: "[/pytorch/third_party/gloo/…/pair.cc:553] ".
        let text = match text.split_once("] ") {
            Some((place, rest)) if place.starts_with("[/") => rest,
            _ => text,
        };
        // General advice follows the cause: ". This is typically caused by a remote worker crashing. Check …".
        let text = text.split(". This is typically").next().unwrap_or(text);
        let text = text.lines().next().unwrap_or(text).trim();
        let any = |words: &[&str]| words.iter().any(|words| text.contains(words));
        let kind = if any(&["Connection closed by peer", "Read error", "writev ", "Socket closed"]) {
            ErrorKind::Closed
        } else if any(&["Timed out", "timed out", "timeout after"]) {
            ErrorKind::TimedOut
        } else {
            ErrorKind::Other
        };
        Self::new(kind, text.to_owned())
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl error::Error for Error {}

/// Calls a function of the shim.
pub(crate) fn attempt(call: impl FnOnce(raw::ErrorText) -> c_int) -> Result<(), Error> {
    let mut bytes = [0u8; 2048];
    let text = raw::ErrorText {
        bytes: bytes.as_mut_ptr().cast::<c_char>(),
        capacity: bytes.len(),
    };
    let status = call(text);
    if status == 0 {
        return Ok(());
    }
    let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let error = Error::from_library(&String::from_utf8_lossy(&bytes[..length]));
    Err(match status {
        2 => Error::new(ErrorKind::TimedOut, error.text),
        _ => error,
    })
}

pub(crate) fn text(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::new(ErrorKind::Other, format!("{text:?} contains a zero byte")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_derived_from_texts() {
        let closed = Error::from_library(
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:4711. \
             This is typically caused by a remote worker crashing. Check the logs of the remote worker.",
        );
        assert_eq!(
            closed,
            Error::new(
                ErrorKind::Closed,
                "Connection closed by peer [127.0.0.1]:4711".to_owned()
            )
        );
        let reset =
            Error::from_library("[/x/pair.cc:1] Read error [127.0.0.1]:1: Connection reset by peer. This is typically");
        assert_eq!(reset.kind(), ErrorKind::Closed);
        assert_eq!(reset.to_string(), "Read error [127.0.0.1]:1: Connection reset by peer");
        let silent =
            Error::from_library("[/x/unbound_buffer.cc:81] Timed out waiting 5000ms for recv operation to complete");
        assert_eq!(silent.kind(), ErrorKind::TimedOut);
        let later = Error::from_library("Application timeout caused pair closure");
        assert_eq!(later.kind(), ErrorKind::Other);
    }
}
