//! Documents from files: one module per format, the same rules for all.
//!
//! In: the files of a source, and what to read from them ([`ExtractFields`]). Out: `documents.jsonl`, one
//! `{"id": …, "text": …}` per line, sorted by member, and `report.json` with what was left out and why. Each paragraph of a
//! text is a line; only `code` keeps its bytes. Members are read in order and processed in parallel;
//! the output does not depend on the number of threads. Not here: which documents are wanted (`filter`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};

use aurora_compiler::fields::{ExtractFields, Format};
use camino::Utf8Path;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::documents::Document;
use super::template::TemplateError;
use crate::errors::FileError;
use crate::progress::{Cancelled, ProgressReporter, ProgressUnit};
use crate::source::archive::{self, ArchiveError, InputFile, MemberSelection, read_whole, walk};

mod html;
mod json;
mod mo;
mod page;
mod pairs;
mod roff;
mod text;

/// The largest unpacked member, and the longest line of a member that is read line by line.
pub const MEMBER_LIMIT: u64 = 256 << 20;

/// Bytes that the threads process at a time.
const BATCH: usize = 16 << 20;

/// Counts of a source's members and documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtractReport {
    /// Regular members of the files.
    pub members: u64,
    /// Members that match the patterns.
    pub matched: u64,
    pub documents: u64,
    /// UTF-8 bytes of the documents' texts.
    pub bytes: u64,
    /// Counts of what was left out, by reason.
    pub skipped: BTreeMap<String, u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("cannot read a member")]
    Read(#[source] io::Error),
    #[error("`{member}` has more than {limit} bytes, unpacked or in one line")]
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
    File(#[from] FileError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Why a document or a part of one was left out; `report.json` has these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Skip {
    Empty,
    InvalidUtf8,
    Malformed,
    NoSuchField,
    SameAsReference,
    Untranslated,
    Unwanted,
    Link,
    UnreadableName,
    LargePage,
    Depth,
    Nodes,
    Attributes,
    Values,
}

impl Skip {
    fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty_documents",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::Malformed => "malformed",
            Self::NoSuchField => "no_such_field",
            Self::SameAsReference => "paragraphs_same_as_reference",
            Self::Untranslated => "untranslated_messages",
            Self::Unwanted => "items_not_wanted",
            Self::Link => "links",
            Self::UnreadableName => "names_not_utf8",
            Self::LargePage => "pages_too_large",
            Self::Depth => "pages_nested_too_deeply",
            Self::Nodes => "pages_with_too_many_elements",
            Self::Attributes => "pages_with_too_many_attributes",
            Self::Values => "too_many_values",
        }
    }
}

/// The result for one member: texts in order, and what was left out.
#[derive(Default)]
struct Extracted {
    texts: Vec<String>,
    /// The start of the answer in each text, if texts are prompts with answers.
    answers: Vec<usize>,
    skipped: BTreeMap<Skip, u64>,
}

impl Extracted {
    fn one(text: String) -> Self {
        Self {
            texts: vec![text],
            ..Self::default()
        }
    }

    fn skip(&mut self, why: Skip) {
        *self.skipped.entry(why).or_default() += 1;
    }

    fn skipped(why: Skip) -> Self {
        Self {
            skipped: [(why, 1)].into(),
            ..Self::default()
        }
    }
}

/// A format that is ready for use: patterns compiled, reference pages read.
enum Reader {
    Html(html::Pages),
    Roff,
    Mo,
    Text,
    Line,
    Code,
    Jsonl { field: String },
    Json { field: Option<String> },
    Pairs(pairs::Pairs),
}

impl Reader {
    fn by_line(&self) -> bool {
        matches!(self, Self::Line | Self::Jsonl { .. })
    }

    /// Whether a member's documents are numbered.
    fn several(&self) -> bool {
        matches!(
            self,
            Self::Line | Self::Jsonl { .. } | Self::Mo | Self::Json { field: Some(_) } | Self::Pairs(_)
        )
    }

