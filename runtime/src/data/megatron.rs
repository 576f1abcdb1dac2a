//! Documents of Megatron's token files as text.
//!
//! In: a `.bin`/`.idx` pair, and the `tokenizer.json` that it was written with. Out: the text of each document. A
//! document whose text would be encoded to other ids is an error: then the tokenizer is another one, or the ids are not
//! text. Not here: the format of the files (`tokens`).

use std::ops::ControlFlow;

use camino::Utf8Path;

use super::encoder::{Encoder, EncoderError};
use super::tokens::{TokenFile, TokensError};

#[derive(Debug, thiserror::Error)]
pub enum MegatronError {
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error("the tokenizer cannot be read")]
    Tokenizer(#[source] EncoderError),
    #[error("the tokenizer does not have the end-of-document token `{token}`")]
    NoEnd { token: String },
    #[error("document {document} of `{bin}` cannot be decoded")]
    Decode {
        bin: String,
        document: u64,
        #[source]
        source: EncoderError,
    },
    #[error(
        "document {document} of `{bin}` has the token {token}, and the tokenizer has {vocabulary} entries: the files were \
         written with another tokenizer"
    )]
    Outside {
        bin: String,
        document: u64,
        token: i64,
        vocabulary: u32,
    },
    #[error(
        "document {document} of `{bin}` does not end with `{token}`: leave the end-of-document token out if the files were \
         written without `--append-eod`"
    )]
    NotEnded { bin: String, document: u64, token: String },
    #[error(
        "document {document} of `{bin}` does not come back: its token {at} (from 0) is {found}, and its text is encoded to \
         {encoded} there; the files were written with another tokenizer, or the document has special tokens or incomplete \
         characters"
    )]
    Different {
        bin: String,
        document: u64,
        at: usize,
        found: String,
        encoded: String,
    },
}

/// Calls `visit` with the number (from 1) and the text of every document, until it returns `Break`.
///
/// `end_of_document` is the token at the end of each document that is not part of its text, if the files have one.
///
/// # Errors
/// If a file is not what its name states, or a document does not come back from its text.
pub fn documents<E: From<MegatronError>>(
    bin: &Utf8Path,
    idx: &Utf8Path,
    tokenizer: &[u8],
    end_of_document: Option<&str>,
    visit: &mut dyn FnMut(u64, String) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    let file = TokenFile::open(bin, idx).map_err(MegatronError::from)?;
    let encoder = Encoder::new(tokenizer).map_err(MegatronError::Tokenizer)?;
    let end = match end_of_document {
        None => None,
        Some(token) => {
            let no_end = || MegatronError::NoEnd {
                token: token.to_owned(),
            };
            Some((token, encoder.tokenizer().token_to_id(token).ok_or_else(no_end)?))
        }
    };
    let reader = Reader {
        bin,
        file: &file,
        vocabulary: encoder.vocabulary(),
        encoder: &encoder,
        end,
    };
    for number in 1..=file.num_documents() {
        if visit(number, reader.text(number)?)?.is_break() {
            break;
        }
    }
    Ok(())
}

struct Reader<'a> {
    bin: &'a Utf8Path,
    file: &'a TokenFile,
    encoder: &'a Encoder,
    vocabulary: u32,
    end: Option<(&'a str, u32)>,
}

