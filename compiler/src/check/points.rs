//! Checks every point of a spec's sweeps.
//!
//! The files are joined and their blocks read only once; for each point, only the blocks that it changes are read again. A
//! point that changes a parameter is checked from the start, because any block may use the parameter.

use std::collections::{BTreeMap, BTreeSet};

use aurora_lang::ast::{Entry, Field};
use aurora_lang::diagnostics::Diagnostic;
use rayon::prelude::*;

use super::Checker;
use super::collect::Draft;
use crate::compose::{Bundle, Choice, Flat, LayerKind, SpecLayer, Sweep, SweepPoint, experiment_at_point};
use crate::spec::{Block, BlockId, BlockKind, Spec};

/// The common part of all points of a sweep.
struct Shared<'b> {
    bundle: &'b Bundle,
    choice: Choice<'b>,
    flat: &'b Flat,
    /// With every change except those of a point and of `--set`.
    drafts: Vec<Draft>,
    /// The blocks that were read from `drafts`.
    blocks: Vec<(BlockId, Block)>,
    failed: BTreeSet<(BlockId, String)>,
}

impl Bundle {
    /// Checks every point and calls `each` with it. The second argument is the fields that the point changes; none if more
    /// may have changed. Results are in the order of the points.
    pub(crate) fn each_point<T: Send>(
        &self,
        profile: Option<&str>,
        each: impl Fn(&SweepPoint, Option<&[(BlockId, String)]>, &Spec) -> T + Sync,
    ) -> Result<Vec<T>, Vec<Diagnostic>> {
        let choice = Choice { profile, point: None };
        let flat = self.flatten(&choice)?;
        let mut checker = Checker::new(self);
        let mut collected = checker.collect(&flat);
        checker.know_profile(&flat.profiles, profile);
        let (own, settings) = flat.layers.split_at(flat.layers.len().saturating_sub(1));
        for layer in own {
            checker.lay_over(&mut collected.drafts, layer);
        }
        let blocks = collected
            .drafts
            .iter()
            .map(|draft| (draft.id.clone(), checker.block(draft)))
            .collect();
        if !checker.errors.is_empty() {
            aurora_lang::diagnostics::sort(&mut checker.errors);
            return Err(checker.errors);
        }
        let shared = Shared {
            bundle: self,
            choice,
            flat: &flat,
            drafts: collected.drafts,
            blocks,
            failed: checker.failed,
        };
        let points: Vec<(&Sweep, SweepPoint)> = flat
            .sweeps
            .iter()
            .flat_map(|sweep| sweep.points().map(move |point| (sweep, point)))
            .collect();
        points
            .par_iter()
            .map_init(
                || checker_of(&shared),
                |checker, (sweep, point)| {
                    let spec = checker.point(&shared, sweep, point, settings)?;
                    let fields = sweep.fields(point.index());
                    let changed: Option<Vec<(BlockId, String)>> = fields.iter().map(changed_field).collect();
                    Ok(each(point, changed.as_deref(), &spec))
                },
            )
            .collect()
    }
}

fn checker_of<'b>(shared: &Shared<'b>) -> Checker<'b> {
    let mut checker = Checker::new(shared.bundle);
    // Declares the names of all blocks; their errors have already been reported.
    checker.collect(shared.flat);
    checker.errors.clear();
    checker
}

impl Checker<'_> {
    fn point(
        &mut self,
        shared: &Shared<'_>,
        sweep: &Sweep,
        point: &SweepPoint,
        settings: &[SpecLayer],
    ) -> Result<Spec, Vec<Diagnostic>> {
        let fields = sweep.fields(point.index());
        if fields.iter().any(|field| field.path.len() == 1) {
            return shared.bundle.check(&Choice {
                point: Some(&point.name),
                ..shared.choice
            });
        }
        self.warnings.clear();
        self.failed.clone_from(&shared.failed);
        let changes = SpecLayer {
            kind: LayerKind::Applied,
            entries: fields.into_iter().map(Entry::Field).collect(),
        };
        let mut touched: BTreeSet<BlockId> = BTreeSet::new();
        for layer in settings.iter().chain([&changes]) {
            touched.extend(layer.entries.iter().filter_map(block_of));
        }
        // Only the blocks that change are read again.
        let mut changed: Vec<Draft> = shared
            .drafts
            .iter()
            .filter(|draft| touched.contains(&draft.id))
            .cloned()
            .collect();
        self.lay_over(&mut changed, &changes);
        for layer in settings {
            self.lay_over(&mut changed, layer);
        }
        let mut again: BTreeMap<&BlockId, (Block, &Draft)> = BTreeMap::new();
        for draft in &changed {
            again.insert(&draft.id, (self.block(draft), draft));
        }
        let drafts: Vec<&Draft> = shared
            .drafts
            .iter()
            .map(|draft| again.get(&draft.id).map_or(draft, |(_, draft)| *draft))
            .collect();
        let mut blocks: BTreeMap<BlockId, Block> = BTreeMap::new();
        let mut name = String::new();
        for (id, block) in &shared.blocks {
            let block = again.get(id).map_or(block, |(block, _)| block).clone();
            let mut id = id.clone();
            if id.kind == BlockKind::Experiment && name.is_empty() {
                name = experiment_at_point(&id.name, &point.name);
                id.name.clone_from(&name);
            }
            blocks.insert(id, block);
        }
        let mut spec = self.empty_spec(shared.bundle, &shared.choice);
        spec.point = Some(point.name.clone());
        spec.name = name;
        spec.blocks = blocks;
        self.rules(&mut spec, &drafts, &BTreeSet::new());
        if self.errors.is_empty() {
            self.verify_views(&spec, spec.blocks.keys().filter(|id| touched.contains(id)));
        }
        if self.errors.is_empty() {
            return Ok(spec);
        }
        let mut errors = std::mem::take(&mut self.errors);
        aurora_lang::diagnostics::sort(&mut errors);
        Err(errors)
    }
}

/// The field that a path of a sweep changes; none for a parameter, which any block may use.
fn changed_field(field: &Field) -> Option<(BlockId, String)> {
    let [kind, name, changed, ..] = field.path.as_slice() else {
        return None;
    };
    let id = BlockId {
        kind: crate::schema::kind(&kind.text)?,
        name: name.text.clone(),
    };
    Some((id, changed.text.clone()))
}

/// The block that an entry of a point or of `--set` changes.
fn block_of(entry: &Entry) -> Option<BlockId> {
    let (kind, name) = match entry {
        Entry::Field(field) => match field.path.as_slice() {
            [kind, name, ..] => (kind, name),
            _ => return None,
        },
        Entry::Block(block) => (&block.keyword, &block.name),
        Entry::Component(_) => return None,
    };
    Some(BlockId {
        kind: crate::schema::kind(&kind.text)?,
        name: name.text.clone(),
    })
}