    fn read(&self, member: &str, bytes: Vec<u8>) -> Extracted {
        match self {
            Self::Mo => return mo::read(&bytes),
            Self::Html(_) | Self::Roff | Self::Text | Self::Line | Self::Code | Self::Pairs(_) => {}
            Self::Jsonl { field } => return json::read_line(&bytes, field),
            Self::Json { field } => return json::read_file(&bytes, field.as_deref()),
        }
        let Ok(text) = String::from_utf8(bytes) else {
            return Extracted::skipped(Skip::InvalidUtf8);
        };
        match self {
            Self::Html(pages) => pages.read(member, &text),
            Self::Pairs(pairs) => pairs.read(member, &text),
            Self::Roff => Extracted::one(roff::read(&text)),
            Self::Text => Extracted::one(text::paragraphs(&text)),
            Self::Line => Extracted::one(text::collapse(&text)),
            _ => Extracted::one(text),
        }
    }
}

/// Extracts documents into the empty folder `out`. `reference` are the files of the input of role `reference`.
///
/// # Errors
/// If a file is damaged or a member too large, a pattern matches nothing, or the folder cannot be written.
pub fn extract(
    fields: &ExtractFields,
    files: &[InputFile],
    reference: Option<&[InputFile]>,
    out: &Utf8Path,
    progress: ProgressReporter<'_>,
) -> Result<ExtractReport, ExtractError> {
    let selection = MemberSelection::new(&fields.files, &fields.exclude)?;
    let reader = reader(fields, reference, progress)?;
    let mut writer = DocumentWriter::new(&reader, files, out, progress)?;
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
    writer.count(Skip::Link, walked.links);
    writer.count(Skip::UnreadableName, walked.unreadable_names);
    writer.report.members = walked.members;
    writer.report.matched = walked.matched;
    writer.finish(out)
}

fn reader(
    fields: &ExtractFields,
    reference: Option<&[InputFile]>,
    progress: ProgressReporter<'_>,
) -> Result<Reader, ExtractError> {
    Ok(match &fields.format {
        Format::Html {
            select,
            drop,
            reference: pairing,
        } => {
            let mut pages = html::Pages::new(select, drop.as_deref())?;
            if let Some(pairing) = pairing {
                pages.read_reference(fields, pairing, reference.ok_or(ExtractError::NoReference)?, progress)?;
            }
            Reader::Html(pages)
        }
        Format::Roff => Reader::Roff,
        Format::Mo => Reader::Mo,
        Format::Text { by_line: false } => Reader::Text,
        Format::Text { by_line: true } => Reader::Line,
        Format::Code => Reader::Code,
        Format::Jsonl { field } => Reader::Jsonl { field: field.clone() },
        Format::Json { field } => Reader::Json { field: field.clone() },
        Format::Pairs { prompt, answer, only } => Reader::Pairs(pairs::Pairs::new(prompt, answer, only.as_ref())?),
    })
}

/// A member's documents in the temporary file.
struct Entry {
    /// Identifier, file, and the order of reading, for members that share a path.
    key: (String, usize, usize),
    /// Where in the identifier the member's path starts.
    path: usize,
    start: u64,
    end: u64,
}

/// Collects members in batches, and their documents in an unnamed temporary file; at the end the documents are copied in the
/// order of their members' paths. Memory: one batch, and one entry per member.
struct DocumentWriter<'a> {
    reader: &'a Reader,
    files: &'a [InputFile],
    progress: ProgressReporter<'a>,
    report: ExtractReport,
    members: Vec<Entry>,
    /// Number of the member, the bytes to work on.
    batch: Vec<(usize, Vec<u8>)>,
    batch_bytes: usize,
    /// The next document's number, and the member it belongs to.
    number: (usize, u64),
    spool: BufWriter<File>,
    spooled: u64,
    out: &'a Utf8Path,
}

impl<'a> DocumentWriter<'a> {
    fn new(
        reader: &'a Reader,
        files: &'a [InputFile],
        out: &'a Utf8Path,
        progress: ProgressReporter<'a>,
    ) -> Result<Self, ExtractError> {
        let spool = tempfile::tempfile_in(out).map_err(FileError::writing(out))?;
        Ok(Self {
            reader,
            files,
            progress,
            report: ExtractReport::default(),
            members: Vec::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            number: (0, 0),
            spool: BufWriter::with_capacity(1 << 20, spool),
            spooled: 0,
            out,
        })
    }

