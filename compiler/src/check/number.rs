//! Reads written numbers and units as exact values.

use std::ops::RangeInclusive;

use aurora_lang::ast::{Number, Span};
use aurora_lang::diagnostics::{Applicability, Code, Diagnostic};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use super::Checker;
use crate::exact::{Exact, parse_digits};
use crate::names::suggest;
use crate::number::{Counted, SUFFIXES, counted, decimal};
use crate::schema::{Range, UNITS, largest, unit_names, written_unit};
use crate::spec::Unit;

impl Checker<'_> {
    /// The exact value of the digits and suffix, without the unit.
    pub(super) fn decimal(&mut self, number: &Number, span: Span) -> Option<Decimal> {
        let value = decimal(number);
        if value.is_none() {
            self.error(
                Diagnostic::new(Code::NUMBER_OUT_OF_REACH, "this number cannot be represented exactly")
                    .label(span, "too large or too precise")
                    .note("numbers are exact decimals of at most 28 digits"),
            );
        }
        value
    }

    /// The number's unit, or an error for a unit that does not exist.
    pub(super) fn counted(&mut self, number: &Number) -> Option<Counted> {
        if let Some(counted) = counted(number) {
            return Some(counted);
        }
        let name = number.unit.as_ref()?;
        if number.percent {
            self.error(
                Diagnostic::new(Code::UNKNOWN_UNIT, format!("a percentage has no unit `{}`", name.text))
                    .label(name.span, "not allowed after `%`")
                    .help("remove the unit, or the `%`"),
            );
            return None;
        }
        let diagnostic = Diagnostic::new(Code::UNKNOWN_UNIT, format!("no unit is called `{}`", name.text))
            .label(name.span, "unknown unit");
        let plural = format!("{}s", name.text);
        let diagnostic = if written_unit(&plural).is_some() {
            diagnostic.help_edit(
                format!("units are written in the plural: `{plural}`"),
                name.span,
                plural,
                Applicability::Safe,
            )
        } else if SUFFIXES.iter().any(|(suffix, _)| name.text == suffix.to_string()) {
            let glued = format!("{}{}", number.digits, name.text);
            diagnostic.help(format!("write it without a space: `{glued}`"))
        } else {
            suggest(diagnostic, name, UNITS.iter().map(|unit| unit.text), "a unit")
        };
        self.error(diagnostic);
        None
    }

    /// A whole number of one of `units`.
    pub(super) fn quantity(
        &mut self,
        number: &Number,
        span: Span,
        units: &[Unit],
        range: RangeInclusive<u64>,
    ) -> Option<(u64, Unit)> {
        let value = self.decimal(number, span)?;
        let wanted = unit_names(units);
        let written = match self.counted(number)? {
            Counted::Unit(written) => written,
            Counted::Plain => {
                let unit = units[0];
                let text = plain(number);
                // If several units are allowed, the first one is only a guess.
                let applicability = if units.len() == 1 {
                    Applicability::Safe
                } else {
                    Applicability::Unsafe
                };
                self.error(
                    Diagnostic::new(Code::WRONG_UNIT, format!("this number needs a unit: {wanted}"))
                        .label(span, format!("how many {unit}?"))
                        .help_edit(
                            format!("write `{text} {unit}`"),
                            span,
                            format!("{text} {unit}"),
                            applicability,
                        ),
                );
                return None;
            }
            Counted::Percent | Counted::Points => {
                self.error(
                    Diagnostic::new(
                        Code::WRONG_UNIT,
                        format!("expected a number of {wanted}, found a percentage"),
                    )
                    .label(span, format!("expected {wanted}")),
                );
                return None;
            }
        };
        if !units.contains(&written.unit) {
            let unit = units[0];
            let text = plain(number);
            self.error(
                Diagnostic::new(
                    Code::WRONG_UNIT,
                    format!("expected {wanted}, found {}", noun(written.unit)),
                )
                .label(span, format!("expected {wanted}"))
                .help_edit(
                    format!("write it in {unit}, such as `{text} {unit}`"),
                    span,
                    format!("{text} {unit}"),
                    Applicability::Unsafe,
                ),
            );
            return None;
        }
        let total = value.checked_mul(written.factor.into()).map(|total| total.normalize());
        let why = match total {
            _ if value.is_sign_negative() && !value.is_zero() => Some("negative"),
            Some(total) if !total.is_integer() => Some("not a whole number"),
            _ => None,
        };
        if let Some(why) = why {
            self.error(
                Diagnostic::new(
                    Code::OUT_OF_RANGE,
                    format!("this is not a whole number of {}", written.unit),
                )
                .label(span, why),
            );
            return None;
        }
        // A number above 64 bits is above every bound.
        let count = total.and_then(|total| total.to_u64()).unwrap_or(u64::MAX);
        let (least, most) = (*range.start(), (*range.end()).min(largest(written.unit)));
        let bounds = if count < least {
            format!("at least {least} {} are needed", written.unit)
        } else if count > most {
            format!("at most {most} {} are allowed", written.unit)
        } else {
            return Some((count, written.unit));
        };
        let label = if count < least {
            format!("fewer than {least}")
        } else {
            format!("more than {most}")
        };
        self.error(Diagnostic::new(Code::OUT_OF_RANGE, bounds).label(span, label));
        None
    }

    /// A whole number without a unit.
    pub(super) fn integer(&mut self, number: &Number, span: Span, least: i64, most: i64) -> Option<i64> {
        self.no_unit(number, span, "a whole number")?;
        let value = self.decimal(number, span)?.normalize();
        let Some(value) = value.is_integer().then(|| value.to_i64()).flatten() else {
            self.error(
                Diagnostic::new(
                    Code::WRONG_TYPE,
                    format!("expected a whole number, found `{}`", plain(number)),
                )
                .label(span, "not a whole number"),
            );
            return None;
        };
        if value < least || value > most {
            let bounds = if most == i64::MAX {
                format!("at least {least}")
            } else {
                format!("{least} to {most}")
            };
            self.error(
                Diagnostic::new(Code::OUT_OF_RANGE, format!("{value} is out of range"))
                    .label(span, format!("allowed: {bounds}")),
            );
            return None;
        }
        Some(value)
    }

    /// An exact decimal number without a unit.
    pub(super) fn exact_number(&mut self, number: &Number, span: Span, range: &Range) -> Option<Exact> {
        self.no_unit(number, span, "a number")?;
        let value = self.decimal(number, span)?;
        self.in_range(value, span, range, "")
    }

    /// Reads a percentage: 12.5% gives 12.5.
    pub(super) fn percent(&mut self, number: &Number, span: Span, range: &Range) -> Option<Exact> {
        match self.counted(number)? {
            Counted::Percent => {
                let value = self.decimal(number, span)?;
                self.in_range(value, span, range, "%")
            }
            Counted::Plain => {
                let text = plain(number);
                self.error(
                    Diagnostic::new(Code::WRONG_UNIT, "expected a percentage, found a plain number")
                        .label(span, "expected a percentage")
                        .help(format!("write `{text}%` if that is what is meant")),
                );
                None
            }
            Counted::Points => {
                self.error(
                    Diagnostic::new(Code::WRONG_UNIT, "expected a percentage, found percentage points")
                        .label(span, "expected a percentage")
                        .help("`pp` is only allowed in an `expect`"),
                );
                None
            }
            Counted::Unit(unit) => {
                self.error(
                    Diagnostic::new(
                        Code::WRONG_UNIT,
                        format!("expected a percentage, found {}", noun(unit.unit)),
                    )
                    .label(span, "expected a percentage"),
                );
                None
            }
        }
    }

    fn in_range(&mut self, value: Decimal, span: Span, range: &Range, sign: &str) -> Option<Exact> {
        let least = parse_digits(range.least).expect("a table's bound is a number");
        let most = range
            .most
            .map(|most| parse_digits(most).expect("a table's bound is a number"));
        let low = value < least || value == least && !range.includes_least;
        let high = most.is_some_and(|most| value > most || value == most && !range.includes_most);
        if low || high {
            let from = if range.includes_least { "at least" } else { "more than" };
            let to = if range.includes_most { "at most" } else { "less than" };
            let bounds = match range.most {
                Some(most) => format!("{from} {}{sign} and {to} {most}{sign}", range.least),
                None => format!("{from} {}{sign}", range.least),
            };
            self.error(
                Diagnostic::new(
                    Code::OUT_OF_RANGE,
                    format!("{}{sign} is out of range", value.normalize()),
                )
                .label(span, format!("allowed: {bounds}")),
            );
            return None;
        }
        Some(Exact::new(value))
    }

    fn no_unit(&mut self, number: &Number, span: Span, expected: &str) -> Option<()> {
        let found = match self.counted(number)? {
            Counted::Plain => return Some(()),
            Counted::Percent => "a percentage".to_owned(),
            Counted::Points => "percentage points".to_owned(),
            Counted::Unit(unit) => noun(unit.unit),
        };
        let text = plain(number);
        self.error(
            Diagnostic::new(
                Code::WRONG_UNIT,
                format!("expected {expected} without a unit, found {found}"),
            )
            .label(span, "takes no unit")
            .help_edit(format!("write `{text}`"), span, text, Applicability::Unsafe),
        );
        None
    }
}

/// A unit in a sentence.
fn noun(unit: Unit) -> String {
    if unit == Unit::Seconds {
        "a time".to_owned()
    } else {
        unit.to_string()
    }
}

/// The number as it was written, without its unit.
pub(super) fn plain(number: &Number) -> String {
    format!("{}{}", number.digits, number.suffix.map_or(String::new(), String::from))
}