impl Reader<'_> {
    /// The text of a document, by its number from 1.
    fn text(&self, document: u64) -> Result<String, MegatronError> {
        let bin = || self.bin.to_string();
        let range = self.file.document(document - 1)?;
        let mut tokens = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        self.file.read(range.start, &mut tokens)?;
        let id = |&token: &i64| {
            let id = u32::try_from(token).ok().filter(|&id| id < self.vocabulary);
            id.ok_or_else(|| MegatronError::Outside {
                bin: bin(),
                document,
                token,
                vocabulary: self.vocabulary,
            })
        };
        let mut ids: Vec<u32> = tokens.iter().map(id).collect::<Result<_, _>>()?;
        if let Some((token, end)) = self.end
            && ids.pop() != Some(end)
        {
            return Err(MegatronError::NotEnded {
                bin: bin(),
                document,
                token: token.to_owned(),
            });
        }
        let decoding = |source| MegatronError::Decode {
            bin: bin(),
            document,
            source,
        };
        let text = self.encoder.decode(&ids).map_err(decoding)?;
        let encoded = self.encoder.encode(&text).map_err(decoding)?;
        if encoded != ids {
            let same = ids.iter().zip(&encoded).take_while(|(found, encoded)| found == encoded);
            let at = same.count();
            let shown = |ids: &[u32]| ids.get(at).map_or("nothing".to_owned(), u32::to_string);
            return Err(MegatronError::Different {
                bin: bin(),
                document,
                at,
                found: shown(&ids),
                encoded: shown(&encoded),
            });
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::*;
    use crate::data::tokens::TokenWriter;
    use crate::errors::chain;

    /// Bytes as tokens: `!` is 0, the merge `ab` is 256, and `<|end|>` is 257.
    fn tokenizer() -> Vec<u8> {
        let characters = crate::data::encoder::byte_characters();
        let mut vocabulary: serde_json::Map<String, serde_json::Value> = (0..256)
            .map(|byte: usize| (characters[byte].to_string(), byte.into()))
            .collect();
        vocabulary.insert("ab".to_owned(), 256.into());
        let added = serde_json::json!({
            "id": 257, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        });
        let level = serde_json::json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false
        });
        let model = serde_json::json!({
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": [["a", "b"]]
        });
        serde_json::to_vec(&serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [added], "normalizer": null,
            "pre_tokenizer": level, "post_processor": null, "decoder": level, "model": model
        }))
        .expect("JSON")
    }

    fn read(documents: &[&[u32]], vocabulary: u32, end: Option<&str>) -> Result<Vec<(u64, String)>, MegatronError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| Utf8PathBuf::try_from(folder.path().join(name)).expect("UTF-8");
        let (bin, idx) = (path("x.bin"), path("x.idx"));
        let mut writer = TokenWriter::create(&bin, &idx, vocabulary).expect("created");
        for document in documents {
            writer.push(document).expect("written");
        }
        writer.finish().expect("written");
        let mut all = Vec::new();
        super::documents::<MegatronError>(&bin, &idx, &tokenizer(), end, &mut |number, text| {
            all.push((number, text));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(all)
    }

    const END: Option<&str> = Some("<|end|>");

    /// By hand: the bytes of "é" are 0xc3 0xa9.
    #[test]
    fn documents_come_back_as_text() {
        let documents: [&[u32]; 3] = [&[0xc3, 0xa9, 10, 256, 257], &[32, 32, 97, 257], &[257]];
        let expected = [(1, "é\nab".to_owned()), (2, "  a".to_owned()), (3, String::new())];
        for vocabulary in [300, 70_000] {
            assert_eq!(read(&documents, vocabulary, END).expect("read"), expected);
        }
        let plain = read(&[&[256, 98], &[97]], 300, None).expect("read");
        assert_eq!(plain, [(1, "abb".to_owned()), (2, "a".to_owned())]);
    }

    #[test]
    fn documents_that_do_not_come_back_are_named() {
        for (document, cause) in [
            (
                &[97, 98, 257][..],
                "its token 0 (from 0) is 97, and its text is encoded to 256 there",
            ),
            (&[0xc3, 257], "does not come back"),
            (&[257, 97, 257], "does not come back"),
            (&[97], "does not end with `<|end|>`"),
            (&[97, 258, 257], "has the token 258, and the tokenizer has 258 entries"),
        ] {
            let error = chain(&read(&[&[97, 257], document], 300, END).expect_err("another tokenizer"));
            assert!(error.contains("document 2 of"), "{error}");
            assert!(error.contains(cause), "{error}");
        }
        let error = chain(&read(&[&[97]], 300, Some("<eos>")).expect_err("no such token"));
        assert!(error.contains("end-of-document token `<eos>`"), "{error}");
    }
}
