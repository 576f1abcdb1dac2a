//! The digests of one rank's results while a step is traced.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use aurora_runtime::trace::{Operation, TraceEntry, TraceName};
use tch::{Device, Tensor};

use super::ModelError;

/// The entries of one rank, shared by its threads.
#[derive(Debug, Default)]
pub struct TraceRecorder {
    step: AtomicU64,
    entries: Mutex<Vec<TraceEntry>>,
}

/// Where the results of one micro-batch are recorded.
#[derive(Clone, Copy, Debug)]
pub struct TraceTarget<'a> {
    pub recorder: &'a TraceRecorder,
    /// Index in the batch.
    pub micro_batch: usize,
}

impl TraceRecorder {
    /// Starts the step that completes step number `step` of the training stage.
    pub fn begin(&self, step: u64) {
        self.step.store(step, Ordering::SeqCst);
    }

    /// Name of an operation's complete result in the current step.
    pub fn name(&self, operation: Operation) -> TraceName {
        TraceName::new(self.step.load(Ordering::SeqCst), operation)
    }

    pub fn add(&self, name: TraceName, bytes: &[u8]) {
        self.add_digest(name, blake3::hash(bytes).to_hex().to_string());
    }

    /// Adds a digest that was computed elsewhere.
    pub fn add_digest(&self, name: TraceName, digest: String) {
        let mut entries = self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        entries.push(TraceEntry { name, digest });
    }

    /// Adds elements in CPU memory.
    pub fn add_elements(&self, name: TraceName, elements: &[f32]) {
        self.add(name, &aurora_runtime::checkpoint::as_bytes(elements));
    }

    /// # Errors
    /// [`ModelError::Torch`] if the tensor cannot be copied to the CPU.
    pub(super) fn tensor(&self, name: TraceName, tensor: &Tensor) -> Result<(), ModelError> {
        let tensor = tensor.f_to_device(Device::Cpu)?.f_contiguous()?;
        let length = tensor.numel() * tensor.kind().elt_size_in_bytes();
        // SAFETY: a contiguous tensor on the CPU has this number of initialized bytes as long as it exists, and the
        // calling thread, which owns the buffer, writes nothing to it meanwhile.
        let bytes = match length {
            0 => &[][..],
            _ => unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) },
        };
        self.add(name, bytes);
        Ok(())
    }

    /// Takes all entries recorded so far.
    pub fn take(&self) -> Vec<TraceEntry> {
        std::mem::take(&mut self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}
