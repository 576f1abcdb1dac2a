//! Documents from files: one module per format, the same rules for all.
//!
//! In: the files of a source, and what to read from them ([`ExtractFields`]). Out: `documents.jsonl`, one
//! `{"id": …, "text": …}` per line, sorted by member, and `report.json`, which counts every row ([`ExtractReport`]). Texts,
//! code and the texts of rows stay byte for byte; only `html`, `roff` and `mo` rebuild them. Members are read in order and
//! processed in parallel; the output does not depend on the number of threads. Not here: which documents are wanted, and how
//! they are changed (`filter`).

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use aurora_compiler::fields::{ExtractFields, Format, TextUnit};
use camino::Utf8Path;
use rayon::prelude::*;

use super::columns::{self, ColumnsError, Rows, Wanted, WantedKind};
use super::detect::detect;
use super::documents::Document;
use super::encoding::{self, Encoding, TextReader, decode_utf8};
use super::template::TemplateError;
use crate::errors::FileError;
use crate::progress::{Cancelled, ProgressReporter, ProgressUnit};
use crate::regular;
use crate::source::archive::{self, ArchiveError, InputFile, MemberSelection, read_whole, walk};
use counts::{FileCounts, Skip};
use records::{Cut, CutError, Record, Records, is_blank};
use rows::{Header, HeaderError, Row};
use select::{Dropped, Made, Selection};

mod counts;
mod html;
mod json;
mod mo;
mod page;
mod records;
mod roff;
mod rows;
mod select;

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
    #[error("{members} files have no document{}{}", causes(causes), looks(*.found))]
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

fn causes(causes: &[String]) -> String {
    match causes {
        [] => ": they have no rows".to_owned(),
        causes => format!(": {}", causes.join("; ")),
    }
}

/// The texts of a member whose format rebuilds them, and what was left out.
#[derive(Default)]
struct Extracted {
    texts: Vec<String>,
    /// The member is no document.
    dropped: Option<(Skip, String)>,
    left_out: Vec<(Skip, u64)>,
}

impl Extracted {
    fn one(text: String) -> Self {
        Self {
            texts: vec![text],
            ..Self::default()
        }
    }

    fn leave_out(&mut self, why: Skip) {
        match self.left_out.iter_mut().find(|(known, _)| *known == why) {
            Some((_, times)) => *times += 1,
            None => self.left_out.push((why, 1)),
        }
    }

    fn dropped(why: Skip, cause: impl Into<String>) -> Self {
        Self {
            dropped: Some((why, cause.into())),
            ..Self::default()
        }
    }
}

/// A format that is ready for use: patterns compiled, templates read, reference pages read.
enum Reader {
    Html(html::Pages),
    Roff,
    Mo,
    Text(TextUnit),
    JsonStrings,
    /// Rows in the format that the spec states, or the name of a file.
    Rows(Option<RowFormat>, Selection),
}

/// How the rows of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowFormat {
    Jsonl,
    /// A list, or values one after the other.
    Json,
    /// With the declared delimiter.
    Table(Option<u8>),
    Parquet,
    Arrow,
    /// Lines of text.
    Prompts,
}

impl RowFormat {
    fn of_name(name: &str) -> Self {
        match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("json") => Self::Json,
            Some("csv") => Self::Table(None),
            Some("tsv") => Self::Table(Some(b'\t')),
            Some("parquet") => Self::Parquet,
            Some("arrow" | "feather") => Self::Arrow,
            Some("txt") => Self::Prompts,
            _ => Self::Jsonl,
        }
    }
}

/// How the documents of a member are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Numbering {
    /// There is one.
    Whole,
    /// By the line on which it begins.
    Line,
    /// By its number.
    Number,
}

/// What the threads work on.
enum Piece {
    /// A complete member.
    Whole(Vec<u8>),
    Line(Record),
    Prompt(Record),
    Json(Record),
    /// A JSON file that is not a list: strings at any depth.
    JsonStrings(Vec<u8>),
    Row(Arc<Header>, Record),
    Columns(Rows),
}

