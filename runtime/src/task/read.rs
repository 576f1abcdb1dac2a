//! The items of a task, out of the files of its sources.

use std::io::Read;

use serde_json::Value;

use super::TaskError;
use crate::data::items;
use crate::progress::Watch;
use crate::source::archive::{InputFile, Selection, walk};

/// The largest file of items, bytes.
const FILE_LIMIT: u64 = 1 << 30;

/// Reads the items of the files that match `patterns` ([`items::parse`]), each with its name, `FILE:LINE`.
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
        for item in items::parse(path, &text) {
            let (line, value) = item.map_err(|(line, cause)| TaskError::NoItem {
                file: path.to_owned(),
                line,
                cause,
            })?;
            found.push((format!("{path}:{line}"), value));
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
