//! Mixtures: weights that sum to exactly 100%, or are all in tokens.

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
        // At the beginning of a stage, and at its end.
        let mut sums = [Decimal::ZERO; 2];
        let mut too_fine = false;
        let mut unknown = 0;
        // The first weight in tokens, and the first that is a share.
        let mut kinds: [Option<&Field>; 2] = [None; 2];
        for component in &draft.components {
            // A component that could not be read: its weight is not known.
            let Some(weight) = block
                .field(&component.name.text)
                .and_then(|field| field.argument("weight"))
            else {
                return;
            };
            let shares = match &weight.value {
                Value::Unknown => {
                    unknown += 1;
                    continue;
                }
                Value::Quantity(..) => {
                    kinds[0].get_or_insert(weight);
                    continue;
                }
                Value::Call { .. } => ["start", "end"].map(|name| weight.argument(name)),
                _ => [Some(weight); 2],
            };
            kinds[1].get_or_insert(weight);
            if shares.iter().flatten().any(|share| share.value == Value::Unknown) {
                unknown += 1;
                continue;
            }
            for (sum, share) in sums.iter_mut().zip(shares) {
                let Some(share) = share.and_then(Field::number) else {
                    return;
                };
                *sum += share.decimal();
                if share.decimal().normalize().scale() > 4 && !too_fine {
                    too_fine = true;
                    self.error(
                        Diagnostic::new(Code::OUT_OF_RANGE, format!("weight {share}% is finer than 0.0001%"))
                            .label(weight.span().unwrap_or(block.span), "too fine")
                            .note("weights are held in parts of a million"),
                    );
                }
            }
        }
        if let [Some(tokens), Some(share)] = kinds {
            self.error(
                Diagnostic::new(
                    Code::WEIGHTS,
                    format!("mixture `{}` has weights in tokens and in shares", id.name),
                )
                .label(share.span().unwrap_or(block.span), "a share")
                .label(tokens.span().unwrap_or(block.span), "tokens")
                .help("write all of them in tokens, or all of them as shares"),
            );
            return;
        }
        if kinds[0].is_some() {
            return;
        }
        let whole = Decimal::ONE_HUNDRED;
        let holds = |sum: &Decimal| if unknown == 0 { *sum == whole } else { *sum < whole };
        let Some(at) = sums.iter().position(|sum| !holds(sum)) else {
            return;
        };
        let sum = sums[at];
        let when = if sums[0] == sums[1] {
            ""
        } else {
            [" at the beginning of the stage", " at the end of the stage"][at]
        };
        let shares: Vec<String> = draft
            .components
            .iter()
            .filter_map(|component| block.field(&component.name.text)?.argument("weight"))
            .map(|weight| weight.value.to_string())
            .collect();
        let total = Exact::new(sum);
        let difference = Exact::new((whole - sum).abs());
        let message = match (unknown, sum < whole) {
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
        let last = draft
            .components
            .last()
            .and_then(|component| block.field(&component.name.text)?.argument("weight"));
        if let (0, true, Some(last)) = (unknown, sum < whole, last)
            && let (Some(span), Some(share)) = (last.span(), last.number())
        {
            let mended = Exact::new(share.decimal() + whole - sum);
            diagnostic = diagnostic.label(span, format!("{mended}% here would do"));
        }
        self.error(diagnostic.note(format!("{} = {total}%", shares.join(" + "))));
    }
}
