//! Functions in gates: number and kind of arguments, and enough measured checkpoints.

use std::collections::BTreeSet;

use aurora_lang::ast::{self, Name, Span};
use aurora_lang::diagnostics::{Code, Diagnostic};

use super::gate::ExpressionType;
use crate::check::Checker;
use crate::names::suggest;
use crate::schema::{FUNCTIONS, FunctionSchema};
use crate::spec::{Better, Block, BlockId, BlockKind, Expression, Field, Function, Metric, Spec, Value};

/// Fewer points would make a trend only a difference.
const LEAST_POINTS: usize = 3;

impl Checker<'_> {
    pub(super) fn function(
        &mut self,
        name: &Name,
        written: &[ast::Expression],
        span: Span,
        spec: &Spec,
    ) -> Option<(Expression, ExpressionType)> {
        let Some(table) = FUNCTIONS.iter().find(|known| known.name == name.text) else {
            let message = format!("there is no function `{}`", name.text);
            let diagnostic = Diagnostic::new(Code::UNKNOWN_CALL, message).label(name.span, "unknown function");
            self.error(suggest(
                diagnostic,
                name,
                FUNCTIONS.iter().map(|known| known.name),
                "one",
            ));
            return None;
        };
        let read: Vec<_> = written.iter().map(|argument| self.expression(argument, spec)).collect();
        let read: Vec<(Expression, ExpressionType)> = read.into_iter().collect::<Option<_>>()?;
        let (arguments, amounts): (Vec<Expression>, Vec<ExpressionType>) = read.into_iter().unzip();
        if table.of_checkpoints {
            let metric = match arguments.as_slice() {
                [Expression::Metric(metric)] if metric.at.kind == BlockKind::Stage => metric,
                _ => {
                    self.error(bad(table, span, "takes one metric of a stage"));
                    return None;
                }
            };
            self.enough_checkpoints(table, metric, span, spec)?;
        } else if arguments.len() < 2
            || !amounts
                .iter()
                .all(|amount| matches!(amount, ExpressionType::Metric { .. }))
        {
            self.error(bad(table, span, "takes two or more metrics"));
            return None;
        }
        let is_fraction = amounts
            .iter()
            .all(|amount| matches!(amount, ExpressionType::Metric { is_fraction: true, .. }));
        let direction = |amount: &ExpressionType| match amount {
            ExpressionType::Metric { better, .. } => *better,
            _ => None,
        };
        let directions = amounts.iter().map(direction);
        let common = directions.reduce(|a, b| a.filter(|a| Some(*a) == b)).flatten();
        let differ = amounts
            .iter()
            .all(|amount| matches!(amount, ExpressionType::Metric { difference: true, .. }));
        let (better, difference) = match table.function {
            Function::Forgetting | Function::Gap => (Some(Better::Lower), true),
            Function::Trend => (common, true),
            Function::Mean | Function::Worst => (common, differ),
        };
        if table.function == Function::Worst && better.is_none() {
            let found = bad(table, span, "needs metrics that are better in the same direction");
            self.error(found.help(
                "name metrics of one kind, not sums of several; the reference lists the better direction of each",
            ));
            return None;
        }
        Some((
            Expression::Function(table.function, arguments),
            ExpressionType::Metric {
                is_fraction,
                better,
                difference,
            },
        ))
    }

    /// Reports an error if the eval measures too few of the stage's checkpoints, as far as that is known.
    fn enough_checkpoints(&mut self, table: &FunctionSchema, metric: &Metric, span: Span, spec: &Spec) -> Option<()> {
        let eval_id = BlockId {
            kind: BlockKind::Eval,
            name: metric.eval.clone(),
        };
        let eval = spec.blocks.get(&eval_id)?;
        let found = match table.function {
            Function::Trend => measured(spec, eval, &metric.at)?.1,
            // The end of the stage is the last checkpoint; only earlier ones count.
            _ => {
                let (steps, all) = measured(spec, eval, &metric.at)?;
                let mut earlier = all.into_iter().filter(|step| *step < steps).collect::<BTreeSet<u64>>();
                let mut known = BTreeSet::from([&metric.at]);
                let mut stage = spec.blocks.get(&metric.at)?.reference("start")?;
                while earlier.is_empty() && stage.kind == BlockKind::Stage && known.insert(stage) {
                    earlier = measured(spec, eval, stage)?.1;
                    stage = spec.blocks.get(stage)?.reference("start")?;
                }
                earlier
            }
        };
        let (needed, what) = match table.function {
            Function::Trend => (LEAST_POINTS, "measured checkpoints in its stage"),
            _ => (1, "measured checkpoint before the stage's end"),
        };
        if found.len() < needed {
            let message = format!(
                "`{}` needs at least {needed} {what}, and there are {}",
                table.name,
                found.len()
            );
            let message = message.replace("there are 1", "there is 1");
            let mut error = Diagnostic::new(Code::TOO_FEW_CHECKPOINTS, message).label(span, "too few");
            if let Some(at) = eval.field("at").and_then(Field::span) {
                error = error.label(at, format!("where `{}` measures", metric.eval));
            }
            self.error(error.help("measure at more checkpoints, such as `at = [start, every 10 steps, end]`"));
            return None;
        }
        Some(())
    }
}

fn bad(table: &FunctionSchema, span: Span, what: &str) -> Diagnostic {
    Diagnostic::new(Code::BAD_GATE, format!("`{}` {what}", table.name))
        .label(span, "cannot be calculated")
        .help(format!("write `{}`", table.example))
}

/// A stage's steps, and the steps of the checkpoints that an eval measures; 0 is the start.
fn measured(spec: &Spec, eval: &Block, stage: &BlockId) -> Option<(u64, BTreeSet<u64>)> {
    let (block, batch) = (spec.blocks.get(stage)?, spec.batch_of(stage)?);
    let steps = batch.steps(block.quantity("budget")?)?;
    let kept = block.field("checkpoint")?.quantity().and_then(|kept| batch.steps(kept));
    let mut found = BTreeSet::new();
    if !eval.references("stages").contains(&stage) {
        return Some((steps, found));
    }
    for point in eval.field("at")?.elements() {
        match (&point.value, point.quantity()) {
            (Value::Every(_), quantity) => {
                let every = batch.steps(quantity?).filter(|every| *every > 0)?;
                let all = (1..=steps / every).map(|number| number * every);
                let is_kept =
                    |step: &u64| *step == steps || kept.is_some_and(|kept| kept > 0 && step.is_multiple_of(kept));
                // A trend needs no more than these, and a stage may have a million.
                found.extend(all.filter(is_kept).take(LEAST_POINTS));
            }
            (Value::Word(word), _) if word == "start" => drop(found.insert(0)),
            _ => drop(found.insert(steps)),
        }
    }
    Some((steps, found))
}