impl Piece {
    fn bytes(&self) -> usize {
        64 + match self {
            Self::Whole(bytes) | Self::JsonStrings(bytes) => bytes.len(),
            Self::Line(record) | Self::Prompt(record) | Self::Json(record) | Self::Row(_, record) => record.bytes.len(),
            Self::Columns(rows) => rows
                .columns
                .iter()
                .map(|column| column.values().len() + 8 * rows.rows)
                .sum(),
        }
    }
}

/// What became of a piece.
struct Done {
    rows: Vec<Row>,
    left_out: Vec<(Skip, u64)>,
    numbering: Numbering,
}

impl Done {
    fn rows(rows: Vec<Row>, numbering: Numbering) -> Self {
        Self {
            rows,
            left_out: Vec::new(),
            numbering,
        }
    }
}

impl Reader {
    fn read(&self, member: &str, declared: Option<Encoding>, piece: Piece) -> Done {
        let selection = match self {
            Self::Rows(_, selection) => Some(selection),
            _ => None,
        };
        let one = |row| Done::rows(vec![row], Numbering::Line);
        match (piece, selection) {
            (Piece::Whole(bytes), _) => self.read_whole(member, declared, bytes),
            (Piece::Line(record), _) => one(rows::of_text(record.line, record.bytes)),
            (Piece::Prompt(record), Some(selection)) => one(rows::of_prompt(record.line, record.bytes, selection)),
            (Piece::Json(record), Some(selection)) => one(rows::of_json(record.line, record.bytes, selection)),
            (Piece::Row(header, record), Some(selection)) => {
                one(rows::of_table(record.line, &record.bytes, &header, selection))
            }
            (Piece::JsonStrings(bytes), Some(selection)) => {
                let field = selection.only_member().unwrap_or_default();
                Done::rows(rows::of_json_strings(bytes, field), Numbering::Number)
            }
            (Piece::Columns(columns), Some(selection)) => {
                Done::rows(rows::of_columns(&columns, selection), Numbering::Number)
            }
            // Only a format with rows has such pieces.
            (_, None) => Done::rows(Vec::new(), Numbering::Whole),
        }
    }

    /// A member that is one text, or several that are rebuilt.
    fn read_whole(&self, member: &str, declared: Option<Encoding>, bytes: Vec<u8>) -> Done {
        if let Self::Mo = self {
            return rebuilt(mo::read(&bytes), 0, Numbering::Number);
        }
        let sniffed = match self {
            Self::Html(_) => encoding::of_html(&bytes, declared),
            _ => encoding::sniff(&bytes, declared),
        };
        let (text, replaced) = match sniffed {
            Ok((encoding, mark)) => encoding::decode(bytes, encoding, mark),
            Err(error) => {
                let extracted = Extracted::dropped(Skip::Malformed, error.to_string());
                return rebuilt(extracted, 0, Numbering::Whole);
            }
        };
        let extracted = match self {
            Self::Html(pages) => pages.read(member, &text),
            Self::Roff => Extracted::one(roff::read(&text)),
            Self::JsonStrings => match json::strings(&text, None) {
                Ok((found, _)) => Extracted::one(found.join("\n")),
                Err(cause) => Extracted::dropped(Skip::Malformed, cause),
            },
            _ => Extracted::one(text),
        };
        rebuilt(extracted, replaced, Numbering::Whole)
    }
}

