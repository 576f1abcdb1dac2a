//! The lanes of one thread on its pipeline rank: forward and backward passes in the order of the pipeline schedule.

use std::ops::Range;

use tch::{Kind, Tensor};

use super::TrainError;
use super::batch::MicroBatch;
use super::pipeline::{ScheduledPass, one_forward_one_backward};
use crate::model::{Gradients, ModelError, Network, PassContext, TraceRecorder, TraceTarget, Weights, Workspace};
use crate::parallel::transport::Transfer;
use crate::parallel::{Peers, TreeAccumulator};

/// What one thread keeps between steps.
pub struct ThreadBuffers {
    pub weights: Weights,
    pub workspace: Workspace,
    pub peers: Peers,
    /// Unused gradient buffers.
    pub free: Vec<Gradients>,
    /// Own rows of the gradient that is being sent to the previous pipeline rank.
    pub outgoing_th: Tensor,
    /// Own rows of the input that is received from the previous pipeline rank, and of the gradient from the next one.
    /// Received ahead of time, so they have their own buffers.
    pub incoming_th: [Tensor; 2],
}

/// A micro-batch of a lane.
pub struct LaneMicroBatch {
    /// Index of the lane among the thread's lanes.
    pub lane: usize,
    /// Index in the batch.
    pub index: usize,
    /// On the first and the last pipeline rank only.
    pub tokens: Option<MicroBatch>,
}

/// Results of a thread's lanes.
pub struct LaneOutput {
    pub buffers: ThreadBuffers,
    /// Sum of the lanes' gradients.
    pub gradients: Gradients,
    /// By micro-batch: the losses of its rows, on the device; on the last pipeline rank only.
    pub losses: Vec<(usize, Tensor)>,
}

/// A transfer in progress, if there is one.
type PendingTransfer = Option<Box<dyn Transfer>>;

fn complete(pending: &mut PendingTransfer) -> Result<(), ModelError> {
    match pending.take() {
        Some(transfer) => Ok(transfer.wait()?),
        None => Ok(()),
    }
}

/// Runs all micro-batches of a thread's lanes. `lanes` are their indices among all lanes; `micro_batches` are ordered by
/// lane.
///
/// # Errors
/// [`TrainError::Model`].
pub fn run(
    network: &Network,
    buffers: ThreadBuffers,
    lanes: Range<usize>,
    micro_batches: &[LaneMicroBatch],
    recorder: Option<&TraceRecorder>,
) -> Result<LaneOutput, TrainError> {
    let (pipeline, pp_rank) = (buffers.peers.mesh().pipeline, buffers.peers.at().pipeline);
    let mut lane_run = LaneRun::new(network, buffers, &lanes, micro_batches, recorder)?;
    for pass in one_forward_one_backward(pipeline, pp_rank, micro_batches.len()) {
        match pass {
            ScheduledPass::Forward(index) => lane_run.forward(index)?,
            ScheduledPass::Backward(index) => lane_run.backward(index)?,
        }
    }
    lane_run.finish(lanes.len())
}

/// The state of a thread's lanes within a step.
struct LaneRun<'a> {
    network: &'a Network,
    buffers: ThreadBuffers,
    micro_batches: &'a [LaneMicroBatch],
    recorder: Option<&'a TraceRecorder>,
    /// The ids and targets of a pipeline rank that has none.
    no_tokens: Tensor,
    /// The next input and the next gradient are received while a micro-batch is computed.
    input: PendingTransfer,
    gradient: PendingTransfer,
    /// By slot.
    forward_sent: Vec<PendingTransfer>,
    backward_sent: PendingTransfer,
    losses: Vec<(usize, Tensor)>,
    sums: LaneSums<'a>,
}

