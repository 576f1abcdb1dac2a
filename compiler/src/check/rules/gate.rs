//! Gates: metrics that will exist, compared with what they can be compared with.

use aurora_lang::ast::{self, ExpressionKind, Name, Operator};
use aurora_lang::diagnostics::{Code, Diagnostic};

use crate::check::Checker;
use crate::exact::Exact;
use crate::names::suggest;
use crate::number::Counted;
use crate::schema::{EvalKind, Range};
use crate::spec::set_names;
use crate::spec::{Better, Block, BlockId, BlockKind, Expression, Field, Gate, Metric, Relation, Spec, Value};

/// The ends of the interval are quantiles of two thousand replicates: at 99%, ten are outside of each end.
const CONFIDENCE: Range = Range {
    least: "50",
    includes_least: true,
    most: Some("99"),
    includes_most: true,
};

/// The kind of quantity that an expression gives.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum ExpressionType {
    Number,
    Points,
    /// A metric, or an expression of metrics.
    Metric {
        /// It is between 0 and 1.
        is_fraction: bool,
        /// The better direction, if there is one.
        better: Option<Better>,
        /// It is a difference, which can be compared with percentage points.
        difference: bool,
    },
    /// Could not be read.
    Invalid,
}

impl Checker<'_> {
    pub(super) fn gate(&mut self, written: &ast::Gate, spec: &Spec) -> Option<Field> {
        let evidence = self.evidence_of(&written.marks);
        let left = self.expression(&written.left, spec);
        let right = self.expression(&written.right, spec);
        let (left, left_amount) = left?;
        let (right, right_amount) = right?;
        if !matches!(left_amount, ExpressionType::Metric { .. })
            && !matches!(right_amount, ExpressionType::Metric { .. })
        {
            self.error(
                Diagnostic::new(Code::BAD_GATE, "this gate compares no metric")
                    .label(written.span, "always true or always false")
                    .help("write a metric such as `cap.heldout.bits_per_byte.en`"),
            );
            return None;
        }
        for (side, amount, other) in [
            (&written.left, left_amount, right_amount),
            (&written.right, right_amount, left_amount),
        ] {
            let fits = matches!(
                other,
                ExpressionType::Metric {
                    is_fraction: true,
                    difference: true,
                    ..
                }
            );
            if amount == ExpressionType::Points && !fits {
                self.error(bare_points(side));
                return None;
            }
        }
        let relation = match written.relation.text.as_str() {
            "<" => Relation::Less,
            "<=" => Relation::AtMost,
            ">" => Relation::Greater,
            _ => Relation::AtLeast,
        };
        let confidence = match &written.confidence {
            Some(level) => Some(self.percent(&level.number, level.span, &CONFIDENCE)?),
            None => None,
        };
        let suffix = confidence.map_or(String::new(), |level| format!(" with {level}% confidence"));
        let text = format!("{left} {relation} {right}{suffix}");
        let value = Value::Gate(Box::new(Gate {
            left,
            relation,
            right,
            confidence,
            text,
        }));
        Some(Field {
            value,
            origin: self.origin(written.span),
            evidence,
        })
    }

    pub(super) fn expression(
        &mut self,
        written: &ast::Expression,
        spec: &Spec,
    ) -> Option<(Expression, ExpressionType)> {
        match &written.kind {
            ExpressionKind::Group(inner) => self.expression(inner, spec),
            ExpressionKind::Metric(path) => {
                let (metric, amount) = self.metric(path, spec)?;
                Some((Expression::Metric(metric), amount))
            }
            ExpressionKind::Function { name, arguments } => self.function(name, arguments, written.span, spec),
            ExpressionKind::Number(number) => {
                let value = Exact::new(self.decimal(number, written.span)?);
                match self.counted(number)? {
                    Counted::Plain => Some((Expression::Number(value), ExpressionType::Number)),
                    Counted::Points => Some((Expression::Points(value), ExpressionType::Points)),
                    Counted::Percent => {
                        let fraction = Exact::new(value.decimal() / rust_decimal::Decimal::ONE_HUNDRED);
                        self.error(
                            Diagnostic::new(Code::BAD_GATE, "a percentage in a gate can mean two things")
                                .label(written.span, "a fraction of the metric, or points?")
                                .help(format!(
                                    "multiply by `{fraction}`, or write `{value} pp` for percentage points"
                                )),
                        );
                        None
                    }
                    Counted::Unit(unit) => {
                        self.error(
                            Diagnostic::new(Code::WRONG_UNIT, format!("a metric is not counted in {}", unit.unit))
                                .label(written.span, "takes no unit but `pp`"),
                        );
                        None
                    }
                }
            }
            ExpressionKind::Binary { left, operator, right } => {
                let (read_left, read_right) = (self.expression(left, spec), self.expression(right, spec));
                let (left_value, left_amount) = read_left?;
                let (right_value, right_amount) = read_right?;
                let amount = combine(*operator, left_amount, right_amount);
                if amount == ExpressionType::Invalid {
                    let points = if right_amount == ExpressionType::Points {
                        right
                    } else {
                        left
                    };
                    self.error(
                        Diagnostic::new(
                            Code::BAD_GATE,
                            "percentage points can only be added to or subtracted from a fraction",
                        )
                        .label(points.span, "percentage points")
                        .note("fractions are `pass@k`, `accuracy`, `accuracy_norm` and `attack_success_rate`")
                        .help("for another metric, multiply it: `* 1.05`"),
                    );
                    return None;
                }
                let (left, right) = (Box::new(left_value), Box::new(right_value));
                let value = match operator {
                    Operator::Add => Expression::Add(left, right),
                    Operator::Subtract => Expression::Subtract(left, right),
                    Operator::Multiply => Expression::Multiply(left, right),
                };
                Some((value, amount))
            }
        }
    }

    /// Reads `WEIGHTS.EVAL.METRIC.SET`, and the kind of its value.
    fn metric(&mut self, path: &[Name], spec: &Spec) -> Option<(Metric, ExpressionType)> {
        let (at_name, rest) = path.split_first()?;
        let at = self.metric_weights(at_name, spec)?;
        let span = at_name.span.to(path[path.len() - 1].span);
        let [eval_name, rest @ ..] = rest else {
            self.error(incomplete(span, "an eval and a metric"));
            return None;
        };
        let id = BlockId {
            kind: BlockKind::Eval,
            name: eval_name.text.clone(),
        };
        let Some(eval) = spec.blocks.get(&id) else {
            if !self.names.declared.contains_key(&id) && !self.names.anything.contains(&eval_name.text) {
                let diagnostic =
                    Diagnostic::new(Code::UNKNOWN_METRIC, format!("no eval is called `{}`", eval_name.text))
                        .label(eval_name.span, "unknown eval");
                let names: Vec<&str> = spec.of_kind(BlockKind::Eval).map(|(id, _)| id.name.as_str()).collect();
                self.error(suggest(diagnostic, eval_name, names.into_iter(), "one"));
            }
            return None;
        };
        let kind = EvalKind::of(eval)?;
        let [metric_name, rest @ ..] = rest else {
            self.error(incomplete(span, "a metric"));
            return None;
        };
        let amount = self.metric_of_kind(metric_name, kind, eval)?;
        let set = self.metric_set(rest, metric_name, &id.name, kind, eval, spec)?;
        Some((
            Metric {
                at,
                eval: id.name,
                metric: metric_name.text.clone(),
                set,
            },
            amount,
        ))
    }

    fn metric_weights(&mut self, name: &Name, spec: &Spec) -> Option<BlockId> {
        let find = |kind| {
            Some(BlockId {
                kind,
                name: name.text.clone(),
            })
            .filter(|id| spec.blocks.contains_key(id))
        };
        if let Some(id) = find(BlockKind::Stage).or_else(|| find(BlockKind::Model)) {
            return Some(id);
        }
        let is_broken = |kind| {
            self.names.declared.contains_key(&BlockId {
                kind,
                name: name.text.clone(),
            })
        };
        if is_broken(BlockKind::Stage) || is_broken(BlockKind::Model) || self.names.anything.contains(&name.text) {
            return None;
        }
        let diagnostic = Diagnostic::new(
            Code::UNKNOWN_METRIC,
            format!("no stage or model is called `{}`", name.text),
        )
        .label(name.span, "a metric starts with a stage or model");
        let names: Vec<&str> = [BlockKind::Stage, BlockKind::Model]
            .into_iter()
            .flat_map(|kind| spec.of_kind(kind))
            .map(|(id, _)| id.name.as_str())
            .collect();
        self.error(suggest(diagnostic, name, names.into_iter(), "one"));
        None
    }

    fn metric_of_kind(&mut self, name: &Name, kind: EvalKind, eval: &Block) -> Option<ExpressionType> {
        let mut all: Vec<(String, ExpressionType)> = Vec::new();
        for metric in kind.metrics() {
            let better = match eval.word("better") {
                Some("lower") => Better::Lower,
                Some(_) => Better::Higher,
                None => metric.better,
            };
            let amount = ExpressionType::Metric {
                is_fraction: metric.is_fraction,
                better: Some(better),
                difference: false,
            };
            if metric.name == "pass@" {
                let ks = eval
                    .field("k")
                    .map_or(&[][..], Field::elements)
                    .iter()
                    .filter_map(Field::integer);
                all.extend(ks.map(|k| (format!("pass@{k}"), amount)));
            } else {
                all.push((metric.name.to_owned(), amount));
            }
        }
        // The list of k could not be read: any of them may exist.
        if all.is_empty() {
            return None;
        }
        if let Some((_, amount)) = all.iter().find(|(known, _)| *known == name.text) {
            return Some(*amount);
        }
        let message = format!("an eval of kind `{kind}` has no metric `{}`", name.text);
        let diagnostic = Diagnostic::new(Code::UNKNOWN_METRIC, message).label(name.span, "unknown metric");
        self.error(suggest(
            diagnostic,
            name,
            all.iter().map(|(name, _)| name.as_str()),
            "one",
        ));
        None
    }

    fn metric_set(
        &mut self,
        rest: &[Name],
        metric: &Name,
        eval_name: &str,
        kind: EvalKind,
        eval: &Block,
        spec: &Spec,
    ) -> Option<String> {
        if let [_, extra, ..] = rest {
            self.error(
                Diagnostic::new(Code::UNKNOWN_METRIC, "a metric has at most four parts")
                    .label(extra.span, "one too many")
                    .help("write `STAGE.EVAL.METRIC.SET`"),
            );
            return None;
        }
        if kind != EvalKind::Perplexity {
            // The categories of these kinds are known only when they have run.
            return Some(rest.first().map_or(String::new(), |set| set.text.clone()));
        }
        let data = eval.field("data")?;
        let sets: Vec<String> = set_names(spec, eval).into_iter().map(|(name, _)| name).collect();
        if sets.len() != data.elements().len() {
            return None;
        }
        match (rest.first(), sets.as_slice()) {
            // In gates, `-` is a sign, so the parts of a language tag are written with `_`.
            (Some(set), _) if let Some(found) = sets.iter().find(|name| name.replace('-', "_") == set.text) => {
                Some(found.clone())
            }
            (Some(set), _) => {
                let diagnostic = Diagnostic::new(
                    Code::UNKNOWN_METRIC,
                    format!("eval `{eval_name}` has no set `{}`", set.text),
                )
                .label(set.span, "unknown set");
                self.error(suggest(diagnostic, set, sets.iter().map(String::as_str), "one"));
                None
            }
            (None, [only]) => Some(only.clone()),
            (None, _) => {
                let names: Vec<String> = sets.iter().map(|set| format!("`{}.{set}`", metric.text)).collect();
                self.error(
                    Diagnostic::new(
                        Code::UNKNOWN_METRIC,
                        format!("eval `{eval_name}` has more than one set"),
                    )
                    .label(metric.span, "which set?")
                    .help(format!("there are: {}", names.join(", "))),
                );
                None
            }
        }
    }
}

