//! A model's answers to the requests of a task.
//!
//! In: a checkpoint, requests. Out: scores, and the result of each item. Every worker holds the complete model, as a
//! single worker would, and requests are distributed over all threads of all workers. An answer depends on its own item
//! only (a choice also on the choices before it, which share the reading of the prompt), not on requests that are
//! answered at the same time. Not here: what is requested and how it is scored (`aurora_runtime::task`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_compiler::fields::{AnswerMode, TaskFields};
use aurora_runtime::data::encoder::Encoder;
use aurora_runtime::data::random::PhiloxKey;
use aurora_runtime::data::tokenizer;
use aurora_runtime::job::{EvalJob, Scores, TaskPaths};
use aurora_runtime::task::{self, Answer, Item, ItemResult, Request};

use super::sample::{Sampling, choose};
use super::{padded, sequences, workspace};
use crate::model::{Branches, KvCache, Network, NextToken, PassContext, Weights, Workspace, to_device};
use crate::parallel::Peers;
use crate::train::TrainError;
use crate::train::thread_pool::ThreadPool;
use crate::train::train_state::TrainState;

/// Sequences that one thread generates at a time.
const SLOTS: usize = 32;

/// A task with its items and requests.
pub struct EvalTask {
    fields: Arc<TaskFields>,
    items: Vec<Item>,
    requests: Arc<Vec<Request>>,
    encoder: Arc<Encoder>,
    end: u32,
    window: usize,
}

impl EvalTask {
    /// Reads items and tokenizer, and creates the requests.
    ///
    /// # Errors
    /// [`TrainError::Tokenizer`], [`TrainError::Task`] with the invalid item, [`TrainError::Job`].
    pub fn open(job: &EvalJob, fields: &TaskFields, paths: &TaskPaths) -> Result<Self, TrainError> {
        let encoder = tokenizer::load(&paths.tokenizer)?;
        let vocabulary = job.fields.model.vocabulary;
        if encoder.vocabulary() > vocabulary {
            let found = encoder.vocabulary();
            return Err(TrainError::Job(format!(
                "the tokenizer has {found} entries, the model {vocabulary}"
            )));
        }
        let items = task::items(fields, &paths.files)?;
        let window = job.fields.window as usize;
        let end = paths.end_of_document;
        let requests = task::requests(fields, &items, &encoder, end, window)?;
        Ok(Self {
            fields: Arc::new(fields.clone()),
            items,
            requests: Arc::new(requests),
            encoder: Arc::new(encoder),
            end,
            window,
        })
    }

    /// Groups requests into batches for `threads` threads: sequences of one padded length, or texts.
    fn batches(&self, threads: usize) -> Vec<RequestBatch> {
        let mut texts = Vec::new();
        let mut sequences: Vec<BranchedSequence> = Vec::new();
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
            // The last token of a continuation is predicted, not read.
            let read = continuation.saturating_sub(1);
            // An item's continuations of one context follow it in one sequence, as far as they fit.
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
                None => sequences.push(BranchedSequence {
                    item,
                    requests: vec![number],
                    branches: Branches {
                        context,
                        lengths: vec![read],
                    },
                }),
            }
        }
        let mut by_length: BTreeMap<usize, Vec<BranchedSequence>> = BTreeMap::new();
        for sequence in sequences {
            let length = padded(sequence.length(), self.window);
            by_length.entry(length).or_default().push(sequence);
        }
        let mut batches = Vec::new();
        for (length, all) in by_length {
            let some = all.chunks(super::sequences(length)).map(<[_]>::to_vec);
            batches.extend(some.map(|sequences| RequestBatch::Likelihoods { length, sequences }));
        }
        let size = texts.len().div_ceil(threads).clamp(1, 2 * SLOTS);
        batches.extend(texts.chunks(size).map(|chunk| RequestBatch::Texts(chunk.to_vec())));
        batches
    }

    /// Batches that each thread answers before progress is reported and a stop is noticed.
    fn round(&self) -> usize {
        match self.fields.asks {
            AnswerMode::Choices(_) => 8,
            AnswerMode::Text { .. } => 1,
        }
    }

    /// The context of a likelihood.
    fn context(&self, request: usize) -> &[u32] {
        match &self.requests[request] {
            Request::Likelihood { context, .. } => context,
            Request::Text { .. } => &[],
        }
    }

    /// The key of the random numbers for a text.
    fn key(&self, item: usize, sample: u32) -> PhiloxKey {
        let Item { name, attack, .. } = &self.items[item];
        let mut purpose = format!("answer {name}");
        if let Some(attack) = attack {
            purpose.push_str(&format!(" {attack}"));
        }
        if sample > 0 {
            purpose.push_str(&format!(" {sample}"));
        }
        PhiloxKey::derive(self.fields.seed, &purpose)
    }

    /// How tokens of a text are chosen, its stop strings, and its maximum length.
    fn text(&self) -> (Sampling, &[String], usize) {
        match &self.fields.asks {
            AnswerMode::Text {
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
            AnswerMode::Choices(_) => {
                let how = Sampling {
                    temperature: None,
                    top_p: 1.0,
                };
                (how, &[], 0)
            }
        }
    }
}