impl<'a> LaneRun<'a> {
    fn new(
        network: &'a Network,
        buffers: ThreadBuffers,
        lanes: &Range<usize>,
        micro_batches: &'a [LaneMicroBatch],
        recorder: Option<&'a TraceRecorder>,
    ) -> Result<Self, ModelError> {
        let slots = buffers.workspace.slots();
        let mut run = Self {
            network,
            buffers,
            micro_batches,
            recorder,
            no_tokens: Tensor::f_empty([0], (Kind::Int64, network.device))?,
            input: None,
            gradient: None,
            forward_sent: (0..slots).map(|_| None).collect(),
            backward_sent: None,
            losses: Vec::new(),
            sums: LaneSums {
                current: None,
                first: lanes.start,
                network,
                recorder,
                accumulator: TreeAccumulator::default(),
                spare: Vec::new(),
            },
        };
        run.receive_input(0)?;
        run.receive_gradient(0)?;
        Ok(run)
    }

    fn is_first(&self) -> bool {
        self.network.parameters.holding.first
    }

    fn is_last(&self) -> bool {
        self.network.parameters.holding.last
    }

    fn receive_input(&mut self, index: usize) -> Result<(), ModelError> {
        if !self.is_first() && index < self.micro_batches.len() {
            self.input = Some(self.buffers.peers.receive_forward(&self.buffers.incoming_th[0])?);
        }
        Ok(())
    }

    fn receive_gradient(&mut self, index: usize) -> Result<(), ModelError> {
        if !self.is_last() && index < self.micro_batches.len() {
            self.gradient = Some(self.buffers.peers.receive_backward(&self.buffers.incoming_th[1])?);
        }
        Ok(())
    }

    /// Slot, ids and targets of a micro-batch, on the device.
    fn inputs(&self, index: usize) -> Result<(usize, Tensor, Tensor), ModelError> {
        let slot = index % self.buffers.workspace.slots();
        let (ids_t, targets_t) = match &self.micro_batches[index].tokens {
            Some(MicroBatch { ids_t, targets_t }) => (ids_t, targets_t),
            None => (&self.no_tokens, &self.no_tokens),
        };
        let device = self.network.device;
        Ok((slot, ids_t.f_to_device(device)?, targets_t.f_to_device(device)?))
    }

    fn trace(&self, index: usize) -> Option<TraceTarget<'a>> {
        let micro_batch = self.micro_batches[index].index;
        self.recorder.map(|recorder| TraceTarget { recorder, micro_batch })
    }

    fn forward(&mut self, index: usize) -> Result<(), ModelError> {
        let (slot, ids_t, _) = self.inputs(index)?;
        complete(&mut self.forward_sent[slot])?;
        if !self.is_first() {
            complete(&mut self.input)?;
            let mut own_th = self.buffers.workspace.incoming(slot)?;
            own_th.f_copy_(&self.buffers.incoming_th[0])?;
            self.receive_input(index + 1)?;
        }
        let trace = self.trace(index);
        let (first, last) = (self.is_first(), self.is_last());
        let mut pass = PassContext {
            workspace: &mut self.buffers.workspace,
            peers: &self.buffers.peers,
            slot,
            ids_t: &ids_t,
            positions: None,
            trace,
        };
        if !first {
            self.network.fill_input(&pass)?;
        }
        self.network.forward(&self.buffers.weights, &mut pass)?;
        if !last {
            let output_th = pass.workspace.outgoing(slot)?;
            self.forward_sent[slot] = Some(pass.peers.send_forward(&output_th)?);
        }
        Ok(())
    }

    fn backward(&mut self, index: usize) -> Result<(), ModelError> {
        let (slot, ids_t, targets_t) = self.inputs(index)?;
        if !self.is_last() {
            complete(&mut self.gradient)?;
            let mut own_th = self.buffers.workspace.gradient_rows()?;
            own_th.f_copy_(&self.buffers.incoming_th[1])?;
            self.receive_gradient(index + 1)?;
        }
        let trace = self.trace(index);
        let (first, last) = (self.is_first(), self.is_last());
        let micro_batch = &self.micro_batches[index];
        let gradients = self.sums.enter(micro_batch.lane, &mut self.buffers.free)?;
        let mut pass = PassContext {
            workspace: &mut self.buffers.workspace,
            peers: &self.buffers.peers,
            slot,
            ids_t: &ids_t,
            positions: None,
            trace,
        };
        let weights = &self.buffers.weights;
        if last {
            let losses = self.network.head(weights, &mut pass, &targets_t, Some(gradients))?;
            self.losses.push((micro_batch.index, losses));
        }
        self.network.backward(weights, &mut pass, gradients)?;
        if !first {
            complete(&mut self.backward_sent)?;
            let rows_th = pass.workspace.gradient_rows()?;
            self.buffers.outgoing_th.f_copy_(&rows_th)?;
            self.backward_sent = Some(self.buffers.peers.send_backward(&self.buffers.outgoing_th)?);
        }
        Ok(())
    }

    fn finish(mut self, lanes: usize) -> Result<LaneOutput, TrainError> {
        for sent in &mut self.forward_sent {
            complete(sent)?;
        }
        complete(&mut self.backward_sent)?;
        // A lane without micro-batches is a leaf of zeros.
        for lane in self.sums.next()..lanes {
            self.sums.enter(lane, &mut self.buffers.free)?;
        }
        let (gradients, spare) = self.sums.finish()?;
        self.buffers.free.extend(spare);
        Ok(LaneOutput {
            buffers: self.buffers,
            gradients,
            losses: self.losses,
        })
    }
}

