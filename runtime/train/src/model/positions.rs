//! Positions of the rows of a micro-batch whose sequences branch.

use std::ops::Range;

use tch::{Device, Tensor};

use super::ops::Rotary;
use super::workspace::Workspace;
use super::{Kernels, ModelError, Network, to_device};

/// A sequence that starts with a context, followed by branches: each branch continues the context and does not attend
/// to the others. The rest is padding.
#[derive(Clone, Debug)]
pub struct Branches {
    pub context: usize,
    pub lengths: Vec<usize>,
}

/// The position of each row, and the earlier rows it does not attend to.
#[derive(Debug)]
pub struct Positions {
    pub(super) rows_t: Tensor,
    /// Rotary tables with one line per row.
    pub(super) rotary: Option<Rotary>,
    /// By row: the earlier rows of its sequence that it does not attend to. Empty if every row attends to all earlier
    /// ones.
    pub(super) excluded: Vec<Range<usize>>,
    /// The same for libtorch, `[b, 1, s, s]`: 0 or −∞.
    pub(super) mask: Option<Tensor>,
}

impl Positions {
    /// Rows at the given positions.
    ///
    /// # Errors
    /// [`ModelError`] if one is beyond the tables.
    pub(super) fn new(positions: &[i64], rotary: Option<&Rotary>, device: Device) -> Result<Self, ModelError> {
        let rows_t = to_device(positions, device)?;
        Ok(Self {
            rotary: rotary.map(|rotary| rotary.at(&rows_t)).transpose()?,
            rows_t,
            excluded: Vec::new(),
            mask: None,
        })
    }
}

impl Network {
    /// The positions of a workspace's sequences, which branch as given; sequences without an entry are padding.
    ///
    /// # Errors
    /// [`ModelError::Size`] if a sequence does not fit.
    pub fn branches(&self, workspace: &Workspace, sequences: &[Branches]) -> Result<Positions, ModelError> {
        let (b, s) = (workspace.sequences, workspace.sequence);
        if sequences.len() > b {
            return Err(ModelError::Size(format!(
                "{} sequences exceed a workspace of {b}",
                sequences.len()
            )));
        }
        let mut row_positions: Vec<i64> = (0..b * s).map(|row| (row % s) as i64).collect();
        let mut excluded = vec![0..0; b * s];
        for (number, Branches { context, lengths }) in sequences.iter().enumerate() {
            let mut start = *context;
            for length in lengths {
                if start + length > s {
                    return Err(ModelError::Size(format!(
                        "branches of {lengths:?} tokens after {context} exceed a sequence of {s}"
                    )));
                }
                for i in 0..*length {
                    row_positions[number * s + start + i] = (context + i) as i64;
                    excluded[number * s + start + i] = *context..start;
                }
                start += length;
            }
        }
        let mut positions = Positions::new(&row_positions, workspace.rotary.as_ref(), self.device)?;
        if self.kernels != Kernels::Portable {
            let mut mask = vec![f32::NEG_INFINITY; b * s * s];
            for (row, (keys, excluded)) in mask.chunks_exact_mut(s).zip(&excluded).enumerate() {
                keys[..=row % s].fill(0.0);
                keys[excluded.clone()].fill(f32::NEG_INFINITY);
            }
            let mask = to_device(&mask, self.device)?.f_view([b as i64, 1, s as i64, s as i64])?;
            positions.mask = Some(mask.f_to_kind(self.kind)?);
        }
        positions.excluded = excluded;
        Ok(positions)
    }
}
