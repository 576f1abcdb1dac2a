//! One optimizer step: lanes on threads, the tree over lanes, the gradient norm, AdamW.
//!
//! A thread owns an aligned block of its rank's lanes, and a rank an aligned block of all lanes; each adds its own in
//! the order of the tree. The levels above are a reduce-scatter over replicas: each replica receives its range of the
//! gradients of all replicas and adds them in the order of the tree. Row blocks of replicated parts go to all tensor
//! ranks, and the first and last pipeline rank exchange the two accumulators of a tied embedding. The metrics of a step
//! are sums over all ranks' reports, in the order of samples and chunks.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_compiler::fields::AdamW;
use aurora_runtime::checkpoint::as_bytes;
use aurora_runtime::job::Recompute;
use aurora_runtime::trace::Operation;
use tch::{Device, Kind, Tensor};

use super::TrainError;
use super::batch::StepBatch;
use super::lanes::{self, LaneMicroBatch, LaneOutput, ThreadBuffers};
use super::pipeline::in_flight;
use super::rank_report::RankReport;
use super::thread_pool::ThreadPool;
use super::train_state::TrainState;
use crate::kernels::{AdamWCoefficients, sum_squares};
use crate::model::{
    Gradients, HostAccess, Kernels, ModelError, Network, OwnedRange, TraceRecorder, UpdateChunk, Workspace, to_device,
    to_host,
};
use crate::parallel::{Coordinates, Peers, tree_sum};

/// Elements per work unit when a loop over a buffer is divided among threads.
const UNIT: usize = 65_536;

/// The metrics of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepResult {
    /// Mean over the batch's tokens, in nats.
    pub loss: f64,
    /// Before clipping.
    pub grad_norm: f64,
    /// A rank received a stop command.
    pub stop: bool,
}

/// Runs steps on a state.
pub struct Trainer {
    pub state: TrainState,
    /// Recorder of the next steps' results, if they are traced.
    pub recorder: Option<Arc<TraceRecorder>>,
    network: Arc<Network>,
    buffers: Vec<ThreadBuffers>,
    /// Peers of threads without lanes.
    unused_peers: Vec<Peers>,
    at: Coordinates,
    /// By replica.
    owned: Vec<OwnedRange>,
    update_chunks: Arc<Vec<UpdateChunk>>,
    /// Number and range of each chunk that this rank reports.
    squares: Arc<Vec<(u64, Range<usize>)>>,
    /// Both as kernels of a device read them.
    tables: Option<DeviceTables>,
    received: ReceiveBuffers,
    sequence: usize,
    /// β₁ᵗ and β₂ᵗ after `t` updates.
    beta_powers: [f64; 2],
}

/// Chunks as kernels of a device read them.
struct DeviceTables {
    update_chunks: Tensor,
    /// Starts and lengths.
    squares: Tensor,
    ranges: Vec<Range<usize>>,
}

/// Buffers for the other replicas' gradients of this replica's range, and for the other end of the pipeline.
struct ReceiveBuffers {
    word: Vec<Tensor>,
    tied: Vec<Tensor>,
    rest: Vec<Tensor>,
    end: Tensor,
}