/// A context and the continuations whose likelihoods are requested.
#[derive(Clone, Debug)]
struct BranchedSequence {
    item: usize,
    requests: Vec<usize>,
    branches: Branches,
}

impl BranchedSequence {
    /// Tokens that are read.
    fn length(&self) -> usize {
        self.branches.context + self.branches.lengths.iter().sum::<usize>()
    }
}

#[derive(Clone, Debug)]
enum RequestBatch {
    Likelihoods {
        length: usize,
        sequences: Vec<BranchedSequence>,
    },
    Texts(Vec<usize>),
}

/// Weights and buffers of one thread.
struct AnswerThread {
    weights: Weights,
    workspace: Option<Workspace>,
    cache: Option<KvCache>,
    peers: Peers,
}

/// The scores of a task's answers and the result of each item; none if a rank received a stop command.
pub type Answered = Option<(Scores, Vec<ItemResult>)>;

/// Answers a task, all ranks together. `state` is the complete model; the ranks exchange answers through `peers`, which
/// are those of the mesh. `progress` receives the numbers of answered and of all requests.
///
/// # Errors
/// [`TrainError::Model`], [`TrainError::Scoring`], [`TrainError::Answers`].
pub fn answer(
    task: EvalTask,
    state: &TrainState,
    pool: &ThreadPool,
    peers: &Peers,
    ranks: (usize, usize),
    stop: &AtomicBool,
    mut progress: impl FnMut(u64, u64),
) -> Result<Answered, TrainError> {
    let (rank, world) = ranks;
    let (network, task) = (Arc::new(state.network.clone()), Arc::new(task));
    let threads = pool.threads();
    let mut answer_threads = Vec::new();
    for _ in 0..threads {
        answer_threads.push(AnswerThread {
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
        let mut work: Vec<(AnswerThread, Vec<RequestBatch>)> =
            answer_threads.drain(..).map(|thread| (thread, Vec::new())).collect();
        for (index, batch) in round.iter().enumerate() {
            let position = index % (threads * world);
            if position / threads == rank {
                work[position % threads].1.push(batch.clone());
            }
        }
        let (network, own_task) = (Arc::clone(&network), Arc::clone(&task));
        let mut own: Vec<(usize, Answer)> = Vec::new();
        for result in pool.run(work, move |(thread, batches)| {
            one_thread(&network, &own_task, thread, &batches)
        })? {
            let (thread, answered) = result?;
            answer_threads.push(thread);
            own.extend(answered);
        }
        let own = (stop.load(Ordering::SeqCst), own);
        let own = serde_json::to_vec(&own).map_err(TrainError::Answers)?;
        let mut stopped = false;
        for theirs in peers.all_gather_bytes(&own)? {
            let (stop, theirs): (bool, Vec<(usize, Answer)>) =
                serde_json::from_slice(&theirs).map_err(TrainError::Answers)?;
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
    let answers = answers.ok_or(TrainError::Bug("a request was not answered"))?;
    task::score(&task.fields, &task.items, &answers, &task.encoder)
        .map(Some)
        .map_err(|error| TrainError::Scoring(error.into()))
}

fn one_thread(
    network: &Network,
    task: &EvalTask,
    mut thread: AnswerThread,
    batches: &[RequestBatch],
) -> Result<(AnswerThread, Vec<(usize, Answer)>), TrainError> {
    let mut answered = Vec::new();
    for batch in batches {
        answered.extend(match batch {
            RequestBatch::Texts(numbers) => texts(network, task, &mut thread, numbers)?,
            RequestBatch::Likelihoods { length, sequences } => {
                likelihoods(network, task, &mut thread, *length, sequences)?
            }
        });
    }
    Ok((thread, answered))
}

/// ln p of the continuations of a batch of sequences of one padded length.
fn likelihoods(
    network: &Network,
    task: &EvalTask,
    thread: &mut AnswerThread,
    length: usize,
    batch: &[BranchedSequence],
) -> Result<Vec<(usize, Answer)>, TrainError> {
    let mut ids = vec![0i64; sequences(length) * length];
    // Requests with the number of their tokens; and all tokens, each with the row that predicts it.
    let mut requests: Vec<(usize, usize)> = Vec::new();
    let mut pairs: Vec<(i64, i64)> = Vec::new();
    let put = |ids: &mut [i64], own: &[u32]| ids.iter_mut().zip(own).for_each(|(id, own)| *id = i64::from(*own));
    for (row, sequence) in batch.iter().enumerate() {
        let start = row * length;
        put(&mut ids[start..], task.context(sequence.requests[0]));
        let mut at = start + sequence.branches.context;
        let last_of_context = at as i64 - 1;
        for number in &sequence.requests {
            let Request::Likelihood { continuation, .. } = &task.requests[*number] else {
                return Err(TrainError::Bug("a text among likelihoods"));
            };
            let read = continuation.len().saturating_sub(1);
            put(&mut ids[at..], &continuation[..read]);
            let rows = std::iter::once(last_of_context).chain(at as i64..);
            pairs.extend(rows.zip(continuation.iter().copied().map(i64::from)));
            requests.push((*number, continuation.len()));
            at += read;
        }
    }
    let workspace = workspace(network, &mut thread.workspace, sequences(length), length)?;
    let branches: Vec<_> = batch.iter().map(|sequence| sequence.branches.clone()).collect();
    let positions = network.branches(workspace, &branches)?;
    let mut pass = PassContext {
        workspace,
        peers: &thread.peers,
        slot: 0,
        ids_t: &to_device(&ids, network.device)?,
        positions: Some(&positions),
        trace: None,
    };
    network.forward(&thread.weights, &mut pass)?;
    let losses = network.losses(&thread.weights, &pass, &pairs)?;
    let mut losses = losses.into_iter();
    let answer = |(number, tokens): (usize, usize)| {
        let ln: f64 = losses.by_ref().take(tokens).map(|loss| -loss).sum();
        (number, Answer::Likelihood(ln.to_bits()))
    };
    Ok(requests.into_iter().map(answer).collect())
}

/// A text that is generated in a slot of the cache.
struct GeneratedText {
    number: usize,
    key: PhiloxKey,
    prompt: usize,
    ids: Vec<u32>,
}

/// Generates the texts of a batch: a free slot takes the next prompt.
fn texts(
    network: &Network,
    task: &EvalTask,
    thread: &mut AnswerThread,
    batch: &[usize],
) -> Result<Vec<(usize, Answer)>, TrainError> {
    let (how, stop, maximum) = task.text();
    let longest = task.requests.iter().map(|request| match request {
        Request::Text { prompt, .. } => prompt.len(),
        Request::Likelihood { .. } => 0,
    });
    let positions = (longest.max().unwrap_or(0) + maximum).min(task.window);
    let mut cache = match thread.cache.take() {
        Some(cache) => cache,
        None => KvCache::new(network, SLOTS, positions)?,
    };
    let ended = |text: &GeneratedText| -> Result<bool, TrainError> {
        let last = text.ids.last().copied();
        let full = text.ids.len() >= maximum || text.prompt + text.ids.len() > positions;
        if full || last == Some(task.end) {
            return Ok(true);
        }
        if stop.is_empty() {
            return Ok(false);
        }
        let (_, stopped) = task
            .encoder
            .decode_until(&text.ids, stop)
            .map_err(|error| TrainError::Scoring(error.into()))?;
        Ok(stopped)
    };
    let mut queue = batch.iter();
    // The last prompt, its slot, and the logits after it: the next sample often has the same prompt.
    let mut last: Option<(usize, usize, Vec<f32>)> = None;
    let mut slots: Vec<Option<GeneratedText>> = (0..SLOTS).map(|_| None).collect();
    let mut answered = Vec::new();
    loop {
        for (slot, text) in slots.iter_mut().enumerate() {
            while text.is_none() {
                let Some(number) = queue.next() else { break };
                let Request::Text { item, sample, prompt } = &task.requests[*number] else {
                    return Err(TrainError::Bug("a likelihood among texts"));
                };
                let same = last.take_if(
                    |(read, ..)| matches!(&task.requests[*read], Request::Text { prompt: read, .. } if read == prompt),
                );
                let logits = match same {
                    Some((_, from, logits)) => {
                        cache.copy(from, slot, prompt.len())?;
                        logits
                    }
                    None => prefill(network, task, thread, &mut cache, slot, prompt)?,
                };
                let key = task.key(*item, *sample);
                let new = GeneratedText {
                    number: *number,
                    key,
                    prompt: prompt.len(),
                    ids: vec![choose(&logits, how, key, 0)],
                };
                if ended(&new)? {
                    answered.push((*number, Answer::Text(finished(new.ids, task.end))));
                } else {
                    *text = Some(new);
                }
                last = Some((*number, slot, logits));
            }
        }
        if slots.iter().all(Option::is_none) {
            break;
        }
        let read = |text: &GeneratedText| NextToken {
            token: text.ids.last().copied().map_or(0, i64::from),
            position: text.prompt + text.ids.len() - 1,
        };
        let next: Vec<Option<NextToken>> = slots.iter().map(|text| text.as_ref().map(read)).collect();
        let logits = cache.step(&thread.weights, &thread.peers, &next)?;
        for (slot, logits) in slots.iter_mut().zip(&logits) {
            let Some(text) = slot else { continue };
            let position = text.ids.len() as u32;
            text.ids.push(choose(logits, how, text.key, position));
            if ended(text)?
                && let Some(text) = slot.take()
            {
                answered.push((text.number, Answer::Text(finished(text.ids, task.end))));
            }
        }
    }
    thread.cache = Some(cache);
    Ok(answered)
}

/// Reads a prompt into a slot of the cache; returns the logits after it.
fn prefill(
    network: &Network,
    task: &EvalTask,
    thread: &mut AnswerThread,
    cache: &mut KvCache,
    slot: usize,
    prompt: &[u32],
) -> Result<Vec<f32>, TrainError> {
    let length = padded(prompt.len(), task.window);
    let mut ids = vec![0i64; length];
    ids.iter_mut().zip(prompt).for_each(|(id, own)| *id = i64::from(*own));
    let mut pass = PassContext {
        workspace: workspace(network, &mut thread.workspace, 1, length)?,
        peers: &thread.peers,
        slot: 0,
        ids_t: &to_device(&ids, network.device)?,
        positions: None,
        trace: None,
    };
    Ok(network.prefill(&thread.weights, &mut pass, cache, slot, prompt.len())?)
}

/// A text's tokens without the end-of-document id.
fn finished(mut ids: Vec<u32>, end: u32) -> Vec<u32> {
    if ids.last() == Some(&end) {
        ids.pop();
    }
    ids
}
