//! One optimizer step: lanes on threads, the tree over lanes, the gradient norm, AdamW.
//!
//! A thread owns an aligned block of lanes and runs them one after another; it joins their gradients as the tree asks,
//! holding log2(lanes) + 1 buffers at most. What lies above its block is joined chunk by chunk, by all threads, on the
//! way to the gradient norm.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aurora_compiler::fields::AdamW;
use aurora_runtime::job::Recompute;
use tch::{Kind, Tensor};

use super::TrainError;
use super::batch::{Batch, MicroBatch};
use super::state::State;
use super::team::Team;
use crate::kernels::{Update, accumulate, adamw, combine_gradients, sum_squares};
use crate::model::{Gradients, ModelError, Network, Weights, Workspace, elements, elements_mut, part, part_mut};
use crate::parallel::{Carry, tree_sum};

/// What one thread keeps between steps.
struct Seat {
    weights: Weights,
    workspace: Workspace,
    /// Gradient buffers not in use.
    free: Vec<Gradients>,
}

/// A lane's micro-batches, with their places in the batch.
type Lane = Vec<(usize, MicroBatch)>;

/// What a thread brings back from its lanes.
struct Harvest {
    seat: Seat,
    /// The joined gradients of its lanes; nothing if it was told to stop.
    gradients: Option<Gradients>,
    /// Losses of each micro-batch's rows.
    losses: Vec<(usize, Vec<f64>)>,
}

/// The figures of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Mean over the batch's tokens, nats.
    pub loss: f64,
    /// Before clipping.
    pub grad_norm: f64,
}

/// Runs steps on a state.
pub struct Trainer {
    pub state: State,
    network: Arc<Network>,
    seats: Vec<Seat>,
    chunks: Arc<Vec<(usize, Range<usize>)>>,
    sequence: usize,
    /// Products of the betas over the updates so far.
    powers: [f64; 2],
}

impl Trainer {
    /// # Errors
    /// [`TrainError::Model`] if a sequence is too long, or memory runs out.
    pub fn new(
        state: State,
        team: &Team,
        optimizer: &AdamW,
        sequence: usize,
        recompute: Recompute,
    ) -> Result<Self, TrainError> {
        let network = Arc::new(state.network.clone());
        let threads = 1 << team.threads().min(network.grid.lanes).ilog2();
        let seat = || {
            Ok(Seat {
                weights: state.weights()?,
                workspace: Workspace::new(&network, network.grid.micro_batch, sequence, recompute, true)?,
                free: Vec::new(),
            })
        };
        let seats = (0..threads).map(|_| seat()).collect::<Result<_, TrainError>>()?;
        let chunks = Arc::new(network.layout.chunks());
        let mut powers = [1.0; 2];
        for _ in 0..state.updates {
            advance(&mut powers, optimizer);
        }
        Ok(Self {
            state,
            network,
            seats,
            chunks,
            sequence,
            powers,
        })
    }

