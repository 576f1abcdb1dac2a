//! State of training on one rank: master weights, moments, and the weights that the model computes with.

use std::borrow::Cow;

use aurora_compiler::fields::{Contract, ModelFields, Numerics, Precision, TrainFields};
use aurora_runtime::checkpoint::{Group, groups, read};
use aurora_runtime::job::{Files, Layout};
use tch::{Kind, Tensor};

use super::TrainError;
use crate::model::{
    Chunk, ComputeDevice, Fault, Holding, HostAccess, Kernels, ModelError, ModelShape, Network, OwnedRange,
    ParameterMap, Weights, reported, to_device, to_host,
};
use crate::parallel::{Grid, Mesh};

/// The mesh of a layout.
pub fn mesh(layout: &Layout) -> Mesh {
    Mesh {
        tensor: layout.tensor as usize,
        data: layout.data as usize,
        pipeline: layout.pipeline as usize,
    }
}

/// The network of one rank: architecture, grid, element type, and the part of the model that it holds, on its device.
///
/// # Errors
/// [`TrainError::Model`] if the grid does not divide the model, [`TrainError::Job`] if the mesh does not divide the
/// grid.
pub fn network(
    model: &ModelFields,
    numerics: &Numerics,
    precision: Precision,
    layout: &Layout,
    rank: usize,
    device: ComputeDevice,
) -> Result<Network, TrainError> {
    let mesh = mesh(layout);
    let grid = Grid::new(numerics);
    if !grid.lanes.is_power_of_two() || grid.micro_batch == 0 {
        let Grid { lanes, micro_batch, .. } = grid;
        return Err(TrainError::Job(format!(
            "{lanes} gradient lanes (not a power of two), or micro-batches of {micro_batch} sequences"
        )));
    }
    let shape = ModelShape::new(model, &grid)?;
    for (degree, name, total) in [(mesh.tensor, "tensor", grid.tensor), (mesh.data, "data", grid.lanes)] {
        if degree == 0 || total % degree != 0 {
            return Err(TrainError::Job(format!(
                "{name} = {degree} does not divide the logical grid of {total}"
            )));
        }
    }
    if mesh.pipeline == 0 || mesh.pipeline > shape.layers {
        let (pipeline, layers) = (mesh.pipeline, shape.layers);
        return Err(TrainError::Job(format!(
            "{pipeline} pipeline ranks for {layers} layers"
        )));
    }
    if rank >= mesh.world() {
        let world = mesh.world();
        return Err(TrainError::Job(format!("rank {rank} of {world} does not exist")));
    }
    Ok(Network {
        parameters: ParameterMap::new(shape, Holding::new(&shape, &mesh, rank)),
        kernels: match numerics.contract {
            Contract::Native | Contract::Invariant if !device.is_host() => Kernels::Device,
            Contract::Native => Kernels::Aten,
            Contract::Invariant => Kernels::Own,
            Contract::Portable if device.is_host() => Kernels::Portable,
            Contract::Portable => {
                return Err(TrainError::Job(
                    "`portable` numerics are for CPUs; use `invariant` on a device".to_owned(),
                ));
            }
        },
        kind: match precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        },
        device: device.tensors(),
        sequence_parallel: layout.sequence_parallel && mesh.tensor > 1,
        fault: Fault::default(),
        grid,
        mesh,
    })
}

/// The flat buffers of a rank's part of a model.
#[derive(Debug)]
pub struct TrainState {
    pub network: Network,
    /// All files of a checkpoint, whether this rank holds a part of them or not.
    pub groups: Vec<Group>,
    /// The range whose gradients this rank reduces and, with a distributed optimizer, that it updates.
    pub owned: OwnedRange,
    /// The range of the master weights and moments: `owned`, or everything on this rank.
    pub kept: OwnedRange,
    /// Chunks that this rank writes, digests and counts.
    pub reported: Vec<Chunk>,
    /// Weights in `f32`: `compute` itself if the model computes in `f32`, otherwise those of `kept`.
    pub master: Tensor,
    /// All weights on this rank in the model's element type.
    pub compute: Tensor,
    /// First and second moments of `kept`; empty if the model is only evaluated.
    pub moments: [Tensor; 2],
    /// Optimizer updates since the moments were zero.
    pub updates: u64,
}

