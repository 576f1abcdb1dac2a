//! Selects the documents of a corpus, and splits off the held-out ones.
//!
//! In: `documents.jsonl` of one or more extractions, in declared order. Out: `train.jsonl`, `held_out.jsonl`,
//! `inputs.json` with the kept documents of each extraction, and `report.json` with counts of what was dropped and why. Documents are checked in parallel and written in order, so that of
//! two equal units the first one is always kept. Not here: the words of a language (`language`).

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};

use aurora_compiler::exact::Exact;
use aurora_compiler::fields::{FilterFields, FilterUnit};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::documents::{Batches, Document, DocumentsError};
use super::language::looks_like;
use crate::errors::FileError;
use crate::progress::{Cancelled, ProgressReporter, ProgressUnit};

#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error(transparent)]
    Documents(#[from] DocumentsError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Documents and the UTF-8 bytes of their texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentCount {
    pub documents: u64,
    pub bytes: u64,
}

impl DocumentCount {
    fn add(&mut self, bytes: usize) {
        self.documents += 1;
        self.bytes += bytes as u64;
    }
}

/// The documents that the corpus keeps of one input: an element of `inputs.json`. The documents of an input follow each
/// other in both files, in the order of the inputs, so these counts say which source a document is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptOfInput {
    pub train: u64,
    pub held_out: u64,
}

/// The name of the file with the [kept documents](KeptOfInput) of each input.
pub const INPUTS: &str = "inputs.json";

/// Units (paragraphs or documents) and the UTF-8 bytes of their texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Units {
    pub units: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterReport {
    pub read: DocumentCount,
    pub train: DocumentCount,
    pub held_out: DocumentCount,
    /// By reason: `empty`, `too_short`, `language`, `duplicate`, `limit`.
    pub dropped: BTreeMap<String, Units>,
}

/// Why a unit (a document or a paragraph) is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DropReason {
    Empty,
    TooShort,
    Language,
    Duplicate,
    Limit,
}

impl DropReason {
    const ALL: [Self; 5] = [
        Self::Empty,
        Self::TooShort,
        Self::Language,
        Self::Duplicate,
        Self::Limit,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooShort => "too_short",
            Self::Language => "language",
            Self::Duplicate => "duplicate",
            Self::Limit => "limit",
        }
    }
}

/// A document as a thread returns it: each unit with its hash, or the reason why it is dropped.
struct UnitsOfDocument {
    document: Document,
    /// The end of each unit in the text.
    units: Vec<(std::ops::Range<usize>, Result<u128, DropReason>)>,
    held_out: bool,
}

/// Filters into the empty folder `out`. Memory: a batch of input, and 16 bytes (about 40 with the table around them) for
/// each kept unit if duplicates are dropped.
///
/// # Errors
/// If an input cannot be read or the folder cannot be written.
pub fn filter(
    fields: &FilterFields,
    inputs: &[Utf8PathBuf],
    out: &Utf8Path,
    progress: ProgressReporter<'_>,
) -> Result<FilterReport, FilterError> {
    let mut sink = Sink::new(fields, out)?;
    let bound = held_out_bound(fields.held_out);
    for path in inputs {
        let mut batches = Batches::open(path)?;
        while let Some(documents) = batches.next(|document| units_of(fields, bound, document))? {
            progress.check()?;
            for document in documents {
                sink.take(document)?;
            }
            progress.report(sink.report.read.documents, None, ProgressUnit::Documents);
        }
        sink.end_input();
    }
    sink.finish(out)
}

/// Documents whose hash, as a fraction of 2⁶⁴, is below this bound are held out; exact, without floats.
fn held_out_bound(share: Exact) -> u128 {
    let share = share.decimal();
    let scale = 10u128.pow(share.scale());
    let mantissa = u128::try_from(share.mantissa()).unwrap_or(0).min(scale);
    // mantissa < 2^96: the product is computed in two halves.
    let (high, low) = (mantissa / scale, mantissa % scale);
    let mut bound = high << 64;
    let mut rest = low;
    for bit in (0..64).rev() {
        rest *= 2;
        if rest >= scale {
            rest -= scale;
            bound |= 1 << bit;
        }
    }
    bound
}

