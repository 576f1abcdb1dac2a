//! What training carries from step to step on one rank: master weights, moments, the copy that the model computes with.

use aurora_compiler::fields::{Contract, ModelFields, Numerics, Precision, TrainFields};
use aurora_runtime::checkpoint::{Group, groups, read};
use aurora_runtime::job::{Files, Placement};
use tch::{Device, Kind, Tensor};

use super::TrainError;
use crate::model::{Chunk, Holding, Kernels, Layout, Network, Shape, Share, Weights, elements, elements_mut, reported};
use crate::parallel::{Grid, Mesh};

/// The mesh that a placement asks for.
pub fn mesh(placement: &Placement) -> Mesh {
    Mesh {
        tensor: placement.tensor as usize,
        data: placement.data as usize,
        pipeline: placement.pipeline as usize,
    }
}

/// What a model computes with on one rank: architecture, grid, numbers, what is held.
///
/// # Errors
/// [`TrainError::Model`] if the model does not divide over the grid, [`TrainError::Unfit`] if the mesh does not divide
/// the grid.
pub fn network(
    model: &ModelFields,
    numerics: &Numerics,
    precision: Precision,
    placement: &Placement,
    rank: usize,
) -> Result<Network, TrainError> {
    let mesh = mesh(placement);
    let grid = Grid::new(numerics);
    if !grid.lanes.is_power_of_two() || grid.micro_batch == 0 {
        let Grid { lanes, micro_batch, .. } = grid;
        return Err(TrainError::Unfit(format!(
            "{lanes} gradient lanes of micro-batches of {micro_batch} sequences"
        )));
    }
    let shape = Shape::new(model, &grid)?;
    for (degree, name, whole) in [(mesh.tensor, "tensor", grid.tensor), (mesh.data, "data", grid.lanes)] {
        if degree == 0 || whole % degree != 0 {
            return Err(TrainError::Unfit(format!(
                "{name} {degree} does not divide the {whole} of the logical grid"
            )));
        }
    }
    if mesh.pipeline == 0 || mesh.pipeline > shape.layers {
        let (stages, layers) = (mesh.pipeline, shape.layers);
        return Err(TrainError::Unfit(format!(
            "{stages} pipeline stages of {layers} layers"
        )));
    }
    if rank >= mesh.world() {
        let world = mesh.world();
        return Err(TrainError::Unfit(format!("rank {rank} of {world}")));
    }
    Ok(Network {
        layout: Layout::new(shape, Holding::new(&shape, &mesh, rank)),
        kernels: match numerics.contract {
            Contract::Native => Kernels::Aten,
            Contract::Invariant => Kernels::Own,
            Contract::Portable => Kernels::Portable,
        },
        kind: match precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        },
        device: Device::Cpu,
        sequence_parallel: placement.sequence_parallel && mesh.tensor > 1,
        fault: None,
        grid,
        mesh,
    })
}

/// The flat buffers of a rank's part of a model in training.
#[derive(Debug)]
pub struct State {
    pub network: Network,
    /// Files of the checkpoint, in which something is held here or not.
    pub groups: Vec<Group>,
    /// What this rank joins gradients for and, with a distributed optimizer, all that it updates.
    pub share: Share,
    /// What masters and moments are kept of: `share`, or all that is held.
    pub kept: Share,
    /// Chunks that this rank alone writes, digests and counts.
    pub reported: Vec<Chunk>,
    /// Weights in `f32`: `compute` itself if the model computes in `f32`, else of `kept` alone.
    pub master: Tensor,
    /// All weights held here, in the numbers that the model computes with.
    pub compute: Tensor,
    /// First and second moments of `kept`; empty in a model that is only evaluated.
    pub moments: [Tensor; 2],
    /// Optimizer updates since the moments were last zero.
    pub updates: u64,
}

