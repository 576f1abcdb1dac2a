//! The items of a task, read from the files of its sources.

use std::collections::BTreeSet;
use std::io::{self, Read};

use serde_json::Value;

use super::TaskError;
use crate::data::items;
use crate::job::{Files, ItemFile};
use crate::progress::ProgressReporter;
use crate::source::archive::{InputFile, MemberSelection, is_plain, read_whole, walk};

/// The largest file of items, bytes.
const FILE_LIMIT: u64 = 1 << 30;

impl From<&InputFile> for ItemFile {
    fn from(file: &InputFile) -> Self {
        Self {
            prefix: String::new(),
            name: file.name.clone(),
            path: file.path.clone(),
        }
    }
}

/// The files of an eval's sources.
///
/// Two sources, or two archives of one source, may have members of the same path. The names of their items then differ by a
/// prefix: the number of the source (from 1; its name is not part of a key), and the name of the archive. An eval with one
/// source and at most one archive has none.
pub fn item_files(sources: Vec<Files>) -> Vec<ItemFile> {
    let several_sources = sources.len() > 1;
    let mut all = Vec::new();
    for (number, files) in (1..).zip(sources) {
        let several_archives = files.keys().filter(|name| !is_plain(name)).count() > 1;
        all.extend(files.into_iter().map(|(name, path)| {
            let mut prefix = String::new();
            if several_sources {
                prefix.push_str(&format!("{number}/"));
            }
            if several_archives && !is_plain(&name) {
                prefix.push_str(&format!("{name}/"));
            }
            ItemFile { prefix, name, path }
        }));
    }
    all
}

/// The text of a file of items.
fn text_of(reader: &mut dyn Read) -> io::Result<String> {
    let bytes = read_whole(reader, FILE_LIMIT)?;
    let bytes = bytes.ok_or_else(|| io::Error::other(format!("it has more than {FILE_LIMIT} bytes")))?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

/// Reads the items of the files that match `patterns` ([`items::parse`]), each with its name: the file's prefix, then
/// `PATH:LINE` of the member.
///
/// # Errors
/// No file matches, one cannot be read, a line is not a valid item, or two items have one name.
pub fn read(files: &[ItemFile], patterns: &[String]) -> Result<Vec<(String, Value)>, TaskError> {
    let selection = MemberSelection::new(patterns, &[])?;
    let mut found = Vec::new();
    let mut members = BTreeSet::new();
    let inputs: Vec<InputFile> = files
        .iter()
        .map(|file| InputFile::new(file.name.clone(), file.path.clone()))
        .collect();
    let walked = walk::<TaskError>(
        &inputs,
        &selection,
        ProgressReporter::none(),
        &mut |number, path, reader| {
            let member = format!("{}{path}", files[number].prefix);
            if !members.insert(member.clone()) {
                return Err(TaskError::TwoFiles { file: member });
            }
            let text = text_of(reader).map_err(|source| TaskError::Read {
                file: path.to_owned(),
                source,
            })?;
            for item in items::parse(path, &text) {
                let (line, value) = item.map_err(|(line, cause)| TaskError::NoItem {
                    file: member.clone(),
                    line,
                    cause,
                })?;
                found.push((format!("{member}:{line}"), value));
            }
            Ok(())
        },
    )?;
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