impl Trainer {
    /// `peers`, one per thread, connect with the same threads of the other ranks.
    ///
    /// # Errors
    /// [`TrainError::Model`] if a sequence is too long, or memory runs out.
    pub fn new(
        state: TrainState,
        peers: Vec<Peers>,
        optimizer: &AdamW,
        sequence: usize,
        micro_batches: usize,
        recompute: Recompute,
    ) -> Result<Self, TrainError> {
        let network = Arc::new(state.network.clone());
        network.probe_shapes(network.grid.micro_batch, sequence)?;
        let (parameters, mesh) = (&network.parameters, network.mesh);
        let Some(at) = peers.first().map(Peers::at) else {
            return Err(TrainError::Bug("a worker without threads"));
        };
        // Each thread has a complete subtree of the lanes.
        let mut peers = peers;
        let unused_peers = peers.split_off(1 << peers.len().min(network.grid.lanes / mesh.data).ilog2());
        // Maximum micro-batches of a lane, times the lanes of a thread.
        let each = micro_batches.div_ceil(network.grid.lanes) * (network.grid.lanes / mesh.data).div_ceil(peers.len());
        let in_flight = in_flight(mesh.pipeline, at.pipeline, each);
        let thread_buffers = |peers: Peers| {
            let workspace = Workspace::new(&network, network.grid.micro_batch, sequence, recompute, in_flight)?;
            let rows = |needed: bool| {
                let rows = workspace.gradient_rows()?;
                let rows = if needed { rows } else { rows.f_narrow(0, 0, 0)? };
                Ok::<_, ModelError>(rows.f_empty_like()?)
            };
            Ok(ThreadBuffers {
                weights: state.weights()?,
                outgoing_th: rows(at.pipeline > 0)?,
                incoming_th: [rows(at.pipeline > 0)?, rows(at.pipeline + 1 < mesh.pipeline)?],
                workspace,
                peers,
                free: Vec::new(),
            })
        };
        let buffers = peers
            .into_iter()
            .map(thread_buffers)
            .collect::<Result<_, TrainError>>()?;
        let update_chunks = state.kept.chunks.iter().map(|chunk| UpdateChunk {
            range: chunk.range.clone(),
            master: state.in_master(&chunk.range),
            moments: state.kept.local(&chunk.range),
            decays: parameters.parts[chunk.part].decays(),
        });
        let squares = state
            .reported
            .iter()
            .map(|chunk| (chunk.number as u64, chunk.range.clone()));
        let new_buffers = |length: usize| -> Result<Vec<Tensor>, ModelError> {
            let new = |_| Ok(Tensor::f_empty([length as i64], (Kind::Float, network.device))?);
            (1..mesh.data).map(new).collect()
        };
        let owned = &state.owned;
        let ends = if mesh.pipeline > 1 && parameters.shape.tied {
            owned.word.len()
        } else {
            0
        };
        let received = ReceiveBuffers {
            word: new_buffers(owned.word.len())?,
            tied: new_buffers(if parameters.tied.is_empty() {
                0
            } else {
                owned.word.len()
            })?,
            rest: new_buffers(owned.rest.len())?,
            end: Tensor::f_empty([ends as i64], (Kind::Float, network.device))?,
        };
        let mut beta_powers = [1.0; 2];
        for _ in 0..state.updates {
            advance(&mut beta_powers, optimizer);
        }
        let (update_chunks, squares): (Vec<UpdateChunk>, Vec<_>) = (update_chunks.collect(), squares.collect());
        let tables = (network.kernels == Kernels::Device)
            .then(|| DeviceTables::new(&update_chunks, &squares, network.device))
            .transpose()?;
        Ok(Self {
            owned: (0..mesh.data)
                .map(|replica| parameters.owned_range(mesh.data, replica))
                .collect(),
            update_chunks: Arc::new(update_chunks),
            squares: Arc::new(squares),
            tables,
            buffers,
            unused_peers,
            at,
            received,
            sequence,
            beta_powers,
            network,
            state,
            recorder: None,
        })
    }

    /// Memory between steps.
    #[cfg(test)]
    pub(super) fn held(&self) -> aurora_compiler::memory::Memory {
        use crate::model::workspace::bytes;
        let sum = |tensors: Vec<&Tensor>| tensors.into_iter().map(bytes).sum::<u64>();
        let TrainState {
            master,
            compute,
            moments: [first, second],
            ..
        } = &self.state;
        let own = (master.data_ptr() != compute.data_ptr()).then_some(master);
        let ReceiveBuffers { word, tied, rest, end } = &self.received;
        let mut held = aurora_compiler::memory::Memory {
            weights: bytes(compute),
            optimizer: sum([first, second].into_iter().chain(own).collect()),
            transfers: sum(word.iter().chain(tied).chain(rest).chain([end]).collect()),
            ..Default::default()
        };
        for thread_buffers in &self.buffers {
            let [activations, scratch, transfers] = thread_buffers.workspace.bytes();
            held.gradients += sum(thread_buffers.free.iter().map(|gradients| &gradients.buffer).collect());
            held.activations += activations;
            held.scratch += scratch;
            held.transfers += transfers
                + sum(thread_buffers
                    .incoming_th
                    .iter()
                    .chain([&thread_buffers.outgoing_th])
                    .collect());
        }
        held
    }

