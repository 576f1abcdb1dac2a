//! Prepares the documents of a corpus step by step, and splits off the held-out ones.
//!
//! In: `documents.jsonl` of one or more extractions, in declared order. Out: `train.jsonl`, `held_out.jsonl`, `inputs.json` with
//! the kept documents of each extraction, and `report.json`, which counts what was dropped and changed by step. Without steps every document stays as it is. Documents
//! are worked on in parallel and written in order, so that of two equal ones the first is always kept. Not here: how a language is
//! detected (`language`).

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};

use aurora_compiler::exact::Exact;
use aurora_compiler::fields::{FilterFields, FilterUnit, Step};
use camino::{Utf8Path, Utf8PathBuf};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::documents::{Batches, Document, DocumentsError};
use super::language::{Detector, UnknownDetector};
use super::whitespace::{collapse, reflow};
use crate::errors::FileError;
use crate::progress::{Cancelled, ProgressReporter, ProgressUnit};

/// Documents that a reason keeps as examples.
const EXAMPLES: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error(transparent)]
    Documents(#[from] DocumentsError),
    #[error(transparent)]
    Detector(#[from] UnknownDetector),
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

/// Paragraphs and the UTF-8 bytes of their texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParagraphCount {
    pub paragraphs: u64,
    pub bytes: u64,
}

/// Documents that are dropped for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DroppedDocuments {
    pub documents: u64,
    /// Bytes of their texts as they were read.
    pub bytes: u64,
    /// The first of them, by identifier.
    pub first: Vec<String>,
}

/// Counts of a preparation: `report.json` of its result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterReport {
    pub read: DocumentCount,
    pub train: DocumentCount,
    pub held_out: DocumentCount,
    /// Complete documents, by reason: `too_short`, `other_language`, `duplicate`, `no_paragraph_left`, `empty`, `limit`.
    pub dropped: BTreeMap<String, DroppedDocuments>,
    /// Paragraphs of documents that are kept or dropped, by reason.
    pub dropped_paragraphs: BTreeMap<String, ParagraphCount>,
    /// Documents whose text a step changed, by step.
    pub changed: BTreeMap<String, u64>,
}

/// Why a document or a paragraph is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    TooShort,
    Language,
    Duplicate,
    NoParagraphLeft,
    Empty,
    Limit,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::Language => "other_language",
            Self::Duplicate => "duplicate",
            Self::NoParagraphLeft => "no_paragraph_left",
            Self::Empty => "empty",
            Self::Limit => "limit",
        }
    }
}

/// A document between two steps.
struct Draft {
    document: Document,
    /// Bytes of the text as it was read.
    read: usize,
    held_out: bool,
    dropped: Option<Reason>,
    changed: Vec<&'static str>,
    paragraphs: Vec<(Reason, ParagraphCount)>,
}

impl Draft {
    /// By the text as read: no step moves a document to the other split.
    fn new(document: Document, held_out_bound: u128) -> Self {
        let hash = blake3::hash(document.text.as_bytes());
        let mut word = [0; 8];
        word.copy_from_slice(&hash.as_bytes()[..8]);
        Self {
            read: document.text.len(),
            document,
            held_out: u128::from(u64::from_le_bytes(word)) < held_out_bound,
            dropped: None,
            changed: Vec::new(),
            paragraphs: Vec::new(),
        }
    }

    /// Replaces the text.
    fn change(&mut self, text: String, step: &'static str) {
        if text == self.document.text {
            return;
        }
        self.changed.push(step);
        self.document.text = text;
        if self.document.text.is_empty() {
            self.dropped = Some(Reason::Empty);
        }
    }

