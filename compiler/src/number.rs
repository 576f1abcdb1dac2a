//! The exact value of a written number, and what it counts.

use aurora_lang::ast::Number;
use rust_decimal::Decimal;

use crate::schema::{WrittenUnit, written_unit};

/// The suffixes of a number, with what each multiplies it by.
pub(crate) const SUFFIXES: [(char, u64); 4] = [
    ('K', 1_000),
    ('M', 1_000_000),
    ('B', 1_000_000_000),
    ('T', 1_000_000_000_000),
];

/// What a written number counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counted {
    Plain,
    Percent,
    /// Percentage points, `pp`.
    Points,
    Unit(WrittenUnit),
}

/// What a number counts. `None` if its unit does not exist, or if a percentage has one.
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
    exact(&number.digits)?.checked_mul(factor.into())
}

/// The exact value of digits with `_`, a point and an exponent. `None` if it has more than 28 digits.
pub(crate) fn exact(digits: &str) -> Option<Decimal> {
    let digits: String = digits.chars().filter(|&digit| digit != '_').collect();
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (digits.as_str(), 0),
    };
    let mut value = Decimal::from_str_exact(mantissa.trim_end_matches('.'))
        .ok()?
        .normalize();
    if value.is_zero() {
        return Some(Decimal::ZERO);
    }
    // Each step either divides or multiplies by ten, and none may lose a digit.
    let ten = Decimal::TEN;
    if !(-40..=40).contains(&exponent) {
        return None;
    }
    for _ in 0..exponent.unsigned_abs() {
        if exponent > 0 {
            value = value.checked_mul(ten)?;
        } else {
            let divided = value.normalize();
            let scale = divided.scale() + 1;
            if scale > 28 {
                return None;
            }
            value = divided;
            value.set_scale(scale).ok()?;
        }
    }
    Some(value.normalize())
}

#[cfg(test)]
mod tests {
    use super::exact;

    #[test]
    fn digits_are_exact_or_refused() {
        let text = |digits: &str| exact(digits).map(|value| value.to_string());
        assert_eq!(text("1e-4").as_deref(), Some("0.0001"));
        assert_eq!(text("0.1").as_deref(), Some("0.1"));
        assert_eq!(text("1_000.50").as_deref(), Some("1000.5"));
        assert_eq!(text("10e-1").as_deref(), Some("1"));
        assert_eq!(text("2.5E3").as_deref(), Some("2500"));
        assert_eq!(text("-3").as_deref(), Some("-3"));
        assert_eq!(text("0e99").as_deref(), Some("0"));
        assert_eq!(text("1e-29"), None);
        assert_eq!(text("1e30"), None);
        assert_eq!(text("0.12345678901234567890123456789"), None);
        assert_eq!(text("99999999999999999999999999999999"), None);
        assert_eq!(text("1e99999999999"), None);
    }
}
