//! One optimizer step: lanes on threads, the tree over lanes, the gradient norm, AdamW.
//!
//! A thread owns an aligned block of its rank's lanes, a rank an aligned block of all lanes; each joins its own as the
//! tree asks. What lies above is joined in shares: each replica gets its share of the gradients of all replicas, and adds
//! them in the tree's order. Row blocks of replicated parts go to all tensor ranks, and the two accumulators of a tied
//! embedding meet between the pipeline's ends. The figures of a step are sums over all ranks' reports, in the order of
//! samples and chunks.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_compiler::fields::AdamW;
use aurora_runtime::checkpoint::as_bytes;
use aurora_runtime::job::Recompute;
use aurora_runtime::trace::Operation;
use tch::{Kind, Tensor};

use super::TrainError;
use super::batch::Batch;
use super::lanes::{self, Harvest, Item, Seat};
use super::pipeline::under_way;
use super::report::Report;
use super::state::State;
use super::team::Team;
use crate::kernels::{Update, adamw, sum_partials, sum_squares, tree_into};
use crate::model::{Gradients, ModelError, Network, Recorder, Share, Workspace, elements, part, part_mut};
use crate::parallel::{Coordinates, Peers, tree_sum};

/// Elements that a thread takes at a time of work over a whole buffer.
const STRETCH: usize = 65_536;

/// The figures of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Mean over the batch's tokens, nats.
    pub loss: f64,
    /// Before clipping.
    pub grad_norm: f64,
    /// Some rank was asked to stop.
    pub stop: bool,
}

/// One piece of the optimizer's work.
struct Piece {
    /// In a buffer of weights.
    range: Range<usize>,
    master: Range<usize>,
    moments: Range<usize>,
    decays: bool,
}

/// Runs steps on a state.
pub struct Trainer {
    pub state: State,
    /// Where the results of the next steps are recorded, if they are.
    pub recorder: Option<Arc<Recorder>>,
    network: Arc<Network>,
    seats: Vec<Seat>,
    /// Those of threads that have no lane.
    idle: Vec<Peers>,
    at: Coordinates,
    /// By replica.
    shares: Vec<Share>,
    pieces: Arc<Vec<Piece>>,
    /// Number and place of each chunk that this rank counts.
    squares: Arc<Vec<(u64, Range<usize>)>>,
    incoming: Incoming,
    sequence: usize,
    /// Products of the betas over the updates so far.
    powers: [f64; 2],
}

/// Room for the other replicas' gradients of this one's share, and for the pipeline's other end.
struct Incoming {
    word: Vec<Tensor>,
    tied: Vec<Tensor>,
    rest: Vec<Tensor>,
    end: Tensor,
}