fn rebuilt(extracted: Extracted, replaced: u64, numbering: Numbering) -> Done {
    let row = |at, made| Row {
        at,
        made,
        replaced: if at == 1 { replaced } else { 0 },
    };
    let rows = match extracted.dropped {
        Some((why, cause)) => vec![row(1, Err(Dropped::new(why, cause)))],
        None => (1..)
            .zip(extracted.texts)
            .map(|(at, text)| {
                let made = match text.is_empty() {
                    true => Err(Dropped::new(Skip::Empty, "")),
                    false => Ok(Made {
                        text,
                        ..Made::default()
                    }),
                };
                row(at, made)
            })
            .collect(),
    };
    Done {
        rows,
        left_out: extracted.left_out,
        numbering,
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
    let mut writer = DocumentWriter::new(&reader, fields, files, out, progress)?;
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
    writer.check(limits)?;
    writer.finish(out)
}

fn reader(
    fields: &ExtractFields,
    reference: Option<&[InputFile]>,
    progress: ProgressReporter<'_>,
) -> Result<Reader, ExtractError> {
    let rows = |format, document| -> Result<Reader, ExtractError> {
        Ok(Reader::Rows(Some(format), Selection::of_document(document)?))
    };
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
        Format::Text { by } => Reader::Text(*by),
        Format::Code => Reader::Text(TextUnit::File),
        Format::Jsonl(document) => rows(RowFormat::Jsonl, document)?,
        Format::Json(document) => rows(RowFormat::Json, document)?,
        Format::JsonStrings => Reader::JsonStrings,
        Format::Csv { document, delimiter } => {
            let declared = delimiter.as_ref().and_then(|delimiter| delimiter.bytes().next());
            rows(RowFormat::Table(declared), document)?
        }
        Format::Parquet(document) => rows(RowFormat::Parquet, document)?,
        Format::Arrow(document) => rows(RowFormat::Arrow, document)?,
        Format::Pairs {
            prompt,
            answer,
            only,
            id,
        } => Reader::Rows(None, Selection::of_pairs(prompt, answer, only.as_ref(), id.as_deref())?),
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
    counts: FileCounts,
    /// The first row without a wanted member.
    missing: Option<String>,
    /// What its first bytes look like.
    found: Option<&'static str>,
}

/// Collects members in batches, and their documents in an unnamed temporary file; at the end the documents are copied in the
/// order of their members' paths. Memory: one batch, and one entry per member.
struct DocumentWriter<'a> {
    reader: &'a Reader,
    declared: Option<Encoding>,
    files: &'a [InputFile],
    progress: ProgressReporter<'a>,
    report: ExtractReport,
    members: Vec<Entry>,
    /// Number of the member, and what to work on.
    batch: Vec<(usize, Piece)>,
    batch_bytes: usize,
    spool: BufWriter<File>,
    spooled: u64,
    out: &'a Utf8Path,
}

impl<'a> DocumentWriter<'a> {
    fn new(
        reader: &'a Reader,
        fields: &ExtractFields,
        files: &'a [InputFile],
        out: &'a Utf8Path,
        progress: ProgressReporter<'a>,
    ) -> Result<Self, ExtractError> {
        let spool = tempfile::tempfile_in(out).map_err(FileError::writing(out))?;
        Ok(Self {
            reader,
            declared: fields.encoding.as_deref().and_then(encoding::of_label),
            files,
            progress,
            report: ExtractReport::default(),
            members: Vec::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            spool: BufWriter::with_capacity(1 << 20, spool),
            spooled: 0,
            out,
        })
    }

    fn member(&mut self, file: usize, path: &str, bytes: &mut dyn Read) -> Result<(), ExtractError> {
        // Two archives may have the same paths, so with several files the file's name comes first.
        let plain = archive::is_plain(&self.files[file].name);
        let id = if self.files.len() == 1 || plain {
            path.to_owned()
        } else {
            format!("{}/{path}", self.files[file].name)
        };
        let number = self.members.len();
        let mut bytes = BufReader::with_capacity(1 << 16, bytes);
        let first = bytes.fill_buf().map_err(ExtractError::Read)?;
        let found = detect(&first[..first.len().min(4096)], path);
        self.members.push(Entry {
            path: id.len() - path.len(),
            counts: FileCounts {
                file: id.clone(),
                ..FileCounts::default()
            },
            key: (id, file, number),
            start: self.spooled,
            end: self.spooled,
            missing: None,
            found,
        });
        match self.reader {
            Reader::Html(_) | Reader::Roff | Reader::Mo | Reader::JsonStrings | Reader::Text(TextUnit::File) => {
                let whole = whole(path, &mut bytes)?;
                // A file without a byte has no row.
                match whole.is_empty() {
                    true => Ok(()),
                    false => self.add(number, Piece::Whole(whole)),
                }
            }
            Reader::Text(TextUnit::Line) => self.records(number, path, &mut bytes, Cut::Line, Piece::Line),
            Reader::Text(TextUnit::Block) => self.records(number, path, &mut bytes, Cut::Block, Piece::Line),
            Reader::Rows(format, selection) => {
                let format = format.unwrap_or_else(|| RowFormat::of_name(path));
                self.rows(number, path, &mut bytes, format, selection)
            }
        }?;
        // Its counts are complete before the next member is read only if the batch ends with it; `check` comes at the end.
        Ok(())
    }

