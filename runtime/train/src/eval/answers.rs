//! A model's answers to the questions of a task.
//!
//! In: a checkpoint, requests. Out: scores, and what became of each item. Every worker holds the whole model, as one worker
//! alone would, and requests are spread over all threads of all workers; an answer depends on its own item (a choice's on
//! the choices before it as well, behind the same reading of the prompt), not on what is answered beside it. Not here: what is asked and how it is scored (`aurora_runtime::task`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_compiler::fields::{Asks, TaskFields};
use aurora_runtime::data::encoder::Encoder;
use aurora_runtime::data::random::Key;
use aurora_runtime::data::tokenizer;
use aurora_runtime::job::{EvalJob, Scores, TaskPaths};
use aurora_runtime::source::archive::InputFile;
use aurora_runtime::task::{self, Answer, Item, ItemResult, Request};
use tch::Tensor;

use super::sample::{Sampling, choose};
use super::{padded, sequences, workspace};
use crate::model::{Branches, Cache, Network, Next, Pass, Weights, Workspace};
use crate::parallel::Peers;
use crate::train::TrainError;
use crate::train::state::State;
use crate::train::team::Team;

/// Sequences that are generated at a time by one thread.
const PLACES: usize = 32;

/// A task, read.
pub struct Task {
    fields: Arc<TaskFields>,
    items: Vec<Item>,
    requests: Arc<Vec<Request>>,
    encoder: Arc<Encoder>,
    end: u32,
    window: usize,
}

