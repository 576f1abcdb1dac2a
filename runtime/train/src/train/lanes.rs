//! One thread's lanes through its pipeline stage: forwards and backwards in the schedule's order.

use std::ops::Range;

use tch::{Kind, Tensor};

use super::TrainError;
use super::batch::MicroBatch;
use super::pipeline::{Work, one_forward_one_backward};
use crate::kernels::accumulate;
use crate::model::{Gradients, ModelError, Network, Pass, Recorder, Spot, Weights, Workspace, elements, elements_mut};
use crate::parallel::transport::Transfer;
use crate::parallel::{Carry, Peers};

/// What one thread keeps between steps.
pub struct Seat {
    pub weights: Weights,
    pub workspace: Workspace,
    pub peers: Peers,
    /// Gradient buffers not in use.
    pub free: Vec<Gradients>,
    /// Own rows of the gradient that is on its way to the stage before.
    pub outgoing: Tensor,
    /// Own rows of the input that is on its way from the stage before, and of the gradient from the next. Received ahead
    /// of their turn, so they have rooms of their own.
    pub incoming: [Tensor; 2],
}

/// A micro-batch of a lane: the lane's place among the thread's own, and the micro-batch's place in the batch.
pub struct Item {
    pub lane: usize,
    pub index: usize,
    /// Known to the first and the last stage.
    pub tokens: Option<MicroBatch>,
}

/// What a thread brings back from its lanes.
pub struct Harvest {
    pub seat: Seat,
    /// The joined gradients of its lanes.
    pub gradients: Gradients,
    /// Losses of each micro-batch's rows, on the last stage.
    pub losses: Vec<(usize, Vec<f64>)>,
}

/// Transfers under way.
type Sent = Option<Box<dyn Transfer>>;

fn arrived(sent: &mut Sent) -> Result<(), ModelError> {
    match sent.take() {
        Some(transfer) => Ok(transfer.wait()?),
        None => Ok(()),
    }
}

/// Runs all micro-batches of a thread's lanes (by their places among all); `items` stand lane by lane.
///
/// # Errors
/// [`TrainError::Model`].
pub fn run(
    network: &Network,
    mut seat: Seat,
    lanes: Range<usize>,
    items: &[Item],
    recorder: Option<&Recorder>,
) -> Result<Harvest, TrainError> {
    let at = seat.peers.at();
    let stages = seat.peers.mesh().pipeline;
    let (first, last) = (network.layout.holding.first, network.layout.holding.last);
    let slots = seat.workspace.slots();
    let nothing = Tensor::f_empty([0], (Kind::Int64, network.device))?;
    let tokens = |item: &'_ Item| match &item.tokens {
        Some(MicroBatch { ids, targets }) => (ids.shallow_clone(), targets.shallow_clone()),
        None => (nothing.shallow_clone(), nothing.shallow_clone()),
    };
    // The next input and the next gradient are on their way while a micro-batch is computed.
    let [input, gradient] = seat.incoming.each_ref().map(Tensor::shallow_clone);
    let receive = |peers: &Peers, work: Work| -> Result<Sent, ModelError> {
        Ok(match work {
            Work::Forward(place) if !first && place < items.len() => Some(peers.receive_forward(&input)?),
            Work::Backward(place) if !last && place < items.len() => Some(peers.receive_backward(&gradient)?),
            _ => None,
        })
    };
    let mut forward_coming = receive(&seat.peers, Work::Forward(0))?;
    let mut backward_coming = receive(&seat.peers, Work::Backward(0))?;
    let mut forward_sent: Vec<Sent> = (0..slots).map(|_| None).collect();
    let mut backward_sent: Sent = None;
    let mut losses = Vec::new();
    let mut carry = Carry::default();
    let mut spare = Vec::new();
    let mut lane = Lane {
        current: None,
        first: lanes.start,
        network,
        recorder,
    };
    for work in one_forward_one_backward(stages, at.pipeline, items.len()) {
        let (Work::Forward(place) | Work::Backward(place)) = work;
        let (item, slot) = (&items[place], place % slots);
        let (ids, targets) = tokens(item);
        let mut pass = Pass {
            workspace: &mut seat.workspace,
            peers: &seat.peers,
            slot,
            ids: &ids,
            positions: None,
            spot: recorder.map(|recorder| Spot {
                recorder,
                micro_batch: item.index,
            }),
        };
        match work {
            Work::Forward(_) => {
                arrived(&mut forward_sent[slot])?;
                if !first {
                    arrived(&mut forward_coming)?;
                    pass.workspace.incoming(slot)?.f_copy_(&input)?;
                    forward_coming = receive(pass.peers, Work::Forward(place + 1))?;
                    network.fill_input(&pass)?;
                }
                network.forward(&seat.weights, &mut pass)?;
                if !last {
                    let output = pass.workspace.outgoing(slot)?;
                    forward_sent[slot] = Some(pass.peers.send_forward(&output)?);
                }
            }
            Work::Backward(_) => {
                let gradients = lane.enter(item.lane, &mut carry, &mut seat.free, &mut spare)?;
                if last {
                    let mut own = vec![0.0; pass.workspace.rows()];
                    network.head(&seat.weights, &mut pass, &targets, &mut own, Some(gradients))?;
                    losses.push((item.index, own));
                } else {
                    arrived(&mut backward_coming)?;
                    pass.workspace.gradient_rows()?.f_copy_(&gradient)?;
                    backward_coming = receive(pass.peers, Work::Backward(place + 1))?;
                }
                network.backward(&seat.weights, &mut pass, gradients)?;
                if !first {
                    arrived(&mut backward_sent)?;
                    let rows = pass.workspace.gradient_rows()?;
                    seat.outgoing.f_copy_(&rows)?;
                    backward_sent = Some(seat.peers.send_backward(&seat.outgoing)?);
                }
            }
        }
    }
    for sent in &mut forward_sent {
        arrived(sent)?;
    }
    arrived(&mut backward_sent)?;
    // A lane without micro-batches counts as a leaf of zeros.
    for rest in lane.next()..lanes.len() {
        lane.enter(rest, &mut carry, &mut seat.free, &mut spare)?;
    }
    let gradients = lane.finish(carry, &mut spare)?;
    seat.free.extend(spare);
    Ok(Harvest {
        seat,
        gradients,
        losses,
    })
}

