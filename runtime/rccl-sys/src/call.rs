//! Result of a call: done, in progress, or an error with the library's own text.

use std::ffi::{CStr, c_char, c_int};

use crate::types::{IN_PROGRESS, REMOTE_ERROR, SUCCESS};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("this library has no `{function}`")]
    NoFunction { function: String },
    /// A call of the collective library failed, or the work that it started.
    #[error("`{function}` failed: {text}{}", brackets(detail))]
    Collective {
        function: &'static str,
        code: c_int,
        text: String,
        detail: String,
    },
    /// A call of the device runtime failed.
    #[error("`{function}` failed: {text}")]
    Runtime {
        function: String,
        code: c_int,
        text: String,
    },
    #[error("no device is available: {cause}")]
    NoDevice { cause: String },
}

impl Error {
    /// Whether the library reports a lost peer.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Collective { code, .. } if *code == REMOTE_ERROR)
    }
}

fn brackets(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(" ({detail})")
    }
}

/// Progress of a non-blocking call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Done,
    /// No other call on the communicator and its stream is allowed before it is done.
    InProgress,
}

impl Progress {
    /// The progress that a result code means; none for an error.
    pub(crate) fn of(code: c_int) -> Option<Self> {
        match code {
            SUCCESS => Some(Self::Done),
            IN_PROGRESS => Some(Self::InProgress),
            _ => None,
        }
    }
}

/// A text that a library keeps permanently; empty for null.
///
/// # Safety
/// `text` is null or a C string that stays valid.
pub(crate) unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: guaranteed by the caller.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
}