fn units_of(fields: &FilterFields, held_out_bound: u128, document: Document) -> UnitsOfDocument {
    let text = &document.text;
    let ranges: Vec<std::ops::Range<usize>> = match fields.unit {
        FilterUnit::Document => std::iter::once(0..text.len()).collect(),
        FilterUnit::Paragraph => {
            let mut start = 0;
            text.split('\n')
                .map(|line| {
                    let range = start..start + line.len();
                    start = range.end + 1;
                    range
                })
                .collect()
        }
    };
    let units = ranges
        .into_iter()
        .map(|range| {
            let kept = unit_hash(fields, &text[range.clone()]);
            (range, kept)
        })
        .collect();
    // By the text as read: which other documents are kept does not move a document to the other split.
    let hash = blake3::hash(text.as_bytes());
    let mut word = [0; 8];
    word.copy_from_slice(&hash.as_bytes()[..8]);
    UnitsOfDocument {
        units,
        held_out: u128::from(u64::from_le_bytes(word)) < held_out_bound,
        document,
    }
}

/// The hash of a unit that the rules keep, or why they drop it. Duplicates and the limit depend on earlier units and
/// are checked in order by `Sink::take`.
fn unit_hash(fields: &FilterFields, unit: &str) -> Result<u128, DropReason> {
    if unit.trim().is_empty() {
        return Err(DropReason::Empty);
    }
    if unit.chars().take(fields.minimum_characters as usize).count() < fields.minimum_characters as usize {
        return Err(DropReason::TooShort);
    }
    if fields.language_filter && !looks_like(fields.language, unit) {
        return Err(DropReason::Language);
    }
    let mut digest = [0; 16];
    blake3::Hasher::new()
        .update(unit.as_bytes())
        .finalize_xof()
        .fill(&mut digest);
    Ok(u128::from_le_bytes(digest))
}

struct Sink<'a> {
    fields: &'a FilterFields,
    train: BufWriter<File>,
    held_out: BufWriter<File>,
    seen: HashSet<u128>,
    full: bool,
    report: FilterReport,
    dropped: [Units; DropReason::ALL.len()],
    inputs: Vec<KeptOfInput>,
    out: &'a Utf8Path,
}

impl<'a> Sink<'a> {
    fn new(fields: &'a FilterFields, out: &'a Utf8Path) -> Result<Self, FilterError> {
        let create = |name: &str| {
            let path = out.join(name);
            File::create(&path)
                .map(BufWriter::new)
                .map_err(FileError::writing(&path))
        };
        Ok(Self {
            fields,
            train: create("train.jsonl")?,
            held_out: create("held_out.jsonl")?,
            seen: HashSet::new(),
            full: false,
            report: FilterReport {
                read: DocumentCount::default(),
                train: DocumentCount::default(),
                held_out: DocumentCount::default(),
                dropped: BTreeMap::new(),
            },
            dropped: Default::default(),
            inputs: Vec::new(),
            out,
        })
    }

    /// The following documents are of the next input.
    fn end_input(&mut self) {
        let before = self.inputs.iter().fold((0, 0), |(train, held_out), input| {
            (train + input.train, held_out + input.held_out)
        });
        self.inputs.push(KeptOfInput {
            train: self.report.train.documents - before.0,
            held_out: self.report.held_out.documents - before.1,
        });
    }

    fn drop(&mut self, why: DropReason, bytes: usize) {
        let units = &mut self.dropped[why as usize];
        units.units += 1;
        units.bytes += bytes as u64;
    }

    fn take(&mut self, document: UnitsOfDocument) -> Result<(), FilterError> {
        let UnitsOfDocument {
            document,
            units,
            held_out,
        } = document;
        self.report.read.add(document.text.len());
        let mut kept = String::with_capacity(document.text.len());
        for (range, hash) in units {
            let unit = &document.text[range];
            let hash = match hash {
                Ok(_) if self.full => Err(DropReason::Limit),
                Ok(hash) if self.fields.deduplicate && !self.seen.insert(hash) => Err(DropReason::Duplicate),
                other => other,
            };
            match hash {
                Ok(_) => {
                    if !kept.is_empty() {
                        kept.push('\n');
                    }
                    kept.push_str(unit);
                }
                Err(why) => self.drop(why, unit.len()),
            }
        }
        if kept.is_empty() {
            return Ok(());
        }
        let (amount, file) = if held_out {
            (&mut self.report.held_out, &mut self.held_out)
        } else {
            (&mut self.report.train, &mut self.train)
        };
        amount.add(kept.len());
        let name = if held_out { "held_out.jsonl" } else { "train.jsonl" };
        let path = self.out.join(name);
        let writing = FileError::writing(&path);
        let mut line = serde_json::to_vec(&Document {
            id: document.id,
            // Pairs are never cut, so that the start of the answer stays valid.
            answer: document.answer,
            text: kept,
        })
        .map_err(|e| writing(e.into()))?;
        line.push(b'\n');
        file.write_all(&line).map_err(writing)?;
        let bytes = self.report.train.bytes + self.report.held_out.bytes;
        // The document that reaches the limit is the last one; it is kept completely.
        self.full = self.fields.limit_bytes.is_some_and(|limit| bytes >= limit);
        Ok(())
    }