/// The lane whose backwards are under way.
struct Lane<'a> {
    current: Option<(usize, Gradients)>,
    /// The place of the thread's first lane among all.
    first: usize,
    network: &'a Network,
    recorder: Option<&'a Recorder>,
}

impl Lane<'_> {
    /// The first lane that has not begun.
    fn next(&self) -> usize {
        self.current.as_ref().map_or(0, |(lane, _)| lane + 1)
    }

    /// The gradients of `lane`. Lanes before it are done and join the carry.
    fn enter(
        &mut self,
        lane: usize,
        carry: &mut Carry<Gradients>,
        free: &mut Vec<Gradients>,
        spare: &mut Vec<Gradients>,
    ) -> Result<&Gradients, ModelError> {
        while self.next() <= lane {
            let next = self.next();
            if let Some((_, done)) = self.take()? {
                carry.push(done, |left, right| joined(left, right, spare))?;
            }
            let gradients = match spare.pop().or_else(|| free.pop()) {
                Some(mut gradients) => {
                    gradients.zero()?;
                    gradients
                }
                None => Gradients::new(&self.network.layout, self.network.device)?,
            };
            self.current = Some((next, gradients));
        }
        match &self.current {
            Some((current, gradients)) if *current == lane => Ok(gradients),
            _ => Err(ModelError::Unfit("lanes out of order".to_owned())),
        }
    }

    /// The lane that is done.
    fn take(&mut self) -> Result<Option<(usize, Gradients)>, ModelError> {
        if let (Some((lane, done)), Some(recorder)) = (&self.current, self.recorder) {
            self.network.record_lane(recorder, self.first + lane, &done.buffer)?;
        }
        Ok(self.current.take())
    }

    fn finish(mut self, mut carry: Carry<Gradients>, spare: &mut Vec<Gradients>) -> Result<Gradients, ModelError> {
        if let Some((_, done)) = self.take()? {
            carry.push(done, |left, right| joined(left, right, spare))?;
        }
        carry
            .finish(|left, right| joined(left, right, spare))?
            .ok_or_else(|| ModelError::Unfit("a worker without lanes".to_owned()))
    }
}

fn joined(left: Gradients, right: Gradients, spare: &mut Vec<Gradients>) -> Result<Gradients, ModelError> {
    accumulate(elements_mut::<f32>(&left.buffer)?, elements::<f32>(&right.buffer)?);
    spare.push(right);
    Ok(left)
}
