//! The kinds of evals: their fields and metrics.

use std::fmt;

use crate::spec::{Better, Block, BlockKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EvalKind {
    Perplexity,
    PassAtK,
    MultipleChoice,
    Generation,
    AttackSuccess,
    Refusal,
    PlugIn,
}

impl EvalKind {
    pub const ALL: [Self; 7] = [
        Self::Perplexity,
        Self::PassAtK,
        Self::MultipleChoice,
        Self::Generation,
        Self::AttackSuccess,
        Self::Refusal,
        Self::PlugIn,
    ];

    /// The name in a spec.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Perplexity => "perplexity",
            Self::PassAtK => "pass_at_k",
            Self::MultipleChoice => "multiple_choice",
            Self::Generation => "generation",
            Self::AttackSuccess => "attack_success",
            Self::Refusal => "refusal",
            Self::PlugIn => "plug_in",
        }
    }

    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::Perplexity => "perplexity and bits per byte of each corpus",
            Self::PassAtK => "fraction of programming problems that one of k completions solves when it is run",
            Self::MultipleChoice => "fraction of questions whose correct answer is the most likely choice",
            Self::Generation => "agreement of generated answers with expected answers",
            Self::AttackSuccess => "fraction of attacks with a response that a judge finds unsafe",
            Self::Refusal => "fraction of prompts that are refused; over-refusal if the prompts are harmless",
            Self::PlugIn => "a score that an external program or model defines",
        }
    }

    /// The kind with a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind of an `eval` block.
    pub fn of(eval: &Block) -> Option<Self> {
        eval.word("kind").and_then(Self::named)
    }

    /// Whether it reads items and asks the model about each, instead of reading documents.
    pub fn has_items(self) -> bool {
        self != Self::Perplexity
    }

    /// Whether a judge scores the answers. Otherwise each is compared with the correct answer of its item.
    pub fn is_judged(self) -> bool {
        matches!(self, Self::PassAtK | Self::AttackSuccess | Self::Refusal | Self::PlugIn)
    }

    /// Whether the model generates an answer.
    pub fn generates(self) -> bool {
        self.is_judged() || self == Self::Generation
    }

    /// The kind of block that its `data` refers to.
    pub fn data(self) -> BlockKind {
        match self {
            Self::Perplexity => BlockKind::Corpus,
            _ => BlockKind::Source,
        }
    }

    /// Whether an eval of this kind has a field, and whether it is required.
    ///
    /// # Panics
    /// If no arm names the field, which a test excludes for the fields of the schema.
    pub fn has_field(self, name: &str) -> FieldUse {
        let (has, required) = match name {
            "split" | "window" => (self == Self::Perplexity, false),
            "prompt" => (self.has_items(), true),
            "files" | "limit" | "by" => (self.has_items(), false),
            "answer" => (self.has_items() && !self.is_judged(), true),
            "shot_files" | "separator" | "delimiter" | "shots" => (self.has_items() && !self.is_judged(), false),
            "choices" => (self == Self::MultipleChoice, true),
            "stop" | "maximum" | "temperature" | "top_p" | "chat" => (self.generates(), false),
            "k" | "samples" | "program" => (self == Self::PassAtK, true),
            "timeout" | "memory" | "unprotected" => (self == Self::PassAtK, false),
            "attacks" => (self == Self::AttackSuccess, false),
            "judge" => (self.is_judged() && self != Self::PassAtK, true),
            "better" => (self == Self::PlugIn, true),
            "kind" | "data" | "at" | "stages" => (true, false),
            _ => unreachable!("`{name}` is not a field of `eval`, or has no arm here"),
        };
        match (has, required) {
            (false, _) => FieldUse::NoEffect,
            (true, false) => FieldUse::Optional,
            (true, true) => FieldUse::Required,
        }
    }

    /// Its metrics; `pass@` represents one metric for each k.
    pub fn metrics(self) -> &'static [MetricSchema] {
        const fn metric(name: &'static str, is_fraction: bool, better: Better) -> MetricSchema {
            MetricSchema {
                name,
                is_fraction,
                better,
            }
        }
        use Better::{Higher, Lower};
        match self {
            Self::Perplexity => {
                const {
                    &[
                        metric("perplexity", false, Lower),
                        metric("bits_per_byte", false, Lower),
                    ]
                }
            }
            Self::PassAtK => const { &[metric("pass@", true, Higher)] },
            Self::MultipleChoice => {
                const {
                    &[
                        metric("accuracy", true, Higher),
                        metric("accuracy_norm", true, Higher),
                        metric("accuracy_bytes", true, Higher),
                    ]
                }
            }
            Self::Generation => {
                const {
                    &[
                        metric("exact_match", true, Higher),
                        metric("f1", true, Higher),
                        metric("chrf", false, Higher),
                    ]
                }
            }
            Self::AttackSuccess => {
                const {
                    &[
                        metric("attack_success_rate", true, Lower),
                        metric("any_attack_success_rate", true, Lower),
                    ]
                }
            }
            Self::Refusal => const { &[metric("refusal_rate", true, Lower)] },
            // The eval's own field `better` decides the direction.
            Self::PlugIn => const { &[metric("score", false, Higher)] },
        }
    }
}

impl fmt::Display for EvalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How an eval of some kind uses a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldUse {
    NoEffect,
    Optional,
    Required,
}

/// A number that an eval reports.
#[derive(Clone, Copy, Debug)]
pub struct MetricSchema {
    pub name: &'static str,
    /// Whether it is between 0 and 1, so that percentage points can be added to it.
    pub is_fraction: bool,
    pub better: Better,
}

/// Whether a higher or a lower value of a metric is better, by its name. Higher for a metric of a `plug_in`.
pub fn better(metric: &str) -> Better {
    let mut all = EvalKind::ALL.into_iter().flat_map(EvalKind::metrics);
    all.find(|known| known.name == metric || known.name == "pass@" && metric.starts_with("pass@"))
        .map_or(Better::Higher, |known| known.better)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field of the schema has an arm in `has_field`, and at least one kind uses it.
    #[test]
    fn every_field_of_evals_is_known() {
        for field in crate::schema::block(BlockKind::Eval).fields {
            let is_used = |kind: EvalKind| kind.has_field(field.name) != FieldUse::NoEffect;
            let uses = EvalKind::ALL.map(is_used);
            assert!(uses.contains(&true), "{}", field.name);
        }
    }
}
