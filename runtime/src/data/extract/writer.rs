//! Cuts members into pieces, has threads work on them, and counts and writes what becomes of them.
//!
//! In: members, one after the other. Out: `documents.jsonl` in the order of the members' paths, and `report.json`. Memory: one
//! batch of pieces, and one entry per member. Not here: what a piece means (`reader`).

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use aurora_compiler::fields::{ExtractFields, TextUnit};
use camino::Utf8Path;
use rayon::prelude::*;

use super::counts::{ExtractReport, FileCounts, Skip};
use super::reader::{Done, Piece, Reader, RowFormat};
use super::rows::Header;
use super::select::{Dropped, Selection, listed};
use super::{BATCH, ExtractError, ExtractLimits, FEW, MEMBER_LIMIT};
use crate::data::columns::{self, Rows, Wanted, WantedKind};
use crate::data::detect::detect;
use crate::data::documents::Document;
use crate::data::encoding::{self, Encoding, TextReader};
use crate::data::records::{Cut, CutError, Record, Records, is_blank};
use crate::data::write_json;
use crate::errors::FileError;
use crate::progress::{ProgressReporter, ProgressUnit};
use crate::regular;
use crate::source::archive::{self, InputFile, read_whole};

/// Bytes of a file that show what it is.
const BEGINNING: usize = 4096;

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
    /// The declared encoding, or the one that its bytes have.
    encoding: Option<Encoding>,
}

/// Collects members in batches, and their documents in an unnamed temporary file; at the end the documents are copied in the
/// order of their members' paths. Memory: one batch, and one entry per member.
pub(super) struct DocumentWriter<'a> {
    reader: &'a Reader,
    declared: Option<Encoding>,
    files: &'a [InputFile],
    progress: ProgressReporter<'a>,
    pub report: ExtractReport,
    limits: ExtractLimits,
    members: Vec<Entry>,
    /// Number of the member, and what to work on.
    batch: Vec<(usize, Piece)>,
    batch_bytes: usize,
    spool: BufWriter<File>,
    spooled: u64,
    out: &'a Utf8Path,
}

