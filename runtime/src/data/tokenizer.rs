//! Tokenizers, trained on documents or loaded, as a Hugging Face `tokenizer.json`; and the token files of documents.
//!
//! In: documents, or a published `tokenizer.json`. Out: `tokenizer.json` and `meta.json`; `tokens.bin`, `tokens.idx`,
//! `documents.idx` and `meta.json`. The bytes do not depend on the number of threads. Not here: how merges are learned (`bpe`), the format of token
//! files (`tokens`).

use std::collections::{BTreeMap, HashMap, HashSet};

use aurora_compiler::fields::{TokenizerFields, TokensFields};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use super::bpe;
use super::document_index::{DOCUMENT_INDEX, DocumentIndexWriter, id_digest};
use super::documents::{Batches, Document, DocumentsError};
use super::encoder::{Encoder, EncoderError, byte_characters, pre_tokenizer, words};
use super::tokens::{Mask, TokenWriter, TokensError};
use crate::errors::{BoxedError, FileError};
use crate::progress::{Cancelled, ProgressReporter, ProgressUnit};

#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error(transparent)]
    Documents(#[from] DocumentsError),
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error("training a tokenizer needs documents")]
    NoDocuments,
    #[error("loading a tokenizer needs a source")]
    NoSource,
    #[error("special tokens: {0}")]
    Special(String),
    #[error("a vocabulary of {vocabulary} is too small for 256 bytes and {special} special tokens")]
    SmallVocabulary { vocabulary: u32, special: usize },
    #[error("`{path}` is not a valid tokenizer")]
    NoTokenizer {
        path: String,
        #[source]
        source: EncoderError,
    },
    #[error("the tokenizer does not have the end-of-document token `{token}`")]
    NoEnd { token: String },
    #[error("the tokenizer has {found} entries, but the model's vocabulary only has {vocabulary}")]
    TooLarge { found: u32, vocabulary: u32 },
    #[error("cannot encode document `{id}`")]
    Encode {
        id: String,
        #[source]
        source: EncoderError,
    },
    #[error("document `{id}`: its answer does not begin at a character")]
    SplitCharacter { id: String },
    #[error("cannot create the tokenizer")]
    Make(#[source] BoxedError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// `meta.json` of a tokenizer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerMeta {
    /// Entries, including special tokens: one more than the largest id.
    pub vocabulary: u32,
    /// The token that ends every document, and its id.
    pub end_of_document: String,
    pub end_of_document_id: u32,
}

/// `meta.json` of token files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensMeta {
    pub documents: u64,
    /// Including end-of-document tokens.
    pub tokens: u64,
    /// UTF-8 bytes of the documents' texts.
    pub bytes: u64,
    pub end_of_document_id: u32,
    /// The model's vocabulary, which determines how many bytes a token takes.
    pub vocabulary: u32,
}