    fn rows(
        &mut self,
        number: usize,
        path: &str,
        bytes: &mut dyn BufRead,
        format: RowFormat,
        selection: &Selection,
    ) -> Result<(), ExtractError> {
        match format {
            RowFormat::Jsonl => self.records(number, path, bytes, Cut::Lf, Piece::Json),
            RowFormat::Prompts => self.records(number, path, bytes, Cut::Line, Piece::Prompt),
            RowFormat::Json => self.json(number, path, bytes, selection),
            RowFormat::Table(declared) => self.table(number, path, bytes, declared, selection),
            RowFormat::Parquet | RowFormat::Arrow => {
                let kind = match selection.only_member() {
                    Some(_) => WantedKind::Text,
                    None => WantedKind::Scalar,
                };
                let wanted = selection.wanted.iter().map(|path| Wanted {
                    path: path.clone(),
                    kind: if selection.only_member() == Some(path) { kind } else { WantedKind::Scalar },
                });
                let wanted: Vec<Wanted> = wanted.collect();
                // A file of the source is read where it is; a member of an archive is copied.
                let file = match &self.files[self.members[number].key.1] {
                    own if own.name == path => regular::open(&own.path),
                    _ => columns::seekable(&mut &mut *bytes, self.out),
                };
                let file = file.map_err(|source| self.unreadable(number, path, source))?;
                let mut visit = |rows: Rows| self.add(number, Piece::Columns(rows));
                match format {
                    RowFormat::Parquet => columns::read_parquet(file, path, &wanted, &mut visit),
                    _ => columns::read_arrow(file, path, &wanted, &mut visit),
                }
                .map(drop)
            }
        }
    }

    /// Passes on every record that is not blank, in UTF-8.
    fn records(
        &mut self,
        number: usize,
        path: &str,
        bytes: &mut dyn BufRead,
        cut: Cut,
        piece: impl Fn(Record) -> Piece,
    ) -> Result<(), ExtractError> {
        let mut records = self.decoded(number, path, bytes)?;
        while let Some(record) = records.next(cut).map_err(|error| self.uncut(number, path, error))? {
            self.invalid(number, &record, &mut records);
            if !is_blank(&record.bytes) {
                self.add(number, piece(record))?;
            }
        }
        Ok(())
    }

    fn json(
        &mut self,
        number: usize,
        path: &str,
        bytes: &mut dyn BufRead,
        selection: &Selection,
    ) -> Result<(), ExtractError> {
        let mut records = self.decoded(number, path, bytes)?;
        while let Some(record) = records.next(Cut::Value).map_err(|error| self.uncut(number, path, error))? {
            self.invalid(number, &record, &mut records);
            let at_any_depth = !records.is_in_list() && selection.only_member().is_some_and(|name| !name.contains('.'));
            let piece = match at_any_depth {
                true => Piece::JsonStrings(record.bytes),
                false => Piece::Json(record),
            };
            self.add(number, piece)?;
        }
        Ok(())
    }

    fn table(
        &mut self,
        number: usize,
        path: &str,
        bytes: &mut dyn BufRead,
        declared: Option<u8>,
        selection: &Selection,
    ) -> Result<(), ExtractError> {
        let mut records = self.decoded(number, path, bytes)?;
        let mut header: Option<Arc<Header>> = None;
        loop {
            let delimiter = header.as_ref().map_or(declared, |header| Some(header.delimiter));
            let next = records.next(Cut::Row(delimiter));
            let Some(record) = next.map_err(|error| self.uncut(number, path, error))? else {
                return Ok(());
            };
            self.invalid(number, &record, &mut records);
            if record.bytes.is_empty() {
                continue;
            }
            match &header {
                Some(header) => self.add(number, Piece::Row(Arc::clone(header), record))?,
                None => {
                    let first = Header::new(&record.bytes, declared, selection);
                    let first = first.map_err(|error: HeaderError| ExtractError::Format {
                        member: path.to_owned(),
                        cause: error.to_string(),
                    })?;
                    header = Some(Arc::new(first));
                }
            }
        }
    }

