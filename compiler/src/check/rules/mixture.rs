//! Mixtures: weights sum to exactly 100%, or are all in tokens.

use aurora_lang::diagnostics::{Code, Diagnostic};
use rust_decimal::Decimal;

use crate::check::Checker;
use crate::check::collect::Draft;
use crate::exact::Exact;
use crate::spec::{Block, BlockId, Field, Value};

impl Checker<'_> {
    pub(super) fn mixture(&mut self, id: &BlockId, block: &Block, drafts: &[&Draft]) {
        let Some(draft) = drafts.iter().find(|draft| draft.id == *id) else {
            return;
        };
        if draft.components.is_empty() {
            if draft.unknown.is_empty() {
                self.error(
                    Diagnostic::new(Code::WEIGHTS, format!("mixture `{}` is empty", id.name))
                        .label(block.span, "no component")
                        .help("add a line such as `en from [english] weight 100%`"),
                );
            }
            return;
        }
        if draft.is_incomplete {
            return;
        }
        let Some(weights) = self.weights(block, draft) else {
            return;
        };
        match (weights.first_tokens, weights.first_percentage) {
            (Some(tokens), Some(percentage)) => self.error(
                Diagnostic::new(
                    Code::WEIGHTS,
                    format!("mixture `{}` has weights in tokens and in percent", id.name),
                )
                .label(percentage.span().unwrap_or(block.span), "a percentage")
                .label(tokens.span().unwrap_or(block.span), "tokens")
                .help("write all of them in tokens, or all of them in percent"),
            ),
            (Some(_), None) => {}
            (None, _) => self.weights_sum(id, block, draft, &weights),
        }
    }

    /// Adds up the weights of a mixture; none if one of them could not be read.
    fn weights<'b>(&mut self, block: &'b Block, draft: &Draft) -> Option<Weights<'b>> {
        let mut weights = Weights::default();
        let mut too_fine = false;
        for component in &draft.components {
            let weight = block.field(&component.name.text)?.argument("weight")?;
            let percentages = match &weight.value {
                Value::Unknown => {
                    weights.unknown += 1;
                    continue;
                }
                Value::Quantity(..) => {
                    weights.first_tokens.get_or_insert(weight);
                    continue;
                }
                Value::Call { .. } => ["start", "end"].map(|name| weight.argument(name)),
                _ => [Some(weight); 2],
            };
            weights.first_percentage.get_or_insert(weight);
            if percentages.iter().flatten().any(|field| field.value == Value::Unknown) {
                weights.unknown += 1;
                continue;
            }
            for (sum, percentage) in weights.sums.iter_mut().zip(percentages) {
                let percentage = percentage?.number()?;
                *sum += percentage.decimal();
                if percentage.decimal().normalize().scale() > 4 && !too_fine {
                    too_fine = true;
                    self.error(
                        Diagnostic::new(
                            Code::OUT_OF_RANGE,
                            format!("weight {percentage}% is finer than 0.0001%"),
                        )
                        .label(weight.span().unwrap_or(block.span), "too fine")
                        .note("weights are stored in millionths"),
                    );
                }
            }
        }
        Some(weights)
    }

    fn weights_sum(&mut self, id: &BlockId, block: &Block, draft: &Draft, weights: &Weights<'_>) {
        let (sums, unknown) = (weights.sums, weights.unknown);
        let all = Decimal::ONE_HUNDRED;
        let holds = |sum: &Decimal| if unknown == 0 { *sum == all } else { *sum < all };
        let Some(at) = sums.iter().position(|sum| !holds(sum)) else {
            return;
        };
        let sum = sums[at];
        let when = if sums[0] == sums[1] {
            ""
        } else {
            [" at the beginning of the stage", " at the end of the stage"][at]
        };
        let written: Vec<&Field> = draft
            .components
            .iter()
            .filter_map(|component| block.field(&component.name.text)?.argument("weight"))
            .collect();
        let total = Exact::new(sum);
        let difference = Exact::new((all - sum).abs());
        let message = match (unknown, sum < all) {
            (0, true) => format!(
                "the weights of mixture `{}` sum to {total}%{when}: {difference}% are missing",
                id.name
            ),
            (0, false) => format!(
                "the weights of mixture `{}` sum to {total}%{when}: {difference}% too much",
                id.name
            ),
            _ => format!(
                "the known weights of mixture `{}` sum to {total}%: nothing is left for the unknown",
                id.name
            ),
        };
        let mut diagnostic = Diagnostic::new(Code::WEIGHTS, message).label(block.span, "must sum to exactly 100%");
        if let (0, true, Some(last)) = (unknown, sum < all, written.last())
            && let (Some(span), Some(weight)) = (last.span(), last.number())
        {
            let fitting = Exact::new(weight.decimal() + all - sum);
            diagnostic = diagnostic.label(span, format!("{fitting}% here makes the sum 100%"));
        }
        let terms: Vec<String> = written.iter().map(|weight| weight.value.to_string()).collect();
        self.error(diagnostic.note(format!("{} = {total}%", terms.join(" + "))));
    }
}

/// The weights of a mixture.
#[derive(Default)]
struct Weights<'b> {
    /// In percent, at the beginning of a stage and at its end.
    sums: [Decimal; 2],
    /// The number of `unknown` weights.
    unknown: usize,
    first_tokens: Option<&'b Field>,
    first_percentage: Option<&'b Field>,
}
