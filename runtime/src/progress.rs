//! Progress reports and cancellation of long work.
//!
//! In: the caller's callback and flag. Out: the work calls the callback and polls the flag. Not here: drawing
//! (`cli/src/progress_display.rs`), clocks, signals.

use std::sync::atomic::{AtomicBool, Ordering};

/// The unit of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressUnit {
    Bytes,
    Members,
    Documents,
    Tokens,
    Samples,
    Merges,
    Answers,
    Programs,
}

impl ProgressUnit {
    /// The unit as it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Members => "files",
            Self::Documents => "documents",
            Self::Tokens => "tokens",
            Self::Samples => "samples",
            Self::Merges => "merges",
            Self::Answers => "answers",
            Self::Programs => "programs",
        }
    }
}

/// The progress of some work. Counts only grow; `total` is `None` while it is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    pub total: Option<u64>,
    pub unit: ProgressUnit,
}

/// The caller cancelled the work. Nothing that it has written may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped on request")]
pub struct Cancelled;

/// Receives the progress of a long function, and cancels it.
#[derive(Clone, Copy)]
pub struct ProgressReporter<'a> {
    report: &'a (dyn Fn(Progress) + Sync),
    cancel: &'a AtomicBool,
}

impl<'a> ProgressReporter<'a> {
    /// `report` may be called from any thread; `cancel` is polled often enough for a person at a terminal.
    pub fn new(report: &'a (dyn Fn(Progress) + Sync), cancel: &'a AtomicBool) -> Self {
        Self { report, cancel }
    }

    pub fn report(&self, done: u64, total: Option<u64>, unit: ProgressUnit) {
        (self.report)(Progress { done, total, unit });
    }

    /// Cancels the same work, and reports nothing: for one of several parts at once.
    pub fn quiet(self) -> Self {
        Self {
            report: &|_| {},
            cancel: self.cancel,
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// # Errors
    /// [`Cancelled`] once the flag is set.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }
}

impl ProgressReporter<'static> {
    /// Ignores the progress and never cancels.
    pub fn none() -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Self {
            report: &|_| {},
            cancel: &NEVER,
        }
    }
}
