//! Items of a file: lines of JSON objects, rows of CSV, lines of text.

use serde_json::{Map, Value};

/// What is wrong with an item: its line, and the cause.
pub type NoItem = (u64, String);

/// The items of a file's text, each with its line. The name says how it is read (a `.gz` at its end aside): a row of `.csv`
/// has the members that the first row names (lines that begin with `#` are comments), a line of `.txt` is the member
/// `prompt`, anything else is a JSON object a line.
pub fn parse(name: &str, text: &str) -> Vec<Result<(u64, Value), NoItem>> {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    if name.ends_with(".csv") {
        return rows(text);
    }
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let item = |(line, text): (u64, &str)| {
        if name.ends_with(".txt") {
            return Ok((line, object([("prompt", text)])));
        }
        match serde_json::from_str(text) {
            Ok(value @ Value::Object(_)) => Ok((line, value)),
            Ok(_) => Err((line, "it is JSON, but no object".to_owned())),
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
fn rows(text: &str) -> Vec<Result<(u64, Value), NoItem>> {
    let mut reader = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .from_reader(text.as_bytes());
    let fault = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        (line, error.to_string())
    };
    let names = match reader.headers() {
        Ok(names) => names.clone(),
        Err(error) => return vec![Err(fault(error))],
    };
    let row = |row: Result<csv::StringRecord, csv::Error>| {
        let row = row.map_err(fault)?;
        let line = row.position().map_or(1, csv::Position::line);
        Ok((line, object(names.iter().zip(&row))))
    };
    reader.records().map(row).collect()
}
