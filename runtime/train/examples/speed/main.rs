//! Tokens per second of training steps at a few shapes, and the losses of the first steps.
//!
//! `speed [--shape small|large|llama] [--numerics invariant|portable|native] [--tensor N] [--lanes N] [--threads N]
//! [--steps N] [--micro-batch SEQUENCES] [--micro-batches N] [--precision f32|bf16]
//! [--recompute none|selective|full] [--mesh TENSOR,PIPELINE,DATA] [--sequence-parallel] [--distributed-optimizer]
//! [--dump FOLDER]`
//!
//! `--tensor` and `--lanes` are the logical grid. With `--mesh` as many processes are started, and every rank's time in
//! transfers is told. `--dump` leaves initial weights, batches and losses in a folder, for a comparison with another
//! trainer.

mod shapes;

use std::error::Error;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aurora_compiler::fields::{AdamW, Numerics, Precision, WeightsFields, WeightsHow};
use aurora_runtime::checkpoint::groups;
use aurora_runtime::job::{Files, Placement, Recompute};
use aurora_train::parallel::transport::{Axis, Gloo, Store, Transfer, Transport, TransportError};
use aurora_train::parallel::{Mesh, Peers};
use aurora_train::train::TrainError;
use aurora_train::train::state::{State, mesh, network};
use aurora_train::train::step::Trainer;
use aurora_train::train::team::Team;
use camino::{Utf8Path, Utf8PathBuf};
use shapes::{batch, shape};
use tch::Tensor;

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

/// Counts the time that is spent in waiting for transfers.
#[derive(Debug)]
struct Timed {
    inner: Gloo,
    nanoseconds: Arc<AtomicU64>,
}

#[derive(Debug)]
struct TimedTransfer(Box<dyn Transfer>, Arc<AtomicU64>);

impl Transfer for TimedTransfer {
    fn wait(self: Box<Self>) -> Result<(), TransportError> {
        let began = Instant::now();
        let result = self.0.wait();
        self.1.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }
}

impl Transport for Timed {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn start(
        &self,
        axis: Axis,
        sends: &[(usize, &Tensor)],
        receives: &[(usize, &Tensor)],
    ) -> Result<Box<dyn Transfer>, TransportError> {
        let began = Instant::now();
        let transfer = self.inner.start(axis, sends, receives);
        self.nanoseconds
            .fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(Box::new(TimedTransfer(transfer?, Arc::clone(&self.nanoseconds))))
    }
}

/// The ranks that this process has started, and the store, which has to be there until all of them have joined.
struct Others(Vec<Child>, Option<Store>);

