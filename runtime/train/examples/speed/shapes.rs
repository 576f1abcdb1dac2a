//! Models and batches of the benchmark, also used to compare with another trainer.

use std::error::Error;

use aurora_compiler::fields::{Activation, AdamW, Architecture, ModelFields, WeightsFields, WeightsHow};
use aurora_runtime::checkpoint::groups;
use aurora_runtime::job::Files;
use aurora_train::train::batch::{MicroBatch, StepBatch};
use camino::Utf8Path;
use tch::Tensor;

/// A model and its batches.
pub struct BenchShape {
    pub model: ModelFields,
    pub sequence: usize,
    pub micro_batch: u32,
}

impl BenchShape {
    /// Draws initial weights into a folder.
    pub fn draw(&self, folder: &Utf8Path) -> Result<Files, Box<dyn Error>> {
        let weights = WeightsFields {
            model: self.model.clone(),
            how: WeightsHow::Random {
                seed: 1,
                std: "0.02".parse()?,
            },
        };
        aurora_runtime::weights::weights(&weights, None, folder, &|_| {})?;
        let groups = groups(&self.model);
        Ok(groups
            .iter()
            .map(|group| (group.weights(), folder.join(group.weights())))
            .collect())
    }
}

pub fn optimizer() -> Result<AdamW, Box<dyn Error>> {
    Ok(AdamW {
        beta1: "0.9".parse()?,
        beta2: "0.95".parse()?,
        epsilon: "1e-8".parse()?,
        weight_decay: "0.1".parse()?,
        clip: Some("1".parse()?),
    })
}

/// A shape by its name.
pub fn shape(name: &str) -> Result<BenchShape, Box<dyn Error>> {
    let bigcode = |layers, hidden, heads, vocabulary, context| -> Result<ModelFields, Box<dyn Error>> {
        Ok(ModelFields {
            architecture: Architecture::GptBigcode,
            layers,
            hidden,
            heads,
            kv_heads: 1,
            feed_forward: 4 * hidden,
            context,
            vocabulary,
            activation: Activation::GeluTanh,
            norm_epsilon: "1e-5".parse()?,
            rotary_base: None,
            tied_embeddings: true,
        })
    };
    match name {
        "large" => Ok(BenchShape {
            model: bigcode(8, 512, 8, 16_384, 512)?,
            sequence: 512,
            micro_batch: 4,
        }),
        "small" => Ok(BenchShape {
            model: bigcode(4, 128, 4, 4096, 128)?,
            sequence: 128,
            micro_batch: 32,
        }),
        "llama" => Ok(BenchShape {
            model: ModelFields {
                architecture: Architecture::Llama,
                kv_heads: 2,
                feed_forward: 352,
                activation: Activation::SwiGlu,
                rotary_base: Some("10000".parse()?),
                tied_embeddings: false,
                ..bigcode(4, 128, 4, 4096, 128)?
            },
            sequence: 128,
            micro_batch: 32,
        }),
        "smollm2" => Ok(BenchShape {
            model: ModelFields {
                architecture: Architecture::Llama,
                kv_heads: 3,
                feed_forward: 1536,
                activation: Activation::SwiGlu,
                rotary_base: Some("100000".parse()?),
                ..bigcode(30, 576, 9, 49_152, 256)?
            },
            sequence: 256,
            micro_batch: 4,
        }),
        // For a device.
        "smollm2-2048" => {
            let smollm2 = shape("smollm2")?;
            Ok(BenchShape {
                model: ModelFields {
                    context: 2048,
                    ..smollm2.model
                },
                sequence: 2048,
                micro_batch: 8,
            })
        }
        // The shape of Llama 3.2 1B.
        "llama-1b" => Ok(BenchShape {
            model: ModelFields {
                architecture: Architecture::Llama,
                kv_heads: 8,
                feed_forward: 8192,
                activation: Activation::SwiGlu,
                rotary_base: Some("500000".parse()?),
                ..bigcode(16, 2048, 32, 128_256, 2048)?
            },
            sequence: 2048,
            micro_batch: 4,
        }),
        _ => Err(format!("unknown shape `{name}`: use small, large, llama, smollm2, smollm2-2048 or llama-1b").into()),
    }
}

/// Ids with some structure, from a fixed generator.
fn ids(count: usize, vocabulary: u32, seed: u64) -> Vec<i64> {
    let mut state = seed * 2 + 1;
    let mut last = 0u64;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let draw = state >> 33;
        last = if draw.is_multiple_of(4) { draw / 4 } else { last * 3 + 1 } % u64::from(vocabulary);
        last as i64
    };
    (0..count).map(next).collect()
}

/// The batch of a step, and all its ids: of each sample, one more than the sequence.
pub fn batch(shape: &BenchShape, micro_batches: usize, step: u64) -> Result<(StepBatch, Vec<i64>), Box<dyn Error>> {
    let row = shape.sequence + 1;
    let all = ids(
        micro_batches * shape.micro_batch as usize * row,
        shape.model.vocabulary,
        step,
    );
    let micro_batches = all.chunks(shape.micro_batch as usize * row).map(|rows| {
        let part = |from: usize| -> Vec<i64> {
            rows.chunks(row)
                .flat_map(|sample| sample[from..from + shape.sequence].to_vec())
                .collect()
        };
        Ok(Some(MicroBatch {
            ids_t: Tensor::f_from_slice(&part(0))?,
            targets_t: Tensor::f_from_slice(&part(1))?,
        }))
    });
    let micro_batches = micro_batches.collect::<Result<Vec<_>, tch::TchError>>()?;
    Ok((
        StepBatch {
            targets: (micro_batches.len() * shape.micro_batch as usize * shape.sequence) as u64,
            micro_batches,
            samples: Vec::new(),
            digest: None,
        },
        all,
    ))
}
