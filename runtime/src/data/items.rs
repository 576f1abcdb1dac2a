//! Items of a file: lines of JSON objects, rows of CSV, lines of text.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::strict_json;

/// The line of an invalid item, and the cause.
pub type InvalidItem = (u64, String);

/// The items of a file's text, each with its line. The file's name, without a final `.gz`, determines the format: the first
/// row of a `.csv` has the names of the members (lines that begin with `#` are comments), a line of a `.txt` is the member
/// `prompt`, every other file has one JSON object per line.
pub fn parse(name: &str, text: &str) -> Vec<Result<(u64, Value), InvalidItem>> {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    if name.ends_with(".csv") {
        return rows(text);
    }
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let item = |(line, text): (u64, &str)| {
        if name.ends_with(".txt") {
            return Ok((line, object([("prompt", text)])));
        }
        match strict_json::parse(text.as_bytes()) {
            Ok(value @ Value::Object(_)) => Ok((line, value)),
            Ok(_) => Err((line, "it is JSON, but not an object".to_owned())),
            Err(error) => Err((line, error.to_string())),
        }
    };
    lines.map(item).collect()
}

fn object<'t>(members: impl IntoIterator<Item = (&'t str, &'t str)>) -> Value {
    let members = members.into_iter();
    let members = members.map(|(name, text)| (name.to_owned(), Value::String(text.to_owned())));
    Value::Object(members.collect::<Map<_, _>>())
}

/// Every row of a CSV file under the names of its first one.
fn rows(text: &str) -> Vec<Result<(u64, Value), InvalidItem>> {
    let mut reader = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .from_reader(text.as_bytes());
    let invalid = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        (line, error.to_string())
    };
    let names = match reader.headers() {
        Ok(names) => names.clone(),
        Err(error) => return vec![Err(invalid(error))],
    };
    let mut known = HashMap::new();
    for (column, name) in names.iter().enumerate() {
        if let Some(first) = known.insert(name, column) {
            let text = format!("columns {} and {} have the same name `{name}`", first + 1, column + 1);
            return vec![Err((1, text))];
        }
    }
    let row = |row: Result<csv::StringRecord, csv::Error>| {
        let row = row.map_err(invalid)?;
        let line = row.position().map_or(1, csv::Position::line);
        Ok((line, object(names.iter().zip(&row))))
    };
    reader.records().map(row).collect()
}