impl TrainState {
    /// A state of zeros for `rank`. With `distributed` it has only the replica's range of the optimizer state.
    ///
    /// # Errors
    /// [`TrainError::Model`] if memory runs out.
    pub fn new(
        network: Network,
        model: &ModelFields,
        rank: usize,
        trained: bool,
        distributed: bool,
    ) -> Result<Self, TrainError> {
        let zeros = |length: usize, kind: Kind| {
            Tensor::f_zeros([length as i64], (kind, network.device)).map_err(|error| TrainError::Model(error.into()))
        };
        let parameters = &network.parameters;
        let replica = network.mesh.coordinates(rank).data;
        let owned = parameters.owned_range(network.mesh.data, replica);
        let kept = if distributed {
            owned.clone()
        } else {
            parameters.owned_range(1, 0)
        };
        let length = if trained { kept.length() } else { 0 };
        let compute = zeros(parameters.length, network.kind)?;
        let master = if network.kind == Kind::Float {
            compute.shallow_clone()
        } else {
            zeros(length, Kind::Float)?
        };
        let moments = [zeros(length, Kind::Float)?, zeros(length, Kind::Float)?];
        Ok(Self {
            groups: groups(model),
            reported: reported(&parameters.shape, &network.mesh, rank),
            network,
            owned,
            kept,
            master,
            compute,
            moments,
            updates: 0,
        })
    }

    /// Maps a range of a buffer of weights to `master`.
    pub fn in_master(&self, range: &std::ops::Range<usize>) -> std::ops::Range<usize> {
        if self.network.kind == Kind::Float {
            range.clone()
        } else {
            self.kept.local(range)
        }
    }

    /// Whether this rank holds a part of a file of the checkpoint.
    fn holds(&self, group: &Group) -> bool {
        let parameters = &self.network.parameters;
        let held = |name: &str| parameters.parts_of(name).any(|part| !part.weights.held.is_empty());
        group.tensors.iter().any(|tensor| held(&tensor.name))
    }

    /// Loads the weights from a checkpoint's files.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] if a file does not match the model.
    pub fn load_weights(&mut self, files: &Files) -> Result<(), TrainError> {
        let parameters = &self.network.parameters;
        let float = self.network.kind == Kind::Float;
        if self.network.kernels == Kernels::Device {
            let mut values = vec![0.0f32; parameters.length];
            self.read_weights(files, &mut values)?;
            self.compute.f_copy_(&to_device(&values, self.network.device)?)?;
            if !float && self.master.numel() > 0 {
                let mut master = vec![0.0f32; self.master.numel()];
                self.kept_of(&values, &mut master);
                self.master.f_copy_(&to_device(&master, self.network.device)?)?;
            }
            return Ok(());
        }
        // SAFETY: no thread computes while the state is loaded, reset or digested, and this is the only access.
        let host = unsafe { HostAccess::new() };
        if float {
            return self.read_weights(files, host.write(&self.master)?);
        }
        let mut values = vec![0.0f32; parameters.length];
        self.read_weights(files, &mut values)?;
        crate::kernels::cast::<half::bf16>(&values, host.write(&self.compute)?);
        let master = host.write::<f32>(&self.master)?;
        if !master.is_empty() {
            self.kept_of(&values, master);
        }
        Ok(())
    }

    /// Reads this rank's weights from a checkpoint's files.
    fn read_weights(&self, files: &Files, buffer: &mut [f32]) -> Result<(), TrainError> {
        let parameters = &self.network.parameters;
        for group in self.groups.iter().filter(|group| self.holds(group)) {
            read(files, &group.weights(), &group.tensors, |tensor, values| {
                parameters.copy_from_tensor(&tensor.name, values, buffer);
            })?;
        }
        Ok(())
    }

    /// Copies the range of the master weights from all weights on this rank.
    fn kept_of(&self, values: &[f32], master: &mut [f32]) {
        for chunk in &self.kept.chunks {
            master[self.kept.local(&chunk.range)].copy_from_slice(&values[chunk.range.clone()]);
        }
    }

    /// Loads the moments from a checkpoint's files.
    ///
    /// # Errors
    /// As [`TrainState::load_weights`].
    pub fn load_moments(&mut self, files: &Files) -> Result<(), TrainError> {
        let [first, second] = &self.moments;
        if self.network.kernels == Kernels::Device {
            let length = self.kept.length();
            let mut values = [vec![0.0f32; length], vec![0.0f32; length]];
            let [into_first, into_second] = &mut values;
            self.read_moments(files, [into_first, into_second])?;
            for (moment, values) in self.moments.iter_mut().zip(&values) {
                moment.f_copy_(&to_device(values, self.network.device)?)?;
            }
            return Ok(());
        }
        // SAFETY: no thread computes while the state is loaded, reset or digested, and this is the only access.
        let host = unsafe { HostAccess::new() };
        self.read_moments(files, [host.write::<f32>(first)?, host.write::<f32>(second)?])
    }

