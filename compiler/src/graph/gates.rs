//! Gates: the terms of a comparison, and the evals that they read.
//!
//! In: a checked `expect`. Out: its node, after the nodes of all evals that its metrics and functions read, which are
//! created if they do not exist yet. Not here: the values of functions (`aurora-runtime`).

use std::collections::BTreeMap;

use super::lower::{Lowering, input};
use super::nodes::checked;
use super::{Input, Node, NodeId, NodeOrigin, Role, Work};
use crate::exact::Exact;
use crate::fields::{ExpectFields, Term};
use crate::schema;
use crate::spec::{Better, BlockId, BlockKind, Expression, Function, Metric};
use crate::views::{self, ExpectView};

impl Lowering<'_> {
    pub(super) fn expect(&mut self, id: &BlockId) {
        let ExpectView { gate, values } = checked(views::expect(self.spec, id));
        let mut inputs = Vec::new();
        let left = self.term(&gate.left, &mut inputs);
        let right = self.term(&gate.right, &mut inputs);
        let fields = ExpectFields {
            name: id.name.clone(),
            text: gate.text.clone(),
            left,
            relation: gate.relation,
            right,
            confidence: gate.confidence.map(Exact::hundredth),
        };
        let origin = NodeOrigin::Expect { gate: id.name.clone() };
        let node = Node::new(origin, Work::Expect(fields), values);
        self.graph.add(node, inputs);
    }

    fn term(&mut self, expression: &Expression, inputs: &mut Vec<Input>) -> Term {
        let mut both = |left: &Expression, right: &Expression| {
            (Box::new(self.term(left, inputs)), Box::new(self.term(right, inputs)))
        };
        match expression {
            Expression::Number(value) => Term::Number(*value),
            Expression::Points(value) => Term::Number(value.hundredth()),
            Expression::Add(left, right) => {
                let (left, right) = both(left, right);
                Term::Add(left, right)
            }
            Expression::Subtract(left, right) => {
                let (left, right) = both(left, right);
                Term::Subtract(left, right)
            }
            Expression::Multiply(left, right) => {
                let (left, right) = both(left, right);
                Term::Multiply(left, right)
            }
            Expression::Metric(metric) => {
                let scores = self.scores(metric);
                metric_term(metric, scores, inputs)
            }
            Expression::Function(function, arguments) => self.function(*function, arguments, inputs),
        }
    }

    fn function(&mut self, function: Function, arguments: &[Expression], inputs: &mut Vec<Input>) -> Term {
        match (function, arguments) {
            (Function::Trend, [Expression::Metric(metric)]) => Term::Trend(self.points(metric, inputs)),
            (Function::Forgetting, [Expression::Metric(metric)]) => {
                let end = self.scores(metric);
                let earlier = self.earlier(metric, end).into_iter();
                Term::Forgetting {
                    earlier: earlier.map(|scores| metric_term(metric, scores, inputs)).collect(),
                    last: Box::new(metric_term(metric, end, inputs)),
                    better: self.better(&arguments[0]),
                }
            }
            (Function::Trend | Function::Forgetting, _) => {
                unreachable!("check finds one metric in a function of checkpoints")
            }
            (Function::Mean | Function::Worst | Function::Gap, _) => {
                let terms = arguments.iter().map(|argument| self.term(argument, inputs)).collect();
                match function {
                    Function::Mean => Term::Mean(terms),
                    Function::Gap => Term::Gap(terms),
                    _ => Term::Worst {
                        of: terms,
                        better: self.better(&arguments[0]),
                    },
                }
            }
        }
    }

    /// The better direction of an argument that `check` has accepted.
    fn better(&self, expression: &Expression) -> Better {
        match expression {
            Expression::Metric(metric) => {
                let eval = self.spec.block(BlockKind::Eval, &metric.eval);
                match eval.and_then(|eval| eval.word("better")) {
                    Some("lower") => Better::Lower,
                    Some(_) => Better::Higher,
                    None => schema::better(&metric.metric),
                }
            }
            Expression::Function(Function::Forgetting | Function::Gap, _) => Better::Lower,
            Expression::Function(_, arguments) => arguments.first().map_or(Better::Higher, |first| self.better(first)),
            _ => Better::Higher,
        }
    }

    /// A metric at each checkpoint where its eval measures its stage, with the tokens since the start of the stage.
    fn points(&mut self, metric: &Metric, inputs: &mut Vec<Input>) -> Vec<(u64, Term)> {
        let eval = eval_of(metric);
        let stage = &self.stages[&metric.at.name];
        let (model, sequence, per_step) = (stage.model.clone(), stage.sequence, stage.tokens_per_step);
        let steps: BTreeMap<NodeId, u64> = stage.checkpoints.iter().map(|(step, node)| (*node, *step)).collect();
        let points = self
            .eval_points(&checked(views::eval(self.spec, &eval)), stage)
            .into_iter();
        let mut terms = Vec::new();
        for checkpoint in points {
            let scores = self.eval_at(&eval, checkpoint, &model, sequence);
            let tokens = steps.get(&checkpoint).map_or(0, |step| step * per_step);
            terms.push((tokens, metric_term(metric, scores, inputs)));
        }
        terms
    }

    /// The evals of a metric before the end of its stage, in the stage and in those before it.
    fn earlier(&mut self, metric: &Metric, end: NodeId) -> Vec<NodeId> {
        let eval = eval_of(metric);
        let view = checked(views::eval(self.spec, &eval));
        let mut checkpoints = Vec::new();
        let mut at = Some(metric.at.clone());
        while let Some(id) = at.filter(|id| id.kind == BlockKind::Stage) {
            let stage = &self.stages[&id.name];
            if view.stages.contains(&id) {
                let own = self.eval_points(&view, stage).into_iter().rev();
                checkpoints.extend(own.map(|checkpoint| (checkpoint, stage.model.clone(), stage.sequence)));
            }
            at = Some(checked(views::stage(self.spec, &id)).start);
        }
        checkpoints.reverse();
        let mut found = Vec::new();
        for (checkpoint, model, sequence) in checkpoints {
            let scores = self.eval_at(&eval, checkpoint, &model, sequence);
            if scores != end && !found.contains(&scores) {
                found.push(scores);
            }
        }
        found
    }

    /// The eval node that a metric is read from: at the end of a stage, or at a model's first weights.
    fn scores(&mut self, metric: &Metric) -> NodeId {
        let eval = eval_of(metric);
        let (checkpoint, model, sequence) = if metric.at.kind == BlockKind::Model {
            let first = self.stages.values().find(|stage| stage.model == metric.at);
            let sequence = first.map_or(0, |stage| stage.sequence);
            (self.weights(&metric.at), metric.at.clone(), sequence)
        } else {
            let stage = &self.stages[&metric.at.name];
            (stage.end(), stage.model.clone(), stage.sequence)
        };
        self.eval_at(&eval, checkpoint, &model, sequence)
    }
}

fn eval_of(metric: &Metric) -> BlockId {
    BlockId {
        kind: BlockKind::Eval,
        name: metric.eval.clone(),
    }
}

/// A metric of the node `scores`, which becomes an input only once even if several metrics are read from it.
fn metric_term(metric: &Metric, scores: NodeId, inputs: &mut Vec<Input>) -> Term {
    let known = inputs.iter().position(|input| input.node == scores);
    let index = known.unwrap_or_else(|| {
        inputs.push(input(Role::Scores, scores));
        inputs.len() - 1
    });
    Term::Metric {
        input: index,
        metric: metric.metric.clone(),
        set: metric.set.clone(),
    }
}
