//! The batch of a step, out of token files and the data order.

use aurora_runtime::data::order::Order;
use aurora_runtime::data::tokens::TokenStream;
use aurora_runtime::job::TrainJob;
use tch::Tensor;

use super::TrainError;
use crate::model::ModelError;

/// Ids and targets of one micro-batch, `[b·s]` each.
#[derive(Debug)]
pub struct MicroBatch {
    pub ids: Tensor,
    pub targets: Tensor,
}

/// All micro-batches of a step, in order.
#[derive(Debug)]
pub struct Batch {
    pub micro_batches: Vec<MicroBatch>,
    /// Samples by component of the order.
    pub samples: Vec<u64>,
    /// BLAKE3 (hex) of the samples' token ids (u32, little-endian), the last target included, in sample order.
    pub digest: String,
}

/// Where batches come from. Holds no position: a step's batch is a function of the step.
#[derive(Debug)]
pub struct Batches {
    order: Order,
    streams: Vec<TokenStream>,
    names: Vec<String>,
    sequence: usize,
    global_batch: u64,
    micro_batch: usize,
    vocabulary: usize,
}

impl Batches {
    /// # Errors
    /// [`TrainError::Tokens`] if a file is not what it should be, [`TrainError::Order`], [`TrainError::Unfit`].
    pub fn new(job: &TrainJob, micro_batch: usize) -> Result<Self, TrainError> {
        let names: Vec<String> = job
            .order
            .components
            .iter()
            .map(|component| component.name.clone())
            .collect();
        if job.tokens.len() != names.len() {
            let text = format!(
                "{} components have {} sets of token files",
                names.len(),
                job.tokens.len()
            );
            return Err(TrainError::Unfit(text));
        }
        if job.order.sequence != job.fields.sequence {
            let text = format!(
                "an order of samples of {} tokens for {}",
                job.order.sequence, job.fields.sequence
            );
            return Err(TrainError::Unfit(text));
        }
        let open = |(component, files): (&String, &Vec<aurora_runtime::job::TokenPaths>)| {
            TokenStream::open(files.iter().map(|file| (file.bin.as_path(), file.idx.as_path()))).map_err(|source| {
                TrainError::Tokens {
                    component: component.clone(),
                    source,
                }
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
        })
    }

    /// The batch of step `step`, counted from 0.
    ///
    /// # Errors
    /// [`TrainError::Tokens`] if a file cannot be read, [`TrainError::Token`] if an id is outside the vocabulary.
    pub fn batch(&self, step: u64) -> Result<Batch, TrainError> {
        let length = self.sequence + 1;
        let mut samples = vec![0; self.names.len()];
        let mut micro_batches = Vec::new();
        let (mut ids, mut targets) = (Vec::new(), Vec::new());
        let mut tokens = vec![0i64; length];
        let mut bytes = Vec::with_capacity(4 * length);
        let mut hasher = blake3::Hasher::new();
        for place in step * self.global_batch..(step + 1) * self.global_batch {
            let sample = self.order.sample(place);
            samples[sample.component] += 1;
            let start = sample.index * self.sequence as u64;
            self.streams[sample.component]
                .read(start, &mut tokens)
                .map_err(|source| TrainError::Tokens {
                    component: self.names[sample.component].clone(),
                    source,
                })?;
            bytes.clear();
            for (at, &token) in tokens.iter().enumerate() {
                if token < 0 || token >= self.vocabulary as i64 {
                    return Err(TrainError::Token {
                        component: self.names[sample.component].clone(),
                        position: start + at as u64,
                        token,
                        vocabulary: self.vocabulary,
                    });
                }
                bytes.extend_from_slice(&(token as u32).to_le_bytes());
            }
            hasher.update(&bytes);
            ids.extend_from_slice(&tokens[..self.sequence]);
            targets.extend_from_slice(&tokens[1..]);
            if ids.len() == self.micro_batch * self.sequence {
                let tensor = |ids: &[i64]| Tensor::f_from_slice(ids).map_err(ModelError::from);
                micro_batches.push(MicroBatch {
                    ids: tensor(&ids)?,
                    targets: tensor(&targets)?,
                });
                ids.clear();
                targets.clear();
            }
        }
        Ok(Batch {
            micro_batches,
            samples,
            digest: hasher.finalize().to_hex().to_string(),
        })
    }

    /// What a batch holds, in words.
    pub fn describe(&self, samples: &[u64]) -> String {
        let each = self.names.iter().zip(samples).filter(|(_, count)| **count > 0);
        let parts: Vec<String> = each.map(|(name, count)| format!("`{name}` × {count}")).collect();
        parts.join(", ")
    }
}
