//! Documents from files: one module per format, the same rules for all.
//!
//! In: the files of a source, and what to read from them ([`ExtractFields`]). Out: `documents.jsonl`, one
//! `{"id": …, "text": …}` per line, sorted by member, and `report.json`, which counts every row ([`ExtractReport`]). Texts,
//! code and the texts of rows stay byte for byte; only `html`, `roff` and `mo` rebuild them. Members are read in order and
//! processed in parallel; the output does not depend on the number of threads. Not here: which documents are wanted, and how
//! they are changed (`filter`).

use std::io;

use aurora_compiler::fields::ExtractFields;
use camino::Utf8Path;

use super::columns::ColumnsError;
use super::template::TemplateError;
use crate::errors::FileError;
use crate::progress::{Cancelled, ProgressReporter};
use crate::source::archive::{ArchiveError, InputFile, MemberSelection, walk};
use counts::Skip;
use reader::{Extracted, Reader, reader};
use writer::DocumentWriter;

mod counts;
mod html;
mod json;
mod mo;
mod page;
mod reader;
mod roff;
mod rows;
mod select;
mod writer;

pub use counts::{Counted, ExtractReport, InvalidText};

/// The largest unpacked member that is read as a whole, and the longest record of one that is not.
pub const MEMBER_LIMIT: u64 = 256 << 20;

/// Bytes that the threads process at a time.
const BATCH: usize = 16 << 20;

/// Malformed rows that never fail an extraction, however many rows there are.
const FEW: u64 = 10;

#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("cannot read a member")]
    Read(#[source] io::Error),
    #[error("cannot read `{member}`{}", found.map(|found| format!(", which looks like {found}")).unwrap_or_default())]
    Member {
        member: String,
        found: Option<&'static str>,
        #[source]
        source: io::Error,
    },
    #[error("`{member}` has more than {limit} bytes, unpacked or in one record")]
    Large { member: String, limit: u64 },
    #[error("no member matches `{pattern}`{}", example.as_ref().map(|e| format!("; there is for example `{e}`")).unwrap_or_default())]
    NoMatch { pattern: String, example: Option<String> },
    #[error("`{selector}` is not a CSS selector: {cause}")]
    Selector { selector: String, cause: String },
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("the reference pages are missing")]
    NoReference,
    #[error("no page has a reference page: replacing `{own}` by `{other}` gives the path of no member")]
    NoPairs { own: String, other: String },
    #[error(transparent)]
    Columns(#[from] ColumnsError),
    #[error("`{member}`: {cause}")]
    Format { member: String, cause: String },
    #[error("`{member}` has {rows} rows, and none has the wanted member: {cause}")]
    NoField { member: String, rows: u64, cause: String },
    #[error(
        "{malformed} of {rows} rows are malformed, and at most {limit} may be: {}{}; correct them, or state how many are \
         expected: `malformed = …%` in the source", first.join("; "), looks(*.found)
    )]
    Malformed {
        malformed: u64,
        rows: u64,
        limit: String,
        first: Vec<String>,
        found: Option<&'static str>,
    },
    #[error("no document is in {members}{}{}", reasons(causes), looks(*.found))]
    NoDocument {
        members: String,
        causes: Vec<String>,
        found: Option<&'static str>,
    },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// What a file looks like, and the call that reads it.
fn looks(found: Option<&str>) -> String {
    let Some(found) = found else { return String::new() };
    let remedy = match found {
        "a JSON array" => "; write `json(…)`",
        "JSON lines" => "; write `jsonl(…)`",
        "Parquet" => "; write `parquet(…)`",
        "Arrow" => "; write `arrow(…)`",
        found if found.starts_with("CSV") => "; write `csv(…)`",
        "a Git LFS pointer" => "; `git lfs pull` fetches the file",
        _ => "",
    };
    format!("; the first file looks like {found}{remedy}")
}

fn reasons(causes: &[String]) -> String {
    match causes {
        [] => ", because there are no rows".to_owned(),
        causes => format!(": {}", causes.join("; ")),
    }
}

/// What limits an extraction and changes no result.
#[derive(Clone, Copy, Debug)]
pub struct ExtractLimits {
    /// The most rows that may be malformed, in millionths of all rows.
    pub malformed_ppm: u32,
}

impl Default for ExtractLimits {
    fn default() -> Self {
        Self { malformed_ppm: 1000 }
    }
}

/// Extracts documents into the empty folder `out`. `reference` are the files of the input of role `reference`.
///
/// # Errors
/// If a file is damaged or a member too large, a pattern matches nothing, no file has a document, more rows are malformed than
/// `limits` allows, or the folder cannot be written.
pub fn extract(
    fields: &ExtractFields,
    files: &[InputFile],
    reference: Option<&[InputFile]>,
    limits: ExtractLimits,
    out: &Utf8Path,
    progress: ProgressReporter<'_>,
) -> Result<ExtractReport, ExtractError> {
    let selection = MemberSelection::new(&fields.files, &fields.exclude)?;
    let reader = reader(fields, reference, progress)?;
    let mut writer = DocumentWriter::new(&reader, fields, files, limits, out, progress)?;
    let walked = walk::<ExtractError>(files, &selection, progress, &mut |file, path, bytes| {
        writer.member(file, path, bytes)
    })?;
    for (pattern, &hits) in selection.patterns().iter().zip(&walked.hits) {
        if hits == 0 {
            return Err(ExtractError::NoMatch {
                pattern: pattern.clone(),
                example: walked.example,
            });
        }
    }
    writer.flush()?;
    if let Reader::Html(pages) = &reader {
        pages.check_pairs(walked.matched)?;
    }
    for (reason, count) in [("links", walked.links), ("names_not_utf8", walked.unreadable_names)] {
        if count > 0 {
            writer.report.not_read.insert(reason.to_owned(), count);
        }
    }
    writer.report.members = walked.members;
    writer.report.matched = walked.matched;
    writer.check()?;
    writer.finish(out)
}

#[cfg(test)]
mod tests;