impl State {
    /// A state of zeros for `rank`. `distributed` keeps no more than the replica's share of the optimizer's state.
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
        let layout = &network.layout;
        let replica = network.mesh.coordinates(rank).data;
        let share = layout.share(network.mesh.data, replica);
        let kept = if distributed { share.clone() } else { layout.share(1, 0) };
        let room = if trained { kept.length() } else { 0 };
        let compute = zeros(layout.length, network.kind)?;
        let master = if network.kind == Kind::Float {
            compute.shallow_clone()
        } else {
            zeros(room, Kind::Float)?
        };
        let moments = [zeros(room, Kind::Float)?, zeros(room, Kind::Float)?];
        Ok(Self {
            groups: groups(model),
            reported: reported(&layout.shape, &network.mesh, rank),
            network,
            share,
            kept,
            master,
            compute,
            moments,
            updates: 0,
        })
    }

    /// Where the elements of a range of a buffer of weights stand in `master`.
    pub fn in_master(&self, range: &std::ops::Range<usize>) -> std::ops::Range<usize> {
        if self.network.kind == Kind::Float {
            range.clone()
        } else {
            self.kept.inside(range)
        }
    }

    /// Whether anything of a file of the checkpoint is held here.
    fn holds(&self, group: &Group) -> bool {
        let layout = &self.network.layout;
        let held = |name: &str| layout.parts_of(name).any(|part| !part.weights.held.is_empty());
        group.tensors.iter().any(|tensor| held(&tensor.name))
    }

    /// Fills the weights from a checkpoint's files.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] if a file does not hold what the model asks for.
    pub fn load_weights(&mut self, files: &Files) -> Result<(), TrainError> {
        let layout = &self.network.layout;
        let float = self.network.kind == Kind::Float;
        let mut numbers = vec![0.0f32; if float { 0 } else { layout.length }];
        let buffer = if float {
            elements_mut(&self.master)?
        } else {
            &mut numbers[..]
        };
        for group in self.groups.iter().filter(|group| self.holds(group)) {
            read(files, &group.weights(), &group.tensors, |tensor, values| {
                layout.scatter(&tensor.name, values, buffer);
            })?;
        }
        if float {
            return Ok(());
        }
        crate::kernels::cast::<half::bf16>(&numbers, elements_mut(&self.compute)?);
        let master = elements_mut::<f32>(&self.master)?;
        if !master.is_empty() {
            for chunk in &self.kept.chunks {
                master[self.kept.inside(&chunk.range)].copy_from_slice(&numbers[chunk.range.clone()]);
            }
        }
        Ok(())
    }

    /// Fills the moments from a checkpoint's files.
    ///
    /// # Errors
    /// As [`State::load_weights`].
    pub fn load_moments(&mut self, files: &Files) -> Result<(), TrainError> {
        let layout = &self.network.layout;
        let [first, second] = &self.moments;
        let mut into = [elements_mut::<f32>(first)?, elements_mut::<f32>(second)?];
        let kept = &self.kept;
        let take = |tensor: &str, values: &[f32], into: &mut [f32]| {
            let of_tensor = |chunk: &&Chunk| layout.parts[chunk.part].tensor == tensor;
            for chunk in kept.chunks.iter().filter(of_tensor) {
                let into = &mut into[kept.inside(&chunk.range)];
                for (at, own) in layout.parts[chunk.part].runs(chunk.shard, chunk.of_shard.clone()) {
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
        for moment in &self.moments {
            elements_mut::<f32>(moment)?.fill(0.0);
        }
        self.updates = 0;
        Ok(())
    }

    /// The weights as the model takes them, for one thread.
    ///
    /// # Errors
    /// [`TrainError::Model`].
    pub fn weights(&self) -> Result<Weights, TrainError> {
        Ok(Weights::new(&self.network.layout, &self.compute)?)
    }

    /// BLAKE3 of the master weights of each chunk that this rank speaks for.
    ///
    /// # Errors
    /// [`TrainError::Model`].
    pub fn digests(&self) -> Result<Vec<(usize, blake3::Hash)>, TrainError> {
        let master = elements::<f32>(&self.master)?;
        let digest = |chunk: &Chunk| {
            let numbers = &master[self.in_master(&chunk.range)];
            (
                chunk.number,
                blake3::hash(&aurora_runtime::checkpoint::as_bytes(numbers)),
            )
        };
        Ok(self.reported.iter().map(digest).collect())
    }

    /// BLAKE3 (hex) over the digests of each group's chunks, from those of all ranks.
    pub fn group_digests(&self, chunks: &[(usize, blake3::Hash)]) -> std::collections::BTreeMap<String, String> {
        let layout = &self.network.layout;
        let mut of_number = vec![None; layout.num_chunks()];
        for (number, digest) in chunks {
            of_number[*number] = Some(digest);
        }
        let mut numbers = std::collections::BTreeMap::new();
        let mut number = 0;
        for part in &layout.parts {
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

/// Checks what a job's fields ask of each other.
///
/// # Errors
/// [`TrainError::Unfit`].
pub fn check(fields: &TrainFields) -> Result<(), TrainError> {
    let micro_batch = fields.numerics.micro_batch;
    if micro_batch == 0 || fields.global_batch == 0 || !fields.global_batch.is_multiple_of(micro_batch) {
        let batch = fields.global_batch;
        return Err(TrainError::Unfit(format!(
            "a global batch of {batch} does not divide into micro-batches of {micro_batch}"
        )));
    }
    Ok(())
}
