//! Divides documents into windows, and groups windows into batches of fixed shapes.

use std::ops::Range;

use aurora_runtime::data::tokens::TokenStream;
use aurora_runtime::job::EvalJob;

use crate::train::TrainError;

/// Tokens of one batch, padding included. Part of the arithmetic: it determines the shapes that kernels get.
const BATCH_TOKENS: usize = 256;

/// The length that a window is padded to: a multiple of 16, or of a sixteenth of the next power of two if that is more;
/// at most `window`.
pub fn padded(length: usize, window: usize) -> usize {
    let step = (length.next_power_of_two() / 16).max(16);
    length.max(1).next_multiple_of(step).min(window)
}

/// Sequences of a batch of windows of one padded length.
pub fn sequences(length: usize) -> usize {
    (BATCH_TOKENS / length).max(1)
}

/// A range of a document whose tokens are scored. Windows are full: a document's last window, which scores the rest,
/// reads tokens before it again, as lm-evaluation-harness does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Position in the set's token stream.
    pub start: u64,
    /// Scored tokens.
    pub length: usize,
    /// Tokens before them that are read again.
    pub before: usize,
    /// Whether it starts a document.
    pub first: bool,
    /// Index of its document in the set.
    pub document: usize,
}

#[derive(Debug)]
pub struct ScoredSet {
    pub name: String,
    stream: TokenStream,
    end_of_document: i64,
    /// In document order.
    pub windows: Vec<Window>,
    pub documents: u64,
    /// Scored tokens.
    pub tokens: u64,
    pub bytes: u64,
}

/// Windows of one padded length.
#[derive(Clone, Debug)]
pub struct WindowBatch {
    pub length: usize,
    /// Set and index of each window.
    pub windows: Vec<(usize, usize)>,
    /// Rows of each window that are scored.
    rows: Vec<Range<usize>>,
}

impl WindowBatch {
    /// Set and index of each window, and its rows that are scored.
    pub fn own(&self) -> impl Iterator<Item = (usize, usize, Range<usize>)> + '_ {
        self.windows
            .iter()
            .zip(&self.rows)
            .map(|(&(set, window), rows)| (set, window, rows.clone()))
    }
}

/// All windows of a job.
#[derive(Debug)]
pub struct Windows {
    pub sets: Vec<ScoredSet>,
    window: usize,
    vocabulary: i64,
}

impl Windows {
    /// # Errors
    /// [`TrainError::Job`] if sets and files do not match or a set is empty, [`TrainError::Tokens`].
    pub fn open(job: &EvalJob) -> Result<Self, TrainError> {
        let window = job.fields.window as usize;
        if job.fields.sets.len() != job.sets.len() || window == 0 {
            let text = format!(
                "{} sets, files of {} sets, windows of {window} tokens",
                job.fields.sets.len(),
                job.sets.len()
            );
            return Err(TrainError::Job(text));
        }
        let mut sets = Vec::new();
        for (fields, paths) in job.fields.sets.iter().zip(&job.sets) {
            let name = fields.name.clone();
            let wrap = |source| TrainError::Tokens {
                component: name.clone(),
                source,
            };
            let files = paths.files.iter().map(|file| (file.bin.as_path(), file.idx.as_path()));
            let stream = TokenStream::open(files).map_err(wrap)?;
            let end_of_document = i64::from(paths.end_of_document);
            let mut set = ScoredSet {
                name: name.clone(),
                end_of_document,
                windows: Vec::new(),
                documents: 0,
                tokens: 0,
                bytes: paths.bytes,
                stream,
            };
            let mut offset = 0;
            for file in set.stream.files() {
                for document in 0..file.num_documents() {
                    let Range { start, end } = file.document(document).map_err(wrap)?;
                    let mut last = [end_of_document];
                    if start < end {
                        file.read(end - 1, &mut last).map_err(wrap)?;
                    }
                    if last[0] != end_of_document {
                        let text = format!("document {document} of `{name}` does not end with id {end_of_document}");
                        return Err(TrainError::Job(text));
                    }
                    set.documents += 1;
                    let scored = end.saturating_sub(start + 1);
                    set.tokens += scored;
                    let starts = (0..scored).step_by(window);
                    set.windows.extend(starts.map(|at| {
                        let length = (scored - at).min(window as u64) as usize;
                        Window {
                            start: offset + start + at,
                            length,
                            before: if at == 0 { 0 } else { window - length },
                            first: at == 0,
                            document: set.documents as usize - 1,
                        }
                    }));
                }
                offset += file.num_tokens();
            }
            if set.tokens == 0 || set.bytes == 0 {
                return Err(TrainError::Job(format!("`{name}` has no tokens to score")));
            }
            sets.push(set);
        }
        Ok(Self {
            sets,
            window,
            vocabulary: i64::from(job.fields.model.vocabulary),
        })
    }

