//! What training carries from step to step: master weights, moments, the copy that the model computes with.

use aurora_compiler::fields::{Numerics, Precision, TrainFields};
use aurora_runtime::checkpoint::{Group, TensorInfo, as_bytes, groups, read};
use aurora_runtime::job::Files;
use tch::{Device, Kind, Tensor};

use super::TrainError;
use crate::model::{Kernels, Layout, Network, Shape, Weights, elements, elements_mut};
use crate::parallel::Grid;

/// What a model computes with: architecture, grid, numbers.
///
/// # Errors
/// [`TrainError::Model`] if the model does not divide over the grid.
pub fn network(
    model: &aurora_compiler::fields::ModelFields,
    numerics: &Numerics,
    precision: Precision,
    threads: usize,
) -> Result<Network, TrainError> {
    let grid = Grid::new(numerics, threads);
    if !grid.lanes.is_power_of_two() || grid.micro_batch == 0 {
        let Grid { lanes, micro_batch, .. } = grid;
        return Err(TrainError::Unfit(format!(
            "{lanes} gradient lanes of micro-batches of {micro_batch} sequences"
        )));
    }
    let kernels = if matches!(numerics, Numerics::Native { .. }) {
        Kernels::Aten
    } else {
        Kernels::Own
    };
    let kind = match precision {
        Precision::F32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    };
    Ok(Network {
        layout: Layout::new(Shape::new(model, &grid)?),
        grid,
        kernels,
        kind,
        device: Device::Cpu,
    })
}

/// The flat buffers of a model in training.
#[derive(Debug)]
pub struct State {
    pub network: Network,
    pub groups: Vec<Group>,
    pub master: Tensor,
    /// `master` itself if the model computes in `f32`.
    pub compute: Tensor,
    /// First and second moments; empty tensors in a model that is only evaluated.
    pub moments: [Tensor; 2],
    /// Optimizer updates since the moments were last zero.
    pub updates: u64,
}

impl State {
    /// A state of zeros. `trained` makes room for moments.
    ///
    /// # Errors
    /// [`TrainError::Model`] if memory runs out.
    pub fn new(
        network: Network,
        model: &aurora_compiler::fields::ModelFields,
        trained: bool,
    ) -> Result<Self, TrainError> {
        let length = network.layout.length as i64;
        let zeros = |length: i64, kind: Kind| {
            Tensor::f_zeros([length], (kind, network.device)).map_err(|error| TrainError::Model(error.into()))
        };
        let master = zeros(length, Kind::Float)?;
        let compute = if network.kind == Kind::Float {
            master.shallow_clone()
        } else {
            zeros(length, network.kind)?
        };
        let room = if trained { length } else { 0 };
        let moments = [zeros(room, Kind::Float)?, zeros(room, Kind::Float)?];
        Ok(Self {
            groups: groups(model),
            network,
            master,
            compute,
            moments,
            updates: 0,
        })
    }

    /// Fills the weights from a checkpoint's files.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] if a file does not hold what the model asks for.
    pub fn load_weights(&mut self, files: &Files) -> Result<(), TrainError> {
        let buffer = elements_mut::<f32>(&self.master)?;
        for group in &self.groups {
            let layout = &self.network.layout;
            read(files, &group.weights(), &group.tensors, |tensor, numbers| {
                layout.scatter(&tensor.name, numbers, buffer);
            })?;
        }
        self.refresh()
    }

