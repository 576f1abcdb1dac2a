//! The numerics class of a machine: machines of one class compute the same bits.

use std::fmt;

/// The digest of a worker's start-up probe: the first 16 hexadecimal digits. Under `portable` numerics it covers Aurora's
/// own kernels only, so that all x86-64 processors have one class; its text then begins with `portable-`.
///
/// Two machines have the same class if and only if their probes agree in every bit, whatever their names are.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NumericsClass {
    portable: bool,
    digest: u64,
}

/// How the text of a class begins if it covers only Aurora's own kernels.
const PORTABLE: &str = "portable-";

/// Hexadecimal digits of a class.
const DIGITS: usize = 16;

impl NumericsClass {
    /// Reads the text of a class.
    pub fn parse(text: &str) -> Option<Self> {
        let (portable, digits) = match text.strip_prefix(PORTABLE) {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != DIGITS || !digits.bytes().all(is_digit) {
            return None;
        }
        let digest = u64::from_str_radix(digits, 16).ok()?;
        Some(Self { portable, digest })
    }

    /// The class of a machine whose probe has this digest, in hexadecimal digits. `portable`: the probe covers Aurora's own
    /// kernels only.
    pub fn of_probe(digest: &str, portable: bool) -> Option<Self> {
        let class = Self::parse(digest.get(..DIGITS)?)?;
        Some(Self { portable, ..class })
    }
}

impl fmt::Display for NumericsClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.portable { PORTABLE } else { "" };
        write!(f, "{prefix}{:016x}", self.digest)
    }
}

impl fmt::Debug for NumericsClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for NumericsClass {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for NumericsClass {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a numerics class")))
    }
}

impl schemars::JsonSchema for NumericsClass {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NumericsClass".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^(portable-)?[0-9a-f]{16}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_the_beginning_of_a_probe() {
        let digest = "f1c4d00686cebbd0".repeat(4);
        let class = NumericsClass::of_probe(&digest, false).unwrap();
        let portable = NumericsClass::of_probe(&digest, true).unwrap();
        assert_eq!(class.to_string(), "f1c4d00686cebbd0");
        assert_eq!(portable.to_string(), "portable-f1c4d00686cebbd0");
        assert_ne!(class, portable);
        for class in [class, portable] {
            assert_eq!(NumericsClass::parse(&class.to_string()), Some(class));
        }
        for text in [
            "",
            "f1c4",
            "F1C4D00686CEBBD0",
            "+1c4d00686cebbd0",
            "portable-",
            "f1c4d00686cebbd00",
        ] {
            assert_eq!(NumericsClass::parse(text), None, "{text}");
        }
        assert_eq!(NumericsClass::of_probe("f1c4", false), None);
    }
}