    /// The batches: in order of padded length; within one length, windows in the order of sets and documents.
    pub fn batches(&self) -> Vec<WindowBatch> {
        let mut all: Vec<(usize, usize, usize)> = Vec::new();
        for (set, own) in self.sets.iter().enumerate() {
            let of = |(at, window): (usize, &Window)| (padded(window.before + window.length, self.window), set, at);
            all.extend(own.windows.iter().enumerate().map(of));
        }
        all.sort_unstable();
        let mut batches = Vec::new();
        for bucket in all.chunk_by(|a, b| a.0 == b.0) {
            for chunk in bucket.chunks(sequences(bucket[0].0)) {
                let rows = |&(_, set, at): &(usize, usize, usize)| {
                    let Window { before, length, .. } = self.sets[set].windows[at];
                    before..before + length
                };
                batches.push(WindowBatch {
                    length: bucket[0].0,
                    windows: chunk.iter().map(|&(_, set, at)| (set, at)).collect(),
                    rows: chunk.iter().map(rows).collect(),
                });
            }
        }
        batches
    }

    /// Ids and targets of a batch in its full shape; padding has id 0.
    ///
    /// # Errors
    /// [`TrainError::Tokens`], [`TrainError::Token`].
    pub fn read(&self, batch: &WindowBatch) -> Result<(Vec<i64>, Vec<i64>), TrainError> {
        let size = sequences(batch.length) * batch.length;
        let (mut ids, mut targets) = (vec![0; size], vec![0; size]);
        let rows = ids
            .chunks_exact_mut(batch.length)
            .zip(targets.chunks_exact_mut(batch.length));
        for ((ids, targets), &(set, at)) in rows.zip(&batch.windows) {
            let set = &self.sets[set];
            let window = set.windows[at];
            let read = |start: u64, out: &mut [i64]| {
                let wrap = |source| TrainError::Tokens {
                    component: set.name.clone(),
                    source,
                };
                set.stream.read(start, out).map_err(wrap)
            };
            let (start, length) = (window.start - window.before as u64, window.before + window.length);
            read(start, &mut targets[..length])?;
            if window.first {
                ids[0] = set.end_of_document;
            } else {
                read(start - 1, &mut ids[..1])?;
            }
            ids[1..length].copy_from_slice(&targets[..length - 1]);
            for (at, &token) in ids[..length].iter().chain(&targets[..length]).enumerate() {
                if token < 0 || token >= self.vocabulary {
                    return Err(TrainError::Token {
                        component: set.name.clone(),
                        position: start + at as u64,
                        token,
                        vocabulary: self.vocabulary as usize,
                    });
                }
            }
        }
        Ok((ids, targets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padded_lengths_are_few_and_never_too_short() {
        let lengths: Vec<usize> = (1..=200).map(|length| padded(length, 200)).collect();
        assert!(lengths.iter().zip(1..).all(|(padded, length)| *padded >= length));
        let mut distinct = lengths;
        distinct.dedup();
        assert_eq!(distinct, [16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 200]);
        assert_eq!([257, 600, 2000].map(|length| padded(length, 4096)), [288, 640, 2048]);
        assert_eq!(padded(3, 8), 8);
    }
}
