//! Evaluation: perplexity and bits per byte of sets of documents.
//!
//! In: a model's weights, token files. Out: scores. A document is scored in disjoint windows; each window's input starts
//! with the token before it (the end-of-document id before the first). Windows of all sets are put into batches of
//! fixed shapes, so that a window's bits depend on its tokens and its padded length alone. Not here: messages, files.

mod windows;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_runtime::checkpoint::CheckpointError;
use aurora_runtime::job::{EvalJob, Recompute, Score, Scores};
use camino::Utf8Path;
use tch::Tensor;

use crate::model::{ModelError, Network, Weights, Workspace};
use crate::train::TrainError;
use crate::train::state::State;
use crate::train::team::Team;
use windows::{Batch, Windows};

pub use windows::{padded, sequences};

/// Batches that each thread runs before progress is reported and a stop is seen.
const ROUND: usize = 4;

/// A thread's weights and buffers, by padded length.
struct Seat {
    weights: Weights,
    workspaces: BTreeMap<usize, Workspace>,
}

/// Scores every set of a job. `progress` is told the set, its scored tokens and their number.
///
/// Nothing comes back if `stop` was raised on the way.
///
/// # Errors
/// [`TrainError::Tokens`], [`TrainError::Token`], [`TrainError::Model`], [`TrainError::Unfit`].
pub fn evaluate(
    job: &EvalJob,
    state: &State,
    team: &Team,
    stop: &Arc<AtomicBool>,
    mut progress: impl FnMut(&str, u64, u64),
) -> Result<Option<Scores>, TrainError> {
    let windows = Windows::open(job)?;
    let network = Arc::new(state.network.clone());
    let mut seats = Vec::new();
    for _ in 0..team.threads() {
        seats.push(Seat {
            weights: state.weights()?,
            workspaces: BTreeMap::new(),
        });
    }
    // −ln p of each window, summed over its tokens in order.
    let mut losses: Vec<Vec<f64>> = windows.sets.iter().map(|set| vec![0.0; set.windows.len()]).collect();
    let mut done = vec![0u64; windows.sets.len()];
    let batches = windows.batches();
    for round in batches.chunks(ROUND * team.threads()) {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut items: Vec<(Seat, Vec<Filled>)> = seats.drain(..).map(|seat| (seat, Vec::new())).collect();
        let count = items.len();
        for (at, batch) in round.iter().enumerate() {
            let (ids, targets) = windows.read(batch)?;
            items[at % count].1.push((batch.clone(), ids, targets));
        }
        let network = Arc::clone(&network);
        for result in team.run(items, move |(seat, batches)| one_thread(&network, seat, batches))? {
            let (seat, scored) = result?;
            seats.push(seat);
            for (set, window, loss) in scored {
                losses[set][window] = loss;
                done[set] += windows.sets[set].windows[window].length as u64;
            }
        }
        if let Some((set, _)) = round.last().and_then(|batch| batch.windows.last()) {
            let set = *set;
            progress(&windows.sets[set].name, done[set], windows.sets[set].tokens);
        }
    }
    let scores = windows.sets.iter().zip(&losses).map(|(set, losses)| {
        // Windows stand in document order: a plain sum from the first to the last.
        let negative_log_likelihood: f64 = losses.iter().sum();
        let score = Score {
            documents: set.documents,
            tokens: set.tokens,
            bytes: set.bytes,
            negative_log_likelihood,
            perplexity: libm::exp(negative_log_likelihood / set.tokens as f64),
            bits_per_byte: negative_log_likelihood / (std::f64::consts::LN_2 * set.bytes as f64),
        };
        (set.name.clone(), score)
    });
    Ok(Some(Scores { sets: scores.collect() }))
}

/// Writes and syncs `scores.json` below `out`.
///
/// # Errors
/// [`TrainError::Checkpoint`].
pub fn write(scores: &Scores, out: &Utf8Path) -> Result<(), TrainError> {
    let path = out.join("scores.json");
    let mut text = serde_json::to_string_pretty(scores).expect("names and numbers are JSON");
    text.push('\n');
    let put = || -> std::io::Result<()> {
        let mut file = File::create(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        File::open(out)?.sync_all()
    };
    Ok(put().map_err(|source| CheckpointError::Write {
        path: path.clone(),
        source,
    })?)
}

/// A batch with its ids and targets.
type Filled = (Batch, Vec<i64>, Vec<i64>);
/// Set, window and its loss.
type Scored = Vec<(usize, usize, f64)>;

fn one_thread(network: &Network, mut seat: Seat, batches: Vec<Filled>) -> Result<(Seat, Scored), TrainError> {
    let mut scored = Vec::new();
    for (batch, ids, targets) in batches {
        let length = batch.length;
        let workspace = match seat.workspaces.entry(length) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => {
                let new = Workspace::new(network, sequences(length), length, Recompute::None, false)?;
                place.insert(new)
            }
        };
        let mut losses = vec![0.0; ids.len()];
        let tensor = |ids: &[i64]| Tensor::f_from_slice(ids).map_err(ModelError::from);
        network.score(
            &seat.weights,
            workspace,
            &tensor(&ids)?,
            &tensor(&targets)?,
            &mut losses,
        )?;
        for (rows, (set, window, count)) in losses.chunks_exact(length).zip(batch.own()) {
            scored.push((set, window, rows[..count].iter().sum()));
        }
    }
    Ok((seat, scored))
}
