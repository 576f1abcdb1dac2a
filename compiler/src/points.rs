//! The keys of every point of a spec's sweeps.
//!
//! In: the files of a spec. Out: each point with the keys of its graph's nodes. Points share most nodes: only those that a
//! point changes are lowered and hashed again. Not here: the check of the points (`check`).

use aurora_lang::diagnostics::Diagnostic;

use crate::compose::{Bundle, Choice, SweepPoint};
use crate::graph::{Pins, changed_nodes, lower};
use crate::hash::{Base, Key, hash};

/// A point, and the keys of its graph's nodes.
#[derive(Clone, Debug)]
pub struct PointKeys {
    pub point: SweepPoint,
    /// The experiment's name at this point.
    pub experiment: String,
    pub keys: Vec<Key>,
}

impl Bundle {
    /// Compiles every point of the spec's sweeps, in order.
    ///
    /// # Errors
    /// The errors of the spec, or of the first point that has any.
    pub fn sweep_keys(&self, profile: Option<&str>, pins: &Pins) -> Result<Vec<PointKeys>, Vec<Diagnostic>> {
        let base = self.check(&Choice { profile, point: None })?;
        let base = Base::of(hash(lower(&base, pins)));
        self.each_point(profile, |point, changed, spec| {
            let nodes = changed.and_then(|changed| changed_nodes(spec, base.graph(), changed));
            let keys = match nodes {
                Some(nodes) => base.keys_with(&nodes),
                None => {
                    let keyed = hash(lower(spec, pins));
                    keyed.graph.ids().map(|id| keyed.key(id)).collect()
                }
            };
            PointKeys {
                point: point.clone(),
                experiment: spec.name.clone(),
                keys,
            }
        })
    }
}