impl Trainer {
    /// `peers`, one a thread, connect with the same threads of the other ranks.
    ///
    /// # Errors
    /// [`TrainError::Model`] if a sequence is too long, or memory runs out.
    pub fn new(
        state: State,
        peers: Vec<Peers>,
        optimizer: &AdamW,
        sequence: usize,
        micro_batches: usize,
        recompute: Recompute,
    ) -> Result<Self, TrainError> {
        let network = Arc::new(state.network.clone());
        let (layout, mesh) = (&network.layout, network.mesh);
        let Some(at) = peers.first().map(Peers::at) else {
            return Err(TrainError::Unfit("a worker without threads".to_owned()));
        };
        // Each thread has a whole subtree of the lanes.
        let mut peers = peers;
        let idle = peers.split_off(1 << peers.len().min(network.grid.lanes / mesh.data).ilog2());
        // What a lane has at most, times the lanes of a thread.
        let each = micro_batches.div_ceil(network.grid.lanes) * (network.grid.lanes / mesh.data).div_ceil(peers.len());
        let room = under_way(mesh.pipeline, at.pipeline, each);
        let seat = |peers: Peers| {
            let workspace = Workspace::new(&network, network.grid.micro_batch, sequence, recompute, room)?;
            let rows = |needed: bool| {
                let rows = workspace.gradient_rows()?;
                let rows = if needed { rows } else { rows.f_narrow(0, 0, 0)? };
                Ok::<_, ModelError>(rows.f_empty_like()?)
            };
            Ok(Seat {
                weights: state.weights()?,
                outgoing: rows(at.pipeline > 0)?,
                incoming: [rows(at.pipeline > 0)?, rows(at.pipeline + 1 < mesh.pipeline)?],
                workspace,
                peers,
                free: Vec::new(),
            })
        };
        let seats = peers.into_iter().map(seat).collect::<Result<_, TrainError>>()?;
        let pieces = state.kept.chunks.iter().map(|chunk| Piece {
            range: chunk.range.clone(),
            master: state.in_master(&chunk.range),
            moments: state.kept.inside(&chunk.range),
            decays: layout.parts[chunk.part].decays(),
        });
        let squares = state
            .reported
            .iter()
            .map(|chunk| (chunk.number as u64, chunk.range.clone()));
        let buffers = |length: usize| -> Result<Vec<Tensor>, ModelError> {
            let new = |_| Ok(Tensor::f_empty([length as i64], (Kind::Float, network.device))?);
            (1..mesh.data).map(new).collect()
        };
        let share = &state.share;
        let ends = if mesh.pipeline > 1 && layout.shape.tied {
            share.word.len()
        } else {
            0
        };
        let incoming = Incoming {
            word: buffers(share.word.len())?,
            tied: buffers(if layout.tied.is_empty() { 0 } else { share.word.len() })?,
            rest: buffers(share.rest.len())?,
            end: Tensor::f_empty([ends as i64], (Kind::Float, network.device))?,
        };
        let mut powers = [1.0; 2];
        for _ in 0..state.updates {
            advance(&mut powers, optimizer);
        }
        Ok(Self {
            shares: (0..mesh.data).map(|replica| layout.share(mesh.data, replica)).collect(),
            pieces: Arc::new(pieces.collect()),
            squares: Arc::new(squares.collect()),
            seats,
            idle,
            at,
            incoming,
            sequence,
            powers,
            network,
            state,
            recorder: None,
        })
    }

    /// What is held between steps.
    #[cfg(test)]
    pub(super) fn held(&self) -> aurora_compiler::memory::Memory {
        use crate::model::workspace::bytes;
        let sum = |tensors: Vec<&Tensor>| tensors.into_iter().map(bytes).sum::<u64>();
        let State {
            master,
            compute,
            moments: [first, second],
            ..
        } = &self.state;
        let own = (master.data_ptr() != compute.data_ptr()).then_some(master);
        let Incoming { word, tied, rest, end } = &self.incoming;
        let mut held = aurora_compiler::memory::Memory {
            weights: bytes(compute),
            optimizer: sum([first, second].into_iter().chain(own).collect()),
            transfers: sum(word.iter().chain(tied).chain(rest).chain([end]).collect()),
            ..Default::default()
        };
        for seat in &self.seats {
            let [activations, scratch, transfers] = seat.workspace.bytes();
            held.gradients += sum(seat.free.iter().map(|gradients| &gradients.buffer).collect());
            held.activations += activations;
            held.scratch += scratch;
            held.transfers += transfers + sum(seat.incoming.iter().chain([&seat.outgoing]).collect());
        }
        held
    }

    /// The state, and the peers that were given.
    pub fn into_parts(self) -> (State, Vec<Peers>) {
        let peers = self.seats.into_iter().map(|seat| seat.peers);
        (self.state, peers.chain(self.idle).collect())
    }

    /// The peers of the first thread.
    pub fn peers(&self) -> Result<&Peers, TrainError> {
        let seat = self.seats.first().map(|seat| &seat.peers);
        seat.ok_or_else(|| TrainError::Unfit("a step before it failed".to_owned()))
    }

