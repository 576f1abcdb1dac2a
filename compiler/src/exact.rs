//! Exact decimal numbers.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// An exact decimal number. It is serialised as text, so that 0.1 gives the same key on every machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Exact(Decimal);

impl Exact {
    pub fn new(value: Decimal) -> Self {
        Self(value.normalize())
    }

    /// Divides by 100: a percentage becomes a fraction.
    #[must_use]
    pub fn hundredth(self) -> Self {
        Self::new(self.0 / Decimal::ONE_HUNDRED)
    }

    pub fn decimal(self) -> Decimal {
        self.0
    }

    /// The nearest `f64`. This is the only place where a number of a spec becomes binary.
    pub fn to_f64(self) -> f64 {
        self.0.to_string().parse().expect("a decimal's text is a float's text")
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Exact {
    type Err = rust_decimal::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let value = if text.contains(['e', 'E']) {
            Decimal::from_scientific(text)?
        } else {
            Decimal::from_str(text)?
        };
        Ok(Self::new(value))
    }
}

impl Serialize for Exact {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Parses digits with `_`, point and exponent. `None` if the exact number needs more than 28 digits.
pub fn parse_digits(digits: &str) -> Option<Decimal> {
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
    use super::parse_digits;

    #[test]
    fn digits_are_exact_or_refused() {
        let text = |digits: &str| parse_digits(digits).map(|value| value.to_string());
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
