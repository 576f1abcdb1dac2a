//! Which documents a step of a stage reads, and which steps read a document.
//!
//! In: the order of a stage, the token files of its components, its batch. Out: both directions, computed from the order and
//! the starts of the documents: nothing is read but a few entries of the indexes. Steps are counted from 1, as in the names of
//! checkpoints; positions, samples and tokens from 0. Not here: ids and sources of documents (`document_index`), where the
//! files are (`lookup`).

use std::ops::Range;

use rayon::prelude::*;

use super::order::{BLOCK, Order, Sample};
use super::tokens::{TokenStream, TokensError};

/// Uses that are computed on one thread: starting others would take longer.
const AT_ONCE: u64 = 1 << 14;

/// The data of one stage.
#[derive(Debug)]
pub struct StageData {
    order: Order,
    /// By component.
    streams: Vec<TokenStream>,
    /// Tokens of one sample.
    sequence: u64,
    /// Samples of one step.
    global_batch: u64,
    steps: u64,
}

/// A document, or a part of one, in a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentSpan {
    /// Token file of the component, and the number of the document in it.
    pub file: usize,
    pub document: u64,
    /// Tokens of the complete document.
    pub length: u64,
    /// The tokens that the sample reads, counted from the start of the document.
    pub in_document: Range<u64>,
    /// The same tokens, counted from the start of the sample.
    pub in_sample: Range<u64>,
}

/// A sample of a batch, with its documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleDocuments {
    /// In the stream of the stage's samples.
    pub position: u64,
    pub sample: Sample,
    /// In the order of the sample. They cover the `sequence + 1` tokens that the sample reads: the last one is only a target.
    pub spans: Vec<DocumentSpan>,
}

/// A sample that a stage reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    pub position: u64,
    pub step: u64,
    /// In the batch of the step.
    pub sample: u64,
    pub epoch: u64,
}

/// The steps that read some samples, and the epochs in which they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepRanges {
    /// First and last steps of the longest runs of steps.
    pub steps: Vec<(u64, u64)>,
    /// First and last epoch, counted from 0.
    pub epochs: Option<(u64, u64)>,
}

impl StageData {
    /// `streams` are the token files of each component, in the order of the components.
    pub fn new(order: Order, streams: Vec<TokenStream>, sequence: u32, global_batch: u32, steps: u64) -> Self {
        Self {
            order,
            streams,
            sequence: sequence.into(),
            global_batch: u64::from(global_batch).max(1),
            steps,
        }
    }

    pub fn streams(&self) -> &[TokenStream] {
        &self.streams
    }

    /// Positions of the stage.
    pub fn length(&self) -> u64 {
        self.steps * self.global_batch
    }

    /// The sample at a position of the stream, with its documents.
    ///
    /// # Errors
    /// The order has samples that the token files do not have, or an index is damaged.
    pub fn sample_at(&self, position: u64) -> Result<SampleDocuments, TokensError> {
        let sample = self.order.sample(position);
        let stream = &self.streams[sample.component];
        let start = sample.index * self.sequence;
        let end = start + self.sequence + 1;
        let mut spans: Vec<DocumentSpan> = Vec::new();
        let mut at = start;
        while at < end {
            let (file, within) = stream.locate(at)?;
            let tokens = &stream.files()[file];
            // Most documents follow the one before; only the first of a sample and those after empty ones are searched.
            let next = spans
                .last()
                .filter(|before| before.file == file)
                .map(|before| before.document + 1);
            let next = next.filter(|next| *next < tokens.num_documents());
            let follows = next.map(|next| tokens.document(next).map(|range| (next, range)));
            let follows = follows.transpose()?;
            let (document, range) = match follows.filter(|(_, range)| range.contains(&within)) {
                Some(found) => found,
                None => {
                    let document = tokens.document_at(within)?;
                    (document, tokens.document(document)?)
                }
            };
            let taken = range.end.saturating_sub(within).clamp(1, end - at);
            spans.push(DocumentSpan {
                file,
                document,
                length: range.end - range.start,
                in_document: within - range.start..within - range.start + taken,
                in_sample: at - start..at - start + taken,
            });
            at += taken;
        }
        Ok(SampleDocuments {
            position,
            sample,
            spans,
        })
    }

