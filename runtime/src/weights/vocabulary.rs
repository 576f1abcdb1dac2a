//! The tokenizer inside a GGUF file, as a `tokenizer.json`.
//!
//! In: a GGUF file. Out: the same vocabulary and merges in Hugging Face's format. Only byte-level BPE with a known
//! pre-tokenizer is supported: another one would silently give other tokens.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::WeightsError;
use super::gguf::{Fact, Gguf};
use crate::data::encoder::parse;
use crate::errors::chain;
use crate::source::archive::{InputFile, MemberError, read_member};

/// The largest `tokenizer.json` that is read.
const TOKENIZER_LIMIT: u64 = 1 << 30;

/// A published tokenizer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PublishedTokenizerError {
    #[error(transparent)]
    Member(#[from] MemberError),
    #[error(transparent)]
    Gguf(#[from] Box<WeightsError>),
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
}

/// The `tokenizer.json` that is the member of a source, or is made from the tokenizer inside a GGUF file.
///
/// # Errors
/// [`PublishedTokenizerError`].
pub fn published_tokenizer(files: &[InputFile], member: &str) -> Result<Vec<u8>, PublishedTokenizerError> {
    if !member.ends_with(".gguf") {
        return Ok(read_member(files, member, TOKENIZER_LIMIT)?);
    }
    let gguf = Gguf::open(files, member).map_err(Box::new)?;
    Ok(tokenizer_json(&gguf)?.into_bytes())
}

#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    #[error("`{file}` does not contain a tokenizer (`{key}` is missing): load a `tokenizer.json` instead")]
    Missing { file: String, key: &'static str },
    #[error(
        "the tokenizer of `{file}` is of kind `{found}`; supported is byte-level BPE with the pre-tokenizers `gpt-2`, \
         `smollm`, `starcoder` and `refact`: load its `tokenizer.json` instead"
    )]
    Kind { file: String, found: String },
    #[error("the tokenizer of `{file}` is damaged: {what}; fetch it again")]
    Damaged { file: String, what: String },
}

/// Kinds of entries, as GGUF numbers them.
const CONTROL: i128 = 3;
const USER_DEFINED: i128 = 4;

/// Writes the `tokenizer.json` of a GGUF file.
///
/// # Errors
/// [`VocabularyError`].
pub fn tokenizer_json(gguf: &Gguf) -> Result<String, VocabularyError> {
    let file = || gguf.file().to_owned();
    let missing = |key| VocabularyError::Missing { file: file(), key };
    let damaged = |what: String| VocabularyError::Damaged { file: file(), what };
    let text = |key: &'static str| match gguf.fact(key) {
        Some(Fact::Text(text)) => Ok(text.as_str()),
        _ => Err(missing(key)),
    };
    let kind = text("tokenizer.ggml.model")?;
    if kind != "gpt2" {
        let found = kind.to_owned();
        return Err(VocabularyError::Kind { file: file(), found });
    }
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let cut = match text("tokenizer.ggml.pre")? {
        "gpt-2" => byte_level.clone(),
        "smollm" | "starcoder" | "refact" => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            json!({"type": "Sequence", "pretokenizers": [digits, byte_level]})
        }
        other => {
            let found = other.to_owned();
            return Err(VocabularyError::Kind { file: file(), found });
        }
    };
    let list = |key: &'static str| match gguf.fact(key) {
        Some(Fact::List(list)) => Ok(list),
        _ => Err(missing(key)),
    };
    let (tokens, merges) = (list("tokenizer.ggml.tokens")?, list("tokenizer.ggml.merges")?);
    let kinds = list("tokenizer.ggml.token_type")?;
    if kinds.len() != tokens.len() {
        return Err(damaged(format!(
            "{} tokens, but kinds of {}",
            tokens.len(),
            kinds.len()
        )));
    }
    let mut vocabulary: BTreeMap<&str, usize> = BTreeMap::new();
    let mut added: Vec<Value> = Vec::new();
    for (id, (token, kind)) in tokens.iter().zip(kinds).enumerate() {
        let Fact::Text(token) = token else {
            return Err(damaged(format!("token {id} is not a text")));
        };
        if vocabulary.insert(token, id).is_some() {
            return Err(damaged(format!("token `{token}` occurs twice")));
        }
        let special = *kind == Fact::Integer(CONTROL);
        if special || *kind == Fact::Integer(USER_DEFINED) {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special,
            }));
        }
    }
    let mut pairs = Vec::new();
    for merge in merges {
        let Fact::Text(merge) = merge else {
            return Err(damaged("a merge is not a text".to_owned()));
        };
        let pair = merge.split_once(' ');
        let known = |part: &str| vocabulary.contains_key(part);
        match pair.filter(|(left, right)| known(left) && known(right) && known(&format!("{left}{right}"))) {
            Some((left, right)) => pairs.push(json!([left, right])),
            None => return Err(damaged(format!("merge `{merge}` does not join two tokens to a token"))),
        }
    }
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": cut,
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": pairs,
        },
    });
    // Parsed and written by the crate, which checks the tokenizer and determines the order of its file.
    let read = parse(tokenizer.to_string().as_bytes()).map_err(|error| damaged(chain(&error)))?;
    let mut text = read.to_string(true).map_err(|error| damaged(error.to_string()))?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_tokenizer_is_the_member_of_its_source() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = camino::Utf8Path::from_path(folder.path()).expect("UTF-8");
        let path = folder.join("tokenizer.json");
        std::fs::write(&path, "{}").expect("written");
        let files = [InputFile::from(path.as_path())];
        assert_eq!(published_tokenizer(&files, "tokenizer.json").expect("read"), b"{}");
        assert!(matches!(
            published_tokenizer(&files, "other.json"),
            Err(PublishedTokenizerError::Member(MemberError::Missing { .. }))
        ));
    }
}