fn unfit(error: &(dyn std::error::Error + 'static)) -> TrainError {
    TrainError::Unfit(aurora_runtime::errors::chain(error))
}

impl Task {
    /// Reads items and tokenizer, and makes the requests.
    ///
    /// # Errors
    /// [`TrainError::Unfit`] with the item that is at fault.
    pub fn open(job: &EvalJob, fields: &TaskFields, paths: &TaskPaths) -> Result<Self, TrainError> {
        let encoder = tokenizer::load(&paths.tokenizer).map_err(|error| unfit(&error))?;
        let vocabulary = job.fields.model.vocabulary;
        if encoder.vocabulary() > vocabulary {
            let found = encoder.vocabulary();
            return Err(TrainError::Unfit(format!(
                "the tokenizer has {found} entries, the model {vocabulary}"
            )));
        }
        let file = |(name, path): &(String, camino::Utf8PathBuf)| InputFile {
            name: name.clone(),
            path: path.clone(),
        };
        let files: Vec<InputFile> = paths.files.iter().map(file).collect();
        let items = task::items(fields, &files).map_err(|error| unfit(&error))?;
        let window = job.fields.window as usize;
        let end = paths.end_of_document;
        let requests = task::requests(fields, &items, &encoder, end, window).map_err(|error| unfit(&error))?;
        Ok(Self {
            fields: Arc::new(fields.clone()),
            items,
            requests: Arc::new(requests),
            encoder: Arc::new(encoder),
            end,
            window,
        })
    }

    /// Requests that are answered side by side, for so many threads: sequences of one padded length, or some texts.
    fn batches(&self, threads: usize) -> Vec<Batch> {
        let mut texts = Vec::new();
        let mut sequences: Vec<Sequence> = Vec::new();
        for (number, request) in self.requests.iter().enumerate() {
            let (item, context, continuation) = match request {
                Request::Text { .. } => {
                    texts.push(number);
                    continue;
                }
                Request::Likelihood {
                    item,
                    context,
                    continuation,
                } => (*item, context.len(), continuation.len()),
            };
            // The last token of a continuation is only predicted.
            let read = continuation.saturating_sub(1);
            // An item's continuations of one context stand behind it side by side, as far as there is room.
            let before = sequences.last_mut().filter(|before| {
                before.item == item
                    && before.length() + read <= self.window
                    && self.context(before.requests[0]) == self.context(number)
            });
            match before {
                Some(before) => {
                    before.requests.push(number);
                    before.branches.lengths.push(read);
                }
                None => sequences.push(Sequence {
                    item,
                    requests: vec![number],
                    branches: Branches {
                        context,
                        lengths: vec![read],
                    },
                }),
            }
        }
        let mut by_length: BTreeMap<usize, Vec<Sequence>> = BTreeMap::new();
        for sequence in sequences {
            let length = padded(sequence.length(), self.window);
            by_length.entry(length).or_default().push(sequence);
        }
        let mut batches = Vec::new();
        for (length, all) in by_length {
            let some = all.chunks(super::sequences(length)).map(<[_]>::to_vec);
            batches.extend(some.map(|sequences| Batch::Likelihoods { length, sequences }));
        }
        let share = texts.len().div_ceil(threads).clamp(1, 2 * PLACES);
        batches.extend(texts.chunks(share).map(|chunk| Batch::Texts(chunk.to_vec())));
        batches
    }

    /// Batches that each thread works on before progress is reported and a stop is seen.
    fn round(&self) -> usize {
        match self.fields.asks {
            Asks::Choices(_) => 8,
            Asks::Text { .. } => 1,
        }
    }

    /// The context of a likelihood.
    fn context(&self, request: usize) -> &[u32] {
        match &self.requests[request] {
            Request::Likelihood { context, .. } => context,
            Request::Text { .. } => &[],
        }
    }

    /// The key of the random numbers that choose a text.
    fn key(&self, item: usize, sample: u32) -> Key {
        let Item { name, attack, .. } = &self.items[item];
        let mut purpose = format!("answer {name}");
        if let Some(attack) = attack {
            purpose.push_str(&format!(" {attack}"));
        }
        if sample > 0 {
            purpose.push_str(&format!(" {sample}"));
        }
        Key::derive(self.fields.seed, &purpose)
    }

    /// How tokens of a text are chosen, where it stops, and how long it may become.
    fn text(&self) -> (Sampling, &[String], usize) {
        match &self.fields.asks {
            Asks::Text {
                stop,
                maximum,
                temperature,
                top_p,
                ..
            } => {
                let how = Sampling {
                    temperature: temperature.map(|temperature| temperature.to_f64()),
                    top_p: top_p.map_or(1.0, |top_p| top_p.to_f64()),
                };
                (how, stop, *maximum as usize)
            }
            Asks::Choices(_) => {
                let how = Sampling {
                    temperature: None,
                    top_p: 1.0,
                };
                (how, &[], 0)
            }
        }
    }
}

/// A context and the continuations of it whose likelihoods are asked.
#[derive(Clone, Debug)]
struct Sequence {
    item: usize,
    requests: Vec<usize>,
    branches: Branches,
}

impl Sequence {
    /// Tokens that are read.
    fn length(&self) -> usize {
        self.branches.context + self.branches.lengths.iter().sum::<usize>()
    }
}

#[derive(Clone, Debug)]
enum Batch {
    Likelihoods { length: usize, sequences: Vec<Sequence> },
    Texts(Vec<usize>),
}

/// What one thread works with.
struct Seat {
    weights: Weights,
    workspace: Option<Workspace>,
    cache: Option<Cache>,
    peers: Peers,
}

/// The scores of a task's answers and a line an item, or nothing if some rank was asked to stop on the way.
pub type Answered = Option<(Scores, Vec<ItemResult>)>;

/// Answers a task, all ranks together; `state` is the whole model. `peers` are those of the mesh, through which the ranks
/// tell each other; `progress` is told how many of how many requests are answered.
///
/// # Errors
/// [`TrainError::Model`], [`TrainError::Unfit`].
pub fn answer(
    task: Task,
    state: &State,
    team: &Team,
    peers: &Peers,
    ranks: (usize, usize),
    stop: &AtomicBool,
    mut progress: impl FnMut(u64, u64),
) -> Result<Answered, TrainError> {
    let (rank, world) = ranks;
    let (network, task) = (Arc::new(state.network.clone()), Arc::new(task));
    let threads = team.threads();
    let mut seats = Vec::new();
    for _ in 0..threads {
        seats.push(Seat {
            weights: state.weights()?,
            workspace: None,
            cache: None,
            peers: Peers::alone(),
        });
    }
    let mut answers: Vec<Option<Answer>> = vec![None; task.requests.len()];
    let batches = task.batches(threads * world);
    let mut done = 0;
    for round in batches.chunks(task.round() * threads * world) {
        let mut shares: Vec<(Seat, Vec<Batch>)> = seats.drain(..).map(|seat| (seat, Vec::new())).collect();
        for (index, batch) in round.iter().enumerate() {
            let seat = index % (threads * world);
            if seat / threads == rank {
                shares[seat % threads].1.push(batch.clone());
            }
        }
        let (network, own_task) = (Arc::clone(&network), Arc::clone(&task));
        let mut own: Vec<(usize, Answer)> = Vec::new();
        for result in team.run(shares, move |(seat, batches)| {
            one_thread(&network, &own_task, seat, &batches)
        })? {
            let (seat, answered) = result?;
            seats.push(seat);
            own.extend(answered);
        }
        let told = (stop.load(Ordering::SeqCst), own);
        let told = serde_json::to_vec(&told).map_err(|error| TrainError::Unfit(error.to_string()))?;
        let mut stopped = false;
        for told in peers.gather_world(&told)? {
            let (stop, theirs): (bool, Vec<(usize, Answer)>) =
                serde_json::from_slice(&told).map_err(|error| TrainError::Unfit(error.to_string()))?;
            stopped |= stop;
            done += theirs.len() as u64;
            for (number, answer) in theirs {
                answers[number] = Some(answer);
            }
        }
        if stopped {
            return Ok(None);
        }
        progress(done, answers.len() as u64);
    }
    let answers: Option<Vec<Answer>> = answers.into_iter().collect();
    let answers = answers.ok_or_else(|| TrainError::Unfit("a request was not answered".to_owned()))?;
    task::score(&task.fields, &task.items, &answers, &task.encoder)
        .map(Some)
        .map_err(TrainError::Unfit)
}

fn one_thread(
    network: &Network,
    task: &Task,
    mut seat: Seat,
    batches: &[Batch],
) -> Result<(Seat, Vec<(usize, Answer)>), TrainError> {
    let mut answered = Vec::new();
    for batch in batches {
        answered.extend(match batch {
            Batch::Texts(numbers) => texts(network, task, &mut seat, numbers)?,
            Batch::Likelihoods { length, sequences } => likelihoods(network, task, &mut seat, *length, sequences)?,
        });
    }
    Ok((seat, answered))
}

/// ln p of the continuations of a batch of sequences of one padded length.
fn likelihoods(
    network: &Network,
    task: &Task,
    seat: &mut Seat,
    length: usize,
    batch: &[Sequence],
) -> Result<Vec<(usize, Answer)>, TrainError> {
    let mut ids = vec![0i64; sequences(length) * length];
    // Each request with the number of its tokens; and all of them, each after the row that predicts it.
    let mut requests: Vec<(usize, usize)> = Vec::new();
    let mut asked: Vec<(i64, i64)> = Vec::new();
    let put = |ids: &mut [i64], own: &[u32]| ids.iter_mut().zip(own).for_each(|(id, own)| *id = i64::from(*own));
    for (row, sequence) in batch.iter().enumerate() {
        let start = row * length;
        put(&mut ids[start..], task.context(sequence.requests[0]));
        let mut at = start + sequence.branches.context;
        let behind = at as i64 - 1;
        for number in &sequence.requests {
            let Request::Likelihood { continuation, .. } = &task.requests[*number] else {
                return Err(TrainError::Unfit("a text among likelihoods".to_owned()));
            };
            let read = continuation.len().saturating_sub(1);
            put(&mut ids[at..], &continuation[..read]);
            let rows = std::iter::once(behind).chain(at as i64..);
            asked.extend(rows.zip(continuation.iter().copied().map(i64::from)));
            requests.push((*number, continuation.len()));
            at += read;
        }
    }
    let workspace = workspace(network, &mut seat.workspace, sequences(length), length)?;
    let branches: Vec<_> = batch.iter().map(|sequence| sequence.branches.clone()).collect();
    let positions = network.branches(workspace, &branches)?;
    let mut pass = Pass {
        workspace,
        peers: &seat.peers,
        slot: 0,
        ids: &Tensor::f_from_slice(&ids)?,
        positions: Some(&positions),
        spot: None,
    };
    network.forward(&seat.weights, &mut pass)?;
    let losses = network.losses(&seat.weights, &pass, &asked)?;
    let mut losses = losses.into_iter();
    let answer = |(number, tokens): (usize, usize)| {
        let ln: f64 = losses.by_ref().take(tokens).map(|loss| -loss).sum();
        (number, Answer::Likelihood(ln.to_bits()))
    };
    Ok(requests.into_iter().map(answer).collect())
}

/// A text under way in a place of the cache.
struct Growing {
    number: usize,
    key: Key,
    prompt: usize,
    ids: Vec<u32>,
}

/// Generates the texts of a batch: a place that is done takes the next prompt.
fn texts(network: &Network, task: &Task, seat: &mut Seat, batch: &[usize]) -> Result<Vec<(usize, Answer)>, TrainError> {
    let (how, stop, maximum) = task.text();
    let longest = task.requests.iter().map(|request| match request {
        Request::Text { prompt, .. } => prompt.len(),
        Request::Likelihood { .. } => 0,
    });
    let positions = (longest.max().unwrap_or(0) + maximum).min(task.window);
    let mut cache = match seat.cache.take() {
        Some(cache) => cache,
        None => Cache::new(network, PLACES, positions)?,
    };
    let ended = |growing: &Growing| -> Result<bool, TrainError> {
        let last = growing.ids.last().copied();
        let full = growing.ids.len() >= maximum || growing.prompt + growing.ids.len() > positions;
        if full || last == Some(task.end) {
            return Ok(true);
        }
        if stop.is_empty() {
            return Ok(false);
        }
        let (_, stopped) = task
            .encoder
            .decode_until(&growing.ids, stop)
            .map_err(TrainError::Unfit)?;
        Ok(stopped)
    };
    let mut queue = batch.iter();
    // The prompt that was read last, where, and what it predicts: the next sample's is often the same.
    let mut last: Option<(usize, usize, Vec<f32>)> = None;
    let mut places: Vec<Option<Growing>> = (0..PLACES).map(|_| None).collect();
    let mut answered = Vec::new();
    loop {
        for (place, growing) in places.iter_mut().enumerate() {
            while growing.is_none() {
                let Some(number) = queue.next() else { break };
                let Request::Text { item, sample, prompt } = &task.requests[*number] else {
                    return Err(TrainError::Unfit("a likelihood among texts".to_owned()));
                };
                let same = last.take_if(
                    |(read, ..)| matches!(&task.requests[*read], Request::Text { prompt: read, .. } if read == prompt),
                );
                let logits = match same {
                    Some((_, from, logits)) => {
                        cache.copy(from, place, prompt.len())?;
                        logits
                    }
                    None => prefill(network, task, seat, &mut cache, place, prompt)?,
                };
                let key = task.key(*item, *sample);
                let new = Growing {
                    number: *number,
                    key,
                    prompt: prompt.len(),
                    ids: vec![choose(&logits, how, key, 0)],
                };
                if ended(&new)? {
                    answered.push((*number, Answer::Text(finished(new.ids, task.end))));
                } else {
                    *growing = Some(new);
                }
                last = Some((*number, place, logits));
            }
        }
        if places.iter().all(Option::is_none) {
            break;
        }
        let read = |growing: &Growing| Next {
            token: growing.ids.last().copied().map_or(0, i64::from),
            position: growing.prompt + growing.ids.len() - 1,
        };
        let next: Vec<Option<Next>> = places.iter().map(|growing| growing.as_ref().map(read)).collect();
        let logits = cache.step(&seat.weights, &seat.peers, &next)?;
        for (place, logits) in places.iter_mut().zip(&logits) {
            let Some(growing) = place else { continue };
            let position = growing.ids.len() as u32;
            growing.ids.push(choose(logits, how, growing.key, position));
            if ended(growing)?
                && let Some(growing) = place.take()
            {
                answered.push((growing.number, Answer::Text(finished(growing.ids, task.end))));
            }
        }
    }
    seat.cache = Some(cache);
    Ok(answered)
}

/// Reads a prompt into a place of the cache; the logits behind it.
fn prefill(
    network: &Network,
    task: &Task,
    seat: &mut Seat,
    cache: &mut Cache,
    place: usize,
    prompt: &[u32],
) -> Result<Vec<f32>, TrainError> {
    let length = padded(prompt.len(), task.window);
    let mut ids = vec![0i64; length];
    ids.iter_mut().zip(prompt).for_each(|(id, own)| *id = i64::from(*own));
    let mut pass = Pass {
        workspace: workspace(network, &mut seat.workspace, 1, length)?,
        peers: &seat.peers,
        slot: 0,
        ids: &Tensor::f_from_slice(&ids)?,
        positions: None,
        spot: None,
    };
    Ok(network.prefill(&seat.weights, &mut pass, cache, place, prompt.len())?)
}

/// A text's tokens without the one that ends a document.
fn finished(mut ids: Vec<u32>, end: u32) -> Vec<u32> {
    if ids.last() == Some(&end) {
        ids.pop();
    }
    ids
}