    /// The records of a text in any encoding.
    fn decoded<'b>(
        &self,
        number: usize,
        path: &str,
        bytes: &'b mut dyn BufRead,
    ) -> Result<Records<BufReader<TextReader<&'b mut dyn BufRead>>>, ExtractError> {
        let text = TextReader::new(bytes, self.declared);
        let text = text.map_err(|source| self.unreadable(number, path, source))?;
        Ok(Records::new(BufReader::with_capacity(1 << 16, text), MEMBER_LIMIT))
    }

    /// Counts what was invalid in a record of a text that is not UTF-8; the threads count it in those that are.
    fn invalid<R: BufRead>(&mut self, number: usize, record: &Record, records: &mut Records<BufReader<TextReader<R>>>) {
        let replaced = records.input.get_mut().take_invalid_before(record.end);
        if replaced > 0 {
            let entry = &mut self.members[number];
            let place = format!("{}:{}", entry.key.0, record.line);
            self.report.replaced(&mut entry.counts, replaced, &place);
        }
    }

    fn unreadable(&self, number: usize, path: &str, source: io::Error) -> ExtractError {
        ExtractError::Member {
            member: path.to_owned(),
            found: self.members[number].found,
            source,
        }
    }

    fn uncut(&self, number: usize, path: &str, error: CutError) -> ExtractError {
        match error {
            CutError::Read(source) => self.unreadable(number, path, source),
            CutError::Large { limit, .. } => ExtractError::Large {
                member: path.to_owned(),
                limit,
            },
            other => ExtractError::Format {
                member: path.to_owned(),
                cause: other.to_string(),
            },
        }
    }

    fn add(&mut self, member: usize, piece: Piece) -> Result<(), ExtractError> {
        self.batch_bytes += piece.bytes();
        self.batch.push((member, piece));
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
        let (reader, members, declared) = (self.reader, &self.members, self.declared);
        let done: Vec<(usize, Vec<Line>, Done)> = batch
            .into_par_iter()
            .map(|(member, piece)| {
                let key = &members[member].key.0;
                let mut done = reader.read(&key[members[member].path..], declared, piece);
                (member, lines(key, &mut done), done)
            })
            .collect();
        for (member, lines, done) in done {
            self.record(member, lines, done)?;
        }
        self.progress
            .report(self.report.documents, None, ProgressUnit::Documents);
        Ok(())
    }

    /// Counts and writes what became of a piece.
    fn record(&mut self, member: usize, lines: Vec<Line>, done: Done) -> Result<(), ExtractError> {
        let entry = &mut self.members[member];
        if entry.end == entry.start {
            (entry.start, entry.end) = (self.spooled, self.spooled);
        }
        for (why, times) in done.left_out {
            *self.report.left_out.entry(why.name().to_owned()).or_default() += times;
        }
        let path = &entry.key.0;
        let place = |at| match done.numbering {
            Numbering::Whole => Cow::Borrowed(path.as_str()),
            Numbering::Line => Cow::Owned(format!("{path}:{at}")),
            Numbering::Number => Cow::Owned(format!("{path}#{at}")),
        };
        let mut lines = lines.into_iter();
        for row in done.rows {
            if row.replaced > 0 {
                self.report.replaced(&mut entry.counts, row.replaced, &place(row.at));
            }
            match row.made {
                Err(Dropped { why, cause }) => {
                    if why == Skip::MissingField && entry.missing.is_none() {
                        entry.missing = Some(format!("{}: {cause}", place(row.at)));
                    }
                    self.report.dropped(&mut entry.counts, why, &place(row.at), &cause);
                }
                Ok(_) => {
                    let Some(line) = lines.next() else { continue };
                    let line = line?;
                    self.report.kept(&mut entry.counts, line.text);
                    self.spool.write_all(&line.bytes).map_err(FileError::writing(self.out))?;
                    self.spooled += line.bytes.len() as u64;
                }
            }
        }
        entry.end = self.spooled;
        Ok(())
    }

    /// Whether the rows were what the spec says that they are.
    fn check(&self, limits: ExtractLimits) -> Result<(), ExtractError> {
        let found = self.members.iter().find_map(|entry| entry.found.filter(|_| entry.counts.documents == 0));
        for entry in &self.members {
            let missing = entry.counts.dropped.get(Skip::MissingField.name()).copied().unwrap_or_default();
            let malformed = entry.counts.dropped.get(Skip::Malformed.name()).copied().unwrap_or_default();
            if let Some(cause) = &entry.missing
                && missing + malformed == entry.counts.rows
            {
                return Err(ExtractError::NoField {
                    member: entry.key.0.clone(),
                    rows: entry.counts.rows,
                    cause: cause.clone(),
                });
            }
        }
        let (malformed, rows) = (self.report.malformed(), self.report.rows);
        let most = u128::from(rows) * u128::from(limits.malformed_ppm) / 1_000_000;
        let first = |why: Skip| {
            let counted = self.report.dropped.get(why.name());
            counted.map(|counted| counted.first.clone()).unwrap_or_default()
        };
        if malformed > FEW && u128::from(malformed) > most || malformed > 0 && malformed == rows {
            return Err(ExtractError::Malformed {
                malformed,
                rows,
                limit: format!("{}%", f64::from(limits.malformed_ppm) / 10_000.0),
                first: first(Skip::Malformed),
                found,
            });
        }
        if self.report.documents == 0 {
            let causes = self.report.dropped.iter().map(|(reason, counted)| {
                let example = counted.first.first().map_or(String::new(), |first| format!(" ({first})"));
                format!("{} {}{example}", counted.rows, reason.replace('_', " "))
            });
            let names: Vec<&str> = self.members.iter().map(|entry| entry.key.0.as_str()).collect();
            return Err(ExtractError::NoDocument {
                members: select::listed(names.into_iter()),
                causes: causes.collect(),
                found,
            });
        }
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
        self.report.files = self.members.into_iter().map(|entry| entry.counts).collect();
        super::write_json(&out.join("report.json"), &self.report)
            .map_err(FileError::writing(&out.join("report.json")))?;
        Ok(self.report)
    }
}

