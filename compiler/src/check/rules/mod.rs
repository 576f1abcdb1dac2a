//! Rules that look at more than one value.
//!
//! Each rule stays silent when a value that it needs could not be read or is `unknown`.

mod derive;
mod eval;
mod function;
mod gate;
mod layout;
mod mixture;
mod model;
mod prepare;
mod size;
mod stage;

use std::collections::BTreeSet;

use aurora_lang::diagnostics::{Code, Diagnostic, Severity};

use super::Checker;
use super::collect::Draft;
use crate::spec::{Block, BlockId, BlockKind, Field, Origin, Spec, Value};

impl Checker<'_> {
    pub(super) fn rules(&mut self, spec: &mut Spec, drafts: &[&Draft], broken: &BTreeSet<BlockKind>) {
        self.one_experiment(spec, broken);
        self.names_of_weights(spec);
        self.derive_defaults(spec);
        for draft in drafts {
            if let Some(gate) = &draft.gate
                && let Some(field) = self.gate(gate, spec)
            {
                let block = spec.blocks.get_mut(&draft.id).expect("every draft is a block");
                block.fields.insert("gate".to_owned(), field);
            }
        }
        let spec = &*spec;
        for (id, block) in &spec.blocks {
            match id.kind {
                BlockKind::Tokenizer => self.tokenizer(id, block),
                BlockKind::Model => {
                    self.model(block, spec);
                    self.parameters_fit(id, block, spec);
                }
                BlockKind::Mixture => self.mixture(id, block, drafts),
                BlockKind::Stage => self.stage(id, block, spec),
                BlockKind::Eval => self.eval(id, block, spec),
                BlockKind::Layout => self.layout(block, spec),
                BlockKind::Corpus => self.corpus(id, block),
                BlockKind::Experiment | BlockKind::Source | BlockKind::Expect => {}
            }
        }
        self.stage_cycles(spec);
        self.graph_fits(spec);
        self.unused(spec);
    }

    fn one_experiment(&mut self, spec: &Spec, broken: &BTreeSet<BlockKind>) {
        let mut experiments: Vec<&Block> = spec.of_kind(BlockKind::Experiment).map(|(_, block)| block).collect();
        experiments.sort_by_key(|block| block.position);
        match experiments.as_slice() {
            [] if broken.contains(&BlockKind::Experiment) || !self.names.anything.is_empty() => {}
            [] => self.error(
                Diagnostic::new(Code::EXPERIMENT_COUNT, "the file has no `experiment`")
                    .help("add `experiment NAME { seed = 0 }`"),
            ),
            [first, others @ ..] => {
                for other in others {
                    self.error(
                        Diagnostic::new(Code::EXPERIMENT_COUNT, "a file has one `experiment`")
                            .label(other.span, "a second one")
                            .label(first.span, "the first one")
                            .help("put it into a file of its own; for a variant, write a `profile`"),
                    );
                }
            }
        }
    }

    /// A stage and a model cannot have the same name: `start = NAME` and `NAME.EVAL.METRIC` can mean either.
    fn names_of_weights(&mut self, spec: &Spec) {
        for (id, stage) in spec.of_kind(BlockKind::Stage) {
            if let Some(model) = spec.block(BlockKind::Model, &id.name) {
                self.error(
                    Diagnostic::new(
                        Code::AMBIGUOUS_NAME,
                        format!("a stage and a model are both called `{}`", id.name),
                    )
                    .label(stage.span, "the stage")
                    .label(model.span, "the model")
                    .note("`start = NAME` and the metrics of a gate would mean either")
                    .help("rename one of them"),
                );
            }
        }
    }

    /// Reports a field that has no effect where it is written.
    fn no_effect(&mut self, block: &Block, name: &str, why: &str) {
        let Some(span) = block
            .field(name)
            .filter(|field| field.is_written())
            .and_then(Field::span)
        else {
            return;
        };
        self.error(
            Diagnostic::new(Code::NO_EFFECT, format!("`{name}` has no effect {why}"))
                .label(span, "would be ignored")
                .help("remove it"),
        );
    }

    fn unused(&mut self, spec: &Spec) {
        let mut used: BTreeSet<&BlockId> = BTreeSet::new();
        for block in spec.blocks.values() {
            for field in block.fields.values() {
                references(field, &mut used);
            }
        }
        let named = |list: &str| {
            let field = spec.experiment().and_then(|block| block.field(list));
            let found = field.map_or(&[][..], Field::elements).iter();
            found.clone().find(|call| call.word() == Some("unused")).cloned()
        };
        let (silenced, refused) = (named("silence"), named("refuse"));
        let mut occurs = false;
        for (id, block) in &spec.blocks {
            let (kind, why) = match id.kind {
                BlockKind::Source => ("source", "no corpus, tokenizer or eval reads it"),
                BlockKind::Corpus => ("corpus", "no mixture, tokenizer or eval reads it"),
                BlockKind::Tokenizer => ("tokenizer", "no model uses it"),
                BlockKind::Model => ("model", "no stage starts from it"),
                BlockKind::Mixture => ("mixture", "no stage reads it"),
                _ => continue,
            };
            // A spec need not use everything in a library.
            if !used.contains(id) && self.own.contains(block.span) && !self.mentioned.contains(&id.name) {
                occurs = true;
                let mut found = Diagnostic::new(Code::UNUSED, format!("{kind} `{}` is never used", id.name))
                    .label(block.span, why)
                    .help("remove it, or use it");
                match (&refused, &silenced) {
                    (Some(refused), _) => {
                        found.severity = Severity::Error;
                        self.error(match refused.span() {
                            Some(span) => found.label(span, "refused here"),
                            None => found,
                        });
                    }
                    (None, Some(_)) => {}
                    (None, None) => self.warnings.push(found),
                }
            }
        }
        if let Some(span) = silenced
            .filter(|_| !occurs || refused.is_some())
            .and_then(|call| call.span())
        {
            let why = if refused.is_some() {
                "it is refused as well"
            } else {
                "it does not occur"
            };
            self.warnings.push(
                Diagnostic::new(Code::NOTHING_TO_SILENCE, "this silences no warning `unused`")
                    .label(span, why)
                    .help("remove it"),
            );
        }
    }
}

