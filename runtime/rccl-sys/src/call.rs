//! What a call gives: done, under way, or an error with the library's own words.

use std::ffi::{CStr, c_char, c_int};

use crate::types::{IN_PROGRESS, REMOTE_ERROR, SUCCESS};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("this library has no `{function}`")]
    NoFunction { function: String },
    /// A call of the collective library failed, or what it had begun did.
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
    #[error("there is no device: {cause}")]
    NoDevice { cause: String },
}

impl Error {
    /// Whether a peer has gone, as far as the library can tell.
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

/// How far a call that comes back at once has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Done,
    /// Nothing else may be called on the communicator and its stream before it is done.
    UnderWay,
}

impl Progress {
    /// The progress that a result code stands for; nothing if it is an error.
    pub(crate) fn of(code: c_int) -> Option<Self> {
        match code {
            SUCCESS => Some(Self::Done),
            IN_PROGRESS => Some(Self::UnderWay),
            _ => None,
        }
    }
}

/// A text that a library keeps for ever; empty for null.
///
/// # Safety
/// `text` is null or a C string that stays where it is.
pub(crate) unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller vouches for it.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
}
