//! Tokens per second of training steps at two shapes, and the losses of the first steps.
//!
//! `speed [--shape small|large] [--numerics invariant|native] [--tensor N] [--lanes N] [--threads N] [--steps N]
//! [--micro-batch SEQUENCES] [--micro-batches N]
//! [--precision f32|bf16] [--recompute none|selective|full] [--dump FOLDER]`
//!
//! `--dump` leaves initial weights, batches and losses in a folder, for a comparison with another trainer.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use aurora_compiler::fields::{
    Activation, AdamW, Architecture, ModelFields, Numerics, Precision, WeightsFields, WeightsHow,
};
use aurora_runtime::checkpoint::groups;
use aurora_runtime::job::{Files, Recompute};
use aurora_train::train::TrainError;
use aurora_train::train::batch::{Batch, MicroBatch};
use aurora_train::train::state::{State, network};
use aurora_train::train::step::Trainer;
use aurora_train::train::team::Team;
use camino::{Utf8Path, Utf8PathBuf};
use tch::Tensor;

struct Shape {
    model: ModelFields,
    sequence: usize,
    micro_batch: u32,
}

fn shape(name: &str) -> Result<Shape, Box<dyn Error>> {
    let model = |layers, hidden, heads, vocabulary, context| -> Result<ModelFields, Box<dyn Error>> {
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
        })
    };
    match name {
        "large" => Ok(Shape {
            model: model(8, 512, 8, 16_384, 512)?,
            sequence: 512,
            micro_batch: 4,
        }),
        "small" => Ok(Shape {
            model: model(4, 128, 4, 4096, 128)?,
            sequence: 128,
            micro_batch: 32,
        }),
        _ => Err(format!("no shape `{name}`: small or large").into()),
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

fn batch(shape: &Shape, micro_batches: usize, step: u64) -> Result<(Batch, Vec<i64>), Box<dyn Error>> {
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
        Ok(MicroBatch {
            ids: Tensor::f_from_slice(&part(0))?,
            targets: Tensor::f_from_slice(&part(1))?,
        })
    });
    let micro_batches = micro_batches.collect::<Result<_, tch::TchError>>()?;
    Ok((
        Batch {
            micro_batches,
            samples: Vec::new(),
            digest: String::new(),
        },
        all,
    ))
}

/// Processor time of all threads of this process, in seconds.
fn processor_seconds() -> f64 {
    // SAFETY: `clock_gettime` fills the structure that it is given.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time);
        time
    };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The most memory that this process has held, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

fn main() -> Result<(), Box<dyn Error>> {
    aurora_train::worker::settle()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let get = |name: &str, default: &str| -> String {
        let at = arguments.iter().position(|argument| argument == &format!("--{name}"));
        at.and_then(|at| arguments.get(at + 1))
            .map_or(default, String::as_str)
            .to_owned()
    };
    let mut shape = shape(&get("shape", "small"))?;
    shape.micro_batch = get("micro-batch", &shape.micro_batch.to_string()).parse()?;
    let (threads, lanes): (usize, u32) = (get("threads", "2").parse()?, get("lanes", "2").parse()?);
    let tensor: u32 = get("tensor", "1").parse()?;
    let micro_batch = shape.micro_batch;
    let numerics = match get("numerics", "invariant").as_str() {
        "native" => Numerics::Native { micro_batch },
        _ => Numerics::Invariant {
            tensor,
            lanes,
            micro_batch,
        },
    };
    let precision = if get("precision", "f32") == "bf16" {
        Precision::Bf16
    } else {
        Precision::F32
    };
    let recompute = match get("recompute", "none").as_str() {
        "selective" => Recompute::Selective,
        "full" => Recompute::Full,
        _ => Recompute::None,
    };
    let steps: u64 = get("steps", "8").parse()?;
    let micro_batches: usize = get("micro-batches", "2").parse()?;
    let dump = get("dump", "");

    let scratch = std::env::temp_dir().join(format!("aurora-speed-{}", std::process::id()));
    let scratch = Utf8PathBuf::from_path_buf(scratch).map_err(|path| format!("{} is not UTF-8", path.display()))?;
    let folder = if dump.is_empty() {
        scratch.clone()
    } else {
        Utf8PathBuf::from(&dump)
    };
    let how = WeightsHow::Random {
        seed: 1,
        std: "0.02".parse()?,
    };
    aurora_runtime::weights::initial_weights(
        &WeightsFields {
            model: shape.model.clone(),
            how,
        },
        &folder,
    )?;
    let files: Files = groups(&shape.model)
        .iter()
        .map(|g| (g.weights(), folder.join(g.weights())))
        .collect();
    let team = Team::new(threads)?;
    let mut state = State::new(
        network(&shape.model, &numerics, precision, threads)?,
        &shape.model,
        true,
    )?;
    state.load_weights(&files)?;
    if dump.is_empty() {
        std::fs::remove_dir_all(&scratch)?;
    }
    let optimizer = AdamW {
        beta1: "0.9".parse()?,
        beta2: "0.95".parse()?,
        epsilon: "1e-8".parse()?,
        weight_decay: "0.1".parse()?,
        clip: Some("1".parse()?),
    };
    let mut trainer = Trainer::new(state, &team, &optimizer, shape.sequence, recompute)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (mut seconds, mut processor) = (Vec::new(), Vec::new());
    let (mut tokens, mut losses) = (Vec::new(), String::new());
    for step in 0..steps {
        let (batch, ids) = batch(&shape, micro_batches, step)?;
        let (began, used) = (Instant::now(), processor_seconds());
        let not_finite = |what, value| TrainError::NotFinite {
            what,
            step,
            value,
            batch: String::new(),
        };
        let outcome = trainer.step(&team, &batch, &optimizer, 1e-3, &stop, not_finite)?;
        seconds.push(began.elapsed().as_secs_f64());
        processor.push(processor_seconds() - used);
        if let Some(outcome) = outcome {
            writeln!(losses, "{} {}", outcome.loss, outcome.grad_norm)?;
        }
        tokens.extend(ids);
    }
    if !dump.is_empty() {
        leave(&folder, &tokens, &losses)?;
    }
    for times in [&mut seconds, &mut processor] {
        times.drain(..(times.len() / 4).max(1).min(times.len() - 1));
        times.sort_by(f64::total_cmp);
    }
    let each = (micro_batches * shape.micro_batch as usize * shape.sequence) as f64;
    println!(
        "{{\"median_tokens_per_second\": {:.1}, \"best_tokens_per_second\": {:.1}, \
         \"tokens_per_processor_second\": {:.1}, \"peak_mib\": {}}}",
        each / seconds[seconds.len() / 2],
        each / seconds[0],
        each / processor[processor.len() / 2],
        peak()
    );
    Ok(())
}

fn leave(folder: &Utf8Path, tokens: &[i64], losses: &str) -> Result<(), Box<dyn Error>> {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    std::fs::write(folder.join("tokens.i64"), bytes)?;
    std::fs::write(folder.join("losses.txt"), losses)?;
    Ok(())
}