    /// Keeps the paragraphs for which `why` has no reason.
    fn keep(&mut self, step: &'static str, mut why: impl FnMut(&str) -> Option<Reason>) {
        let mut kept = String::with_capacity(self.document.text.len());
        let (mut left, mut gone) = (0u64, 0u64);
        for paragraph in self.document.text.split('\n') {
            match why(paragraph) {
                None => {
                    if left > 0 {
                        kept.push('\n');
                    }
                    kept.push_str(paragraph);
                    left += 1;
                }
                Some(reason) => {
                    gone += 1;
                    let count = match self.paragraphs.iter().position(|(known, _)| *known == reason) {
                        Some(at) => &mut self.paragraphs[at].1,
                        None => {
                            self.paragraphs.push((reason, ParagraphCount::default()));
                            let last = self.paragraphs.len() - 1;
                            &mut self.paragraphs[last].1
                        }
                    };
                    count.paragraphs += 1;
                    count.bytes += paragraph.len() as u64;
                }
            }
        }
        if gone > 0 {
            self.changed.push(step);
            self.document.text = kept;
            if left == 0 {
                self.dropped = Some(Reason::NoParagraphLeft);
            }
        }
    }
}

/// A step that is ready for use.
enum Ready<'f> {
    /// Depends on one document alone.
    Own(&'f Step, Option<Detector>),
    /// Depends on the documents before.
    Deduplicate(FilterUnit, HashSet<u128>),
}

impl Ready<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Own(Step::Reflow, _) => "reflow",
            Self::Own(Step::Collapse { .. }, _) => "collapse",
            Self::Own(Step::Trim { .. }, _) => "trim",
            Self::Own(Step::Minimum { .. }, _) => "minimum",
            Self::Own(Step::Language { .. }, _) => "language",
            Self::Own(Step::Deduplicate { .. }, _) | Self::Deduplicate(..) => "deduplicate",
        }
    }

    /// The work of a step on one document.
    fn apply(&self, draft: &mut Draft) {
        let Self::Own(step, detector) = self else { return };
        if draft.dropped.is_some() {
            return;
        }
        let text = &draft.document.text;
        let name = self.name();
        let lines = |change: fn(&str) -> String| text.split('\n').map(change).collect::<Vec<_>>().join("\n");
        let trim = |text: &str| text.trim().to_owned();
        let too_short = |text: &str, least: u32| {
            let least = least as usize;
            (text.chars().take(least).count() < least).then_some(Reason::TooShort)
        };
        let foreign = |text: &str| {
            let is_own = detector.as_ref().is_none_or(|detector| detector.accepts(text));
            (!is_own).then_some(Reason::Language)
        };
        use FilterUnit::{Document, Paragraph};
        match step {
            Step::Reflow => draft.change(reflow(text), name),
            Step::Collapse { by: Document } => draft.change(collapse(text), name),
            Step::Collapse { by: Paragraph } => draft.change(lines(collapse), name),
            Step::Trim { by: Document } => draft.change(trim(text), name),
            Step::Trim { by: Paragraph } => draft.change(lines(trim), name),
            Step::Minimum {
                by: Document,
                characters,
            } => draft.dropped = too_short(text, *characters),
            Step::Minimum {
                by: Paragraph,
                characters,
            } => draft.keep(name, |text| too_short(text, *characters)),
            Step::Language { by: Document, .. } => draft.dropped = foreign(text),
            Step::Language { by: Paragraph, .. } => draft.keep(name, foreign),
            Step::Deduplicate { .. } => {}
        }
    }
}

/// Prepares into the empty folder `out`. Memory: a batch of input, and 16 bytes (about 40 with the table around them) for
/// each kept text that duplicates are compared with.
///
/// # Errors
/// If an input cannot be read, a detector is not known, or the folder cannot be written.
pub fn filter(
    fields: &FilterFields,
    inputs: &[Utf8PathBuf],
    out: &Utf8Path,
    progress: ProgressReporter<'_>,
) -> Result<FilterReport, FilterError> {
    filter_watched(fields, inputs, out, progress, &mut |_, _| {})
}

