//! Pages of HTML (and of XML that reads as HTML, such as Mallard): elements by CSS selector.
//!
//! One paragraph per block element. Untranslated paragraphs of translated manuals are in the original language: with
//! reference pages, a paragraph counts only if it differs from the reference paragraph with the same `id`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use aurora_compiler::fields::{ExtractFields, PageReference};
use ego_tree::iter::Edge;
use rayon::prelude::*;
use scraper::{ElementRef, Node, Selector};

use super::page::parse;
use super::{BATCH, ExtractError, Extracted, MEMBER_LIMIT, Skip};
use crate::data::encoding;
use crate::data::whitespace::{collapse, push_paragraph};
use crate::progress::ProgressReporter;
use crate::source::archive::{InputFile, MemberSelection, read_whole, walk};

/// What to read from pages, and the paragraphs of the reference pages.
pub(super) struct Pages {
    select: Selector,
    drop: Option<Selector>,
    reference: Option<Reference>,
}

struct Reference {
    pairing: PageReference,
    /// The first 16 bytes of BLAKE3 over path, id and text: 16 bytes per paragraph instead of the pages themselves.
    paragraphs: HashSet<[u8; 16]>,
    /// As `paragraphs`, of the pages' paths.
    pages: HashSet<[u8; 16]>,
    pairs: AtomicU64,
}

/// A block element's text, white space collapsed, and its `id`.
struct Paragraph {
    id: Option<String>,
    text: String,
}

impl Pages {
    pub(super) fn new(select: &str, drop: Option<&str>) -> Result<Self, ExtractError> {
        Ok(Self {
            select: selector(select)?,
            drop: drop.map(selector).transpose()?,
            reference: None,
        })
    }

    /// Reads the pages that match the patterns after `own` is replaced in them as in paths.
    pub(super) fn read_reference(
        &mut self,
        fields: &ExtractFields,
        pairing: &PageReference,
        files: &[InputFile],
        progress: ProgressReporter<'_>,
    ) -> Result<(), ExtractError> {
        let replaced = |patterns: &[String]| -> Vec<String> {
            patterns
                .iter()
                .map(|pattern| pattern.replace(&pairing.own, &pairing.other))
                .collect()
        };
        let selection = MemberSelection::new(&replaced(&fields.files), &replaced(&fields.exclude))?;
        let mut reference = Reference {
            pairing: pairing.clone(),
            paragraphs: HashSet::new(),
            pages: HashSet::new(),
            pairs: AtomicU64::new(0),
        };
        let mut batch: Vec<(String, Vec<u8>)> = Vec::new();
        let mut size = 0;
        let this = &*self;
        let declared = fields.encoding.as_deref().and_then(encoding::of_label);
        let mut flush = |batch: &mut Vec<(String, Vec<u8>)>| {
            let pages: Vec<([u8; 16], Vec<[u8; 16]>)> = std::mem::take(batch)
                .into_par_iter()
                .map(|(path, bytes)| {
                    // A page without paragraphs marks none of another page as untranslated.
                    let text = match encoding::of_html(&bytes, declared) {
                        Ok((encoding, mark)) => encoding::decode(bytes, encoding, mark).0,
                        Err(_) => String::new(),
                    };
                    let paragraphs = this.paragraphs(&text).unwrap_or_default();
                    let with_id = paragraphs
                        .into_iter()
                        .filter_map(|paragraph| paragraph.id.map(|id| digest(&[path.as_str(), &id, &paragraph.text])));
                    (digest(&[path.as_str()]), with_id.collect())
                })
                .collect();
            for (page, paragraphs) in pages {
                reference.pages.insert(page);
                reference.paragraphs.extend(paragraphs);
            }
        };
        walk::<ExtractError>(files, &selection, progress, &mut |_, path, reader| {
            let bytes = read_whole(reader, MEMBER_LIMIT).map_err(ExtractError::Read)?;
            let bytes = bytes.ok_or_else(|| ExtractError::Large {
                member: path.to_owned(),
                limit: MEMBER_LIMIT,
            })?;
            size += bytes.len();
            batch.push((path.to_owned(), bytes));
            if size >= BATCH {
                size = 0;
                flush(&mut batch);
            }
            Ok(())
        })?;
        flush(&mut batch);
        self.reference = Some(reference);
        Ok(())
    }