impl<'a> DocumentWriter<'a> {
    pub fn new(
        reader: &'a Reader,
        fields: &ExtractFields,
        files: &'a [InputFile],
        limits: ExtractLimits,
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
            limits,
            members: Vec::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            spool: BufWriter::with_capacity(1 << 20, spool),
            spooled: 0,
            out,
        })
    }

    pub fn member(&mut self, file: usize, path: &str, bytes: &mut dyn Read) -> Result<(), ExtractError> {
        // Two archives may have the same paths, so with several files the file's name comes first.
        let plain = archive::is_plain(&self.files[file].name);
        let id = if self.files.len() == 1 || plain {
            path.to_owned()
        } else {
            format!("{}/{path}", self.files[file].name)
        };
        let number = self.members.len();
        let mut bytes = BufReader::with_capacity(1 << 16, bytes);
        let mut first = Vec::with_capacity(BEGINNING);
        let read = (&mut bytes).take(BEGINNING as u64).read_to_end(&mut first);
        read.map_err(ExtractError::Read)?;
        let found = detect(&first, path);
        let unmarked = match self.reader {
            Reader::Mo => None,
            _ => self.declared.is_none().then(|| encoding::unmarked(&first)).flatten(),
        };
        let encoding = self.declared.or(unmarked);
        if !matches!(self.reader, Reader::Mo) {
            let sniffed = encoding::sniff(&first, encoding);
            sniffed.map_err(|error| ExtractError::Format {
                member: path.to_owned(),
                cause: error.to_string(),
            })?;
        }
        let mut bytes = first.as_slice().chain(bytes);
        self.members.push(Entry {
            path: id.len() - path.len(),
            counts: FileCounts {
                file: id.clone(),
                encoding: unmarked.map(|encoding| encoding.name().to_owned()),
                ..FileCounts::default()
            },
            key: (id, file, number),
            start: self.spooled,
            end: self.spooled,
            missing: None,
            found,
            encoding,
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
        }
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
                    kind: if selection.only_member() == Some(path) {
                        kind
                    } else {
                        WantedKind::Scalar
                    },
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
        while let Some(record) = records
            .next(Cut::Value)
            .map_err(|error| self.uncut(number, path, error))?
        {
            self.invalid(number, &record, &mut records);
            let at_any_depth = !records.is_in_list() && selection.only_member().is_some_and(|name| !name.contains('.'));
            let piece = match at_any_depth {
                true => Piece::JsonStrings(record),
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
            let delimiter = header.as_ref().map_or(declared, |header| Some(header.table.delimiter));
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
                    let first = first.map_err(|cause| ExtractError::Format {
                        member: path.to_owned(),
                        cause,
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
        let text = TextReader::new(bytes, self.members[number].encoding);
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

    pub fn flush(&mut self) -> Result<(), ExtractError> {
        self.progress.check()?;
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let (reader, members) = (self.reader, &self.members);
        let done: Vec<(usize, Vec<Line>, Done)> = batch
            .into_par_iter()
            .map(|(member, piece)| {
                let key = &members[member].key.0;
                let mut done = reader.read(&key[members[member].path..], members[member].encoding, piece);
                (member, lines(key, &mut done), done)
            })
            .collect();
        for (member, lines, done) in done {
            self.record(member, lines, done)?;
        }
        self.progress
            .report(self.report.documents, None, ProgressUnit::Documents);
        let malformed = self.report.malformed();
        if malformed > FEW && malformed == self.report.rows && self.limits.malformed_ppm < 1_000_000 {
            // Not one row so far is what the spec says: the rest is not read.
            return self.check();
        }
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
        let place = |at| done.numbering.place(path, at);
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
                    self.spool
                        .write_all(&line.bytes)
                        .map_err(FileError::writing(self.out))?;
                    self.spooled += line.bytes.len() as u64;
                }
            }
        }
        entry.end = self.spooled;
        Ok(())
    }

    /// Whether the rows were what the spec says that they are.
    pub fn check(&self) -> Result<(), ExtractError> {
        let is_lines = matches!(self.reader, Reader::Rows(Some(RowFormat::Jsonl), _));
        // What the spec says that it is explains nothing.
        let expected = |found: &str| is_lines && matches!(found, "JSON lines" | "a JSON object");
        let found = self.members.iter().filter(|entry| entry.counts.documents == 0);
        let found = found.filter_map(|entry| entry.found).find(|found| !expected(found));
        for entry in &self.members {
            let missing = entry
                .counts
                .dropped
                .get(Skip::MissingField.name())
                .copied()
                .unwrap_or_default();
            let malformed = entry
                .counts
                .dropped
                .get(Skip::Malformed.name())
                .copied()
                .unwrap_or_default();
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
        // The lines of a list: few of them, so that no limit would report them.
        let is_list = |entry: &&Entry| {
            entry.found == Some("a JSON array") && entry.counts.dropped.contains_key(Skip::Malformed.name())
        };
        if let Some(entry) = self.members.iter().filter(|_| is_lines).find(is_list) {
            return Err(ExtractError::Format {
                member: entry.key.0.clone(),
                cause: "its lines are not JSON objects; it looks like a JSON array; write `json(…)`".to_owned(),
            });
        }
        let (malformed, rows) = (self.report.malformed(), self.report.rows);
        let most = u128::from(rows) * u128::from(self.limits.malformed_ppm) / 1_000_000;
        let first = |why: Skip| {
            let counted = self.report.dropped.get(why.name());
            counted.map(|counted| counted.first.clone()).unwrap_or_default()
        };
        if malformed > FEW && u128::from(malformed) > most || malformed > 0 && malformed == rows {
            return Err(ExtractError::Malformed {
                malformed,
                rows,
                limit: format!("{}%", f64::from(self.limits.malformed_ppm) / 10_000.0),
                first: first(Skip::Malformed),
                found,
            });
        }
        if self.report.documents == 0 {
            let causes = self.report.dropped.iter().map(|(reason, counted)| {
                let example = counted
                    .first
                    .first()
                    .map_or(String::new(), |first| format!(" ({first})"));
                format!("{} {}{example}", counted.rows, reason.replace('_', " "))
            });
            let names: Vec<&str> = self.members.iter().map(|entry| entry.key.0.as_str()).collect();
            return Err(ExtractError::NoDocument {
                members: listed(names.into_iter()),
                causes: causes.collect(),
                found,
            });
        }
        Ok(())
    }

    pub fn finish(mut self, out: &Utf8Path) -> Result<ExtractReport, ExtractError> {
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
        write_json(&out.join("report.json"), &self.report).map_err(FileError::writing(&out.join("report.json")))?;
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
    let made = done
        .rows
        .iter_mut()
        .filter_map(|row| Some((row.at, row.made.as_mut().ok()?)));
    made.map(|(at, made)| {
        let made = std::mem::take(made);
        let id = made.id.unwrap_or_else(|| numbering.place(path, at));
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
