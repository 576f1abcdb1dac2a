//! Sources, corpora and tokenizers.

use super::ViewError;
use super::reader::{At, Reader, SpecValues, own_name, own_names};
use crate::encodings::encoding_of_label;
use crate::fields::{
    ExtractFields, FilterFields, FilterUnit, Format, MemberFilter, PageReference, RowDocument, Step, TextUnit,
    TokenizerFields,
};
use crate::language;
use crate::spec::{BlockId, Spec};

pub struct SourceView {
    pub from: String,
    pub values: SpecValues,
}

pub fn source(spec: &Spec, id: &BlockId) -> Result<SourceView, ViewError> {
    let mut read = Reader::new(spec);
    let from = read.text(&read.at(id, "from")?)?;
    Ok(SourceView {
        from,
        values: read.values,
    })
}

pub struct CorpusView {
    pub filter: FilterFields,
    pub extractions: Vec<ExtractionView>,
    /// The values that the filter's fields were read from.
    pub values: SpecValues,
}

/// How documents are read from one source.
pub struct ExtractionView {
    pub source: BlockId,
    /// The source of the same pages in the reference language.
    pub reference: Option<BlockId>,
    pub fields: ExtractFields,
    pub values: SpecValues,
}

pub fn corpus(spec: &Spec, id: &BlockId) -> Result<CorpusView, ViewError> {
    let mut read = Reader::new(spec);
    let filter = FilterFields {
        prepare: steps(&mut read, id)?,
        held_out: read.exact(&read.at(id, "held_out")?)?,
        limit_bytes: read.optional(&read.at(id, "limit")?, Reader::whole)?,
    };
    let calls = read.elements(&read.at(id, "from")?);
    let extractions = calls.iter().map(|call| extraction(spec, call));
    Ok(CorpusView {
        filter,
        extractions: extractions.collect::<Result<_, _>>()?,
        values: read.values,
    })
}

/// The steps of a corpus. `paragraphs` is none itself: it says what the steps after it work on.
fn steps<'a>(read: &mut Reader<'a>, id: &BlockId) -> Result<Vec<Step>, ViewError> {
    let calls = read.elements(&read.at(id, "prepare")?);
    let mut by = FilterUnit::Document;
    let mut steps = Vec::new();
    for call in &calls {
        steps.push(match read.call_name(call) {
            Some("paragraphs") => {
                by = FilterUnit::Paragraph;
                continue;
            }
            Some("reflow") => Step::Reflow,
            Some("collapse") => Step::Collapse { by },
            Some("trim") => Step::Trim { by },
            Some("minimum") => Step::Minimum {
                by,
                characters: read.count(&read.argument(call, "characters")?)?,
            },
            Some("language") => {
                let at = read.at(id, "language")?;
                let detection = language::detection(&read.text(&at)?);
                let detection = detection.ok_or_else(|| at.error("a language that can be detected"))?;
                Step::Language {
                    by,
                    detector: detection.by.to_owned(),
                    code: detection.code.to_owned(),
                }
            }
            Some("deduplicate") => {
                let at = read.argument(call, "by")?;
                let own = read.optional(&at, |read, at| read.word(at, by))?;
                Step::Deduplicate { by: own.unwrap_or(by) }
            }
            _ => return Err(call.error("a step")),
        });
    }
    Ok(steps)
}

/// The template of a document's text, and its identifier.
fn document<'a>(read: &mut Reader<'a>, call: &At<'a>) -> Result<Option<RowDocument>, ViewError> {
    let field = read.optional(&read.argument(call, "field")?, Reader::text)?;
    let text = read.optional(&read.argument(call, "text")?, Reader::text)?;
    let id = read.optional(&read.argument(call, "id")?, Reader::text)?;
    let of_field = |field: String| format!("{{{field}}}");
    Ok(text
        .or_else(|| field.map(of_field))
        .map(|text| RowDocument { text, id }))
}

/// As [`document`], of a format whose text is the member `text` by default.
fn document_or_text<'a>(read: &mut Reader<'a>, call: &At<'a>) -> Result<RowDocument, ViewError> {
    if let Some(document) = document(read, call)? {
        return Ok(document);
    }
    Ok(RowDocument {
        text: "{text}".to_owned(),
        id: read.optional(&read.argument(call, "id")?, Reader::text)?,
    })
}

