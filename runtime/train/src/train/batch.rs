//! The batch of a step, from token files and the data order.

use aurora_runtime::data::order::Order;
use aurora_runtime::data::tokens::{TokenFile, TokenStream};
use aurora_runtime::job::{TokenPaths, TrainJob};
use tch::Tensor;

use super::TrainError;
use super::batch_log::{BatchLog, LoggedSample};

/// Ids and targets of one micro-batch, `[b·s]` each; a target that is not trained on is −1.
#[derive(Debug)]
pub struct MicroBatch {
    pub ids_t: Tensor,
    pub targets_t: Tensor,
}

/// The micro-batches of one optimizer step.
#[derive(Debug)]
pub struct StepBatch {
    /// In order; none for those that were not read.
    pub micro_batches: Vec<Option<MicroBatch>>,
    /// Samples by component of the data order.
    pub samples: Vec<u64>,
    /// Targets that are trained on, in all micro-batches.
    pub targets: u64,
    /// BLAKE3 (hex) of the samples' token ids (u32, little-endian), including the last target, in sample order; only if
    /// all micro-batches were read.
    pub digest: Option<String>,
}

/// Reads batches. Has no position: a step's batch is a function of the step.
#[derive(Debug)]
pub struct StepBatches {
    order: Order,
    streams: Vec<TokenStream>,
    names: Vec<String>,
    sequence: usize,
    global_batch: u64,
    micro_batch: usize,
    vocabulary: usize,
    node: String,
    log: BatchLog,
}

impl StepBatches {
    /// # Errors
    /// [`TrainError::Tokens`] if a file is invalid, [`TrainError::Order`], [`TrainError::Job`].
    pub fn new(job: &TrainJob, micro_batch: usize) -> Result<Self, TrainError> {
        let names: Vec<String> = job
            .order
            .components
            .iter()
            .map(|component| component.name.clone())
            .collect();
        if job.tokens.len() != names.len() {
            let text = format!(
                "{} components, but {} sets of token files",
                names.len(),
                job.tokens.len()
            );
            return Err(TrainError::Job(text));
        }
        if job.order.sequence != job.fields.sequence {
            let text = format!(
                "the data order has samples of {} tokens, the job {}",
                job.order.sequence, job.fields.sequence
            );
            return Err(TrainError::Job(text));
        }
        let open = |(component, files): (&String, &Vec<TokenPaths>)| {
            let open = |file: &TokenPaths| {
                let tokens = TokenFile::open(&file.bin, &file.idx)?;
                match &file.mask {
                    Some(mask) => tokens.masked(mask),
                    None => Ok(tokens),
                }
            };
            let files = files.iter().map(open).collect::<Result<Vec<_>, _>>();
            files.and_then(TokenStream::new).map_err(|source| TrainError::Tokens {
                component: component.clone(),
                source,
            })
        };
        let streams = names.iter().zip(&job.tokens).map(open).collect::<Result<Vec<_>, _>>()?;
        let samples: Vec<u64> = streams
            .iter()
            .map(|stream| stream.num_samples(job.fields.sequence))
            .collect();
        Ok(Self {
            order: Order::new(&job.order, &samples)?,
            streams,
            names,
            sequence: job.fields.sequence as usize,
            global_batch: u64::from(job.fields.global_batch),
            micro_batch,
            vocabulary: job.fields.model.vocabulary as usize,
            node: job.node.clone(),
            log: BatchLog::open(),
        })
    }

    /// Micro-batches of a step.
    pub fn count(&self) -> usize {
        self.global_batch as usize / self.micro_batch
    }

    /// The batch of step `step`, counted from 0: the micro-batches that `own` selects, or with `all` every one and
    /// their digest.
    ///
    /// # Errors
    /// [`TrainError::Tokens`] if a file cannot be read, [`TrainError::Token`] if an id is outside the vocabulary.
    pub fn batch(&self, step: u64, own: impl Fn(usize) -> bool, all: bool) -> Result<StepBatch, TrainError> {
        let mut samples = vec![0; self.names.len()];
        let mut micro_batches = Vec::new();
        let mut tokens = vec![0i64; self.sequence + 1];
        let mut bytes = Vec::with_capacity(4 * tokens.len());
        let mut hasher = blake3::Hasher::new();
        let mut trained = vec![true; self.sequence];
        let mut all_targets = 0;
        for index in 0..self.count() {
            let wanted = own(index);
            let (mut ids, mut targets) = (Vec::new(), Vec::new());
            let first = step * self.global_batch + (index * self.micro_batch) as u64;
            for place in first..first + self.micro_batch as u64 {
                let sample = self.order.sample(place);
                samples[sample.component] += 1;
                let own = self.trained(sample.component, sample.index, &mut trained)?;
                all_targets += own;
                if !wanted && !all {
                    continue;
                }
                self.read(sample.component, sample.index, &mut tokens)?;
                if all {
                    bytes.clear();
                    bytes.extend(tokens.iter().flat_map(|token| (*token as u32).to_le_bytes()));
                    hasher.update(&bytes);
                }
                if wanted {
                    self.log.record(&LoggedSample {
                        node: &self.node,
                        step: step + 1,
                        sample: place - step * self.global_batch,
                        component: &self.names[sample.component],
                        epoch: sample.epoch,
                        start: sample.index * self.sequence as u64,
                        tokens: &tokens,
                    });
                }
                ids.extend_from_slice(&tokens[..self.sequence]);
                let target = |(&token, &trained): (&i64, &bool)| if trained { token } else { -1 };
                targets.extend(tokens[1..].iter().zip(&trained).map(target));
            }
            let tensor = |ids: &[i64]| Tensor::f_from_slice(ids);
            micro_batches.push(if wanted {
                Some(MicroBatch {
                    ids_t: tensor(&ids)?,
                    targets_t: tensor(&targets)?,
                })
            } else {
                None
            });
        }
        Ok(StepBatch {
            micro_batches,
            samples,
            targets: all_targets,
            digest: all.then(|| hasher.finalize().to_hex().to_string()),
        })
    }

    /// Writes which targets of a sample are trained on; returns their number.
    fn trained(&self, component: usize, index: u64, trained: &mut [bool]) -> Result<u64, TrainError> {
        let stream = &self.streams[component];
        if !stream.is_masked() {
            trained.fill(true);
            return Ok(trained.len() as u64);
        }
        let start = index * self.sequence as u64 + 1;
        stream.trained(start, trained).map_err(|source| TrainError::Tokens {
            component: self.names[component].clone(),
            source,
        })?;
        Ok(trained.iter().filter(|trained| **trained).count() as u64)
    }

    /// Reads the tokens of a sample and the one after them.
    fn read(&self, component: usize, index: u64, tokens: &mut [i64]) -> Result<(), TrainError> {
        let start = index * self.sequence as u64;
        self.streams[component]
            .read(start, tokens)
            .map_err(|source| TrainError::Tokens {
                component: self.names[component].clone(),
                source,
            })?;
        let outside = tokens
            .iter()
            .position(|&token| token < 0 || token >= self.vocabulary as i64);
        match outside {
            None => Ok(()),
            Some(at) => Err(TrainError::Token {
                component: self.names[component].clone(),
                position: start + at as u64,
                token: tokens[at],
                vocabulary: self.vocabulary,
            }),
        }
    }

    /// Describes a batch as text.
    pub fn describe(&self, samples: &[u64]) -> String {
        let each = self.names.iter().zip(samples).filter(|(_, count)| **count > 0);
        let parts: Vec<String> = each.map(|(name, count)| format!("`{name}` × {count}")).collect();
        parts.join(", ")
    }
}
