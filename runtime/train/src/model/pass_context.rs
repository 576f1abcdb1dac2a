//! What a pass of one micro-batch works on.

use tch::Tensor;

use super::positions::Positions;
use super::trace_recorder::TraceTarget;
use super::workspace::Workspace;
use crate::parallel::Peers;

/// One micro-batch, in a thread's workspace.
pub struct PassContext<'a> {
    pub workspace: &'a mut Workspace,
    pub peers: &'a Peers,
    pub slot: usize,
    /// Empty except on the first and the last pipeline rank.
    pub ids_t: &'a Tensor,
    /// Positions of the rows, if they are not in order.
    pub positions: Option<&'a Positions>,
    /// Where the results of operations are recorded, if at all.
    pub trace: Option<TraceTarget<'a>>,
}
