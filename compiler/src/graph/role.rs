//! Edge roles: how a node uses an input.

use std::borrow::Cow;
use std::fmt;

use super::NodeKind;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    Source,
    /// The same pages in the reference language.
    Reference,
    Documents,
    Tokenizer,
    /// The tokens of the mixture component with this name.
    Tokens(String),
    Order,
    /// The weights, and the optimizer state if the stage keeps it, before the first step of a stage.
    Start,
    /// The checkpoint that a longer stage resumes from. It only saves work, so it is not in the key.
    ResumesFrom,
    Checkpoint,
    /// The tokens of one set of a perplexity eval.
    Set,
    Items,
    Answers,
    /// Responses that people have labelled.
    Labelled,
    /// The program that judges.
    Judge,
    Scores,
    /// A node that the report shows, by its kind.
    Reported(NodeKind),
}

impl Role {
    /// The word of the encoding.
    pub fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Source => "source",
            Self::Reference => "reference",
            Self::Documents => "documents",
            Self::Tokenizer => "tokenizer",
            Self::Tokens(component) => return Cow::Owned(format!("tokens.{component}")),
            Self::Order => "order",
            Self::Start => "start",
            Self::ResumesFrom => "resumes from",
            Self::Checkpoint => "checkpoint",
            Self::Set => "set",
            Self::Items => "items",
            Self::Answers => "answers",
            Self::Labelled => "labelled",
            Self::Judge => "judge",
            Self::Scores => "scores",
            Self::Reported(kind) => kind.name(),
        })
    }

    /// Whether the input is part of its user's key.
    pub fn is_identity(&self) -> bool {
        *self != Self::ResumesFrom
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}
