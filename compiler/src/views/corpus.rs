//! Sources, corpora and tokenizers.

use super::ViewError;
use super::reader::{At, Reader, SpecValues, own_name, own_names};
use crate::fields::{
    ExtractFields, FilterFields, FilterUnit, Format, Language, MemberFilter, PageReference, TokenizerFields,
};
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
        language: read.word(&read.at(id, "language")?, Language::Other)?,
        language_filter: read.flag(&read.at(id, "language_filter")?)?,
        minimum_characters: read.count(&read.at(id, "minimum")?)?,
        unit: read.word(&read.at(id, "unit")?, FilterUnit::Paragraph)?,
        deduplicate: read.flag(&read.at(id, "deduplicate")?)?,
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
        Some("text") => Format::Text {
            by_line: read.flag(&read.argument(call, "by_line")?)?,
        },
        Some("code") => Format::Code,
        Some("jsonl") => Format::Jsonl {
            field: read.text(&read.argument(call, "field")?)?,
        },
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
        },
        Some("json") => Format::Json {
            field: read.optional(&read.argument(call, "field")?, Reader::text)?,
        },
        _ => return Err(call.error("an extraction")),
    };
    Ok(ExtractionView {
        reference,
        fields: ExtractFields {
            files: own_names(spec, &source, read.texts(&read.argument(call, "files")?)?),
            exclude: own_names(spec, &source, read.texts(&read.argument(call, "exclude")?)?),
            format,
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
