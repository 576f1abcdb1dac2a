//! How long work reports how far it is, and how it is told to stop.
//!
//! In: a callback and a flag of the caller's. Out: calls of the one, looks at the other. Not here: drawing, clocks,
//! signals.

use std::sync::atomic::{AtomicBool, Ordering};

/// What is being counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Members,
    Documents,
    Tokens,
    Samples,
    Merges,
    Answers,
    Programs,
}

impl Unit {
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

/// How far a piece of work has come. Counts only grow; `total` is missing where nobody knows it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    pub total: Option<u64>,
    pub unit: Unit,
}

/// The caller asked the work to stop. Nothing that was written so far may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped on request")]
pub struct Cancelled;

/// What every long function of this crate is given beside its inputs.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    report: &'a (dyn Fn(Progress) + Sync),
    cancel: &'a AtomicBool,
}

impl<'a> Watch<'a> {
    /// `report` may be called from any thread; `cancel` is looked at often enough for a person at a terminal.
    pub fn new(report: &'a (dyn Fn(Progress) + Sync), cancel: &'a AtomicBool) -> Self {
        Self { report, cancel }
    }

    pub fn report(&self, done: u64, total: Option<u64>, unit: Unit) {
        (self.report)(Progress { done, total, unit });
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// # Errors
    /// [`Cancelled`] once the flag is up.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }
}

impl Watch<'static> {
    /// Reports to nobody and is never stopped.
    pub fn nobody() -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Self {
            report: &|_| {},
            cancel: &NEVER,
        }
    }
}
