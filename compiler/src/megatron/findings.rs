//! What an import reports besides the spec.

use std::fmt;

use serde::Serialize;

/// The kinds of findings, in the order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Not supported by Aurora, and it changes the training result.
    ChangesResult,
    /// The value is only known when the script runs.
    Unknown,
    /// An unknown flag, or a part of the script that cannot be interpreted.
    NotUnderstood,
    /// Not supported by Aurora, but it does not change the training result.
    ChangesPlacement,
    /// The spec differs from the line: the flag was given more than once, or its value was rounded or replaced.
    Resolved,
    /// It has no effect in Aurora.
    NoEffect,
}

impl FindingKind {
    pub const ALL: [Self; 6] = [
        Self::ChangesResult,
        Self::Unknown,
        Self::NotUnderstood,
        Self::ChangesPlacement,
        Self::Resolved,
        Self::NoEffect,
    ];

    pub fn heading(self) -> &'static str {
        match self {
            Self::ChangesResult => "Not supported, and changes the training result",
            Self::Unknown => "Known only when the script runs",
            Self::NotUnderstood => "Not understood",
            Self::ChangesPlacement => "Not supported, but does not change the training result",
            Self::Resolved => "Resolved by the import",
            Self::NoEffect => "No effect in Aurora",
        }
    }
}

/// A finding about one flag or part of the script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub kind: FindingKind,
    /// The line of the script, or 0 if something is missing.
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