    /// Forward, backward and update over one batch. `step` (counted from 0) is for messages only; `describe` says what
    /// the batch holds.
    ///
    /// Nothing comes back, and the state is as before, if `stop` was raised on the way.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] before the state is touched; [`TrainError::Model`], [`TrainError::Panicked`].
    pub fn step(
        &mut self,
        team: &Team,
        batch: &Batch,
        optimizer: &AdamW,
        rate: f64,
        stop: &Arc<AtomicBool>,
        not_finite: impl Fn(&'static str, f64) -> TrainError,
    ) -> Result<Option<Outcome>, TrainError> {
        let harvests = self.run_lanes(team, batch, stop)?;
        let mut losses = Vec::new();
        let mut roots = Vec::new();
        for Harvest {
            seat,
            gradients,
            losses: own,
        } in harvests
        {
            losses.extend(own);
            roots.extend(gradients);
            self.seats.push(seat);
        }
        let whole = roots.len() == self.seats.len();
        let outcome = if whole {
            let loss = self.loss(losses);
            if !loss.is_finite() {
                return Err(not_finite("loss", loss));
            }
            let tokens = (batch.micro_batches.len() * self.seats[0].workspace.rows()) as f64;
            let grad_norm = self.join(team, &roots)?.sqrt() / tokens;
            if !grad_norm.is_finite() {
                return Err(not_finite("gradient norm", grad_norm));
            }
            self.update(team, &roots[0], optimizer, rate, grad_norm, tokens)?;
            Some(Outcome {
                loss: loss / tokens,
                grad_norm,
            })
        } else {
            None
        };
        for (seat, root) in self.seats.iter_mut().zip(roots) {
            seat.free.push(root);
        }
        Ok(outcome)
    }

    /// Each thread's lanes, one after another. Takes the seats.
    fn run_lanes(&mut self, team: &Team, batch: &Batch, stop: &Arc<AtomicBool>) -> Result<Vec<Harvest>, TrainError> {
        let lanes = self.network.grid.lanes / self.seats.len();
        let items: Vec<(Seat, Vec<Lane>)> = self
            .seats
            .drain(..)
            .enumerate()
            .map(|(thread, seat)| {
                let own = (thread * lanes..(thread + 1) * lanes).map(|lane| {
                    let micro_batches = self.network.grid.micro_batches(lane, batch.micro_batches.len());
                    let of = |m: usize| {
                        let MicroBatch { ids, targets } = &batch.micro_batches[m];
                        (
                            m,
                            MicroBatch {
                                ids: ids.shallow_clone(),
                                targets: targets.shallow_clone(),
                            },
                        )
                    };
                    micro_batches.map(of).collect()
                });
                (seat, own.collect())
            })
            .collect();
        let (network, stop) = (Arc::clone(&self.network), Arc::clone(stop));
        team.run(items, move |(seat, lanes)| one_thread(&network, seat, lanes, &stop))?
            .into_iter()
            .collect()
    }

    /// Sum over the batch's tokens: tokens of a sample in order, samples as a tree in global order.
    fn loss(&self, mut losses: Vec<(usize, Vec<f64>)>) -> f64 {
        losses.sort_by_key(|(m, _)| *m);
        let rows = losses.iter().flat_map(|(_, rows)| rows.chunks_exact(self.sequence));
        let samples: Vec<f64> = rows.map(|sample| sample.iter().sum()).collect();
        tree_sum(&samples)
    }

    /// Joins the threads' gradients into the first one, and returns the sum of squares: chunks of 65,536 elements in
    /// `f64`, added in the order (part, shard, chunk).
    fn join(&self, team: &Team, roots: &[Gradients]) -> Result<f64, TrainError> {
        let items: Vec<(Range<usize>, Vec<Tensor>)> = self
            .shares(team.threads())
            .into_iter()
            .map(|share| (share, roots.iter().map(|root| root.buffer.shallow_clone()).collect()))
            .collect();
        let (network, chunks) = (Arc::clone(&self.network), Arc::clone(&self.chunks));
        let work = move |(share, roots): (Range<usize>, Vec<Tensor>)| -> Result<Vec<f64>, TrainError> {
            let layout = &network.layout;
            let mut sums = Vec::with_capacity(share.len());
            for (index, range) in &chunks[share] {
                let first = part_mut::<f32>(&roots[0], range.clone())?;
                let others = roots[1..]
                    .iter()
                    .map(|root| part(root, range.clone()))
                    .collect::<Result<Vec<_>, _>>()?;
                let tied = if *index == layout.word {
                    let offset = layout.tied - layout.parts[layout.word].offset;
                    let second = range.start + offset..range.end + offset;
                    roots
                        .iter()
                        .map(|root| part(root, second.clone()))
                        .collect::<Result<Vec<_>, _>>()?
                } else {
                    Vec::new()
                };
                combine_gradients(first, &others, &tied);
                sums.push(sum_squares(first));
            }
            Ok(sums)
        };
        let mut total = 0.0;
        for sums in team.run(items, work)? {
            for sum in sums? {
                total += sum;
            }
        }
        Ok(total)
    }

    fn update(
        &mut self,
        team: &Team,
        gradients: &Gradients,
        optimizer: &AdamW,
        rate: f64,
        grad_norm: f64,
        tokens: f64,
    ) -> Result<(), TrainError> {
        let clip = optimizer
            .clip
            .map_or(1.0, |bound| (bound.to_f64() / (grad_norm + 1e-6)).min(1.0));
        let (beta1, beta2) = (optimizer.beta1.to_f64(), optimizer.beta2.to_f64());
        advance(&mut self.powers, optimizer);
        self.state.updates += 1;
        let numbers = Update {
            scale: (clip / tokens) as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            rest1: (1.0 - beta1) as f32,
            rest2: (1.0 - beta2) as f32,
            epsilon: optimizer.epsilon.to_f64() as f32,
            step: (rate / (1.0 - self.powers[0])) as f32,
            root2: (1.0 - self.powers[1]).sqrt() as f32,
            keep: (1.0 - rate * optimizer.weight_decay.to_f64()) as f32,
        };
        let state = &self.state;
        let handles = || {
            let [first, second] = &state.moments;
            [&state.master, &gradients.buffer, first, second, &state.compute].map(Tensor::shallow_clone)
        };
        let items = self
            .shares(team.threads())
            .into_iter()
            .map(|share| (share, handles()))
            .collect();
        let (network, chunks) = (Arc::clone(&self.network), Arc::clone(&self.chunks));
        let work = move |(share, [master, gradient, first, second, compute]): (Range<usize>, [Tensor; 5])| {
            for (index, range) in &chunks[share] {
                let keep = if network.layout.parts[*index].decays() {
                    numbers.keep
                } else {
                    1.0
                };
                let numbers = Update { keep, ..numbers };
                let master = part_mut::<f32>(&master, range.clone())?;
                let gradient = part::<f32>(&gradient, range.clone())?;
                let (first, second) = (part_mut(&first, range.clone())?, part_mut(&second, range.clone())?);
                if network.kind == Kind::BFloat16 {
                    let compute = part_mut::<half::bf16>(&compute, range.clone())?;
                    adamw(numbers, master, gradient, first, second, Some(compute));
                } else {
                    adamw::<f32>(numbers, master, gradient, first, second, None);
                }
            }
            Ok::<(), TrainError>(())
        };
        team.run(items, work)?.into_iter().collect()
    }

    /// Contiguous shares of the chunks, one a thread.
    fn shares(&self, threads: usize) -> Vec<Range<usize>> {
        let count = self.chunks.len();
        (0..threads)
            .map(|i| count * i / threads..count * (i + 1) / threads)
            .collect()
    }
}

fn advance(powers: &mut [f64; 2], optimizer: &AdamW) {
    powers[0] *= optimizer.beta1.to_f64();
    powers[1] *= optimizer.beta2.to_f64();
}

fn one_thread(network: &Network, mut seat: Seat, lanes: Vec<Lane>, stop: &AtomicBool) -> Result<Harvest, TrainError> {
    let mut losses = Vec::new();
    let mut carry = Carry::default();
    let mut spare = Vec::new();
    let mut join = |left: Gradients, right: Gradients| -> Result<Gradients, ModelError> {
        accumulate(elements_mut::<f32>(&left.buffer)?, elements::<f32>(&right.buffer)?);
        spare.push(right);
        Ok(left)
    };
    let mut stopped = false;
    for lane in lanes {
        let mut gradients = match seat.free.pop() {
            Some(mut gradients) => {
                gradients.zero()?;
                gradients
            }
            None => Gradients::new(&network.layout, network.device)?,
        };
        for (index, MicroBatch { ids, targets }) in lane {
            if stop.load(Ordering::Relaxed) {
                stopped = true;
                break;
            }
            let mut own = vec![0.0; seat.workspace.rows()];
            network.train(
                &seat.weights,
                &mut seat.workspace,
                &ids,
                &targets,
                &mut own,
                &mut gradients,
            )?;
            losses.push((index, own));
        }
        carry.push(gradients, &mut join)?;
        if stopped {
            break;
        }
    }
    let root = carry.finish(&mut join)?;
    seat.free.extend(spare);
    let gradients = if stopped {
        seat.free.extend(root);
        None
    } else {
        root
    };
    Ok(Harvest {
        seat,
        gradients,
        losses,
    })
}
