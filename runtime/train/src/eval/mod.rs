//! Evaluation: perplexity and bits per byte of sets of documents; answers to the requests of a task (`answers`).
//!
//! In: a model's weights, token files. Out: scores. A document is scored in windows, each token once; a window's input
//! starts with the token before it (the end-of-document id before the first). Windows of all sets are grouped into
//! batches of fixed shapes, so that a window's bits depend on its tokens and its padded length only. Not here:
//! messages.

mod answers;
mod document_scores;
mod sample;
mod windows;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_runtime::errors::FileError;
use aurora_runtime::job::{EvalJob, PerplexityScore, Recompute, Scores};
use camino::Utf8Path;

use crate::model::{Network, PassContext, Weights, Workspace, to_device, to_host};
use crate::parallel::Peers;
use crate::train::TrainError;
use crate::train::rank_report::RankReport;
use crate::train::thread_pool::ThreadPool;
use crate::train::train_state::TrainState;
use windows::{WindowBatch, Windows};

pub use answers::{Answered, EvalTask, answer};
pub use document_scores::document_scores;
pub use windows::{padded, sequences};

/// Batches that each thread runs before progress is reported and a stop is noticed.
const ROUND: usize = 4;

/// A thread's weights and buffers.
struct ScoringThread {
    weights: Weights,
    workspace: Option<Workspace>,
    peers: Peers,
}

/// The scores of a job's sets.
#[derive(Debug)]
pub struct Evaluated {
    pub scores: Scores,
    /// By set: the scored tokens of each document and its sum of −ln p.
    pub documents: Vec<Vec<(u64, f64)>>,
}

/// Scores every set of a job, all ranks together; every rank gets the scores. `progress` receives the set, its tokens
/// scored so far, and their total. Also returns `peers`, one per thread.
///
/// Returns no scores if a rank received a stop command meanwhile.
///
/// # Errors
/// [`TrainError::Tokens`], [`TrainError::Token`], [`TrainError::Model`], [`TrainError::Job`].
pub fn evaluate(
    job: &EvalJob,
    state: &TrainState,
    pool: &ThreadPool,
    peers: Vec<Peers>,
    stop: &AtomicBool,
    mut progress: impl FnMut(&str, u64, u64),
) -> Result<(Option<Evaluated>, Vec<Peers>), TrainError> {
    let windows = Windows::open(job)?;
    let network = Arc::new(state.network.clone());
    let mut scoring_threads = Vec::new();
    for peers in peers {
        scoring_threads.push(ScoringThread {
            weights: state.weights()?,
            workspace: None,
            peers,
        });
    }
    let Some(at) = scoring_threads.first().map(|thread| thread.peers.at()) else {
        return Err(TrainError::Bug("a worker without threads"));
    };
    let (threads, replicas) = (scoring_threads.len(), network.mesh.data);
    let holding = &network.parameters.holding;
    // −ln p of each window, summed over its tokens in order.
    let mut losses: Vec<Vec<f64>> = windows.sets.iter().map(|set| vec![0.0; set.windows.len()]).collect();
    let mut done = vec![0u64; windows.sets.len()];
    let batches = windows.batches();
    for round in batches.chunks(ROUND * threads * replicas) {
        let mut items: Vec<(ScoringThread, Vec<FilledBatch>)> =
            scoring_threads.drain(..).map(|thread| (thread, Vec::new())).collect();
        for (index, batch) in round.iter().enumerate() {
            let slot = index % (threads * replicas);
            if slot / threads != at.data {
                continue;
            }
            let tokens = (holding.first || holding.last)
                .then(|| windows.read(batch))
                .transpose()?;
            items[slot % threads].1.push((batch.clone(), tokens));
        }
        let network = Arc::clone(&network);
        let mut scored = Vec::new();
        for result in pool.run(items, move |(thread, batches)| one_thread(&network, thread, batches))? {
            let (thread, own) = result?;
            scoring_threads.push(thread);
            scored.extend(own);
        }
        let own = RankReport {
            stop: stop.load(Ordering::SeqCst),
            losses: if at.tensor == 0 { scored } else { Vec::new() },
            squares: Vec::new(),
        };
        let all = scoring_threads[0].peers.all_gather_bytes(&own.to_bytes())?;
        let all = all
            .iter()
            .map(|bytes| RankReport::from_bytes(bytes))
            .collect::<Result<Vec<_>, _>>()?;
        for (index, loss) in all.iter().flat_map(|report| report.losses.iter().copied()) {
            let (set, window) = ((index >> 40) as usize, (index & ((1 << 40) - 1)) as usize);
            losses[set][window] = loss;
            done[set] += windows.sets[set].windows[window].length as u64;
        }
        if all.iter().any(|report| report.stop) {
            return Ok((None, scoring_threads.into_iter().map(|thread| thread.peers).collect()));
        }
        if let Some((set, _)) = round.last().and_then(|batch| batch.windows.last()) {
            let set = *set;
            progress(&windows.sets[set].name, done[set], windows.sets[set].tokens);
        }
    }
    Ok((
        Some(summarize(&windows, &losses)),
        scoring_threads.into_iter().map(|thread| thread.peers).collect(),
    ))
}