/// The gradients of the current lane, and the sums of those before it.
struct LaneSums<'a> {
    current: Option<(usize, Gradients)>,
    /// Index of the thread's first lane among all lanes.
    first: usize,
    network: &'a Network,
    recorder: Option<&'a TraceRecorder>,
    accumulator: TreeAccumulator<Gradients>,
    /// Buffers whose gradients have been added to others.
    spare: Vec<Gradients>,
}

impl LaneSums<'_> {
    /// The first lane that has not started.
    fn next(&self) -> usize {
        self.current.as_ref().map_or(0, |(lane, _)| lane + 1)
    }

    /// The gradients of `lane`, zeroed if it starts now. Lanes before it are complete and are added to the sum.
    fn enter(&mut self, lane: usize, free: &mut Vec<Gradients>) -> Result<&Gradients, ModelError> {
        while self.next() <= lane {
            let next = self.next();
            self.close()?;
            let gradients = match self.spare.pop().or_else(|| free.pop()) {
                Some(mut gradients) => {
                    gradients.zero()?;
                    gradients
                }
                None => Gradients::new(&self.network.parameters, self.network.device)?,
            };
            self.current = Some((next, gradients));
        }
        match &self.current {
            Some((current, gradients)) if *current == lane => Ok(gradients),
            _ => Err(ModelError::NotHeld("lanes are out of order")),
        }
    }

    /// Adds the current lane to the sum.
    fn close(&mut self) -> Result<(), ModelError> {
        let Some((lane, gradients)) = self.current.take() else {
            return Ok(());
        };
        if let Some(recorder) = self.recorder {
            self.network
                .record_lane(recorder, self.first + lane, &gradients.buffer)?;
        }
        let spare = &mut self.spare;
        let network = self.network;
        self.accumulator
            .push(gradients, |left, right| add(network, left, right, spare))
    }

    fn finish(mut self) -> Result<(Gradients, Vec<Gradients>), ModelError> {
        self.close()?;
        let spare = &mut self.spare;
        let network = self.network;
        let sum = self
            .accumulator
            .finish(|left, right| add(network, left, right, spare))?;
        let sum = sum.ok_or(ModelError::NotHeld("a worker has no lanes"))?;
        Ok((sum, self.spare))
    }
}

fn add(
    network: &Network,
    left: Gradients,
    right: Gradients,
    spare: &mut Vec<Gradients>,
) -> Result<Gradients, ModelError> {
    network.kernels.accumulate(&left.buffer, &right.buffer)?;
    spare.push(right);
    Ok(left)
}
