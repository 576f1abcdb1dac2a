//! Mixtures: weights that sum to exactly 100%.

use aurora_lang::diagnostics::{Code, Diagnostic};
use rust_decimal::Decimal;

use crate::check::Checker;
use crate::check::collect::Draft;
use crate::fields::Exact;
use crate::spec::{Block, BlockId, Value};

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
        let mut sum = Decimal::ZERO;
        let mut too_fine = false;
        let mut unknown = 0;
        for component in &draft.components {
            // A component that could not be read: its weight is not known.
            let Some(weight) = block
                .field(&component.name.text)
                .and_then(|field| field.argument("weight"))
            else {
                return;
            };
            match (&weight.value, weight.number()) {
                (Value::Unknown, _) => unknown += 1,
                (_, Some(share)) => {
                    sum += share.decimal();
                    if share.decimal().normalize().scale() > 4 && !too_fine {
                        too_fine = true;
                        self.error(
                            Diagnostic::new(Code::OUT_OF_RANGE, format!("weight {share}% is finer than 0.0001%"))
                                .label(weight.span().unwrap_or(block.span), "too fine")
                                .note("weights are held in parts of a million"),
                        );
                    }
                }
                _ => return,
            }
        }
        let whole = Decimal::ONE_HUNDRED;
        let holds = if unknown == 0 { sum == whole } else { sum < whole };
        if holds {
            return;
        }
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
                "the weights of mixture `{}` sum to {total}%: {difference}% are missing",
                id.name
            ),
            (0, false) => format!(
                "the weights of mixture `{}` sum to {total}%: {difference}% too much",
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
