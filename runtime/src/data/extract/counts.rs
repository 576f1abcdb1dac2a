//! What extraction counts: rows by file, and why some became no document.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Places that a reason keeps as examples.
const EXAMPLES: usize = 5;

/// Counts of an extraction: `report.json` of its result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtractReport {
    /// Regular members of the source's files, selected by the patterns or not.
    pub members: u64,
    /// Members that the patterns select.
    pub matched: u64,
    /// Links, and members with unreadable names, by reason; they are not read.
    pub not_read: BTreeMap<String, u64>,
    /// Rows: lines, elements, table rows, pages or files, as the format has them. A blank line is none.
    pub rows: u64,
    pub documents: u64,
    /// UTF-8 bytes of the documents' texts.
    pub bytes: u64,
    /// Rows that became no document, by reason.
    pub dropped: BTreeMap<String, Counted>,
    /// Rows with bytes or escapes that are no text: each such sequence became U+FFFD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid: Option<InvalidText>,
    /// Parts of documents that the format leaves out, by reason.
    pub left_out: BTreeMap<String, u64>,
    /// By file, in the order of the documents.
    pub files: Vec<FileCounts>,
}

/// Rows of one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counted {
    pub rows: u64,
    /// The first of them as `FILE:LINE: cause`.
    pub first: Vec<String>,
}

impl Counted {
    fn add(&mut self, example: impl FnOnce() -> String) {
        self.rows += 1;
        if self.first.len() < EXAMPLES {
            self.first.push(example());
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvalidText {
    pub rows: u64,
    /// U+FFFD that were put for invalid sequences.
    pub replaced: u64,
    /// The first of the rows as `FILE:LINE`.
    pub first: Vec<String>,
}

/// Counts of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileCounts {
    pub file: String,
    /// The encoding that its bytes have without a mark and a declaration, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    pub rows: u64,
    pub documents: u64,
    pub bytes: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replaced: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Why a row is not a document, or a part of one is left out; reports have these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Skip {
    /// Not what the format is, or a value of another type.
    Malformed,
    MissingField,
    Null,
    Empty,
    NotWanted,
    LargePage,
    Depth,
    Nodes,
    Attributes,
    // Parts.
    SameAsReference,
    Untranslated,
    InvalidMessage,
}

impl Skip {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Malformed => MALFORMED,
            Self::MissingField => "missing_field",
            Self::Null => "null",
            Self::Empty => "empty",
            Self::NotWanted => "not_wanted",
            Self::LargePage => "page_too_large",
            Self::Depth => "page_nested_too_deeply",
            Self::Nodes => "page_with_too_many_elements",
            Self::Attributes => "page_with_too_many_attributes",
            Self::SameAsReference => "paragraphs_same_as_reference",
            Self::Untranslated => "untranslated_messages",
            Self::InvalidMessage => "messages_not_utf8",
        }
    }
}

/// The reason of malformed rows.
pub(super) const MALFORMED: &str = "malformed";

impl ExtractReport {
    pub(super) fn dropped(&mut self, file: &mut FileCounts, why: Skip, place: &str, cause: &str) {
        self.rows += 1;
        file.rows += 1;
        *file.dropped.entry(why.name().to_owned()).or_default() += 1;
        self.dropped
            .entry(why.name().to_owned())
            .or_default()
            .add(|| match cause {
                "" => place.to_owned(),
                cause => format!("{place}: {cause}"),
            });
    }

    pub(super) fn kept(&mut self, file: &mut FileCounts, bytes: u64) {
        self.rows += 1;
        self.documents += 1;
        self.bytes += bytes;
        file.rows += 1;
        file.documents += 1;
        file.bytes += bytes;
    }

    pub(super) fn replaced(&mut self, file: &mut FileCounts, replaced: u64, place: &str) {
        let invalid = self.invalid.get_or_insert_default();
        invalid.rows += 1;
        invalid.replaced += replaced;
        file.replaced += replaced;
        if invalid.first.len() < EXAMPLES {
            invalid.first.push(place.to_owned());
        }
    }

    pub(super) fn malformed(&self) -> u64 {
        self.dropped.get(MALFORMED).map_or(0, |counted| counted.rows)
    }
}