/// As [`filter`]; `dropped` is called with every document that is dropped, as it was read up to the step that drops it, and the
/// reason.
///
/// # Errors
/// As [`filter`].
pub fn filter_watched(
    fields: &FilterFields,
    inputs: &[Utf8PathBuf],
    out: &Utf8Path,
    progress: ProgressReporter<'_>,
    dropped: &mut dyn FnMut(&Document, &'static str),
) -> Result<FilterReport, FilterError> {
    let mut steps = ready(fields)?;
    let mut sink = Sink::new(fields, out)?;
    let bound = held_out_bound(fields.held_out);
    for path in inputs {
        let mut batches = Batches::open(path)?;
        while let Some(mut drafts) = batches.next(|document| Draft::new(document, bound))? {
            progress.check()?;
            for step in &mut steps {
                match step {
                    Ready::Deduplicate(by, seen) => deduplicate(*by, seen, &mut drafts),
                    own => drafts.par_iter_mut().for_each(|draft| own.apply(draft)),
                }
            }
            for draft in drafts {
                sink.take(draft, dropped)?;
            }
            progress.report(sink.report.read.documents, None, ProgressUnit::Documents);
        }
        sink.end_input();
    }
    sink.finish(out)
}

fn ready(fields: &FilterFields) -> Result<Vec<Ready<'_>>, FilterError> {
    let mut ready = Vec::new();
    for step in &fields.prepare {
        ready.push(match step {
            Step::Deduplicate { by } => Ready::Deduplicate(*by, HashSet::new()),
            Step::Language { detector, code, .. } => Ready::Own(step, Some(Detector::new(detector, code)?)),
            _ => Ready::Own(step, None),
        });
    }
    Ok(ready)
}

/// Drops repeats. The hashes are computed in parallel, and compared in the order of the documents.
fn deduplicate(by: FilterUnit, seen: &mut HashSet<u128>, drafts: &mut [Draft]) {
    let hashes = |draft: &Draft| -> Vec<u128> {
        let text = &draft.document.text;
        match by {
            _ if draft.dropped.is_some() => Vec::new(),
            FilterUnit::Document => vec![hash(text)],
            FilterUnit::Paragraph => text.split('\n').map(hash).collect(),
        }
    };
    let hashes: Vec<Vec<u128>> = drafts.par_iter().map(hashes).collect();
    for (draft, hashes) in drafts.iter_mut().zip(hashes) {
        let mut hashes = hashes.into_iter();
        let mut is_repeat = || hashes.next().is_some_and(|hash| !seen.insert(hash));
        match by {
            _ if draft.dropped.is_some() => {}
            FilterUnit::Document => draft.dropped = is_repeat().then_some(Reason::Duplicate),
            FilterUnit::Paragraph => draft.keep("deduplicate", |_| is_repeat().then_some(Reason::Duplicate)),
        }
    }
}

fn hash(text: &str) -> u128 {
    let mut digest = [0; 16];
    blake3::Hasher::new()
        .update(text.as_bytes())
        .finalize_xof()
        .fill(&mut digest);
    u128::from_le_bytes(digest)
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

struct Sink<'a> {
    fields: &'a FilterFields,
    train: BufWriter<File>,
    held_out: BufWriter<File>,
    full: bool,
    report: FilterReport,
    inputs: Vec<KeptOfInput>,
    out: &'a Utf8Path,
}

