//! Where the rows of a micro-batch stand, if a sequence is not simply its rows in order.

use std::ops::Range;

use tch::Tensor;

use super::ops::Rotary;
use super::workspace::Workspace;
use super::{Kernels, ModelError, Network};

/// A sequence whose first rows are a context, and the others branches of given lengths: each goes on from the context, and
/// none sees another. What is behind them is padding.
#[derive(Clone, Debug)]
pub struct Branches {
    pub context: usize,
    pub lengths: Vec<usize>,
}

/// The position of each row, and the keys that are hidden from it.
#[derive(Debug)]
pub struct Positions {
    /// `[t]`.
    pub(super) rows: Tensor,
    /// Its tables, a line a row.
    pub(super) rotary: Option<Rotary>,
    /// Earlier rows of its sequence that a row does not see; nothing at all: it sees every one.
    pub(super) hidden: Vec<Range<usize>>,
    /// The same for libtorch, `[b, 1, s, s]`: 0 or −∞.
    pub(super) mask: Option<Tensor>,
}

impl Positions {
    /// Rows at these positions.
    ///
    /// # Errors
    /// [`ModelError`] if one is beyond the tables.
    pub(super) fn new(rows: &[i64], rotary: Option<&Rotary>) -> Result<Self, ModelError> {
        let rows = Tensor::f_from_slice(rows)?;
        Ok(Self {
            rotary: rotary.map(|rotary| rotary.at(&rows)).transpose()?,
            rows,
            hidden: Vec::new(),
            mask: None,
        })
    }
}

impl Network {
    /// The positions of a workspace's sequences that branch; those that are not named hold nothing.
    ///
    /// # Errors
    /// [`ModelError::Unfit`] if a sequence does not fit.
    pub fn branches(&self, workspace: &Workspace, sequences: &[Branches]) -> Result<Positions, ModelError> {
        let (b, s) = (workspace.sequences, workspace.sequence);
        if sequences.len() > b {
            return Err(ModelError::Unfit(format!("{} sequences for {b}", sequences.len())));
        }
        let mut rows: Vec<i64> = (0..b * s).map(|row| (row % s) as i64).collect();
        let mut hidden = vec![0..0; b * s];
        for (number, Branches { context, lengths }) in sequences.iter().enumerate() {
            let mut at = *context;
            for length in lengths {
                if at + length > s {
                    return Err(ModelError::Unfit(format!(
                        "branches of {lengths:?} behind {context} in a sequence of {s}"
                    )));
                }
                for i in 0..*length {
                    rows[number * s + at + i] = (context + i) as i64;
                    hidden[number * s + at + i] = *context..at;
                }
                at += length;
            }
        }
        let mut positions = Positions::new(&rows, workspace.rotary.as_ref())?;
        if self.kernels != Kernels::Portable {
            let mut mask = vec![f32::NEG_INFINITY; b * s * s];
            for (row, (keys, hidden)) in mask.chunks_exact_mut(s).zip(&hidden).enumerate() {
                keys[..=row % s].fill(0.0);
                keys[hidden.clone()].fill(f32::NEG_INFINITY);
            }
            let mask = Tensor::f_from_slice(&mask)?.f_view([b as i64, 1, s as i64, s as i64])?;
            positions.mask = Some(mask.f_to_kind(self.kind)?.f_to_device(self.device)?);
        }
        positions.hidden = hidden;
        Ok(positions)
    }
}