/// The scores of the sets, from the losses of their windows.
fn summarize(windows: &Windows, losses: &[Vec<f64>]) -> Evaluated {
    let scores = windows.sets.iter().zip(losses).map(|(set, losses)| {
        // Windows are in document order: a plain sum from the first to the last.
        let negative_log_likelihood: f64 = losses.iter().sum();
        let score = PerplexityScore {
            documents: set.documents,
            tokens: set.tokens,
            bytes: set.bytes,
            negative_log_likelihood,
            perplexity: libm::exp(negative_log_likelihood / set.tokens as f64),
            bits_per_byte: negative_log_likelihood / (std::f64::consts::LN_2 * set.bytes as f64),
        };
        (set.name.clone(), score)
    });
    let scores = Scores {
        sets: scores.collect(),
        measures: BTreeMap::new(),
    };
    let documents = windows.sets.iter().zip(losses).map(|(set, losses)| {
        let mut documents = vec![(0, 0.0); set.documents as usize];
        for (window, loss) in set.windows.iter().zip(losses) {
            let (tokens, sum) = &mut documents[window.document];
            *tokens += window.length as u64;
            *sum += loss;
        }
        documents
    });
    Evaluated {
        scores,
        documents: documents.collect(),
    }
}

/// Writes and syncs `scores.json` in `out`.
///
/// # Errors
/// [`TrainError::Checkpoint`].
pub fn write(scores: &Scores, out: &Utf8Path) -> Result<(), TrainError> {
    let mut text = serde_json::to_string_pretty(scores).expect("names and numbers are JSON");
    text.push('\n');
    put(&out.join("scores.json"), &text, out)
}

/// Writes and syncs `items.jsonl` in `out`: one line per item of a task, or per document.
///
/// # Errors
/// [`TrainError::Checkpoint`].
pub fn write_items<T: serde::Serialize>(items: &[T], out: &Utf8Path) -> Result<(), TrainError> {
    let line = |item: &T| serde_json::to_string(item).expect("texts and numbers are JSON") + "\n";
    put(
        &out.join("items.jsonl"),
        &items.iter().map(line).collect::<String>(),
        out,
    )
}

fn put(path: &Utf8Path, text: &str, out: &Utf8Path) -> Result<(), TrainError> {
    let put = || -> std::io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        File::open(out)?.sync_all()
    };
    Ok(put().map_err(FileError::writing(path))?)
}

/// A workspace of the given shape: the last one, since batches of one shape follow each other, or a new one.
fn workspace<'s>(
    network: &Network,
    last: &'s mut Option<Workspace>,
    sequences: usize,
    length: usize,
) -> Result<&'s mut Workspace, TrainError> {
    let fits = last.take().filter(|last| last.shape() == (sequences, length));
    let workspace = match fits {
        Some(workspace) => workspace,
        None => Workspace::new(network, sequences, length, Recompute::None, 0)?,
    };
    Ok(last.insert(workspace))
}

/// A batch with its ids and targets, which only the first and the last pipeline rank read.
type FilledBatch = (WindowBatch, Option<(Vec<i64>, Vec<i64>)>);
/// Index of the set (upper 24 bits) and the window (lower 40 bits), and the window's loss.
type WindowLosses = Vec<(u64, f64)>;

fn one_thread(
    network: &Network,
    mut thread: ScoringThread,
    batches: Vec<FilledBatch>,
) -> Result<(ScoringThread, WindowLosses), TrainError> {
    let (first, last) = (network.parameters.holding.first, network.parameters.holding.last);
    let mut scored = Vec::new();
    for (batch, tokens) in batches {
        let length = batch.length;
        let workspace = workspace(network, &mut thread.workspace, sequences(length), length)?;
        let tensor = |ids: &[i64]| to_device(ids, network.device);
        let (ids, targets) = tokens.unwrap_or_default();
        let mut pass = PassContext {
            workspace,
            peers: &thread.peers,
            slot: 0,
            ids_t: &tensor(&ids)?,
            positions: None,
            trace: None,
        };
        if !first {
            let input = pass.workspace.incoming(0)?;
            thread.peers.receive_forward(&input).and_then(|sent| sent.wait())?;
            network.fill_input(&pass)?;
        }
        network.forward(&thread.weights, &mut pass)?;
        if !last {
            let output = pass.workspace.outgoing(0)?;
            thread.peers.send_forward(&output).and_then(|sent| sent.wait())?;
            continue;
        }
        let losses = to_host::<f64>(&network.head(&thread.weights, &mut pass, &tensor(&targets)?, None)?)?;
        for (rows, (set, window, scored_rows)) in losses.chunks_exact(length).zip(batch.own()) {
            scored.push(((set as u64) << 40 | window as u64, rows[scored_rows].iter().sum()));
        }
    }
    Ok((thread, scored))
}