fn extraction<'a>(spec: &'a Spec, call: &At<'a>) -> Result<ExtractionView, ViewError> {
    let mut read = Reader::new(spec);
    let source = read.reference(&read.argument(call, "source")?)?;
    let mut reference = None;
    let format = match read.call_name(call) {
        Some("html") => {
            reference = read.optional(&read.argument(call, "reference")?, Reader::reference)?;
            Format::Html {
                select: read.text(&read.argument(call, "select")?)?,
                drop: read.optional(&read.argument(call, "drop")?, Reader::text)?,
                reference: match reference {
                    Some(_) => Some(PageReference {
                        own: read.text(&read.argument(call, "own")?)?,
                        other: read.text(&read.argument(call, "other")?)?,
                    }),
                    None => None,
                },
            }
        }
        Some("roff") => Format::Roff,
        Some("mo") => Format::Mo,
        Some("text") => {
            let by_line = read.flag(&read.argument(call, "by_line")?)?;
            let by_block = read.flag(&read.argument(call, "by_block")?)?;
            Format::Text {
                by: match (by_line, by_block) {
                    (true, _) => TextUnit::Line,
                    (_, true) => TextUnit::Block,
                    _ => TextUnit::File,
                },
            }
        }
        Some("code") => Format::Code,
        Some("jsonl") => Format::Jsonl(document_or_text(&mut read, call)?),
        Some("json") => document(&mut read, call)?.map_or(Format::JsonStrings, Format::Json),
        Some("csv") => Format::Csv {
            document: document_or_text(&mut read, call)?,
            delimiter: read.optional(&read.argument(call, "delimiter")?, Reader::text)?,
        },
        Some("parquet") => Format::Parquet(document_or_text(&mut read, call)?),
        Some("arrow") => Format::Arrow(document_or_text(&mut read, call)?),
        Some("pairs") => Format::Pairs {
            prompt: read.text(&read.argument(call, "prompt")?)?,
            answer: read.text(&read.argument(call, "answer")?)?,
            only: read.optional(&read.argument(call, "only")?, Reader::text)?.map(|only| {
                let (member, text) = only.split_once('=').unwrap_or((&only, ""));
                MemberFilter {
                    member: member.trim().to_owned(),
                    text: text.trim().to_owned(),
                }
            }),
            id: read.optional(&read.argument(call, "id")?, Reader::text)?,
        },
        _ => return Err(call.error("an extraction")),
    };
    let encoding = match read.argument(call, "encoding") {
        Ok(at) => read.optional(&at, Reader::text)?,
        // A format that is not text has none.
        Err(_) => None,
    };
    Ok(ExtractionView {
        reference,
        fields: ExtractFields {
            files: own_names(spec, &source, read.texts(&read.argument(call, "files")?)?),
            exclude: own_names(spec, &source, read.texts(&read.argument(call, "exclude")?)?),
            format,
            encoding: encoding.and_then(|label| encoding_of_label(&label)).map(str::to_owned),
        },
        source,
        values: read.values,
    })
}

pub struct TokenizerView {
    pub fields: TokenizerFields,
    pub inputs: TokenizerInputs,
    pub values: SpecValues,
}

pub enum TokenizerInputs {
    /// The corpora that it is trained on.
    Corpora(Vec<BlockId>),
    /// The source that holds its file.
    Source(BlockId),
}

pub fn tokenizer(spec: &Spec, id: &BlockId) -> Result<TokenizerView, ViewError> {
    let mut read = Reader::new(spec);
    let kind = read.at(id, "kind")?;
    let (fields, inputs) = match read.call_name(&kind) {
        Some("train_bpe") => (
            TokenizerFields::TrainBpe {
                vocabulary: read.count(&read.argument(&kind, "vocabulary")?)?,
                minimum_frequency: read.count(&read.argument(&kind, "minimum_frequency")?)?,
                special: read.texts(&read.argument(&kind, "special")?)?,
            },
            TokenizerInputs::Corpora(read.references(&read.at(id, "corpora")?)?),
        ),
        Some("load") => {
            let member = read.text(&read.argument(&kind, "member")?)?;
            let end_of_document = read.text(&read.argument(&kind, "end_of_document")?)?;
            let source = read.reference(&read.argument(&kind, "source")?)?;
            let member = own_name(spec, &source, member);
            let fields = TokenizerFields::Load {
                member,
                end_of_document,
            };
            (fields, TokenizerInputs::Source(source))
        }
        _ => return Err(kind.error("a kind of tokenizer")),
    };
    Ok(TokenizerView {
        fields,
        inputs,
        values: read.values,
    })
}
