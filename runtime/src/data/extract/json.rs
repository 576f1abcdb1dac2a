//! Rows of JSON: the wanted members of an object, without the rest of it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::select::{Cell, listed};
use crate::data::template::member;
use crate::limits::has_too_many_values;

/// The wanted members of a row, and how many surrogates without their other half became U+FFFD.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn cells(text: &str, wanted: &[String]) -> Result<(Vec<Cell>, u64), String> {
    match read(text, wanted) {
        Ok(cells) => Ok((cells, 0)),
        // Other readers of JSON accept half a surrogate pair; no text can have one.
        Err(error) => match without_lone_surrogates(text) {
            Some((whole, replaced)) => Ok((read(&whole, wanted)?, replaced)),
            None => Err(error),
        },
    }
}

fn read(text: &str, wanted: &[String]) -> Result<Vec<Cell>, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let cells = deserializer.deserialize_any(Row { wanted });
    let cells = cells.and_then(|cells| deserializer.end().map(|()| cells));
    // A row is a text of its own: its lines are not those of the file.
    cells.map_err(|error| error.to_string().replace(" at line 1 column ", ", column "))
}

/// The members that a row has.
pub(super) fn members(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(object)) => listed(object.keys().map(String::as_str).collect::<Vec<_>>().into_iter()),
        _ => "nothing".to_owned(),
    }
}

/// Every string of a file, in its order, or each under a member with this name at any depth.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn strings(text: &str, field: Option<&str>) -> Result<(Vec<String>, u64), String> {
    if has_too_many_values(text.as_bytes()) {
        return Err("it has more values than a document may have".to_owned());
    }
    let (value, replaced) = match serde_json::from_str::<Value>(text) {
        Ok(value) => (value, 0),
        Err(error) => match without_lone_surrogates(text) {
            Some((whole, replaced)) => {
                let value = serde_json::from_str(&whole).map_err(|error| error.to_string())?;
                (value, replaced)
            }
            None => return Err(error.to_string()),
        },
    };
    let mut found = Vec::new();
    collect(&value, field, field.is_none(), &mut found);
    Ok((found, replaced))
}

/// Depth is bounded by the parser (128).
fn collect(value: &Value, field: Option<&str>, wanted: bool, found: &mut Vec<String>) {
    match value {
        Value::String(text) if wanted => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| collect(value, field, wanted, found)),
        Value::Object(object) => {
            for (key, value) in object {
                collect(value, field, field.is_none_or(|field| field == key), found);
            }
        }
        _ => {}
    }
}

/// A JSON text with U+FFFD for every escape of half a surrogate pair, and their number; `None` if there is none.
fn without_lone_surrogates(text: &str) -> Option<(String, u64)> {
    let bytes = text.as_bytes();
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut whole, mut copied, mut at, mut replaced) = (String::new(), 0, 0, 0);
    while let Some(next) = text.get(at..).and_then(|rest| rest.find('\\')) {
        at += next;
        let length = match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                whole.push_str(&text[copied..at]);
                whole.push('\u{fffd}');
                copied = at + 6;
                replaced += 1;
                6
            }
            // The escaped character may be a backslash, which escapes nothing.
            _ => 2,
        };
        at = (at + length).min(text.len());
        while !text.is_char_boundary(at) {
            at += 1;
        }
    }
    whole.push_str(&text[copied..]);
    (replaced > 0).then_some((whole, replaced))
}

/// Reads the wanted members of an object.
struct Row<'w> {
    wanted: &'w [String],
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = Vec<Cell>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Cell>, A::Error> {
        let mut cells = vec![Cell::Missing; self.wanted.len()];
        let mut seen: Vec<std::borrow::Cow<'de, str>> = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            let is_below = |path: &str| path.strip_prefix(&*key).is_some_and(|rest| rest.starts_with('.'));
            let own = self.wanted.iter().position(|path| *path == *key);
            let below: Vec<usize> = (0..self.wanted.len())
                .filter(|&at| is_below(&self.wanted[at]))
                .collect();
            if own.is_none() && below.is_empty() {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if seen.contains(&key) {
                return Err(serde::de::Error::custom(format!("it has `{key}` twice")));
            }
            let length = key.len();
            seen.push(key);
            if let (Some(at), true) = (own, below.is_empty()) {
                cells[at] = map.next_value_seed(OneCell)?;
                continue;
            }
            let value: Value = map.next_value()?;
            for at in below {
                let rest = &self.wanted[at][length + 1..];
                // A member whose own name has a point comes first.
                if cells[at] == Cell::Missing {
                    cells[at] = member(&value, rest).map_or(Cell::Missing, of_value);
                }
            }
            if let Some(at) = own {
                cells[at] = of_value(&value);
            }
        }
        Ok(cells)
    }
}