    /// The samples at some positions, found on all threads.
    ///
    /// # Errors
    /// As [`sample_at`](Self::sample_at).
    pub fn samples_at(&self, positions: Range<u64>) -> Result<Vec<SampleDocuments>, TokensError> {
        positions
            .into_par_iter()
            .map(|position| self.sample_at(position))
            .collect()
    }

    /// The tokens of a sample, the last target included.
    ///
    /// # Errors
    /// The token files do not have them.
    pub fn tokens(&self, sample: Sample) -> Result<Vec<i64>, TokensError> {
        let mut tokens = vec![0; self.sequence as usize + 1];
        self.streams[sample.component].read(sample.index * self.sequence, &mut tokens)?;
        Ok(tokens)
    }

    /// The samples of a component that read at least one of these tokens, which are positions in its stream.
    ///
    /// A sample reads one token more than `sequence`, with which the next one begins. The tokens after the last sample are read
    /// by none.
    pub fn samples_of(&self, component: usize, tokens: Range<u64>) -> Range<u64> {
        if tokens.is_empty() {
            return 0..0;
        }
        let all = self.order.epoch_length(component);
        let first = tokens.start.saturating_sub(1) / self.sequence;
        let end = (tokens.end - 1) / self.sequence + 1;
        first.min(all)..end.min(all)
    }

    /// Every use of some samples of a component in this stage, in the order of the stage. Takes time for each use, or for each
    /// draw of the component if these are fewer.
    pub fn uses(&self, component: usize, samples: &[Range<u64>]) -> Vec<Use> {
        let samples = merged(samples);
        let draws = self.draws(component);
        let by_sample = wanted(&samples).saturating_mul(self.epochs(component));
        let mut uses = if by_sample <= AT_ONCE {
            self.few_uses(component, &samples)
        } else if by_sample <= draws {
            self.uses_by_sample(component, &samples)
        } else {
            self.uses_by_draw(component, &samples)
        };
        uses.par_sort_unstable();
        uses
    }

    fn uses_by_sample(&self, component: usize, samples: &[Range<u64>]) -> Vec<Use> {
        let of_epoch = |epoch| {
            let samples = samples.par_iter().flat_map(|range| range.clone().into_par_iter());
            samples.filter_map(move |index| {
                let sample = Sample {
                    component,
                    index,
                    epoch,
                };
                self.use_at(self.order.position(sample)?, epoch)
            })
        };
        (0..self.epochs(component)).into_par_iter().flat_map(of_epoch).collect()
    }

    /// As [`uses_by_sample`](Self::uses_by_sample), on this thread.
    fn few_uses(&self, component: usize, samples: &[Range<u64>]) -> Vec<Use> {
        let mut uses = Vec::new();
        for epoch in 0..self.epochs(component) {
            for index in samples.iter().flat_map(Clone::clone) {
                let sample = Sample {
                    component,
                    index,
                    epoch,
                };
                let position = self.order.position(sample);
                uses.extend(position.and_then(|position| self.use_at(position, epoch)));
            }
        }
        uses
    }

    fn uses_by_draw(&self, component: usize, samples: &[Range<u64>]) -> Vec<Use> {
        let of_draw = |draw| {
            let (position, sample) = self.order.draw(component, draw)?;
            self.use_at(position, sample.epoch)
                .filter(|_| contains(samples, sample.index))
        };
        (0..self.draws(component)).into_par_iter().filter_map(of_draw).collect()
    }

    /// Draws of a component that this stage may reach: the last block may be cut, so that a later draw is in the stage and an
    /// earlier one is not.
    fn draws(&self, component: usize) -> u64 {
        self.order.counts(self.length())[component] + BLOCK
    }