/// A document as a line of `documents.jsonl`.
struct WrittenDocument {
    bytes: Vec<u8>,
    /// UTF-8 bytes of its text.
    text: u64,
}

type Line = Result<WrittenDocument, ExtractError>;

/// The lines of a piece's documents. Their texts are taken out of it.
fn lines(path: &str, done: &mut Done) -> Vec<Line> {
    let numbering = done.numbering;
    let made = done.rows.iter_mut().filter_map(|row| Some((row.at, row.made.as_mut().ok()?)));
    made.map(|(at, made)| {
        let made = std::mem::take(made);
        let id = made.id.unwrap_or_else(|| match numbering {
            Numbering::Whole => path.to_owned(),
            Numbering::Line => format!("{path}:{at}"),
            Numbering::Number => format!("{path}#{at}"),
        });
        let text = made.text.len() as u64;
        let document = Document {
            id,
            text: made.text,
            answer: made.answer,
        };
        let mut bytes = serde_json::to_vec(&document).map_err(|error| ExtractError::Read(error.into()))?;
        bytes.push(b'\n');
        Ok(WrittenDocument { bytes, text })
    })
    .collect()
}

/// A complete member.
fn whole(path: &str, bytes: &mut dyn Read) -> Result<Vec<u8>, ExtractError> {
    let whole = read_whole(bytes, MEMBER_LIMIT).map_err(ExtractError::Read)?;
    whole.ok_or_else(|| ExtractError::Large {
        member: path.to_owned(),
        limit: MEMBER_LIMIT,
    })
}

#[cfg(test)]
mod tests;