fn of_value(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::String(text) => Cell::Text(text.clone()),
        Value::Number(number) => Cell::Scalar(number.to_string()),
        Value::Bool(flag) => Cell::Scalar(flag.to_string()),
        Value::Array(_) => Cell::Other("a list"),
        Value::Object(_) => Cell::Other("an object"),
    }
}

/// A key, without a copy where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = std::borrow::Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = std::borrow::Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(text.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(text.to_owned().into())
    }
}

/// One value.
struct OneCell;

impl<'de> DeserializeSeed<'de> for OneCell {
    type Value = Cell;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Cell, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneCell {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Cell, E> {
        Ok(Cell::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Cell, E> {
        Ok(Cell::Text(text))
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Cell, E> {
        Ok(Cell::Scalar(flag.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Cell, E> {
        Ok(Cell::Scalar(number.to_string()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Cell, E> {
        Ok(Cell::Scalar(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Cell, E> {
        Ok(Cell::Scalar(Value::from(number).to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Cell, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Cell::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Cell, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cell::Other("an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, path: &str) -> Result<Cell, String> {
        cells(text, &[path.to_owned()]).map(|(mut cells, _)| cells.remove(0))
    }

    fn own(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }

    #[test]
    fn members_are_found_at_their_paths() {
        assert_eq!(
            one(r#"{"a": 1e999, "text": "x\ty\n  z "}"#, "text"),
            Ok(own("x\ty\n  z "))
        );
        assert_eq!(one(r#"{"meta": {"text": "in"}}"#, "meta.text"), Ok(own("in")));
        assert_eq!(
            one(r#"{"meta": {"text": "in"}, "meta.text": "own"}"#, "meta.text"),
            Ok(own("own"))
        );
        assert_eq!(
            one(r#"{"c": ["a", {"b": 2.5}]}"#, "c.1.b"),
            Ok(Cell::Scalar("2.5".to_owned()))
        );
        assert_eq!(
            one(r#"{"te\u0078t": true}"#, "text"),
            Ok(Cell::Scalar("true".to_owned()))
        );
        assert_eq!(one(r#"{"text": null}"#, "text"), Ok(Cell::Null));
        assert_eq!(one(r#"{"text": [1, [2]]}"#, "text"), Ok(Cell::Other("a list")));
        assert_eq!(one(r#"{"text": {}}"#, "text"), Ok(Cell::Other("an object")));
        assert_eq!(one(r#"{"Text": ""}"#, "text"), Ok(Cell::Missing));
        assert_eq!(members(r#"{"b": 1, "a": 2}"#), "`a`, `b`");
    }

    #[test]
    fn what_is_not_an_object_is_malformed() {
        for (text, what) in [
            ("[1]", "invalid type: sequence, expected an object"),
            ("\"x\"", "invalid type: string \"x\", expected an object"),
            ("{\"a\":1} x", "trailing characters"),
            ("{\"a\":", "EOF while parsing"),
            (r#"{"text": "a", "text": "b"}"#, "it has `text` twice"),
            ("{\"text\": \"a\tb\"}", "control character"),
        ] {
            let error = one(text, "text").expect_err("malformed");
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    /// Expected: Python's `json.loads(...)["text"].encode("utf-16", "surrogatepass").decode("utf-16", "replace")`.
    #[test]
    fn half_a_surrogate_pair_becomes_one_replacement() {
        let read = |text: &str| cells(text, &["text".to_owned()]).expect("read");
        let (found, replaced) = read(r#"{"text": "a\ud83dz \ud83d\ude00 \ude00 \\ud83d \uD83D\uD83d\uDE00"}"#);
        assert_eq!(found, [own("a\u{fffd}z 😀 \u{fffd} \\ud83d \u{fffd}😀")]);
        assert_eq!(replaced, 3);
        assert_eq!(read(r#"{"text": "ä\ud83d"}"#), (vec![own("ä\u{fffd}")], 1));
    }
}
