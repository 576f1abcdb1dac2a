//! What became of every row of the sources: the counts of extractions and of corpora, from their results.
//!
//! In: the results of a graph. Out: for each corpus its sources, in the order of the spec, and its preparation. Not here: how
//! rows are counted (`data::extract`, `data::filter`).

use std::collections::BTreeMap;

use aurora_compiler::graph::{NodeId, NodeKind, NodeOrigin, Role};
use serde::{Deserialize, Serialize};

use crate::data::extract::ExtractReport;
use crate::data::filter::FilterReport;
use crate::results::{ResultError, Results};

/// Places that are shown of a source.
const EXAMPLES: usize = 5;

/// The counts of a corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusCounts {
    pub corpus: String,
    pub sources: Vec<SourceCounts>,
    pub prepared: FilterReport,
}

/// The counts of what a corpus reads from a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceCounts {
    pub corpus: String,
    pub source: String,
    /// Rows: lines, elements, table rows, pages or files, as the format has them.
    pub read: u64,
    /// Documents.
    pub kept: u64,
    /// UTF-8 bytes of their texts.
    pub bytes: u64,
    pub files: u64,
    /// Rows that became no document, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Rows in which invalid text became U+FFFD; they are kept.
    pub invalid_text: u64,
    /// Parts of documents that the format leaves out, by reason.
    pub left_out: BTreeMap<String, u64>,
    /// Links and members that are not read, by reason.
    pub not_read: BTreeMap<String, u64>,
    /// Files that have another encoding than UTF-8 by their bytes alone, by encoding.
    pub encodings: BTreeMap<String, u64>,
    /// The first places of dropped rows and invalid text, with their causes.
    pub first: Vec<String>,
}

impl SourceCounts {
    fn new(corpus: &str, source: &str, report: ExtractReport) -> Self {
        let dropped = report.dropped.iter();
        let invalid = report.invalid.unwrap_or_default();
        let places = invalid.first.iter().map(|place| format!("{place}: invalid text"));
        let first = dropped.clone().flat_map(|(_, counted)| counted.first.iter().cloned());
        let mut encodings = BTreeMap::new();
        for encoding in report.files.iter().filter_map(|file| file.encoding.clone()) {
            *encodings.entry(encoding).or_default() += 1;
        }
        Self {
            encodings,
            corpus: corpus.to_owned(),
            source: source.to_owned(),
            read: report.rows,
            kept: report.documents,
            bytes: report.bytes,
            files: report.matched,
            dropped: dropped
                .map(|(reason, counted)| (reason.clone(), counted.rows))
                .collect(),
            invalid_text: invalid.rows,
            left_out: report.left_out,
            not_read: report.not_read,
            first: first.chain(places).take(EXAMPLES).collect(),
        }
    }
}

/// The counts of every corpus of a graph, by name.
///
/// # Errors
/// A result is missing or cannot be read.
pub fn data_counts(results: &Results<'_>) -> Result<Vec<CorpusCounts>, ResultError> {
    let graph = &results.keyed.graph;
    let mut found = Vec::new();
    for id in graph.ids().filter(|id| graph.node(*id).kind() == NodeKind::Filter) {
        found.push(corpus_counts(results, id)?);
    }
    found.sort_by(|a, b| a.corpus.cmp(&b.corpus));
    Ok(found)
}

/// The counts of the corpus that a node prepares.
///
/// # Errors
/// As [`data_counts`].
pub fn corpus_counts(results: &Results<'_>, filter: NodeId) -> Result<CorpusCounts, ResultError> {
    let NodeOrigin::Filter { corpus } = &results.node(filter).origin else {
        return Err(results.fail(filter, "it is not a corpus"));
    };
    let mut sources = Vec::new();
    for extract in results.inputs(filter, &Role::Documents) {
        let NodeOrigin::Extract { source, .. } = &results.node(extract).origin else {
            return Err(results.fail(extract, "it is not an extraction"));
        };
        sources.push(SourceCounts::new(corpus, source, results.json(extract, "report.json")?));
    }
    Ok(CorpusCounts {
        corpus: corpus.clone(),
        sources,
        prepared: results.json(filter, "report.json")?,
    })
}

/// Counts by reason as text: "2 malformed, 1 null"; largest first.
pub fn by_reason<'c>(counts: impl Iterator<Item = (&'c String, u64)>) -> String {
    let mut counts: Vec<(u64, String)> = counts
        .map(|(reason, count)| (count, reason.replace('_', " ")))
        .collect();
    counts.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let counts: Vec<String> = counts
        .iter()
        .map(|(count, reason)| format!("{count} {reason}"))
        .collect();
    counts.join(", ")
}

impl CorpusCounts {
    /// What was dropped and changed, one line for each source and one for the preparation; nothing if every row is a document
    /// as it was.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for source in &self.sources {
            let mut what = Vec::new();
            if !source.dropped.is_empty() {
                what.push(by_reason(source.dropped.iter().map(|(reason, count)| (reason, *count))));
            }
            if source.invalid_text > 0 {
                what.push(format!("{} kept with U+FFFD for invalid text", source.invalid_text));
            }
            if !source.encodings.is_empty() {
                let files = by_reason(source.encodings.iter().map(|(encoding, count)| (encoding, *count)));
                what.push(format!("files without a mark, read by their bytes as: {files}"));
            }
            let parts = source.left_out.iter().chain(&source.not_read);
            if parts.clone().next().is_some() {
                what.push(format!(
                    "left out: {}",
                    by_reason(parts.map(|(reason, count)| (reason, *count)))
                ));
            }
            if !what.is_empty() {
                let example = source
                    .first
                    .first()
                    .map_or(String::new(), |first| format!(" ({first})"));
                lines.push(format!(
                    "corpus {} from {}: {} of {} rows are documents; {}{example}",
                    self.corpus,
                    source.source,
                    source.kept,
                    source.read,
                    what.join("; ")
                ));
            }
        }
        let prepared = &self.prepared;
        let kept = prepared.train.documents + prepared.held_out.documents;
        let mut what = Vec::new();
        if !prepared.dropped.is_empty() {
            let dropped = prepared.dropped.iter().map(|(reason, count)| (reason, count.documents));
            what.push(by_reason(dropped));
        }
        if !prepared.dropped_paragraphs.is_empty() {
            let dropped = prepared.dropped_paragraphs.iter();
            let dropped = by_reason(dropped.map(|(reason, count)| (reason, count.paragraphs)));
            what.push(format!("dropped paragraphs: {dropped}"));
        }
        if !prepared.changed.is_empty() {
            let changed = prepared.changed.iter().map(|(step, count)| (step, *count));
            what.push(format!("changed by: {}", by_reason(changed)));
        }
        if !what.is_empty() {
            lines.push(format!(
                "corpus {}: {kept} of {} documents after `prepare`; {}",
                self.corpus,
                prepared.read.documents,
                what.join("; ")
            ));
        }
        lines
    }
}