/// The input of a tokenizer.
#[derive(Clone, Copy, Debug)]
pub enum TokenizerInput<'a> {
    /// Files of documents, for training.
    Documents(&'a [Utf8PathBuf]),
    /// The bytes of a `tokenizer.json` that others have published.
    Json(&'a [u8]),
}

/// Trains or loads a tokenizer into the empty folder `out`.
///
/// # Errors
/// If an input is missing, unreadable or not a tokenizer, or does not fit the fields.
pub fn tokenizer(
    fields: &TokenizerFields,
    input: TokenizerInput<'_>,
    out: &Utf8Path,
    progress: ProgressReporter<'_>,
) -> Result<TokenizerMeta, TokenizerError> {
    let (json, end_of_document) = match (fields, input) {
        (
            TokenizerFields::TrainBpe {
                vocabulary,
                minimum_frequency,
                special,
            },
            TokenizerInput::Documents(documents),
        ) => {
            let json = train(*vocabulary, *minimum_frequency, special, documents, progress)?;
            (json.into_bytes(), special[0].clone())
        }
        (TokenizerFields::Load { end_of_document, .. }, TokenizerInput::Json(json)) => {
            (json.to_vec(), end_of_document.clone())
        }
        (TokenizerFields::TrainBpe { .. }, _) => return Err(TokenizerError::NoDocuments),
        (TokenizerFields::Load { .. }, _) => return Err(TokenizerError::NoSource),
    };
    let path = out.join("tokenizer.json");
    let encoder = parse(path.as_str(), &json)?;
    let Some(end_of_document_id) = encoder.tokenizer().token_to_id(&end_of_document) else {
        return Err(TokenizerError::NoEnd { token: end_of_document });
    };
    let meta = TokenizerMeta {
        vocabulary: encoder.vocabulary(),
        end_of_document,
        end_of_document_id,
    };
    std::fs::write(&path, json).map_err(FileError::writing(&path))?;
    write_meta(out, &meta)?;
    Ok(meta)
}

fn write_meta(out: &Utf8Path, meta: &impl Serialize) -> Result<(), FileError> {
    let path = out.join("meta.json");
    super::write_json(&path, meta).map_err(FileError::writing(&path))
}

fn parse(path: &str, json: &[u8]) -> Result<Encoder, TokenizerError> {
    Encoder::new(json).map_err(|source| TokenizerError::NoTokenizer {
        path: path.to_owned(),
        source,
    })
}

/// Reads a `tokenizer.json` as the runtime uses it.
///
/// # Errors
/// If it cannot be read or is not a tokenizer.
pub fn load(path: &Utf8Path) -> Result<Encoder, TokenizerError> {
    let json = std::fs::read(path).map_err(FileError::reading(path))?;
    parse(path.as_str(), &json)
}

fn train(
    vocabulary: u32,
    minimum_frequency: u32,
    special: &[String],
    documents: &[Utf8PathBuf],
    progress: ProgressReporter<'_>,
) -> Result<String, TokenizerError> {
    let make = TokenizerError::Make;
    let characters = byte_characters();
    let mut alphabet = characters;
    alphabet.sort_unstable();
    let mut forbidden = HashSet::new();
    for token in special {
        if token.is_empty() || !forbidden.insert(token.clone()) {
            return Err(TokenizerError::Special(format!("`{token}` is empty or occurs twice")));
        }
        if token.chars().count() == 1 {
            return Err(TokenizerError::Special(format!("`{token}` is a single character")));
        }
    }
    if special.is_empty() {
        return Err(TokenizerError::Special(
            "there must be one, which ends documents".to_owned(),
        ));
    }
    if (vocabulary as usize) < special.len() + alphabet.len() {
        return Err(TokenizerError::SmallVocabulary {
            vocabulary,
            special: special.len(),
        });
    }

    let mut texts: Vec<String> = special.to_vec();
    texts.extend(alphabet.iter().map(|c| c.to_string()));
    // In the order of the characters, as Hugging Face's trainer numbers them.
    let ids = characters.map(|c| (special.len() + alphabet.partition_point(|&other| other < c)) as u32);
    let symbols = count(documents, progress)?.into_iter().map(|(word, count)| {
        (
            word.bytes().map(|byte| ids[usize::from(byte)]).collect::<Vec<u32>>(),
            count,
        )
    });
    let total = u64::from(vocabulary);
    let merges = bpe::learn(
        bpe::Words::new(symbols),
        &mut texts,
        vocabulary as usize,
        u64::from(minimum_frequency),
        &forbidden,
        |merges| {
            if merges.is_multiple_of(256) {
                progress.report(merges as u64, Some(total), ProgressUnit::Merges);
            }
            !progress.is_cancelled()
        },
    );
    progress.check()?;
    let text = |id: u32| texts[id as usize].clone();
    let rules: Vec<(String, String)> = merges
        .iter()
        .map(|merge| (text(merge.pair.0), text(merge.pair.1)))
        .collect();
    let entries: tokenizers::models::bpe::Vocab = texts.iter().cloned().zip(0..).collect();
    let model = BPE::builder().vocab_and_merges(entries, rules).build().map_err(make)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer().map_err(|error| make(error.into()))?));
    tokenizer.with_decoder(Some(ByteLevel::new(false, false, false)));
    tokenizer.add_special_tokens(
        &special
            .iter()
            .map(|token| AddedToken::from(token.as_str(), true))
            .collect::<Vec<_>>(),
    );
    let mut json = tokenizer.to_string(true).map_err(make)?;
    json.push('\n');
    Ok(json)
}