    /// Whether this rank computes the micro-batch at a place of the batch, and needs its tokens.
    pub fn reads(network: &Network, replica: usize, index: usize) -> bool {
        let lanes = network.grid.lanes / network.mesh.data;
        let holding = &network.layout.holding;
        (holding.first || holding.last) && index % network.grid.lanes / lanes == replica
    }

    /// Forward, backward and update over one batch. All ranks do it together.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] (from `not_finite`) before the state is touched; [`TrainError::Model`],
    /// [`TrainError::Panicked`].
    pub fn step(
        &mut self,
        team: &Team,
        batch: &mut Batch,
        optimizer: &AdamW,
        rate: f64,
        stop: &AtomicBool,
        not_finite: impl Fn(&'static str, f64) -> TrainError,
    ) -> Result<Outcome, TrainError> {
        let count = batch.micro_batches.len();
        let mut losses = Vec::new();
        let mut roots = Vec::new();
        for harvest in self.run_lanes(team, batch)? {
            let Harvest {
                seat,
                gradients,
                losses: own,
            } = harvest;
            losses.extend(own);
            roots.push(gradients);
            self.seats.push(seat);
        }
        self.join(team, &roots)?;
        let own = Report {
            stop: stop.load(Ordering::SeqCst),
            losses: if self.at.tensor == 0 {
                self.sample_losses(losses)
            } else {
                Vec::new()
            },
            squares: self.squares(team, &roots[0])?,
        };
        let all = self.peers()?.gather_world(&own.to_bytes())?;
        let all = all
            .iter()
            .map(|bytes| Report::from_bytes(bytes))
            .collect::<Result<Vec<_>, _>>()?;
        // A batch of nothing but prompts has no gradient; its weights only decay.
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
        self.update(team, &roots[0], optimizer, rate, grad_norm, tokens)?;
        if let Some(recorder) = &self.recorder {
            let digests = self.state.digests()?.into_iter().map(|(_, digest)| digest);
            let chunks = self.state.reported.iter().zip(digests);
            self.network.record_chunks(recorder, Operation::Weights, chunks);
        }
        for (seat, root) in self.seats.iter_mut().zip(roots) {
            seat.free.push(root);
        }
        Ok(Outcome {
            loss: loss / tokens,
            grad_norm,
            stop: all.iter().any(|report| report.stop),
        })
    }

    /// Each thread's lanes. Takes the seats and the batch's micro-batches.
    fn run_lanes(&mut self, team: &Team, batch: &mut Batch) -> Result<Vec<Harvest>, TrainError> {
        let network = Arc::clone(&self.network);
        let count = batch.micro_batches.len();
        let own = network.grid.lanes / network.mesh.data;
        let each = own / self.seats.len();
        let recorder = self.recorder.clone();
        let items: Vec<(Seat, Range<usize>, Vec<Item>)> = self
            .seats
            .drain(..)
            .enumerate()
            .map(|(thread, seat)| {
                let first = self.at.data * own + thread * each;
                let of_lane = |lane: usize| {
                    let micro_batches = network.grid.micro_batches(first + lane, count);
                    micro_batches.map(move |index| (lane, index))
                };
                let places: Vec<(usize, usize)> = (0..each).flat_map(of_lane).collect();
                let item = |(lane, index): (usize, usize)| Item {
                    lane,
                    index,
                    tokens: batch.micro_batches[index].take(),
                };
                (seat, first..first + each, places.into_iter().map(item).collect())
            })
            .collect();
        team.run(items, move |(seat, lanes, items)| {
            lanes::run(&network, seat, lanes, &items, recorder.as_deref())
        })?
        .into_iter()
        .collect()
    }

    /// The loss of each sample: its tokens in order.
    fn sample_losses(&self, losses: Vec<(usize, Vec<f64>)>) -> Vec<(u64, f64)> {
        let micro_batch = self.network.grid.micro_batch;
        let samples = losses.iter().flat_map(|(index, rows)| {
            let of = move |(at, sample): (usize, &[f64])| ((index * micro_batch + at) as u64, sample.iter().sum());
            rows.chunks_exact(self.sequence).enumerate().map(of)
        });
        samples.collect()
    }

    /// Sum over the batch's tokens: samples as a tree in global order.
    fn total(&self, all: &[Report], count: usize) -> Result<f64, TrainError> {
        let mut losses: Vec<(u64, f64)> = all.iter().flat_map(|report| report.losses.iter().copied()).collect();
        losses.sort_unstable_by_key(|(sample, _)| *sample);
        let expected = 0..(count * self.network.grid.micro_batch) as u64;
        if !losses.iter().map(|(sample, _)| *sample).eq(expected) {
            return Err(TrainError::Unfit("not every sample has one loss".to_owned()));
        }
        let losses: Vec<f64> = losses.into_iter().map(|(_, loss)| loss).collect();
        Ok(tree_sum(&losses))
    }

    /// Sum of the squares of all gradients, added in the order of chunks.
    fn norm(&self, all: &[Report]) -> Result<f64, TrainError> {
        let mut squares: Vec<(u64, f64)> = all.iter().flat_map(|report| report.squares.iter().copied()).collect();
        squares.sort_unstable_by_key(|(chunk, _)| *chunk);
        let expected = 0..self.network.layout.num_chunks() as u64;
        if !squares.iter().map(|(chunk, _)| *chunk).eq(expected) {
            return Err(TrainError::Unfit("not every chunk is counted once".to_owned()));
        }
        Ok(squares.iter().map(|(_, square)| square).sum())
    }

    /// Joins the threads' gradients, the replicas', the row blocks' and the tied embedding's, in the first root: this
    /// replica's share of everything, and all replicated parts.
    fn join(&self, team: &Team, roots: &[Gradients]) -> Result<(), TrainError> {
        let root = &roots[0].buffer;
        let others: Vec<Tensor> = roots[1..].iter().map(|root| root.buffer.shallow_clone()).collect();
        tree(team, root, 0, &others, 0..root.numel())?;
        self.join_replicas(team, root)?;
        if let Some(recorder) = &self.recorder {
            self.network.record_lanes(recorder, &self.state.share, root)?;
        }
        self.join_blocks(root)?;
        self.join_tied(team, root)?;
        if let Some(recorder) = &self.recorder {
            let flat = elements::<f32>(root)?;
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

    /// Sums over replicas. Leaves are taken in the order `i ^ own`: the tree turned round, so that this replica's own
    /// comes first.
    fn join_replicas(&self, team: &Team, root: &Tensor) -> Result<(), TrainError> {
        let (replicas, own) = (self.shares.len(), self.at.data);
        if replicas == 1 {
            return Ok(());
        }
        let (layout, peers) = (&self.network.layout, self.peers()?);
        let turned =
            |parts: Vec<Tensor>| -> Vec<Tensor> { (1..replicas).map(|i| parts[i ^ own].shallow_clone()).collect() };
        let word = |start: usize| -> Vec<Range<usize>> {
            let shares = self.shares.iter().map(|share| &share.word);
            shares.map(|word| start + word.start..start + word.end).collect()
        };
        let rest: Vec<Range<usize>> = self.shares.iter().map(|share| share.rest.clone()).collect();
        let mut lists = vec![(rest, &self.incoming.rest)];
        if layout.holding.first {
            lists.push((word(0), &self.incoming.word));
        }
        if !layout.tied.is_empty() {
            lists.push((word(layout.tied.start), &self.incoming.tied));
        }
        for (shares, incoming) in lists {
            let parts = peers.data_group().scatter(root, &shares, incoming)?.wait()?;
            let range = shares[own].clone();
            if !range.is_empty() {
                tree(team, root, range.start, &turned(parts), range)?;
            }
        }
        if !layout.blocks.is_empty() {
            let blocks = range_of(root, &layout.blocks)?;
            let parts = peers.data_group().share(&blocks)?;
            tree(team, root, layout.blocks.start, &turned(parts), layout.blocks.clone())?;
        }
        Ok(())
    }

    /// Sums the row blocks of replicated parts, from all tensor ranks, into their places among the weights.
    fn join_blocks(&self, root: &Tensor) -> Result<(), TrainError> {
        let layout = &self.network.layout;
        if layout.blocks.is_empty() {
            return Ok(());
        }
        let blocks = range_of(root, &layout.blocks)?;
        let ranks = self.peers()?.tensor_group().share(&blocks)?;
        let ranks = ranks.iter().map(elements::<f32>).collect::<Result<Vec<_>, _>>()?;
        for part in layout.blocked() {
            let (start, each) = (part.gradients.offset - layout.blocks.start, part.gradients.held.len());
            let length = part.shard_length();
            let leaf = |block: usize| {
                let start = start + block % each * part.gradients.stride;
                &ranks[block / each][start..start + length]
            };
            let leaves: Vec<&[f32]> = (0..layout.shape.tensor).map(leaf).collect();
            sum_partials(&leaves, None::<&[f32]>, part_mut(root, part.shard(0))?);
        }
        Ok(())
    }

    /// Adds the two accumulators of a tied word embedding, within this replica's share.
    fn join_tied(&self, team: &Team, root: &Tensor) -> Result<(), TrainError> {
        let (layout, word) = (&self.network.layout, &self.state.share.word);
        let holding = &layout.holding;
        if !layout.shape.tied || word.is_empty() {
            return Ok(());
        }
        let (input, output) = (
            word.clone(),
            layout.tied.start + word.start..layout.tied.start + word.end,
        );
        if holding.first && holding.last {
            return tree(team, root, word.start, &[range_of(root, &output)?], input);
        }
        let end = &self.incoming.end;
        if holding.first {
            let own = range_of(root, &input)?;
            self.peers()?.trade_ends(&own, end)?;
            return tree(team, root, word.start, &[end.shallow_clone()], input);
        }
        if holding.last {
            let own = range_of(root, &output)?;
            self.peers()?.trade_ends(&own, end)?;
            part_mut::<f32>(root, input.clone())?.copy_from_slice(elements(&own)?);
            return tree(team, root, word.start, &[end.shallow_clone()], input);
        }
        Ok(())
    }

    /// Sums of squares of the chunks that this rank counts, in `f64`.
    fn squares(&self, team: &Team, root: &Gradients) -> Result<Vec<(u64, f64)>, TrainError> {
        let squares = Arc::clone(&self.squares);
        let items = shares(squares.len(), team.threads())
            .map(|share| (share, root.buffer.shallow_clone()))
            .collect();
        let work = move |(share, root): (Range<usize>, Tensor)| -> Result<Vec<(u64, f64)>, ModelError> {
            let of = |(number, range): &(u64, Range<usize>)| Ok((*number, sum_squares(part(&root, range.clone())?)));
            squares[share].iter().map(of).collect()
        };
        let each = team.run(items, work)?.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(each.concat())
    }

    fn update(
        &mut self,
        team: &Team,
        root: &Gradients,
        optimizer: &AdamW,
        rate: f64,
        grad_norm: f64,
        tokens: f64,
    ) -> Result<(), TrainError> {
        let distributed = self.state.kept == self.state.share;
        let [word, rest] = [|share: &Share| share.word.clone(), |share: &Share| share.rest.clone()]
            .map(|of| self.shares.iter().map(of).collect::<Vec<_>>());
        let gather = |whole: &Tensor| -> Result<(), TrainError> {
            for shares in [&word, &rest] {
                self.peers()?.data_group().gather(whole, shares)?;
            }
            Ok(())
        };
        if !distributed {
            gather(&root.buffer)?;
        }
        let clip = optimizer
            .clip
            .map_or(1.0, |bound| (bound.to_f64() / (grad_norm + 1e-6)).min(1.0));
        let (beta1, beta2) = (optimizer.beta1.to_f64(), optimizer.beta2.to_f64());
        let mut powers = self.powers;
        advance(&mut powers, optimizer);
        let numbers = Update {
            scale: (clip / tokens) as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            rest1: (1.0 - beta1) as f32,
            rest2: (1.0 - beta2) as f32,
            epsilon: optimizer.epsilon.to_f64() as f32,
            step: (rate / (1.0 - powers[0])) as f32,
            root2: (1.0 - powers[1]).sqrt() as f32,
            keep: (1.0 - rate * optimizer.weight_decay.to_f64()) as f32,
        };
        let state = &self.state;
        let handles = || {
            let [first, second] = &state.moments;
            [&state.master, &root.buffer, first, second, &state.compute].map(Tensor::shallow_clone)
        };
        let items = shares(self.pieces.len(), team.threads())
            .map(|share| (share, handles()))
            .collect();
        let (kind, pieces) = (self.network.kind, Arc::clone(&self.pieces));
        let work = move |(share, [master, gradient, first, second, compute]): (Range<usize>, [Tensor; 5])| {
            for piece in &pieces[share] {
                let keep = if piece.decays { numbers.keep } else { 1.0 };
                let numbers = Update { keep, ..numbers };
                let master = part_mut::<f32>(&master, piece.master.clone())?;
                let gradient = part::<f32>(&gradient, piece.range.clone())?;
                let first = part_mut(&first, piece.moments.clone())?;
                let second = part_mut(&second, piece.moments.clone())?;
                if kind == Kind::BFloat16 {
                    let compute = part_mut::<half::bf16>(&compute, piece.range.clone())?;
                    adamw(numbers, master, gradient, first, second, Some(compute));
                } else {
                    adamw::<f32>(numbers, master, gradient, first, second, None);
                }
            }
            Ok::<(), TrainError>(())
        };
        team.run(items, work)?.into_iter().collect::<Result<(), _>>()?;
        if distributed {
            gather(&self.state.compute)?;
        }
        self.powers = powers;
        self.state.updates += 1;
        Ok(())
    }
}

fn advance(powers: &mut [f64; 2], optimizer: &AdamW) {
    powers[0] *= optimizer.beta1.to_f64();
    powers[1] *= optimizer.beta2.to_f64();
}

fn range_of(tensor: &Tensor, range: &Range<usize>) -> Result<Tensor, ModelError> {
    Ok(tensor.f_narrow(0, range.start as i64, range.len() as i64)?)
}

/// Contiguous shares of `count` pieces of work, one a thread.
fn shares(count: usize, threads: usize) -> impl Iterator<Item = Range<usize>> {
    (0..threads).map(move |i| crate::parallel::mesh::share(count, threads, i))
}

/// `root[range] = tree sum of it and of others`, on all threads. Element `range.start` of the root is element
/// `range.start − offset` of the others.
fn tree(team: &Team, root: &Tensor, offset: usize, others: &[Tensor], range: Range<usize>) -> Result<(), TrainError> {
    if others.is_empty() {
        return Ok(());
    }
    let clones =
        || -> (Tensor, Vec<Tensor>) { (root.shallow_clone(), others.iter().map(Tensor::shallow_clone).collect()) };
    let count = range.len().div_ceil(STRETCH);
    let items = shares(count, team.threads()).map(|share| (share, clones())).collect();
    let work = move |(share, (root, others)): (Range<usize>, (Tensor, Vec<Tensor>))| -> Result<(), ModelError> {
        for stretch in share {
            let start = range.start + stretch * STRETCH;
            let own = start..range.end.min(start + STRETCH);
            let theirs = own.start - offset..own.end - offset;
            let leaves = others
                .iter()
                .map(|other| part(other, theirs.clone()))
                .collect::<Result<Vec<_>, _>>()?;
            tree_into(part_mut(&root, own)?, &leaves);
        }
        Ok(())
    };
    Ok(team.run(items, work)?.into_iter().collect::<Result<(), _>>()?)
}
