//! Items from files: lines of JSON, rows of CSV, lines of text.

use std::io::Read;

use serde_json::{Map, Value};

use super::TaskError;
use crate::progress::Watch;
use crate::source::archive::{InputFile, Selection, walk};

/// The largest file of items, bytes.
const FILE_LIMIT: u64 = 1 << 30;

/// Reads the items of the files that match `patterns`, each with its name, `FILE:LINE`. A row of CSV has the members that
/// the file's first row names (lines that begin with `#` are comments); a line of text is the member `prompt`.
///
/// # Errors
/// No file matches, one cannot be read, or a line is no item.
pub fn read(files: &[InputFile], patterns: &[String]) -> Result<Vec<(String, Value)>, TaskError> {
    let selection = Selection::new(patterns, &[])?;
    let mut found = Vec::new();
    let walked = walk::<TaskError>(files, &selection, Watch::nobody(), &mut |_, path, reader| {
        let mut text = String::new();
        let read = Read::take(reader, FILE_LIMIT).read_to_string(&mut text);
        read.map_err(|source| TaskError::Read {
            file: path.to_owned(),
            source,
        })?;
        let no_item = |line: u64, cause: String| TaskError::NoItem {
            file: path.to_owned(),
            line,
            cause,
        };
        let mut add = |line: u64, value: Value| found.push((format!("{path}:{line}"), value));
        let name = path.strip_suffix(".gz").unwrap_or(path);
        if name.ends_with(".csv") {
            return rows(&text, &mut add).map_err(|(line, cause)| no_item(line, cause));
        }
        for (line, text) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            if name.ends_with(".txt") {
                add(line, object([("prompt", text)]));
                continue;
            }
            match serde_json::from_str(text) {
                Ok(value @ Value::Object(_)) => add(line, value),
                Ok(_) => return Err(no_item(line, "it is JSON, but no object".to_owned())),
                Err(error) => return Err(no_item(line, error.to_string())),
            }
        }
        Ok(())
    })?;
    if walked.matched == 0 {
        return Err(TaskError::NoFiles {
            patterns: patterns.to_vec(),
            example: walked.example,
        });
    }
    if found.is_empty() {
        return Err(TaskError::NoItems {
            patterns: patterns.to_vec(),
        });
    }
    Ok(found)
}

fn object<'t>(members: impl IntoIterator<Item = (&'t str, &'t str)>) -> Value {
    let members = members.into_iter();
    let members = members.map(|(name, text)| (name.to_owned(), Value::String(text.to_owned())));
    Value::Object(members.collect::<Map<_, _>>())
}

/// Every row of a CSV file under the names of its first one.
fn rows(text: &str, add: &mut dyn FnMut(u64, Value)) -> Result<(), (u64, String)> {
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
    let fault = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        (line, error.to_string())
    };
    let names = reader.headers().map_err(fault)?.clone();
    for row in reader.records() {
        let row = row.map_err(fault)?;
        let line = row.position().map_or(1, csv::Position::line);
        add(line, object(names.iter().zip(&row)));
    }
    Ok(())
}
