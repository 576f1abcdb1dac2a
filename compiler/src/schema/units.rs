//! Units: how they are written, and what they count.

use std::fmt;

use crate::spec::Unit;

/// A unit as it is written after a number.
#[derive(Clone, Copy, Debug)]
pub struct WrittenUnit {
    pub text: &'static str,
    pub unit: Unit,
    /// The number of base units.
    pub factor: u64,
}

/// Every unit of the language except `pp` (percentage points), which is only used in gates and is not a count.
pub const UNITS: &[WrittenUnit] = &[
    unit("tokens", Unit::Tokens, 1),
    unit("sequences", Unit::Sequences, 1),
    unit("steps", Unit::Steps, 1),
    unit("bytes", Unit::Bytes, 1),
    unit("KB", Unit::Bytes, 1000),
    unit("MB", Unit::Bytes, 1_000_000),
    unit("GB", Unit::Bytes, 1_000_000_000),
    unit("TB", Unit::Bytes, 1_000_000_000_000),
    unit("KiB", Unit::Bytes, 1 << 10),
    unit("MiB", Unit::Bytes, 1 << 20),
    unit("GiB", Unit::Bytes, 1 << 30),
    unit("TiB", Unit::Bytes, 1 << 40),
    unit("characters", Unit::Characters, 1),
    unit("nodes", Unit::Nodes, 1),
    unit("s", Unit::Seconds, 1),
    unit("min", Unit::Seconds, 60),
    unit("h", Unit::Seconds, 3600),
    unit("days", Unit::Seconds, 86_400),
];

const fn unit(text: &'static str, unit: Unit, factor: u64) -> WrittenUnit {
    WrittenUnit { text, unit, factor }
}

/// The unit of this name.
pub fn written_unit(text: &str) -> Option<WrittenUnit> {
    UNITS.iter().copied().find(|unit| unit.text == text)
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tokens => "tokens",
            Self::Sequences => "sequences",
            Self::Steps => "steps",
            Self::Bytes => "bytes",
            Self::Characters => "characters",
            Self::Nodes => "nodes",
            Self::Seconds => "s",
        })
    }
}
