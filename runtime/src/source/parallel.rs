//! Fetches the files of one source at once, and counts the bytes of all.
//!
//! In: items and the work for one. Out: the results in the order of the items. Not here: sources at once (`pin`).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::FetchError;
use crate::progress::{ProgressReporter, ProgressUnit};

/// Files of a source that are fetched at a time; the network is the bottleneck.
const AT_ONCE: usize = 4;

/// The bytes that all threads have fetched.
pub(super) struct Meter<'a> {
    done: AtomicU64,
    total: Option<u64>,
    progress: ProgressReporter<'a>,
}

impl<'a> Meter<'a> {
    pub fn new(total: Option<u64>, progress: ProgressReporter<'a>) -> Self {
        let done = AtomicU64::new(0);
        Self { done, total, progress }
    }

    pub fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.progress.report(done, self.total, ProgressUnit::Bytes);
    }
}

/// Calls `work` for every item. After an error no further item is begun; the error of the first item that has one is
/// returned.
pub(super) fn each<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, FetchError> + Sync,
) -> Result<Vec<R>, FetchError> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<R, FetchError>>>> = Mutex::new(items.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { break };
                    let result = work(item);
                    if result.is_err() {
                        next.store(items.len(), Ordering::Relaxed);
                    }
                    results.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(result);
                }
            });
        }
    });
    // Items that were not begun come after one with an error or are absent.
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut all = Vec::with_capacity(items.len());
    let mut first = None;
    for result in results.into_iter().flatten() {
        match result {
            Ok(result) => all.push(result),
            Err(error) => first = first.or(Some(error)),
        }
    }
    match first {
        Some(error) => Err(error),
        None => Ok(all),
    }
}