    fn count(&mut self, why: Skip, times: u64) {
        if times > 0 {
            *self.report.skipped.entry(why.name().to_owned()).or_default() += times;
        }
    }

    fn member(&mut self, file: usize, path: &str, bytes: &mut dyn Read) -> Result<(), ExtractError> {
        // Two archives may have the same paths, so with several files the file's name comes first.
        let plain = archive::is_plain(&self.files[file].name);
        let id = if self.files.len() == 1 || plain {
            path.to_owned()
        } else {
            format!("{}/{path}", self.files[file].name)
        };
        let large = || ExtractError::Large {
            member: path.to_owned(),
            limit: MEMBER_LIMIT,
        };
        let number = self.members.len();
        self.members.push(Entry {
            path: id.len() - path.len(),
            key: (id, file, number),
            start: 0,
            end: 0,
        });
        if !self.reader.by_line() {
            let whole = read_whole(bytes, MEMBER_LIMIT)
                .map_err(ExtractError::Read)?
                .ok_or_else(large)?;
            return self.add(number, whole);
        }
        let mut lines = BufReader::new(bytes);
        loop {
            let mut line = Vec::new();
            let length = (&mut lines)
                .take(MEMBER_LIMIT + 1)
                .read_until(b'\n', &mut line)
                .map_err(ExtractError::Read)?;
            if length == 0 {
                return Ok(());
            }
            if length as u64 > MEMBER_LIMIT {
                return Err(large());
            }
            self.add(number, line)?;
        }
    }

    fn add(&mut self, member: usize, bytes: Vec<u8>) -> Result<(), ExtractError> {
        self.batch_bytes += bytes.len() + 64;
        self.batch.push((member, bytes));
        if self.batch_bytes >= BATCH {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), ExtractError> {
        self.progress.check()?;
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let (reader, members) = (self.reader, &self.members);
        let done: Vec<(usize, Extracted)> = batch
            .into_par_iter()
            .map(|(member, bytes)| {
                (
                    member,
                    reader.read(&members[member].key.0[members[member].path..], bytes),
                )
            })
            .collect();
        for (member, extracted) in done {
            for (why, times) in extracted.skipped {
                self.count(why, times);
            }
            if self.number.0 != member {
                self.number = (member, 0);
            }
            if self.members[member].end == 0 {
                self.members[member].start = self.spooled;
            }
            let mut answers = extracted.answers.into_iter();
            for text in extracted.texts {
                let answer = answers.next();
                if text.trim().is_empty() {
                    self.count(Skip::Empty, 1);
                    continue;
                }
                let path = &self.members[member].key.0;
                let id = if self.reader.several() {
                    format!("{path}#{}", self.number.1)
                } else {
                    path.clone()
                };
                self.number.1 += 1;
                self.report.documents += 1;
                self.report.bytes += text.len() as u64;
                let mut line = serde_json::to_vec(&Document { id, text, answer })
                    .map_err(|error| FileError::writing(self.out)(error.into()))?;
                line.push(b'\n');
                self.spool.write_all(&line).map_err(FileError::writing(self.out))?;
                self.spooled += line.len() as u64;
            }
            self.members[member].end = self.spooled;
        }
        self.progress
            .report(self.report.documents, None, ProgressUnit::Documents);
        Ok(())
    }

    fn finish(mut self, out: &Utf8Path) -> Result<ExtractReport, ExtractError> {
        self.members.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let path = out.join("documents.jsonl");
        let write = || -> io::Result<()> {
            let mut spool = self.spool.into_inner().map_err(io::IntoInnerError::into_error)?;
            let mut documents = BufWriter::with_capacity(1 << 20, File::create(&path)?);
            for member in &self.members {
                if member.end > member.start {
                    spool.seek(SeekFrom::Start(member.start))?;
                    io::copy(&mut (&mut spool).take(member.end - member.start), &mut documents)?;
                }
            }
            documents.flush()
        };
        write().map_err(FileError::writing(&path))?;
        super::write_json(&out.join("report.json"), &self.report)
            .map_err(FileError::writing(&out.join("report.json")))?;
        Ok(self.report)
    }
}

#[cfg(test)]
mod tests;
