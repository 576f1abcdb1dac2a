//! The exact value of a written number, and its unit.

use aurora_lang::ast::Number;
use rust_decimal::Decimal;

use crate::exact::parse_digits;
use crate::schema::{WrittenUnit, written_unit};

/// The suffixes of a number, each with its factor.
pub(crate) const SUFFIXES: [(char, u64); 4] = [
    ('K', 1_000),
    ('M', 1_000_000),
    ('B', 1_000_000_000),
    ('T', 1_000_000_000_000),
];

/// The unit of a written number.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counted {
    Plain,
    Percent,
    /// Percentage points, `pp`.
    Points,
    Unit(WrittenUnit),
}

/// The unit of a number. `None` if its unit does not exist, or if a percentage has one.
pub(crate) fn counted(number: &Number) -> Option<Counted> {
    match (&number.unit, number.percent) {
        (None, false) => Some(Counted::Plain),
        (None, true) => Some(Counted::Percent),
        (Some(unit), false) if unit.text == "pp" => Some(Counted::Points),
        (Some(unit), false) => written_unit(&unit.text).map(Counted::Unit),
        (Some(_), true) => None,
    }
}

/// The exact value of the digits and suffix, without the unit. `None` if it has more than 28 digits.
pub(crate) fn decimal(number: &Number) -> Option<Decimal> {
    let factor = match number.suffix {
        None => 1,
        Some(suffix) => SUFFIXES.iter().find(|(known, _)| *known == suffix)?.1,
    };
    parse_digits(&number.digits)?.checked_mul(factor.into())
}
