//! JSON lines and JSON files.

use serde_json::Value;

use super::text::push_paragraph;
use super::{Extracted, Skip};
use crate::limits::has_too_many_values;

/// The string in member `field` of one line's object; its lines are paragraphs.
pub(super) fn read_line(line: &[u8], field: &str) -> Extracted {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Extracted::default();
    }
    if has_too_many_values(line) {
        return Extracted::skipped(Skip::Values);
    }
    match serde_json::from_slice::<Value>(line) {
        Ok(Value::Object(object)) => match object.get(field) {
            Some(Value::String(text)) => Extracted::one(lines(text)),
            _ => Extracted::skipped(Skip::NoSuchField),
        },
        _ => Extracted::skipped(Skip::Malformed),
    }
}

/// Each string under a member called `field`, in the order of the file's keys; or all strings as one document.
pub(super) fn read_file(bytes: &[u8], field: Option<&str>) -> Extracted {
    if has_too_many_values(bytes) {
        return Extracted::skipped(Skip::Values);
    }
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return Extracted::skipped(Skip::Malformed);
    };
    let mut found = Vec::new();
    collect(&value, field, field.is_none(), &mut found);
    if field.is_some() {
        if found.is_empty() {
            return Extracted::skipped(Skip::NoSuchField);
        }
        return Extracted {
            texts: found.into_iter().map(lines).collect(),
            ..Extracted::default()
        };
    }
    let mut out = String::new();
    for text in found {
        push_paragraph(&mut out, text);
    }
    Extracted::one(out)
}

/// Depth is bounded by the parser (128).
fn collect<'a>(value: &'a Value, field: Option<&str>, wanted: bool, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) if wanted => found.push(text),
        Value::Array(values) => values.iter().for_each(|value| collect(value, field, wanted, found)),
        Value::Object(object) => {
            for (key, value) in object {
                collect(value, field, field.is_none_or(|field| field == key), found);
            }
        }
        _ => {}
    }
}

/// The lines of a text are paragraphs.
fn lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        push_paragraph(&mut out, line);
    }
    out
}