fn incomplete(span: ast::Span, what: &str) -> Diagnostic {
    Diagnostic::new(Code::UNKNOWN_METRIC, format!("this does not name {what}"))
        .label(span, "incomplete")
        .help("write `STAGE.EVAL.METRIC.SET`, such as `cap.heldout.bits_per_byte.en`")
}

fn bare_points(side: &ast::Expression) -> Diagnostic {
    Diagnostic::new(Code::BAD_GATE, "percentage points alone are not compared with a metric")
        .label(side.span, "only a difference")
        .help("write the fraction itself, such as `0.02`")
}

fn combine(operator: Operator, left: ExpressionType, right: ExpressionType) -> ExpressionType {
    use ExpressionType::{Invalid, Metric, Number, Points};
    match (operator, left, right) {
        (_, Invalid, _) | (_, _, Invalid) => Invalid,
        (_, Number, Number) => Number,
        (Operator::Multiply, Points, _) | (Operator::Multiply, _, Points) => Invalid,
        (_, Points, Points) => Points,
        (_, sum @ Metric { is_fraction: true, .. }, Points)
        | (Operator::Add, Points, sum @ Metric { is_fraction: true, .. }) => sum,
        (_, Points, _) | (_, _, Points) => Invalid,
        // A factor or a difference may reverse the better direction of a metric.
        (
            _,
            Metric {
                is_fraction,
                difference,
                ..
            },
            Number,
        )
        | (
            _,
            Number,
            Metric {
                is_fraction,
                difference,
                ..
            },
        ) => Metric {
            is_fraction,
            better: None,
            difference,
        },
        (
            _,
            Metric {
                is_fraction: first,
                difference: of_first,
                ..
            },
            Metric {
                is_fraction: second,
                difference: of_second,
                ..
            },
        ) => Metric {
            is_fraction: first && second,
            better: None,
            difference: match operator {
                Operator::Add => of_first && of_second,
                Operator::Subtract => of_first == of_second,
                Operator::Multiply => false,
            },
        },
    }
}