    /// Reads the moments of the range that this rank keeps.
    fn read_moments(&self, files: &Files, mut into: [&mut [f32]; 2]) -> Result<(), TrainError> {
        let (parameters, kept) = (&self.network.parameters, &self.kept);
        let take = |tensor: &str, values: &[f32], into: &mut [f32]| {
            let of_tensor = |chunk: &&Chunk| parameters.parts[chunk.part].tensor == tensor;
            for chunk in kept.chunks.iter().filter(of_tensor) {
                let into = &mut into[kept.local(&chunk.range)];
                let part = &parameters.parts[chunk.part];
                for (at, own) in part.tensor_ranges(chunk.shard, chunk.of_shard.clone()) {
                    let own = own.start - chunk.of_shard.start..own.end - chunk.of_shard.start;
                    let count = own.len();
                    into[own].copy_from_slice(&values[at..at + count]);
                }
            }
        };
        for group in self.groups.iter().filter(|group| self.holds(group)) {
            read(files, &group.optimizer(), &group.moments(), |tensor, values| {
                if let Some(name) = tensor.name.strip_suffix(".m") {
                    take(name, values, into[0]);
                } else if let Some(name) = tensor.name.strip_suffix(".v") {
                    take(name, values, into[1]);
                }
            })?;
        }
        Ok(())
    }

    /// Zeroes the moments.
    ///
    /// # Errors
    /// [`TrainError::Model`].
    pub fn reset_moments(&mut self) -> Result<(), TrainError> {
        for moment in &mut self.moments {
            let _ = moment.f_zero_().map_err(ModelError::from)?;
        }
        self.updates = 0;
        Ok(())
    }

    /// The elements of one of the state's `f32` tensors, copied if it is on a device.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn on_host<'a>(&self, host: &'a HostAccess, tensor: &'a Tensor) -> Result<Cow<'a, [f32]>, ModelError> {
        Ok(if self.network.kernels == Kernels::Device {
            Cow::Owned(to_host(tensor)?)
        } else {
            Cow::Borrowed(host.read(tensor)?)
        })
    }

    /// Views of the weights for one thread.
    ///
    /// # Errors
    /// [`TrainError::Model`].
    pub fn weights(&self) -> Result<Weights, TrainError> {
        Ok(Weights::new(&self.network.parameters, &self.compute)?)
    }

    /// BLAKE3 of the master weights of each chunk that this rank reports.
    ///
    /// # Errors
    /// [`TrainError::Model`].
    pub fn digests(&self) -> Result<Vec<(usize, blake3::Hash)>, TrainError> {
        // SAFETY: no thread computes while the state is loaded, reset or digested, and this is the only access.
        let host = unsafe { HostAccess::new() };
        let master = self.on_host(&host, &self.master)?;
        let digest = |chunk: &Chunk| {
            let values = &master[self.in_master(&chunk.range)];
            (
                chunk.number,
                blake3::hash(&aurora_runtime::checkpoint::as_bytes(values)),
            )
        };
        Ok(self.reported.iter().map(digest).collect())
    }

    /// BLAKE3 (hex) over the digests of each group's chunks, given those of all ranks.
    pub fn group_digests(&self, chunks: &[(usize, blake3::Hash)]) -> std::collections::BTreeMap<String, String> {
        let parameters = &self.network.parameters;
        let mut of_number = vec![None; parameters.num_chunks()];
        for (number, digest) in chunks {
            of_number[*number] = Some(digest);
        }
        let mut numbers = std::collections::BTreeMap::new();
        let mut number = 0;
        for part in &parameters.parts {
            let count = part.num_chunks();
            let of_tensor: &mut Vec<usize> = numbers.entry(part.tensor.as_str()).or_default();
            of_tensor.extend(number..number + count);
            number += count;
        }
        let digest = |group: &Group| {
            let mut hasher = blake3::Hasher::new();
            let all = group.tensors.iter().flat_map(|tensor| &numbers[tensor.name.as_str()]);
            for digest in all.filter_map(|number| of_number[*number]) {
                hasher.update(digest.as_bytes());
            }
            (group.name.clone(), hasher.finalize().to_hex().to_string())
        };
        self.groups.iter().map(digest).collect()
    }
}

/// Checks that a job's fields are consistent.
///
/// # Errors
/// [`TrainError::Job`].
pub fn check(fields: &TrainFields) -> Result<(), TrainError> {
    let micro_batch = fields.numerics.micro_batch;
    if micro_batch == 0 || fields.global_batch == 0 || !fields.global_batch.is_multiple_of(micro_batch) {
        let batch = fields.global_batch;
        return Err(TrainError::Job(format!(
            "a global batch of {batch} is not a multiple of micro-batches of {micro_batch}"
        )));
    }
    Ok(())
}