    /// Returns the state and the peers.
    pub fn into_parts(self) -> (TrainState, Vec<Peers>) {
        let peers = self.buffers.into_iter().map(|thread_buffers| thread_buffers.peers);
        (self.state, peers.chain(self.unused_peers).collect())
    }

    /// The peers of the first thread.
    pub fn peers(&self) -> Result<&Peers, TrainError> {
        let thread_buffers = self.buffers.first().map(|thread_buffers| &thread_buffers.peers);
        thread_buffers.ok_or(TrainError::Bug("a step after a failed one"))
    }

    /// Whether this rank computes the micro-batch with an index in the batch, and needs its tokens.
    pub fn reads(network: &Network, replica: usize, index: usize) -> bool {
        let lanes = network.grid.lanes / network.mesh.data;
        let holding = &network.parameters.holding;
        (holding.first || holding.last) && index % network.grid.lanes / lanes == replica
    }

    /// Forward and backward passes and the update for one batch. All ranks call it together.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] (from `not_finite`) before the state changes; [`TrainError::Model`],
    /// [`TrainError::Panicked`].
    pub fn step(
        &mut self,
        pool: &ThreadPool,
        batch: &mut StepBatch,
        optimizer: &AdamW,
        rate: f64,
        stop: &AtomicBool,
        not_finite: impl Fn(&'static str, f64) -> TrainError,
    ) -> Result<StepResult, TrainError> {
        let count = batch.micro_batches.len();
        let mut losses = Vec::new();
        let mut roots = Vec::new();
        for output in self.run_lanes(pool, batch)? {
            let LaneOutput {
                buffers,
                gradients,
                losses: own,
            } = output;
            losses.extend(own);
            roots.push(gradients);
            self.buffers.push(buffers);
        }
        self.reduce(pool, &roots)?;
        let own = RankReport {
            stop: stop.load(Ordering::SeqCst),
            losses: if self.at.tensor == 0 {
                self.sample_losses(on_host(losses)?)
            } else {
                Vec::new()
            },
            squares: self.squares(pool, &roots[0])?,
        };
        let all = self.peers()?.all_gather_bytes(&own.to_bytes())?;
        let all = all
            .iter()
            .map(|bytes| RankReport::from_bytes(bytes))
            .collect::<Result<Vec<_>, _>>()?;
        // A batch of prompts only has no gradient; its weights only decay.
        let tokens = batch.targets.max(1) as f64;
        let loss = self.total(&all, count)?;
        self.record_number(Operation::Loss, loss);
        if !loss.is_finite() {
            return Err(not_finite("loss", loss));
        }
        let grad_norm = self.norm(&all)?.sqrt() / tokens;
        self.record_number(Operation::GradientNorm, grad_norm);
        if !grad_norm.is_finite() {
            return Err(not_finite("gradient norm", grad_norm));
        }
        self.update(pool, &roots[0], optimizer, rate, grad_norm, tokens)?;
        if let Some(recorder) = &self.recorder {
            let digests = self.state.digests()?.into_iter().map(|(_, digest)| digest);
            let chunks = self.state.reported.iter().zip(digests);
            self.network.record_chunks(recorder, Operation::Weights, chunks);
        }
        for (thread_buffers, root) in self.buffers.iter_mut().zip(roots) {
            thread_buffers.free.push(root);
        }
        Ok(StepResult {
            loss: loss / tokens,
            grad_norm,
            stop: all.iter().any(|report| report.stop),
        })
    }

    /// Runs each thread's lanes. Takes the threads' buffers and the batch's micro-batches.
    fn run_lanes(&mut self, pool: &ThreadPool, batch: &mut StepBatch) -> Result<Vec<LaneOutput>, TrainError> {
        let network = Arc::clone(&self.network);
        let count = batch.micro_batches.len();
        let own = network.grid.lanes / network.mesh.data;
        let each = own / self.buffers.len();
        let recorder = self.recorder.clone();
        let items: Vec<(ThreadBuffers, Range<usize>, Vec<LaneMicroBatch>)> = self
            .buffers
            .drain(..)
            .enumerate()
            .map(|(thread, thread_buffers)| {
                let first = self.at.data * own + thread * each;
                let of_lane = |lane: usize| {
                    let micro_batches = network.grid.micro_batches(first + lane, count);
                    micro_batches.map(move |index| (lane, index))
                };
                let indices: Vec<(usize, usize)> = (0..each).flat_map(of_lane).collect();
                let micro_batch = |(lane, index): (usize, usize)| LaneMicroBatch {
                    lane,
                    index,
                    tokens: batch.micro_batches[index].take(),
                };
                (
                    thread_buffers,
                    first..first + each,
                    indices.into_iter().map(micro_batch).collect(),
                )
            })
            .collect();
        pool.run(items, move |(thread_buffers, lanes, micro_batches)| {
            lanes::run(&network, thread_buffers, lanes, &micro_batches, recorder.as_deref())
        })?
        .into_iter()
        .collect()
    }

    /// The loss of each sample: the sum over its tokens in order.
    fn sample_losses(&self, losses: Vec<(usize, Vec<f64>)>) -> Vec<(u64, f64)> {
        let micro_batch = self.network.grid.micro_batch;
        let samples = losses.iter().flat_map(|(index, rows)| {
            let of = move |(at, sample): (usize, &[f64])| ((index * micro_batch + at) as u64, sample.iter().sum());
            rows.chunks_exact(self.sequence).enumerate().map(of)
        });
        samples.collect()
    }

    /// Sum over the batch's tokens: samples as a tree in global order.
    fn total(&self, all: &[RankReport], count: usize) -> Result<f64, TrainError> {
        let mut losses: Vec<(u64, f64)> = all.iter().flat_map(|report| report.losses.iter().copied()).collect();
        losses.sort_unstable_by_key(|(sample, _)| *sample);
        let expected = 0..(count * self.network.grid.micro_batch) as u64;
        if !losses.iter().map(|(sample, _)| *sample).eq(expected) {
            return Err(TrainError::Bug("a sample does not have exactly one loss"));
        }
        let losses: Vec<f64> = losses.into_iter().map(|(_, loss)| loss).collect();
        Ok(tree_sum(&losses))
    }

    /// Sum of the squares of all gradients, in the order of chunks.
    fn norm(&self, all: &[RankReport]) -> Result<f64, TrainError> {
        let mut squares: Vec<(u64, f64)> = all.iter().flat_map(|report| report.squares.iter().copied()).collect();
        squares.sort_unstable_by_key(|(chunk, _)| *chunk);
        let expected = 0..self.network.parameters.num_chunks() as u64;
        if !squares.iter().map(|(chunk, _)| *chunk).eq(expected) {
            return Err(TrainError::Bug("a chunk is not counted exactly once"));
        }
        Ok(squares.iter().map(|(_, square)| square).sum())
    }

    /// Adds the gradients of threads and replicas, the row blocks and the tied embedding's accumulators, into the first
    /// root: this replica's range of everything, and all replicated parts.
    fn reduce(&self, pool: &ThreadPool, roots: &[Gradients]) -> Result<(), TrainError> {
        let root = &roots[0].buffer;
        let others: Vec<Tensor> = roots[1..].iter().map(|root| root.buffer.shallow_clone()).collect();
        self.add_tree(pool, root, 0, &others, 0..root.numel())?;
        self.reduce_replicas(pool, root)?;
        if let Some(recorder) = &self.recorder {
            self.network.record_lanes(recorder, &self.state.owned, root)?;
        }
        self.reduce_blocks(root)?;
        self.reduce_tied(pool, root)?;
        if let Some(recorder) = &self.recorder {
            let flat = to_host::<f32>(root)?;
            let digest = |range: &Range<usize>| blake3::hash(&as_bytes(&flat[range.clone()]));
            let chunks = self.state.reported.iter().map(|chunk| (chunk, digest(&chunk.range)));
            self.network.record_chunks(recorder, Operation::Gradient, chunks);
        }
        Ok(())
    }

    fn record_number(&self, operation: Operation, number: f64) {
        if let Some(recorder) = &self.recorder {
            recorder.add(recorder.name(operation), &number.to_le_bytes());
        }
    }

    /// Sums over replicas. Leaves are in the order `i ^ own`: the tree with swapped subtrees, so that this replica's
    /// own leaf comes first.
    fn reduce_replicas(&self, pool: &ThreadPool, root: &Tensor) -> Result<(), TrainError> {
        let (replicas, own) = (self.owned.len(), self.at.data);
        if replicas == 1 {
            return Ok(());
        }
        let (parameters, peers) = (&self.network.parameters, self.peers()?);
        let by_distance =
            |parts: Vec<Tensor>| -> Vec<Tensor> { (1..replicas).map(|i| parts[i ^ own].shallow_clone()).collect() };
        let word = |start: usize| -> Vec<Range<usize>> {
            let words = self.owned.iter().map(|owned| &owned.word);
            words.map(|word| start + word.start..start + word.end).collect()
        };
        let rest: Vec<Range<usize>> = self.owned.iter().map(|owned| owned.rest.clone()).collect();
        let mut lists = vec![(rest, &self.received.rest)];
        if parameters.holding.first {
            lists.push((word(0), &self.received.word));
        }
        if !parameters.tied.is_empty() {
            lists.push((word(parameters.tied.start), &self.received.tied));
        }
        for (ranges, received) in lists {
            let parts = peers
                .data_group()
                .start_all_to_all_rows(root, &ranges, received)?
                .wait()?;
            let range = ranges[own].clone();
            if !range.is_empty() {
                self.add_tree(pool, root, range.start, &by_distance(parts), range)?;
            }
        }
        if !parameters.blocks.is_empty() {
            let blocks = range_of(root, &parameters.blocks)?;
            let parts = peers.data_group().all_gather(&blocks)?;
            self.add_tree(
                pool,
                root,
                parameters.blocks.start,
                &by_distance(parts),
                parameters.blocks.clone(),
            )?;
        }
        Ok(())
    }

    /// Adds the row blocks of replicated parts from all tensor ranks, and writes the sums to the parts' ranges among
    /// the weights.
    fn reduce_blocks(&self, root: &Tensor) -> Result<(), TrainError> {
        let parameters = &self.network.parameters;
        if parameters.blocks.is_empty() {
            return Ok(());
        }
        let blocks = range_of(root, &parameters.blocks)?;
        let ranks = self.peers()?.tensor_group().all_gather(&blocks)?;
        for part in parameters.blocked() {
            let (start, each) = (
                part.gradients.offset - parameters.blocks.start,
                part.gradients.held.len(),
            );
            let length = part.shard_length();
            let leaf = |block: usize| {
                let start = start + block % each * part.gradients.stride;
                range_of(&ranks[block / each], &(start..start + length))
            };
            let leaves = (0..parameters.shape.tensor).map(leaf).collect::<Result<Vec<_>, _>>()?;
            let sum = range_of(root, &part.shard(0))?;
            self.network.kernels.sum_partials(&leaves, None, &sum)?;
        }
        Ok(())
    }

    /// Adds the two accumulators of a tied word embedding, within this replica's range.
    fn reduce_tied(&self, pool: &ThreadPool, root: &Tensor) -> Result<(), TrainError> {
        let (parameters, word) = (&self.network.parameters, &self.state.owned.word);
        let holding = &parameters.holding;
        if !parameters.shape.tied || word.is_empty() {
            return Ok(());
        }
        let (input, output) = (
            word.clone(),
            parameters.tied.start + word.start..parameters.tied.start + word.end,
        );
        if holding.first && holding.last {
            return self.add_tree(pool, root, word.start, &[range_of(root, &output)?], input);
        }
        let end = &self.received.end;
        if holding.first {
            let own = range_of(root, &input)?;
            self.peers()?.exchange_end_gradients(&own, end)?;
            return self.add_tree(pool, root, word.start, &[end.shallow_clone()], input);
        }
        if holding.last {
            let own = range_of(root, &output)?;
            self.peers()?.exchange_end_gradients(&own, end)?;
            range_of(root, &input)?.f_copy_(&own).map_err(ModelError::from)?;
            return self.add_tree(pool, root, word.start, &[end.shallow_clone()], input);
        }
        Ok(())
    }

    /// `root[range] = tree sum of it and of others`, on all threads. Element `range.start` of the root is element
    /// `range.start − offset` of the others.
    fn add_tree(
        &self,
        pool: &ThreadPool,
        root: &Tensor,
        offset: usize,
        others: &[Tensor],
        range: Range<usize>,
    ) -> Result<(), TrainError> {
        if others.is_empty() {
            return Ok(());
        }
        let clones =
            || -> (Tensor, Vec<Tensor>) { (root.shallow_clone(), others.iter().map(Tensor::shallow_clone).collect()) };
        let kernels = self.network.kernels;
        // A device computes a range at once.
        let unit_length = if kernels == Kernels::Device {
            range.len().max(1)
        } else {
            UNIT
        };
        let count = range.len().div_ceil(unit_length);
        let items = split(count, pool.threads()).map(|units| (units, clones())).collect();
        let work = move |(units, (root, others)): (Range<usize>, (Tensor, Vec<Tensor>))| -> Result<(), ModelError> {
            for unit in units {
                let start = range.start + unit * unit_length;
                let own = start..range.end.min(start + unit_length);
                let theirs = own.start - offset..own.end - offset;
                // Every thread adds its own units, and units do not overlap.
                let leaves = others
                    .iter()
                    .map(|other| range_of(other, &theirs))
                    .collect::<Result<Vec<_>, _>>()?;
                kernels.add_tree(&range_of(&root, &own)?, &leaves)?;
            }
            Ok(())
        };
        Ok(pool.run(items, work)?.into_iter().collect::<Result<(), _>>()?)
    }

    /// Sums of squares of the chunks that this rank reports, in `f64`.
    fn squares(&self, pool: &ThreadPool, root: &Gradients) -> Result<Vec<(u64, f64)>, TrainError> {
        if let Some(tables) = &self.tables {
            let kernels = self.network.kernels;
            let sums = to_host::<f64>(&kernels.sum_squares(&root.buffer, &tables.ranges, &tables.squares)?)?;
            let numbers = self.squares.iter().map(|(number, _)| *number);
            return Ok(numbers.zip(sums).collect());
        }
        let squares = Arc::clone(&self.squares);
        let items = split(squares.len(), pool.threads())
            .map(|range| (range, root.buffer.shallow_clone()))
            .collect();
        let work = move |(range, root): (Range<usize>, Tensor)| -> Result<Vec<(u64, f64)>, ModelError> {
            // SAFETY: nothing writes to the gradients while the threads read them.
            let host = unsafe { HostAccess::new() };
            let of = |(number, range): &(u64, Range<usize>)| {
                Ok((*number, sum_squares(host.read_range(&root, range.clone())?)))
            };
            squares[range].iter().map(of).collect()
        };
        let each = pool.run(items, work)?.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(each.concat())
    }

    fn update(
        &mut self,
        pool: &ThreadPool,
        root: &Gradients,
        optimizer: &AdamW,
        rate: f64,
        grad_norm: f64,
        tokens: f64,
    ) -> Result<(), TrainError> {
        let distributed = self.state.kept == self.state.owned;
        let [word, rest] = [
            |owned: &OwnedRange| owned.word.clone(),
            |owned: &OwnedRange| owned.rest.clone(),
        ]
        .map(|of| self.owned.iter().map(of).collect::<Vec<_>>());
        let all_gather = |buffer: &Tensor| -> Result<(), TrainError> {
            for ranges in [&word, &rest] {
                self.peers()?.data_group().all_gather_rows(buffer, ranges)?;
            }
            Ok(())
        };
        if !distributed {
            all_gather(&root.buffer)?;
        }
        let clip = optimizer
            .clip
            .map_or(1.0, |bound| (bound.to_f64() / (grad_norm + 1e-6)).min(1.0));
        let (beta1, beta2) = (optimizer.beta1.to_f64(), optimizer.beta2.to_f64());
        let mut beta_powers = self.beta_powers;
        advance(&mut beta_powers, optimizer);
        let coefficients = AdamWCoefficients {
            scale: (clip / tokens) as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            one_minus_beta1: (1.0 - beta1) as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            epsilon: optimizer.epsilon.to_f64() as f32,
            alpha_hat: (rate / (1.0 - beta_powers[0])) as f32,
            sqrt_correction2: (1.0 - beta_powers[1]).sqrt() as f32,
            decay: (1.0 - rate * optimizer.weight_decay.to_f64()) as f32,
        };
        let state = &self.state;
        let handles = || {
            let [first, second] = &state.moments;
            [&state.master, &root.buffer, first, second, &state.compute].map(Tensor::shallow_clone)
        };
        let items = split(self.update_chunks.len(), pool.threads())
            .map(|range| (range, handles()))
            .collect();
        let (kernels, update_chunks) = (self.network.kernels, Arc::clone(&self.update_chunks));
        let work = move |(range, [master, gradient, first, second, compute]): (Range<usize>, [Tensor; 5])| {
            // Every chunk is updated by one thread, and chunks do not overlap.
            let buffers = [&master, &gradient, &first, &second, &compute];
            kernels.adamw_chunks(coefficients, &update_chunks[range], None, buffers)
        };
        if let Some(tables) = &self.tables {
            let [master, gradient, first, second, compute] = &handles();
            let buffers = [master, gradient, first, second, compute];
            kernels.adamw_chunks(coefficients, &self.update_chunks, Some(&tables.update_chunks), buffers)?;
        } else {
            pool.run(items, work)?.into_iter().collect::<Result<(), _>>()?;
        }
        if distributed {
            all_gather(&self.state.compute)?;
        }
        self.beta_powers = beta_powers;
        self.state.updates += 1;
        Ok(())
    }
}

impl DeviceTables {
    fn new(update_chunks: &[UpdateChunk], squares: &[(u64, Range<usize>)], device: Device) -> Result<Self, ModelError> {
        let ranges: Vec<Range<usize>> = squares.iter().map(|(_, range)| range.clone()).collect();
        let starts = ranges.iter().map(|range| range.start as i64);
        let numbers: Vec<i64> = starts.chain(ranges.iter().map(|range| range.len() as i64)).collect();
        Ok(Self {
            update_chunks: UpdateChunk::table(update_chunks, device)?,
            squares: to_device(&numbers, device)?.f_view([2, ranges.len() as i64])?,
            ranges,
        })
    }
}

/// The losses of micro-batches, copied from the device at once.
fn on_host(losses: Vec<(usize, Tensor)>) -> Result<Vec<(usize, Vec<f64>)>, ModelError> {
    let (indices, tensors): (Vec<usize>, Vec<Tensor>) = losses.into_iter().unzip();
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    let all = to_host::<f64>(&Tensor::f_cat(&tensors, 0)?)?;
    let rows = all.len() / tensors.len();
    Ok(indices
        .into_iter()
        .zip(all.chunks_exact(rows).map(<[f64]>::to_vec))
        .collect())
}

fn advance(beta_powers: &mut [f64; 2], optimizer: &AdamW) {
    beta_powers[0] *= optimizer.beta1.to_f64();
    beta_powers[1] *= optimizer.beta2.to_f64();
}

fn range_of(tensor: &Tensor, range: &Range<usize>) -> Result<Tensor, ModelError> {
    Ok(tensor.f_narrow(0, range.start as i64, range.len() as i64)?)
}

/// Divides `count` units of work into a contiguous range per thread.
fn split(count: usize, threads: usize) -> impl Iterator<Item = Range<usize>> {
    (0..threads).map(move |i| crate::parallel::mesh::split_range(count, threads, i))
}
