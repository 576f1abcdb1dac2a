//! Tokens per second of training steps at a few shapes, and the losses of the first steps.
//!
//! `speed [--shape small|large|llama|smollm2|smollm2-2048|llama-1b] [--device cpu|gpu] [--numerics invariant|portable|native] [--tensor N] [--lanes N] [--threads N]
//! [--steps N] [--micro-batch SEQUENCES] [--micro-batches N] [--precision f32|bf16]
//! [--recompute none|selective|full] [--mesh TENSOR,PIPELINE,DATA] [--sequence-parallel] [--distributed-optimizer]
//! [--checkpoint] [--dump FOLDER]`
//!
//! `--tensor` and `--lanes` define the logical grid. `--mesh` starts several processes and prints every rank's time in
//! transfers. `--checkpoint` writes the final state and reads it again, next to a plain file of the same size. `--dump`
//! writes initial weights, batches and losses to a folder, for a comparison with another trainer.

mod ranks;
mod shapes;

use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use aurora_compiler::fields::{AdamW, Contract, ModelFields, Numerics, OptimizerState, Precision, TrainFields};
use aurora_compiler::memory::memory;
use aurora_runtime::checkpoint::groups;
use aurora_runtime::job::{Files, Layout, Recompute};
use aurora_train::model::ComputeDevice;
use aurora_train::train::TrainError;
use aurora_train::train::checkpoint::Snapshot;
use aurora_train::train::step::Trainer;
use aurora_train::train::thread_pool::ThreadPool;
use aurora_train::train::train_state::{TrainState, mesh, network};
use aurora_train::worker::first_device;
use camino::{Utf8Path, Utf8PathBuf};
use ranks::connect;
use shapes::{BenchShape, batch, shape};

/// Processor time of all threads of this process, in seconds.
fn processor_seconds() -> f64 {
    // SAFETY: `clock_gettime` fills the given structure.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time);
        time
    };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Memory of this process in MiB: `VmHWM` is the peak, `VmRSS` the current value.
fn resident(figure: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

/// This rank's memory in MiB as `aurora plan` predicts it.
fn planned(
    shape: &BenchShape,
    numerics: Numerics,
    precision: Precision,
    layout: &Layout,
    micro_batches: usize,
    pp_rank: u32,
) -> Result<u64, Box<dyn Error>> {
    let fields = TrainFields {
        model: shape.model.clone(),
        numerics,
        precision,
        optimizer: shapes::optimizer()?,
        optimizer_state: OptimizerState::Reset,
        schedule: Vec::new(),
        last_step: 1,
        global_batch: u32::try_from(micro_batches)? * shape.micro_batch,
        sequence: u32::try_from(shape.sequence)?,
    };
    Ok(memory(&fields, layout, pp_rank).total() >> 20)
}

/// Seconds to copy a checkpoint, to write and sync it, and to load it; and to write and sync, and to read, a plain file
/// of the same size.
fn checkpoint(state: &mut TrainState, model: &ModelFields, folder: &Utf8Path) -> Result<String, Box<dyn Error>> {
    let names: Vec<_> = groups(model)
        .iter()
        .flat_map(|group| [group.weights(), group.optimizer()])
        .collect();
    let files: Files = names.iter().map(|name| (name.clone(), folder.join(name))).collect();
    let began = Instant::now();
    let snapshot = Snapshot::take(state, 1, None)?;
    let copy = began.elapsed().as_secs_f64();
    let began = Instant::now();
    snapshot.write(folder)?;
    let write = began.elapsed().as_secs_f64();
    let began = Instant::now();
    state.load_weights(&files)?;
    state.load_moments(&files)?;
    let load = began.elapsed().as_secs_f64();
    let mut bytes = Vec::new();
    for path in files.values() {
        bytes.extend(std::fs::read(path)?);
    }
    let path = folder.join("plain");
    let began = Instant::now();
    let mut file = File::create(&path)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    let plain_write = began.elapsed().as_secs_f64();
    let began = Instant::now();
    File::open(&path)?.read_exact(&mut bytes)?;
    let plain_read = began.elapsed().as_secs_f64();
    Ok(format!(
        ", \"checkpoint_bytes\": {}, \"copy\": {copy:.4}, \"write\": {write:.4}, \"load\": {load:.4}, \
         \"plain_write\": {plain_write:.4}, \"plain_read\": {plain_read:.4}",
        bytes.len()
    ))
}

/// The options of the command line.
struct Options {
    arguments: Vec<String>,
    shape: BenchShape,
    numerics: Numerics,
    precision: Precision,
    layout: Layout,
    rank: usize,
    steps: u64,
    micro_batches: usize,
    port: u16,
    /// Empty for none.
    dump: String,
    checkpoint: bool,
    device: ComputeDevice,
}

impl Options {
    fn parse() -> Result<Self, Box<dyn Error>> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let get = |name: &str, default: &str| -> String {
            let at = arguments.iter().position(|argument| argument == &format!("--{name}"));
            at.and_then(|at| arguments.get(at + 1))
                .map_or(default, String::as_str)
                .to_owned()
        };
        let flag = |name: &str| arguments.iter().any(|argument| argument == &format!("--{name}"));
        let mut shape = shape(&get("shape", "small"))?;
        shape.micro_batch = get("micro-batch", &shape.micro_batch.to_string()).parse()?;
        let numerics = Numerics {
            contract: Contract::named(&get("numerics", "invariant")).ok_or("no such numerics")?,
            tensor: get("tensor", "1").parse()?,
            lanes: get("lanes", "2").parse()?,
            micro_batch: shape.micro_batch,
        };
        let precision = if get("precision", "f32") == "bf16" {
            Precision::Bf16
        } else {
            Precision::F32
        };
        let recompute =
            Recompute::from_word(&get("recompute", "none")).ok_or("recompute is none, selective or full")?;
        let degrees: Vec<u32> = get("mesh", "1,1,1")
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let &[tensor, pipeline, data] = &degrees[..] else {
            return Err("--mesh takes TENSOR,PIPELINE,DATA".into());
        };
        let layout = Layout {
            tensor,
            pipeline,
            data,
            threads: get("threads", "2").parse()?,
            recompute,
            sequence_parallel: flag("sequence-parallel"),
            distributed_optimizer: flag("distributed-optimizer"),
        };
        let rank: usize = get("rank", "0").parse()?;
        Ok(Self {
            shape,
            numerics,
            precision,
            layout,
            rank,
            steps: get("steps", "8").parse()?,
            micro_batches: get("micro-batches", "2").parse()?,
            port: get("port", "0").parse()?,
            dump: if rank == 0 { get("dump", "") } else { String::new() },
            checkpoint: flag("checkpoint"),
            device: match get("device", "cpu").as_str() {
                "gpu" => first_device()?,
                _ => ComputeDevice::Cpu,
            },
            arguments,
        })
    }
}