impl<'a> Sink<'a> {
    fn new(fields: &'a FilterFields, out: &'a Utf8Path) -> Result<Self, FilterError> {
        let create = |name: &str| {
            let path = out.join(name);
            File::create(&path)
                .map(|file| BufWriter::with_capacity(1 << 20, file))
                .map_err(FileError::writing(&path))
        };
        Ok(Self {
            fields,
            train: create("train.jsonl")?,
            held_out: create("held_out.jsonl")?,
            full: false,
            report: FilterReport::default(),
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

    fn take(&mut self, draft: Draft, dropped: &mut dyn FnMut(&Document, &'static str)) -> Result<(), FilterError> {
        self.report.read.add(draft.read);
        for (reason, count) in &draft.paragraphs {
            let all = self
                .report
                .dropped_paragraphs
                .entry(reason.name().to_owned())
                .or_default();
            all.paragraphs += count.paragraphs;
            all.bytes += count.bytes;
        }
        let full = self.full.then_some(Reason::Limit);
        if let Some(reason) = draft.dropped.or(full) {
            let all = self.report.dropped.entry(reason.name().to_owned()).or_default();
            all.documents += 1;
            all.bytes += draft.read as u64;
            if all.first.len() < EXAMPLES {
                all.first.push(draft.document.id.clone());
            }
            dropped(&draft.document, reason.name());
            return Ok(());
        }
        for step in &draft.changed {
            *self.report.changed.entry((*step).to_owned()).or_default() += 1;
        }
        let (amount, file) = if draft.held_out {
            (&mut self.report.held_out, &mut self.held_out)
        } else {
            (&mut self.report.train, &mut self.train)
        };
        amount.add(draft.document.text.len());
        let name = if draft.held_out {
            "held_out.jsonl"
        } else {
            "train.jsonl"
        };
        let path = self.out.join(name);
        let writing = FileError::writing(&path);
        let mut line = serde_json::to_vec(&draft.document).map_err(|e| writing(e.into()))?;
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

    fn fields(prepare: Vec<Step>) -> FilterFields {
        FilterFields {
            prepare,
            held_out: "0".parse().expect("a number"),
            limit_bytes: None,
        }
    }

    fn finnish(by: FilterUnit) -> Step {
        Step::Language {
            by,
            detector: "aurora 1".to_owned(),
            code: "fi".to_owned(),
        }
    }

    fn run(fields: &FilterFields, inputs: &[&[&str]]) -> (String, String, FilterReport) {
        let (train, held_out, report, _) = run_counted(fields, inputs);
        (train, held_out, report)
    }

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

    fn texts(lines: &str) -> Vec<String> {
        let document = |line| serde_json::from_str::<Document>(line).expect("a document").text;
        lines.lines().map(document).collect()
    }

    const A: &str = "Tämä lause on suomea, ja se on hyvä.";
    const B: &str = "Myös tämä toinen lause on suomea.";
    const ENGLISH: &str = "This sentence is not in the language that we want.";

    #[test]
    fn without_steps_every_document_stays_as_it_is() {
        let all = [" a \r\n\tb\u{2028} ", "a", "a", "", "\n\n"];
        let (train, _, report) = run(&fields(vec![]), &[&all]);
        assert_eq!(texts(&train), all);
        assert_eq!((report.read.documents, report.train), (5, report.read));
        assert!(report.dropped.is_empty() && report.changed.is_empty() && report.dropped_paragraphs.is_empty());
    }

    #[test]
    fn paragraphs_go_for_a_reason_and_the_first_of_equals_stays() {
        use FilterUnit::Paragraph;
        let steps = vec![
            Step::Minimum {
                by: Paragraph,
                characters: 12,
            },
            finnish(Paragraph),
            Step::Deduplicate { by: Paragraph },
        ];
        let first = format!("{A}\n{ENGLISH}\nlyhyt\n\n{B}");
        let (train, held_out, report) = run(&fields(steps), &[&[&first], &[A, B, &format!("{A}\r")]]);
        assert_eq!(texts(&train), [format!("{A}\n{B}"), format!("{A}\r")]);
        assert_eq!(held_out, "");
        let count = |reason: &str| {
            let count = report.dropped_paragraphs[reason];
            (count.paragraphs, count.bytes)
        };
        assert_eq!(count("duplicate"), (2, (A.len() + B.len()) as u64));
        assert_eq!(count("other_language"), (1, ENGLISH.len() as u64));
        assert_eq!(count("too_short"), (2, 5));
        let gone = &report.dropped["no_paragraph_left"];
        assert_eq!((gone.documents, gone.bytes), (2, (A.len() + B.len()) as u64));
        assert_eq!(gone.first, ["1/0", "1/1"]);
        assert_eq!(
            report.changed,
            [("language".to_owned(), 1), ("minimum".to_owned(), 1)].into()
        );
        assert_eq!((report.read.documents, report.train.documents), (4, 2));
    }

    #[test]
    fn documents_are_dropped_completely_and_in_the_order_of_the_steps() {
        use FilterUnit::Document;
        let minimum = Step::Minimum {
            by: Document,
            characters: 20,
        };
        let repeat = Step::Deduplicate { by: Document };
        let all = [A, "short", "short", A, ENGLISH, B];
        let (train, _, report) = run(
            &fields(vec![minimum.clone(), finnish(Document), repeat.clone()]),
            &[&all],
        );
        assert_eq!(texts(&train), [A, B]);
        let counts = |report: &FilterReport| -> Vec<(String, u64)> {
            let dropped = report.dropped.iter();
            dropped.map(|(reason, all)| (reason.clone(), all.documents)).collect()
        };
        let own = |expected: &[(&str, u64)]| -> Vec<(String, u64)> {
            expected
                .iter()
                .map(|(reason, count)| ((*reason).to_owned(), *count))
                .collect()
        };
        assert_eq!(
            counts(&report),
            own(&[("duplicate", 1), ("other_language", 1), ("too_short", 2)])
        );
        let (_, _, report) = run(&fields(vec![repeat, minimum]), &[&all]);
        assert_eq!(counts(&report), own(&[("duplicate", 2), ("too_short", 1)]));
    }

    #[test]
    fn texts_change_only_as_a_step_says() {
        use FilterUnit::{Document, Paragraph};
        let text = "  a  b\r\n c\t\n\n d ";
        let one = |step| texts(&run(&fields(vec![step]), &[&[text]]).0).remove(0);
        assert_eq!(one(Step::Reflow), "a b c\nd");
        assert_eq!(one(Step::Collapse { by: Document }), "a b c d");
        assert_eq!(one(Step::Collapse { by: Paragraph }), "a b\nc\n\nd");
        assert_eq!(one(Step::Trim { by: Document }), "a  b\r\n c\t\n\n d");
        assert_eq!(one(Step::Trim { by: Paragraph }), "a  b\nc\n\nd");
        let (train, _, report) = run(&fields(vec![Step::Trim { by: Document }]), &[&["x", " y", "  "]]);
        assert_eq!(texts(&train), ["x", "y"]);
        assert_eq!(report.changed, [("trim".to_owned(), 1)].into());
        assert_eq!(report.dropped["empty"].first, ["0/2"]);
    }

    /// Which input a document is from follows from the counts: the files keep the order of the inputs.
    #[test]
    fn kept_documents_are_counted_by_input() {
        let mut fields = fields(vec![Step::Deduplicate {
            by: FilterUnit::Document,
        }]);
        fields.held_out = "0.3".parse().expect("a number");
        let texts: Vec<String> = (0..60).map(|n| format!("document number {}", n % 50)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let inputs = [&texts[..20], &[], &texts[20..], &["document number 1"]];
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
        let mut fields = fields(vec![]);
        fields.limit_bytes = Some(A.len() as u64);
        let (train, _, report) = run(&fields, &[&[A, B]]);
        assert_eq!(train.lines().count(), 1);
        let limit = &report.dropped["limit"];
        assert_eq!((limit.documents, limit.bytes), (1, B.len() as u64));
    }

    #[test]
    fn the_held_out_side_depends_on_the_text_alone() {
        let mut fields = fields(vec![]);
        fields.held_out = "0.25".parse().expect("a number");
        let all: Vec<String> = (0..2000).map(|i| format!("document number {i}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let (train, held_out, report) = run(&fields, &[&all]);
        assert_eq!(train.lines().count() + held_out.lines().count(), 2000);
        // Five standard deviations.
        assert!(
            (404..=596).contains(&report.held_out.documents),
            "{}",
            report.held_out.documents
        );
        let reversed: Vec<&str> = all.iter().rev().copied().collect();
        let sorted = |lines: &str| {
            let mut all = texts(lines);
            all.sort();
            all
        };
        assert_eq!(sorted(&held_out), sorted(&run(&fields, &[&reversed]).1));
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
        let error = filter(&fields(vec![]), &[path], &out, ProgressReporter::none())
            .expect_err("refused")
            .to_string();
        assert!(error.starts_with("line 2 of `"), "{error}");
        assert!(error.ends_with("x.jsonl` is not a valid document"), "{error}");
    }
}