fn references<'a>(field: &'a Field, used: &mut BTreeSet<&'a BlockId>) {
    match &field.value {
        Value::Reference(id) => {
            used.insert(id);
        }
        Value::List(elements) => elements.iter().for_each(|element| references(element, used)),
        Value::Call { arguments, .. } => arguments.values().for_each(|argument| references(argument, used)),
        _ => {}
    }
}

fn by_default(value: Value) -> Field {
    Field {
        value,
        origin: Origin::Default,
        evidence: None,
    }
}

/// "the nearest are 96 and 128": the multiples of `step` around a value, none of them zero.
fn nearest_multiples(value: u64, step: u64, unit: &str) -> String {
    let below = value / step * step;
    let above = below.saturating_add(step);
    if below == 0 {
        format!("the nearest is {above}{unit}")
    } else {
        format!("the nearest are {below} and {above}{unit}")
    }
}

/// Divisors of a number that are nearest to a value, as help: "the nearest that divide 48 are 3 and 6".
fn nearest_divisors(value: u64, number: u64) -> String {
    let divides = |candidate: &u64| number.is_multiple_of(*candidate);
    let most = number.min(1 << 20);
    let below = (1..=value.min(most)).rev().find(divides);
    let above = (value.saturating_add(1)..=most).find(divides);
    match (below, above) {
        (Some(below), Some(above)) => format!("the nearest that divide {number} are {below} and {above}"),
        (Some(only), None) | (None, Some(only)) => format!("the nearest that divides {number} is {only}"),
        (None, None) => format!("nothing divides {number}"),
    }
}
