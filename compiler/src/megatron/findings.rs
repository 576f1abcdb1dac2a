//! What an import has to say beside the spec.

use std::fmt;

use serde::Serialize;

/// Why something is told, in the order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Aurora cannot express it, and it changes what is trained.
    ChangesResult,
    /// The script says something that only a run knows.
    OnlyARunKnows,
    /// A flag, or a part of the script, that is not understood.
    NotUnderstood,
    /// Aurora cannot express it, and it changes no number.
    ChangesPlacement,
    /// Given more than once, rounded, or taken from elsewhere: the spec says something that the line does not.
    Settled,
    /// Aurora does the same without it.
    NoEffect,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::ChangesResult,
        Self::OnlyARunKnows,
        Self::NotUnderstood,
        Self::ChangesPlacement,
        Self::Settled,
        Self::NoEffect,
    ];

    pub fn heading(self) -> &'static str {
        match self {
            Self::ChangesResult => "Cannot be expressed, and changes what is trained",
            Self::OnlyARunKnows => "Known only to a run",
            Self::NotUnderstood => "Not understood",
            Self::ChangesPlacement => "Cannot be expressed; changes no number",
            Self::Settled => "Settled here",
            Self::NoEffect => "Without effect in Aurora",
        }
    }
}

/// One thing that is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub kind: Kind,
    /// Line of the script; 0 where nothing is written.
    pub line: u32,
    /// The flag with its values, or the part of the script.
    pub what: String,
    pub why: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.what, self.why),
            line => write!(f, "line {line} {}: {}", self.what, self.why),
        }
    }
}