    fn finish(mut self, out: &Utf8Path) -> Result<FilterReport, FilterError> {
        for (file, name) in [(&mut self.train, "train.jsonl"), (&mut self.held_out, "held_out.jsonl")] {
            let path = out.join(name);
            file.flush().map_err(FileError::writing(&path))?;
        }
        let dropped = DropReason::ALL.map(|why| (why.name().to_owned(), self.dropped[why as usize]));
        self.report.dropped = dropped.into_iter().filter(|(_, units)| units.units > 0).collect();
        let path = out.join(INPUTS);
        super::write_json(&path, &self.inputs).map_err(FileError::writing(&path))?;
        let path = out.join("report.json");
        super::write_json(&path, &self.report).map_err(FileError::writing(&path))?;
        Ok(self.report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aurora_compiler::fields::Language;

    fn fields() -> FilterFields {
        FilterFields {
            language: Language::Fi,
            language_filter: true,
            minimum_characters: 12,
            unit: FilterUnit::Paragraph,
            deduplicate: true,
            held_out: "0".parse().expect("a number"),
            limit_bytes: None,
        }
    }

    fn run(fields: &FilterFields, inputs: &[&[&str]]) -> (String, String, FilterReport) {
        let (train, held_out, report, _) = run_counted(fields, inputs);
        (train, held_out, report)
    }

    /// As `run`, with `inputs.json`.
    fn run_counted(fields: &FilterFields, inputs: &[&[&str]]) -> (String, String, FilterReport, Vec<KeptOfInput>) {
        let guard = tempfile::tempdir().expect("a temporary folder");
        let path = Utf8PathBuf::try_from(guard.path().to_owned()).expect("UTF-8");
        let mut paths = Vec::new();
        for (at, texts) in inputs.iter().enumerate() {
            let lines: String = texts
                .iter()
                .enumerate()
                .map(|(n, text)| {
                    let document = Document {
                        id: format!("{at}/{n}"),
                        text: (*text).to_owned(),
                        answer: None,
                    };
                    serde_json::to_string(&document).expect("JSON") + "\n"
                })
                .collect();
            paths.push(path.join(format!("{at}.jsonl")));
            std::fs::write(&paths[at], lines).expect("written");
        }
        let out = path.join("out");
        std::fs::create_dir(&out).expect("created");
        let report = filter(fields, &paths, &out, ProgressReporter::none()).expect("filtered");
        let read = |name: &str| std::fs::read_to_string(out.join(name)).expect("read");
        let kept = serde_json::from_str(&read(INPUTS)).expect("counts");
        (read("train.jsonl"), read("held_out.jsonl"), report, kept)
    }

    const A: &str = "Tämä lause on suomea, ja se on hyvä.";
    const B: &str = "Myös tämä toinen lause on suomea.";
    const ENGLISH: &str = "This sentence is not in the language that we want.";

    #[test]
    fn units_go_for_a_reason_and_the_first_of_equals_stays() {
        let first = format!("{A}\n{ENGLISH}\nlyhyt\n\n{B}");
        let (train, held_out, report) = run(&fields(), &[&[&first], &[A, B]]);
        assert_eq!(train, format!("{{\"id\":\"0/0\",\"text\":\"{A}\\n{B}\"}}\n"));
        assert_eq!(held_out, "");
        let expect = [
            ("duplicate", 2, A.len() + B.len()),
            ("empty", 1, 0),
            ("language", 1, ENGLISH.len()),
            ("too_short", 1, 5),
        ];
        let expect = expect.map(|(name, units, bytes)| {
            (
                name.to_owned(),
                Units {
                    units,
                    bytes: bytes as u64,
                },
            )
        });
        assert_eq!(report.dropped, expect.into_iter().collect());
        assert_eq!(report.read.documents, 3);
        assert_eq!(
            report.train,
            DocumentCount {
                documents: 1,
                bytes: (A.len() + B.len() + 1) as u64
            }
        );

        let mut whole = fields();
        whole.unit = FilterUnit::Document;
        let (train, _, report) = run(&whole, &[&[&first], &[A, A, B]]);
        assert_eq!(train.lines().count(), 2);
        assert_eq!(
            (report.dropped["duplicate"].units, report.dropped["language"].units),
            (1, 1)
        );
        whole.deduplicate = false;
        assert_eq!(run(&whole, &[&[A, A]]).0.lines().count(), 2);
        whole.language_filter = false;
        assert_eq!(run(&whole, &[&[ENGLISH]]).0.lines().count(), 1);
    }

    /// Which input a document is from follows from the counts: the files keep the order of the inputs.
    #[test]
    fn kept_documents_are_counted_by_input() {
        let mut fields = fields();
        (fields.language_filter, fields.unit) = (false, FilterUnit::Document);
        fields.held_out = "0.3".parse().expect("a number");
        let texts: Vec<String> = (0..60).map(|n| format!("document number {}", n % 50)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let inputs = [&texts[..20], &[], &texts[20..], &["short"]];
        let (train, held_out, _, kept) = run_counted(&fields, &inputs);
        let of = |lines: &str, input: usize| {
            let id = |line: &str| serde_json::from_str::<Document>(line).expect("a document").id;
            let ids: Vec<String> = lines.lines().map(id).collect();
            assert!(ids.is_sorted_by_key(|id| id.split('/').next().map(str::to_owned)));
            ids.iter().filter(|id| id.starts_with(&format!("{input}/"))).count() as u64
        };
        let counted: Vec<KeptOfInput> = (0..4)
            .map(|input| KeptOfInput {
                train: of(&train, input),
                held_out: of(&held_out, input),
            })
            .collect();
        assert_eq!(kept, counted);
        assert_eq!(kept.iter().map(|input| input.train + input.held_out).sum::<u64>(), 50);
    }

    #[test]
    fn the_limit_stops_after_the_document_that_reaches_it() {
        let mut fields = fields();
        fields.limit_bytes = Some(A.len() as u64);
        let (train, _, report) = run(&fields, &[&[A, B]]);
        assert_eq!(train.lines().count(), 1);
        assert_eq!(
            report.dropped["limit"],
            Units {
                units: 1,
                bytes: B.len() as u64
            }
        );
    }

    #[test]
    fn the_held_out_side_depends_on_the_text_alone() {
        let mut fields = fields();
        fields.held_out = "0.25".parse().expect("a number");
        (fields.language_filter, fields.minimum_characters) = (false, 0);
        let texts: Vec<String> = (0..2000).map(|i| format!("document number {i}")).collect();
        let all: Vec<&str> = texts.iter().map(String::as_str).collect();
        let (train, held_out, report) = run(&fields, &[&all]);
        assert_eq!(train.lines().count() + held_out.lines().count(), 2000);
        // Five standard deviations.
        assert!(
            (404..=596).contains(&report.held_out.documents),
            "{}",
            report.held_out.documents
        );
        let reversed: Vec<&str> = all.iter().rev().copied().collect();
        let texts_of = |lines: &str| -> std::collections::BTreeSet<String> {
            lines
                .lines()
                .map(|line| serde_json::from_str::<Document>(line).expect("a document").text)
                .collect()
        };
        assert_eq!(texts_of(&held_out), texts_of(&run(&fields, &[&reversed]).1));
        fields.held_out = "1".parse().expect("a number");
        assert_eq!(run(&fields, &[&all]).2.train.documents, 0);
    }

    #[test]
    fn the_bound_is_exact() {
        let bound = |fraction: &str| held_out_bound(fraction.parse().expect("a number"));
        assert_eq!(bound("0"), 0);
        assert_eq!(bound("1"), 1 << 64);
        assert_eq!(bound("0.5"), 1 << 63);
        assert_eq!(bound("0.02"), (1u128 << 64) / 50);
    }

    #[test]
    fn a_damaged_input_is_named() {
        let guard = tempfile::tempdir().expect("a temporary folder");
        let path = Utf8PathBuf::try_from(guard.path().join("x.jsonl")).expect("UTF-8");
        std::fs::write(&path, "{\"id\":\"a\",\"text\":\"b\"}\n{\"id\":").expect("written");
        let out = path.parent().expect("a folder").to_owned();
        let error = filter(&fields(), &[path], &out, ProgressReporter::none())
            .expect_err("refused")
            .to_string();
        assert!(error.starts_with("line 2 of `"), "{error}");
        assert!(error.ends_with("x.jsonl` is not a valid document"), "{error}");
    }
}