    /// Fills the moments from a checkpoint's files.
    ///
    /// # Errors
    /// As [`State::load_weights`].
    pub fn load_moments(&mut self, files: &Files) -> Result<(), TrainError> {
        let [first, second] = &self.moments;
        let (first, second) = (elements_mut::<f32>(first)?, elements_mut::<f32>(second)?);
        for group in &self.groups {
            let layout = &self.network.layout;
            read(files, &group.optimizer(), &group.moments(), |tensor, numbers| {
                if let Some(name) = tensor.name.strip_suffix(".m") {
                    layout.scatter(name, numbers, first);
                } else if let Some(name) = tensor.name.strip_suffix(".v") {
                    layout.scatter(name, numbers, second);
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

    /// Rounds the masters to the numbers that the model computes with.
    fn refresh(&mut self) -> Result<(), TrainError> {
        if self.network.kind == Kind::BFloat16 {
            crate::kernels::cast::<half::bf16>(elements(&self.master)?, elements_mut(&self.compute)?);
        }
        Ok(())
    }

    /// The same weights and moments on another grid or in other numbers.
    ///
    /// # Errors
    /// [`TrainError::Model`] if memory runs out.
    pub fn moved_to(
        &self,
        network: Network,
        model: &aurora_compiler::fields::ModelFields,
        trained: bool,
    ) -> Result<Self, TrainError> {
        let mut to = Self::new(network, model, trained)?;
        let mut pairs = vec![(&self.master, &to.master)];
        if trained && self.moments[0].numel() > 0 {
            pairs.extend(self.moments.iter().zip(&to.moments));
            to.updates = self.updates;
        }
        let mut numbers = Vec::new();
        for tensor in self.groups.iter().flat_map(|group| &group.tensors) {
            for (from, into) in &pairs {
                numbers.clear();
                self.network.layout.gather(&tensor.name, elements(from)?, &mut numbers);
                to.network.layout.scatter(&tensor.name, &numbers, elements_mut(into)?);
            }
        }
        to.refresh()?;
        Ok(to)
    }

    /// The weights as the model takes them, for one thread.
    ///
    /// # Errors
    /// [`TrainError::Model`].
    pub fn weights(&self) -> Result<Weights, TrainError> {
        Ok(Weights::new(&self.network.layout, &self.compute)?)
    }

    /// Weights of a group as in its file, one tensor after another.
    ///
    /// # Errors
    /// [`TrainError::Model`].
    pub fn group_weights(&self, group: &Group) -> Result<Vec<f32>, TrainError> {
        let buffer = elements::<f32>(&self.master)?;
        let mut numbers = Vec::with_capacity(group.tensors.iter().map(TensorInfo::count).sum());
        for tensor in &group.tensors {
            self.network.layout.gather(&tensor.name, buffer, &mut numbers);
        }
        Ok(numbers)
    }

    /// Moments of a group as in its file.
    ///
    /// # Errors
    /// [`TrainError::Model`].
    pub fn group_moments(&self, group: &Group) -> Result<Vec<f32>, TrainError> {
        let [first, second] = &self.moments;
        let (first, second) = (elements::<f32>(first)?, elements::<f32>(second)?);
        let mut numbers = Vec::with_capacity(2 * group.tensors.iter().map(TensorInfo::count).sum::<usize>());
        for tensor in &group.tensors {
            self.network.layout.gather(&tensor.name, first, &mut numbers);
            self.network.layout.gather(&tensor.name, second, &mut numbers);
        }
        Ok(numbers)
    }

    /// BLAKE3 (hex) of each group's master weights: of what stands behind the header of the group's file.
    ///
    /// # Errors
    /// [`TrainError::Model`].
    pub fn digests(&self) -> Result<std::collections::BTreeMap<String, String>, TrainError> {
        let digest = |group: &Group| {
            let numbers = self.group_weights(group)?;
            Ok((
                group.name.clone(),
                blake3::hash(&as_bytes(&numbers)).to_hex().to_string(),
            ))
        };
        self.groups.iter().map(digest).collect()
    }
}

/// Checks what a job's fields ask of each other.
///
/// # Errors
/// [`TrainError::Unfit`].
pub fn check(fields: &TrainFields) -> Result<(), TrainError> {
    let micro_batch = match fields.numerics {
        Numerics::Invariant { micro_batch, .. } | Numerics::Native { micro_batch } => micro_batch,
    };
    if micro_batch == 0 || fields.global_batch == 0 || !fields.global_batch.is_multiple_of(micro_batch) {
        let batch = fields.global_batch;
        return Err(TrainError::Unfit(format!(
            "a global batch of {batch} does not divide into micro-batches of {micro_batch}"
        )));
    }
    if fields.first_step >= fields.last_step {
        return Err(TrainError::Unfit(format!(
            "no steps in {}..{}",
            fields.first_step, fields.last_step
        )));
    }
    Ok(())
}