/// What was measured of each step, and its results.
#[derive(Default)]
struct Measured {
    seconds: Vec<f64>,
    processor: Vec<f64>,
    /// The fraction of the step in transfers.
    waits: Vec<f64>,
    tokens: Vec<i64>,
    losses: String,
    first_step: f64,
}

impl Measured {
    /// Runs the steps.
    fn run(
        options: &Options,
        trainer: &mut Trainer,
        optimizer: &AdamW,
        waited: &AtomicU64,
    ) -> Result<Self, Box<dyn Error>> {
        let threads = options.layout.threads;
        let pool = ThreadPool::new(threads as usize)?;
        let stop = AtomicBool::new(false);
        let mut measured = Self::default();
        for step in 0..options.steps {
            let (mut batch, ids) = batch(&options.shape, options.micro_batches, step)?;
            let (began, used) = (Instant::now(), processor_seconds());
            let before = waited.load(Ordering::Relaxed);
            let not_finite = |what, value| TrainError::NotFinite {
                what,
                step,
                value,
                batch: String::new(),
            };
            let outcome = trainer.step(&pool, &mut batch, optimizer, 1e-3, &stop, not_finite)?;
            let all = began.elapsed().as_secs_f64();
            measured.seconds.push(all);
            measured.processor.push(processor_seconds() - used);
            let wait = (waited.load(Ordering::Relaxed) - before) as f64 * 1e-9 / f64::from(threads);
            measured.waits.push(wait / all);
            writeln!(measured.losses, "{} {}", outcome.loss, outcome.grad_norm)?;
            measured.tokens.extend(ids);
        }
        measured.first_step = measured.seconds.first().copied().unwrap_or(0.0);
        for times in [&mut measured.seconds, &mut measured.processor, &mut measured.waits] {
            times.drain(..(times.len() / 4).max(1).min(times.len() - 1));
            times.sort_by(f64::total_cmp);
        }
        Ok(measured)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    aurora_train::worker::settle()?;
    let options = Options::parse()?;
    let Options {
        shape,
        numerics,
        precision,
        layout,
        rank,
        micro_batches,
        dump,
        ..
    } = &options;
    let (precision, rank, micro_batches) = (*precision, *rank, *micro_batches);
    let mesh = mesh(layout);
    let scratch = std::env::temp_dir().join(format!("aurora-speed-{}", std::process::id()));
    let scratch = Utf8PathBuf::from_path_buf(scratch).map_err(|path| format!("{} is not UTF-8", path.display()))?;
    let folder = if dump.is_empty() {
        scratch.clone()
    } else {
        Utf8PathBuf::from(dump)
    };
    let waited = Arc::new(AtomicU64::new(0));
    let (peers, others) = connect(
        &options.arguments,
        mesh,
        rank,
        layout.threads as usize,
        options.port,
        &waited,
    )?;
    let (before, pp_rank) = (resident("VmRSS"), u32::try_from(mesh.coordinates(rank).pipeline)?);
    // Resets the peak.
    std::fs::write("/proc/self/clear_refs", "5")?;
    let planned = planned(shape, numerics.clone(), precision, layout, micro_batches, pp_rank)?;
    let network = network(&shape.model, numerics, precision, layout, rank, options.device)?;
    let mut state = TrainState::new(
        network,
        &shape.model,
        rank,
        true,
        layout.distributed_optimizer && layout.data > 1,
    )?;
    match options.device {
        // Drawn on the device: as many numbers take minutes on the host.
        ComputeDevice::Gpu(_) => draw_on_device(&mut state)?,
        _ => state.load_weights(&shape.draw(&folder)?)?,
    }
    let optimizer = shapes::optimizer()?;
    let mut trainer = Trainer::new(
        state,
        peers,
        &optimizer,
        shape.sequence,
        micro_batches,
        layout.recompute,
    )?;
    let measured = Measured::run(&options, &mut trainer, &optimizer, &waited)?;
    let Measured {
        seconds,
        processor,
        waits,
        tokens,
        losses,
        first_step,
    } = &measured;
    let device_memory = match options.device {
        ComputeDevice::Gpu(index) => aten_sys::device_memory(index)?,
        _ => aten_sys::DeviceMemory::default(),
    };
    if !dump.is_empty() {
        leave(&folder, tokens, losses)?;
    }
    let median = |times: &[f64]| times[times.len() / 2];
    let peak = resident("VmHWM");
    let grown = peak.saturating_sub(before);
    let (mut state, _) = trainer.into_parts();
    let written = if options.checkpoint && mesh.world() == 1 {
        checkpoint(&mut state, &shape.model, &folder.join("checkpoint"))?
    } else {
        String::new()
    };
    if dump.is_empty() {
        // Nothing was drawn into it for a device.
        let _ = std::fs::remove_dir_all(&scratch);
    }
    if rank > 0 {
        eprintln!(
            "rank {rank}: {:.3} of a step in transfers, memory {grown} MiB of {planned} planned",
            median(waits)
        );
        return Ok(());
    }
    drop(others);
    let each = (micro_batches * shape.micro_batch as usize * shape.sequence) as f64;
    println!(
        "{{\"median_tokens_per_second\": {:.1}, \"best_tokens_per_second\": {:.1}, \
         \"tokens_per_processor_second\": {:.1}, \"peak_mib\": {peak}, \"grown_mib\": {grown}, \
         \"planned_mib\": {planned}, \"in_transfers\": {:.4}, \"first_step_seconds\": {first_step:.3}, \
         \"device_peak_mib\": {}, \"device_reserved_mib\": {}, \"losses\": [{}]{written}}}",
        each / median(seconds),
        each / seconds[0],
        each / median(processor),
        median(waits),
        device_memory.peak_allocated >> 20,
        device_memory.peak_reserved >> 20,
        losses
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect::<Vec<_>>()
            .join(", ")
    );
    Ok(())
}

/// Draws normal weights on the device.
fn draw_on_device(state: &mut TrainState) -> Result<(), Box<dyn Error>> {
    let _ = state.master.f_normal_(0.0, 0.02)?;
    state.compute.f_copy_(&state.master)?;
    Ok(())
}

fn leave(folder: &Utf8Path, tokens: &[i64], losses: &str) -> Result<(), Box<dyn Error>> {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    std::fs::write(folder.join("tokens.i64"), bytes)?;
    std::fs::write(folder.join("losses.txt"), losses)?;
    Ok(())
}
