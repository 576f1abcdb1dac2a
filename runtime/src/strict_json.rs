//! JSON in which a key occurs once in each object.
//!
//! serde_json keeps the last of several members with one key, so that a value would be lost without a message.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::limits::{JSON_VALUES, has_too_many_values};

/// Parses a JSON text.
///
/// # Errors
/// It is not JSON, or an object has a key twice: with the key, both values, and the place of the second one.
pub fn parse(text: &[u8]) -> Result<Value, serde_json::Error> {
    if has_too_many_values(text) {
        let error = format!("it has more than {JSON_VALUES} values, the most that are read");
        return Err(serde_json::Error::custom(error));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Strict.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Values of any type.
#[derive(Clone, Copy)]
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let value = members.next_value_seed(Self)?;
            if let Some(first) = all.get(&key) {
                let (first, value) = (beginning(first), beginning(&value));
                let text = format!("the key `{key}` occurs twice, with {first} and {value}");
                return Err(A::Error::custom(text));
            }
            all.insert(key, value);
        }
        Ok(Value::Object(all))
    }
}

/// The text of a value, shortened for a message.
fn beginning(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_serde_json() {
        for text in [
            r#"{"a": [1, -2, 2.5, 1e300, true, null, "x\u00e9"], "b": {"a": {}}, "c": 18446744073709551615}"#,
            "[]",
            "\"text\"",
            " 3 ",
        ] {
            let expected: Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(parse(text.as_bytes()).expect("JSON"), expected);
        }
        for text in ["", "{", "[1] 2", "{\"a\": 1,}", &"[".repeat(1000)] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_that_occurs_twice_is_an_error() {
        let error = parse(b"{\"layers\": 2,\n \"hidden\": 4,\n \"layers\": 3}").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the key `layers` occurs twice, with 2 and 3 at line 3 column 13"
        );
        assert!(
            parse(br#"[{"a": {"b": 1, "b": 1}}]"#).is_err(),
            "also with equal values, and nested"
        );
        assert!(parse(br#"[{"a": 1}, {"a": 2}]"#).is_ok());
    }

    /// A value takes many times the memory of its text.
    #[test]
    fn values_have_a_limit() {
        let list = |values: usize| format!("[{}0]", "0,".repeat(values));
        assert!(parse(list(1000).as_bytes()).is_ok());
        let error = parse(list(JSON_VALUES).as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it has more than 8000000 values, the most that are read"
        );
        let text = format!("\"{}\\\"[\"", ",".repeat(JSON_VALUES));
        assert!(parse(text.as_bytes()).is_ok(), "a text is one value");
    }
}
