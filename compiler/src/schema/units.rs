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

/// The largest count of a unit that a value of a spec can have. With the bounds of the tables they keep every later
/// product and sum within 64 bits: tokens × parameters is the one that does not, and is a floating-point number.
pub const fn largest(unit: Unit) -> u64 {
    match unit {
        Unit::Tokens => 1_000_000_000_000_000,
        Unit::Steps => 1_000_000_000,
        Unit::Sequences => 1 << 24,
        Unit::Bytes => 1 << 60,
        Unit::Characters => 1_000_000_000,
        Unit::Nodes => 100_000,
        Unit::Seconds => 1_000_000_000,
    }
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