    /// Epochs of a component that this stage may reach.
    fn epochs(&self, component: usize) -> u64 {
        match self.order.epoch_length(component) {
            0 => 0,
            length => self.draws(component).div_ceil(length),
        }
    }

    /// The use at a position, if the stage reaches it.
    fn use_at(&self, position: u64, epoch: u64) -> Option<Use> {
        (position < self.length()).then(|| Use {
            position,
            step: position / self.global_batch + 1,
            sample: position % self.global_batch,
            epoch,
        })
    }

    /// The steps and epochs that read some samples of a component.
    ///
    /// Either computes all uses, or goes through the steps and stops in each at the first use, whichever is less work; both give
    /// the same.
    pub fn step_ranges(&self, component: usize, samples: &[Range<u64>]) -> StepRanges {
        let samples = merged(samples);
        let (wanted, draws, all) = (
            wanted(&samples),
            self.draws(component),
            self.order.epoch_length(component),
        );
        if wanted == 0 || all == 0 {
            return StepRanges::default();
        }
        let computed = wanted.saturating_mul(self.epochs(component)).min(draws);
        let expected = u128::from(draws) * u128::from(wanted) / u128::from(all);
        // One of `gap` positions is a use, so a step is left after about this many positions.
        let gap = u64::try_from(u128::from(self.length()) / expected.max(1)).unwrap_or(u64::MAX);
        if computed <= self.steps.saturating_mul(gap.clamp(1, self.global_batch)) {
            self.ranges_by_use(component, &samples)
        } else {
            self.ranges_by_step(component, &samples)
        }
    }

    fn ranges_by_use(&self, component: usize, samples: &[Range<u64>]) -> StepRanges {
        let uses = self.uses(component, samples);
        let epochs = uses.iter().map(|at| at.epoch);
        StepRanges {
            epochs: epochs.clone().min().zip(epochs.max()),
            steps: ranges(uses.iter().map(|at| at.step)),
        }
    }

    fn ranges_by_step(&self, component: usize, samples: &[Range<u64>]) -> StepRanges {
        let is_use = |position: u64| self.epoch_of_use(component, samples, position).is_some();
        let steps: Vec<u64> = (0..self.steps)
            .into_par_iter()
            .filter(|step| (step * self.global_batch..(step + 1) * self.global_batch).any(is_use))
            .map(|step| step + 1)
            .collect();
        // A block mixes epochs, but no block has an earlier epoch than the blocks before it.
        let first = (0..self.length()).find(|&position| is_use(position));
        let last = (0..self.length()).rev().find(|&position| is_use(position));
        let around = |position: u64| {
            let near = position.saturating_sub(BLOCK)..self.length();
            let near = near.take(2 * BLOCK as usize);
            near.filter_map(|position| self.epoch_of_use(component, samples, position))
        };
        StepRanges {
            epochs: first
                .and_then(|first| around(first).min())
                .zip(last.and_then(|last| around(last).max())),
            steps: ranges(steps.into_iter()),
        }
    }

    /// The epoch of the sample at a position, if it is one of these.
    fn epoch_of_use(&self, component: usize, samples: &[Range<u64>], position: u64) -> Option<u64> {
        let sample = self.order.sample(position);
        if sample.component != component {
            return None;
        }
        contains(samples, sample.index).then_some(sample.epoch)
    }
}

/// The number of samples in ranges that do not overlap.
fn wanted(samples: &[Range<u64>]) -> u64 {
    samples.iter().map(|range| range.end - range.start).sum()
}

/// Whether one of these ranges, which are in order and do not overlap, has a sample.
fn contains(samples: &[Range<u64>], index: u64) -> bool {
    let range = samples.partition_point(|range| range.end <= index);
    samples.get(range).is_some_and(|range| range.contains(&index))
}

/// Ranges in order, without those that are empty or overlap.
fn merged(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The runs of numbers that increase or repeat.
fn ranges(numbers: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if number <= *last + 1 => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests;