/// How often each word occurs in the documents. Words are split as the tokenizer's pre-tokenizer splits them, but without
/// its offsets, which take ten times as long.
fn count(documents: &[Utf8PathBuf], progress: ProgressReporter<'_>) -> Result<BTreeMap<String, u64>, TokenizerError> {
    let pattern = words().map_err(|error| TokenizerError::Make(error.into()))?;
    let mut total: HashMap<String, u64> = HashMap::new();
    let mut done = 0;
    for path in documents {
        let mut batches = Batches::open(path)?;
        let counted = |document: Document| {
            let mut counts: HashMap<String, u64> = HashMap::new();
            for word in pattern.find_iter(&document.text) {
                match counts.get_mut(word.as_str()) {
                    Some(count) => *count += 1,
                    None => drop(counts.insert(word.as_str().to_owned(), 1)),
                }
            }
            counts
        };
        while let Some(batch) = batches.next(counted)? {
            progress.check()?;
            done += batch.len() as u64;
            // Sums do not depend on the order of a map.
            for (word, count) in batch.into_iter().flatten() {
                *total.entry(word).or_default() += count;
            }
            progress.report(done, None, ProgressUnit::Documents);
        }
    }
    Ok(total.into_iter().collect())
}

/// Encodes documents into `tokens.bin` and `tokens.idx` in the empty folder `out`; each ends with the end-of-document
/// token. A prompt and its answer are encoded separately, so that the answer begins with its own token in every tokenizer, and
/// special tokens in their text are encoded as special tokens. If there are such documents, `tokens.mask` has the tokens
/// that are trained on. `documents.idx` leads from each document to its line and from an id to its documents. Documents are encoded in parallel and written in order; memory holds one batch.
///
/// # Errors
/// If the tokenizer has more entries than the model, an input cannot be read, or the folder cannot be written.
pub fn tokens(
    fields: &TokensFields,
    documents: &[Utf8PathBuf],
    tokenizer: &Utf8Path,
    end_of_document_id: u32,
    out: &Utf8Path,
    progress: ProgressReporter<'_>,
) -> Result<TokensMeta, TokenizerError> {
    let encoder = load(tokenizer)?;
    let found = encoder.vocabulary();
    if found > fields.vocabulary {
        return Err(TokenizerError::TooLarge {
            found,
            vocabulary: fields.vocabulary,
        });
    }
    let mut mask = Mask::create(&out.join("tokens.mask"))?;
    let mut writer = TokenWriter::create(&out.join("tokens.bin"), &out.join("tokens.idx"), fields.vocabulary)?;
    let mut index = DocumentIndexWriter::create(&out.join(DOCUMENT_INDEX), documents.len())?;
    let mut bytes = 0;
    let mut done = 0;
    for path in documents {
        let mut batches = Batches::open(path)?;
        let encode = |document: Document, start: u64| {
            let failed = |source| TokenizerError::Encode {
                id: document.id.clone(),
                source,
            };
            // Special tokens in the text of pairs separate the turns of a conversation.
            let encode = |text: &str| match document.answer {
                Some(_) => encoder.encode_markup(text).map_err(failed),
                None => encoder.encode(text).map_err(failed),
            };
            let parts = document.text.split_at_checked(document.answer.unwrap_or(0));
            let (prompt, answer) = parts.ok_or_else(|| TokenizerError::SplitCharacter {
                id: document.id.clone(),
            })?;
            let mut ids = encode(prompt)?;
            let read = ids.len();
            ids.extend(encode(answer)?);
            ids.push(end_of_document_id);
            let place = (id_digest(&document.id), start);
            Ok::<_, TokenizerError>((ids, read, document.text.len() as u64, place))
        };
        while let Some(batch) = batches.next_located(encode)? {
            progress.check()?;
            for encoded in batch {
                let (ids, read, length, (digest, start)) = encoded?;
                index.push(digest, start)?;
                mask.push(read, ids.len() - read)?;
                done += ids.len() as u64;
                bytes += length;
                writer.push(&ids)?;
            }
            progress.report(done, None, ProgressUnit::Tokens);
        }
        index.end_file();
    }
    let written = writer.finish()?;
    mask.finish()?;
    index.finish()?;
    let meta = TokensMeta {
        documents: written.documents,
        tokens: written.tokens,
        bytes,
        end_of_document_id,
        vocabulary: fields.vocabulary,
    };
    write_meta(out, &meta)?;
    Ok(meta)
}

#[cfg(test)]
mod tests;