    pub(super) fn read(&self, path: &str, page: &str) -> Extracted {
        let mut extracted = Extracted::default();
        let reference = self.reference.as_ref().map(|reference| {
            let other = path.replace(&reference.pairing.own, &reference.pairing.other);
            if reference.pages.contains(&digest(&[other.as_str()])) {
                reference.pairs.fetch_add(1, Ordering::Relaxed);
            }
            (reference, other)
        });
        let mut text = String::new();
        let paragraphs = match self.paragraphs(page) {
            Ok(paragraphs) => paragraphs,
            Err(limit) => return Extracted::dropped(limit, ""),
        };
        for paragraph in paragraphs {
            if let (Some((reference, other)), Some(id)) = (&reference, &paragraph.id)
                && reference
                    .paragraphs
                    .contains(&digest(&[other.as_str(), id, &paragraph.text]))
            {
                extracted.leave_out(Skip::SameAsReference);
                continue;
            }
            push_paragraph(&mut text, &paragraph.text);
        }
        extracted.texts.push(text);
        extracted
    }

    /// Fails if no page has a reference page: every untranslated paragraph would count as a translation.
    pub(super) fn check_pairs(&self, pages: u64) -> Result<(), ExtractError> {
        match &self.reference {
            Some(reference) if pages > 0 && reference.pairs.load(Ordering::Relaxed) == 0 => {
                Err(ExtractError::NoPairs {
                    own: reference.pairing.own.clone(),
                    other: reference.pairing.other.clone(),
                })
            }
            _ => Ok(()),
        }
    }

    fn paragraphs(&self, page: &str) -> Result<Vec<Paragraph>, Skip> {
        let html = parse(page)?;
        let mut paragraphs = Vec::new();
        // The end of the element that was read: elements inside it were read with it.
        let selected: HashSet<_> = html.select(&self.select).map(|element| element.id()).collect();
        for element in html.select(&self.select) {
            if !element.ancestors().any(|ancestor| selected.contains(&ancestor.id())) {
                self.element(element, &mut paragraphs);
            }
        }
        Ok(paragraphs)
    }

    /// Walks an element without recursion: pages may be nested deeply.
    fn element(&self, element: ElementRef<'_>, paragraphs: &mut Vec<Paragraph>) {
        let mut blocks: Vec<Option<&str>> = Vec::new();
        let mut text = String::new();
        let mut dropped = 0usize;
        let mut flush = |text: &mut String, blocks: &[Option<&str>]| {
            let collapsed = collapse(text);
            text.clear();
            if !collapsed.is_empty() {
                paragraphs.push(Paragraph {
                    id: blocks.last().copied().flatten().map(str::to_owned),
                    text: collapsed,
                });
            }
        };
        for edge in element.traverse() {
            match edge {
                Edge::Open(node) => match node.value() {
                    Node::Text(piece) if dropped == 0 => text.push_str(&piece.text),
                    Node::Element(value) => {
                        if dropped > 0 || self.is_dropped(node) {
                            dropped += 1;
                        } else if is_block(value.name()) || blocks.is_empty() {
                            flush(&mut text, &blocks);
                            blocks.push(value.attr("id"));
                        } else if value.name() == "br" {
                            text.push(' ');
                        }
                    }
                    _ => {}
                },
                Edge::Close(node) => {
                    let Node::Element(value) = node.value() else { continue };
                    if dropped > 0 {
                        dropped -= 1;
                    } else if is_block(value.name()) || node.id() == element.id() {
                        flush(&mut text, &blocks);
                        blocks.pop();
                    }
                }
            }
        }
    }

    fn is_dropped(&self, node: ego_tree::NodeRef<'_, Node>) -> bool {
        let Some(element) = ElementRef::wrap(node) else {
            return false;
        };
        matches!(element.value().name(), "script" | "style" | "template" | "noscript")
            || self.drop.as_ref().is_some_and(|drop| drop.matches(&element))
    }
}

fn selector(text: &str) -> Result<Selector, ExtractError> {
    Selector::parse(text).map_err(|error| ExtractError::Selector {
        selector: text.to_owned(),
        cause: error.to_string(),
    })
}

fn digest(parts: &[&str]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut digest = [0; 16];
    hasher.finalize_xof().fill(&mut digest);
    digest
}

/// Elements that start a paragraph, including Mallard's.
fn is_block(name: &str) -> bool {
    matches!(
        name,
        "address"
            | "article"
            | "aside"
            | "blockquote"
            | "body"
            | "caption"
            | "dd"
            | "desc"
            | "details"
            | "div"
            | "dl"
            | "dt"
            | "figcaption"
            | "figure"
            | "footer"
            | "form"
            | "h1"
            | "h2"
            | "h3"
            | "h4"
            | "h5"
            | "h6"
            | "header"
            | "hr"
            | "info"
            | "item"
            | "li"
            | "main"
            | "nav"
            | "note"
            | "ol"
            | "p"
            | "page"
            | "pre"
            | "screen"
            | "section"
            | "steps"
            | "summary"
            | "table"
            | "tbody"
            | "td"
            | "terms"
            | "tfoot"
            | "th"
            | "thead"
            | "title"
            | "tr"
            | "ul"
    )
}