impl Drop for Others {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// This rank's peers, a thread; rank 0 starts the other ranks with the same arguments.
fn meet(
    arguments: &[String],
    mesh: Mesh,
    rank: usize,
    threads: usize,
    port: u16,
    waited: &Arc<AtomicU64>,
) -> Result<(Vec<Peers>, Others), Box<dyn Error>> {
    let mut others = Others(Vec::new(), None);
    if mesh.world() == 1 {
        return Ok(((0..threads).map(|_| Peers::alone()).collect(), others));
    }
    let (here, limit) = (IpAddr::from([127, 0, 0, 1]), Duration::from_secs(120));
    let store = if rank == 0 {
        let (store, port) = Store::serve(here, limit)?;
        for rank in 1..mesh.world() {
            let mut command = Command::new(std::env::current_exe()?);
            command
                .args(arguments)
                .args(["--rank", &rank.to_string(), "--port", &port.to_string()]);
            others.0.push(command.spawn()?);
        }
        store
    } else {
        Store::connect("127.0.0.1", port, limit)?
    };
    let peers = (0..threads).map(|thread| {
        let inner = Gloo::join(rank, mesh.world(), &store, &format!("thread {thread}"), here, limit)?;
        let nanoseconds = Arc::clone(waited);
        Ok(Peers::new(mesh, Box::new(Timed { inner, nanoseconds })))
    });
    let peers = peers.collect::<Result<_, TransportError>>()?;
    others.1 = Some(store);
    Ok((peers, others))
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
    let flag = |name: &str| arguments.iter().any(|argument| argument == &format!("--{name}"));
    let mut shape = shape(&get("shape", "small"))?;
    shape.micro_batch = get("micro-batch", &shape.micro_batch.to_string()).parse()?;
    let (threads, lanes): (u32, u32) = (get("threads", "2").parse()?, get("lanes", "2").parse()?);
    let tensor: u32 = get("tensor", "1").parse()?;
    let micro_batch = shape.micro_batch;
    let numerics = match get("numerics", "invariant").as_str() {
        "native" => Numerics::Native {
            tensor,
            lanes,
            micro_batch,
        },
        "portable" => Numerics::Portable {
            tensor,
            lanes,
            micro_batch,
        },
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
    let recompute = Recompute::from_word(&get("recompute", "none")).ok_or("recompute is none, selective or full")?;
    let degrees: Vec<u32> = get("mesh", "1,1,1")
        .split(',')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let &[tensor_ranks, pipeline, data] = &degrees[..] else {
        return Err("--mesh takes TENSOR,PIPELINE,DATA".into());
    };
    let placement = Placement {
        tensor: tensor_ranks,
        pipeline,
        data,
        threads,
        recompute,
        sequence_parallel: flag("sequence-parallel"),
        distributed_optimizer: flag("distributed-optimizer"),
    };
    let mesh = mesh(&placement);
    let rank: usize = get("rank", "0").parse()?;
    let steps: u64 = get("steps", "8").parse()?;
    let micro_batches: usize = get("micro-batches", "2").parse()?;
    let dump = if rank == 0 { get("dump", "") } else { String::new() };

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
    let fields = WeightsFields {
        model: shape.model.clone(),
        how,
    };
    aurora_runtime::weights::weights(&fields, None, &folder, &|_| {})?;
    let files: Files = groups(&shape.model)
        .iter()
        .map(|g| (g.weights(), folder.join(g.weights())))
        .collect();
    let waited = Arc::new(AtomicU64::new(0));
    let (peers, others) = meet(
        &arguments,
        mesh,
        rank,
        threads as usize,
        get("port", "0").parse()?,
        &waited,
    )?;
    let team = Team::new(threads as usize)?;
    let network = network(&shape.model, &numerics, precision, &placement, rank)?;
    let mut state = State::new(
        network,
        &shape.model,
        rank,
        true,
        placement.distributed_optimizer && data > 1,
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
    let mut trainer = Trainer::new(state, peers, &optimizer, shape.sequence, micro_batches, recompute)?;
    let stop = AtomicBool::new(false);
    let (mut seconds, mut processor, mut waits) = (Vec::new(), Vec::new(), Vec::new());
    let (mut tokens, mut losses) = (Vec::new(), String::new());
    for step in 0..steps {
        let (mut batch, ids) = batch(&shape, micro_batches, step)?;
        let (began, used) = (Instant::now(), processor_seconds());
        let before = waited.load(Ordering::Relaxed);
        let not_finite = |what, value| TrainError::NotFinite {
            what,
            step,
            value,
            batch: String::new(),
        };
        let outcome = trainer.step(&team, &mut batch, &optimizer, 1e-3, &stop, not_finite)?;
        let all = began.elapsed().as_secs_f64();
        seconds.push(all);
        processor.push(processor_seconds() - used);
        let wait = (waited.load(Ordering::Relaxed) - before) as f64 * 1e-9 / f64::from(threads);
        waits.push(wait / all);
        writeln!(losses, "{} {}", outcome.loss, outcome.grad_norm)?;
        tokens.extend(ids);
    }
    if !dump.is_empty() {
        leave(&folder, &tokens, &losses)?;
    }
    for times in [&mut seconds, &mut processor, &mut waits] {
        times.drain(..(times.len() / 4).max(1).min(times.len() - 1));
        times.sort_by(f64::total_cmp);
    }
    let middle = |times: &[f64]| times[times.len() / 2];
    if rank > 0 {
        eprintln!(
            "rank {rank}: {:.3} of a step in transfers, peak {} MiB",
            middle(&waits),
            peak()
        );
        return Ok(());
    }
    drop(others);
    let each = (micro_batches * shape.micro_batch as usize * shape.sequence) as f64;
    println!(
        "{{\"median_tokens_per_second\": {:.1}, \"best_tokens_per_second\": {:.1}, \
         \"tokens_per_processor_second\": {:.1}, \"peak_mib\": {}, \"in_transfers\": {:.4}}}",
        each / middle(&seconds),
        each / seconds[0],
        each / middle(&processor),
        peak(),
        middle(&waits)
    );
    Ok(())
}

fn leave(folder: &Utf8Path, tokens: &[i64], losses: &str) -> Result<(), Box<dyn Error>> {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    std::fs::write(folder.join("tokens.i64"), bytes)?;
    std::fs::write(folder.join("losses.txt"), losses)?;
    Ok(())
}
