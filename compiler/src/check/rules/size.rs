//! Bounds of totals: parameters of a model, tokens of a stage, nodes of the graph.
//!
//! The tables bound each value. These rules bound products of values, so that later arithmetic fits 64 bits and a graph
//! stays small enough to plan in seconds.

use aurora_lang::diagnostics::{Code, Diagnostic};

use crate::check::Checker;
use crate::schema::{EvalKind, largest};
use crate::spec::{Block, BlockId, BlockKind, Field, Spec, StageBatch, Unit, Value};
use crate::text::grouped;
use crate::views;

/// Nodes of a graph.
const MOST_NODES: u64 = 100_000;
/// Parameters of a model.
const MOST_PARAMETERS: u64 = 10_000_000_000_000;

impl Checker<'_> {
    pub(super) fn parameters_fit(&mut self, id: &BlockId, block: &Block, spec: &Spec) {
        let Ok(model) = views::model(spec, id) else { return };
        let parameters = model.fields.parameters();
        if parameters > MOST_PARAMETERS {
            self.error(
                Diagnostic::new(
                    Code::OUT_OF_RANGE,
                    format!("model `{}` has {} parameters", id.name, grouped(parameters)),
                )
                .label(block.span, format!("at most {} are allowed", grouped(MOST_PARAMETERS))),
            );
        }
    }

    /// The sequences of a step and the tokens of all steps.
    pub(super) fn budget_fits(&mut self, block: &Block, batch: StageBatch, steps: Option<u64>) {
        let most = largest(Unit::Sequences);
        if batch.sequences > most {
            self.error(
                Diagnostic::new(
                    Code::OUT_OF_RANGE,
                    format!("a step has {} sequences", grouped(batch.sequences)),
                )
                .label(
                    block.place("global_batch"),
                    format!("at most {} are allowed", grouped(most)),
                ),
            );
        }
        let most = largest(Unit::Tokens);
        let tokens = steps.map(|steps| u128::from(steps) * u128::from(batch.tokens));
        if let (Some(steps), Some(tokens)) = (steps, tokens.filter(|tokens| *tokens > u128::from(most))) {
            self.error(
                Diagnostic::new(
                    Code::OUT_OF_RANGE,
                    format!(
                        "{} steps of {} tokens are {tokens} tokens",
                        grouped(steps),
                        grouped(batch.tokens)
                    ),
                )
                .label(block.place("budget"), format!("at most {} are allowed", grouped(most))),
            );
        }
    }

    /// Bounds the nodes for checkpoints and evals: the number of all others follows from the number of blocks.
    pub(super) fn graph_fits(&mut self, spec: &Spec) {
        let mut nodes = spec.blocks.len() as u64;
        let mut largest_stage: Option<(&BlockId, &Block, u64)> = None;
        for (id, stage) in spec.of_kind(BlockKind::Stage) {
            let Some(batch) = spec.batch_of(id) else { continue };
            let steps = |name: &str| batch.steps(stage.quantity(name)?);
            let (Some(budget), Some(every)) = (steps("budget"), steps("checkpoint")) else {
                continue;
            };
            let checkpoints = budget.div_ceil(every.max(1));
            nodes = nodes.saturating_add(checkpoints);
            for (_, eval) in spec.of_kind(BlockKind::Eval) {
                if eval.references("stages").contains(&id) {
                    nodes = nodes.saturating_add(eval_points(eval, batch, budget));
                }
            }
            if largest_stage.is_none_or(|(_, _, most)| checkpoints > most) {
                largest_stage = Some((id, stage, checkpoints));
            }
        }
        let Some((id, stage, checkpoints)) = largest_stage.filter(|_| nodes > MOST_NODES) else {
            return;
        };
        self.error(
            Diagnostic::new(
                Code::GRAPH_TOO_LARGE,
                format!("the graph would have {} nodes", grouped(nodes)),
            )
            .label(
                stage.place("checkpoint"),
                format!("{} checkpoints of stage `{}`", grouped(checkpoints), id.name),
            )
            .note(format!("a graph has at most {} nodes", grouped(MOST_NODES)))
            .help("keep fewer checkpoints, or measure at fewer of them"),
        );
    }
}

/// The nodes of an eval in a stage: one per checkpoint, and another for the answers that a judge scores.
fn eval_points(eval: &Block, batch: StageBatch, budget: u64) -> u64 {
    let at = eval.field("at").map_or(&[][..], Field::elements).iter();
    let points = at.map(|point| match &point.value {
        Value::Every(_) => point
            .quantity()
            .and_then(|every| batch.steps(every))
            .map_or(0, |every| budget / every.max(1)),
        _ => 1,
    });
    let nodes = if EvalKind::of(eval).is_some_and(|kind| kind.is_judged()) {
        2
    } else {
        1
    };
    points.fold(0, u64::saturating_add).saturating_mul(nodes)
}
