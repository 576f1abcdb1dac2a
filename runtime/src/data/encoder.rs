//! Text to token ids with a `tokenizer.json`.
//!
//! In: a tokenizer, text. Out: exactly the ids of the `tokenizers` crate; text that contains a special token is encoded as
//! text. For tokenizers that Aurora has trained, a regular automaton splits words and their ids are cached, which is many
//! times faster; other tokenizers use the crate. Not here: files (`tokenizer`).

use std::collections::HashMap;
use std::sync::Mutex;

use regex::Regex;
use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{Model, SplitDelimiterBehavior, Tokenizer};

use crate::errors::BoxedError;
use crate::guard;
use crate::limits::{JSON_VALUES, has_too_many_values};

/// Where a word ends: letters with the marks written on them and one character before, digits one by one, signs with the
/// line ends after them, line ends, other white space (an indentation is one word). No look-around, so that it runs as a
/// plain automaton; every character belongs to some word.
const WORD: &str = r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";

/// Longer words are not cached.
const REMEMBERED_BYTES: usize = 64;
/// Words that one thread caches before it clears its cache: about 20 MB.
const REMEMBERED_WORDS: usize = 1 << 17;

/// The tokenizer library reports an error.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub struct EncoderError {
    action: &'static str,
    source: BoxedError,
}

impl EncoderError {
    fn of<E: Into<BoxedError>>(action: &'static str) -> impl Fn(E) -> Self {
        move |source| Self {
            action,
            source: source.into(),
        }
    }
}

/// How many times as long the replacements of a normalizer may make a text, together. Published tokenizers replace a space by
/// a character of three bytes.
const LONGEST_REPLACEMENT: usize = 1000;

/// Calls the library. A panic in it is an error: it does not check the rules of a tokenizer against each other.
fn guarded<T, E: Into<BoxedError>>(
    action: &'static str,
    call: impl FnOnce() -> Result<T, E>,
) -> Result<T, EncoderError> {
    match guard::catch(call) {
        Ok(result) => result.map_err(EncoderError::of(action)),
        Err(text) => Err(EncoderError::of(action)(format!(
            "its rules contradict each other or do not fit the text (the library ends with `{text}`)"
        ))),
    }
}

/// Parses a `tokenizer.json`.
///
/// # Errors
/// It is not a tokenizer, or has a rule that the library does not apply correctly.
pub fn parse(json: &[u8]) -> Result<Tokenizer, EncoderError> {
    const ACTION: &str = "parse the tokenizer";
    if has_too_many_values(json) {
        let cause = format!("it has more than {JSON_VALUES} values, the most that are read");
        return Err(EncoderError::of(ACTION)(cause));
    }
    let rules: Value = serde_json::from_slice(json).map_err(EncoderError::of(ACTION))?;
    for part in ["normalizer", "pre_tokenizer", "decoder"] {
        let longest =
            examine(&rules[part]).map_err(|cause| EncoderError::of(ACTION)(format!("its `{part}` {cause}")))?;
        if longest > LONGEST_REPLACEMENT {
            let cause = format!("its `{part}` can make a text more than {LONGEST_REPLACEMENT} times as long");
            return Err(EncoderError::of(ACTION)(cause));
        }
    }
    guarded(ACTION, || Tokenizer::from_bytes(json))
}

/// How many times as long a rule and those inside it make a text, or what is wrong with one of them.
fn examine(rule: &Value) -> Result<usize, &'static str> {
    let mut longest = 1usize;
    if let Value::Object(members) = rule {
        let pattern = &rule["pattern"];
        let is_empty = |kind: &str| pattern[kind].as_str() == Some("");
        if is_empty("String") || is_empty("Regex") {
            return Err("has an empty pattern, which matches nothing or everywhere");
        }
        if rule["type"] == "FixedLength" && rule["length"] == 0 {
            return Err("has words of length 0");
        }
        let length = |text: &Value| text.as_str().map_or(0, str::len);
        if !pattern.is_null() {
            longest = length(&rule["content"])
                .div_ceil(length(&pattern["String"]).max(1))
                .max(1);
        }
        longest = longest.max(length(&rule["prepend"]));
        for inner in members.values() {
            longest = longest.saturating_mul(examine(inner)?);
        }
    }
    if let Value::Array(rules) = rule {
        for inner in rules {
            longest = longest.saturating_mul(examine(inner)?);
        }
    }
    Ok(longest)
}

/// Words of a text in Aurora's own tokenizers.
pub(super) fn words() -> Result<Regex, EncoderError> {
    Regex::new(WORD).map_err(EncoderError::of("split words"))
}

/// The pre-tokenizer of `tokenizer.json` that splits these words.
pub(super) fn pre_tokenizer() -> Result<Sequence, EncoderError> {
    let split = Split::new(
        SplitPattern::Regex(WORD.to_owned()),
        SplitDelimiterBehavior::Isolated,
        false,
    );
    let split = split.map_err(EncoderError::of("split words"))?;
    Ok(Sequence::new(vec![
        split.into(),
        ByteLevel::new(false, false, false).into(),
    ]))
}

/// The character for each byte in a byte-level vocabulary: itself if it is visible, else one from 256 on.
pub(super) fn byte_characters() -> [char; 256] {
    let mut hidden = 256u32;
    std::array::from_fn(|byte| {
        let seen = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if seen { byte as u32 } else { hidden };
        hidden += u32::from(!seen);
        char::from_u32(code).unwrap_or_default()
    })
}

/// A tokenizer that is ready for use.
#[derive(Debug)]
pub struct Encoder {
    tokenizer: Tokenizer,
    own: Option<Own>,
}

/// What is needed to encode without the crate's bookkeeping.
#[derive(Debug)]
struct Own {
    words: Regex,
    characters: [char; 256],
    /// Caches of word ids; a thread takes one while it encodes a text. A cache never changes a result.
    remembered: Mutex<Vec<HashMap<String, Box<[u32]>>>>,
}

impl Encoder {
    /// Reads the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// If they are not a tokenizer.
    pub fn new(json: &[u8]) -> Result<Self, EncoderError> {
        let mut tokenizer = parse(json)?;
        // Text of a special token in a document must not end the document.
        tokenizer.set_encode_special_tokens(true);
        // Truncation and padding are for serving; a corpus is encoded completely.
        tokenizer
            .with_padding(None)
            .with_truncation(None)
            .map_err(EncoderError::of("configure the tokenizer"))?;
        let own = if is_own(&tokenizer)? {
            Some(Own {
                words: words()?,
                characters: byte_characters(),
                remembered: Mutex::default(),
            })
        } else {
            None
        };
        Ok(Self { tokenizer, own })
    }

    /// The crate's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Entries: one more than the largest id, as other tokenizers may have unused ids.
    pub fn vocabulary(&self) -> u32 {
        self.tokenizer
            .get_vocab(true)
            .values()
            .copied()
            .max()
            .map_or(0, |id| id.saturating_add(1))
    }

    /// The special entries and their ids.
    fn special(&self) -> Vec<(String, u32)> {
        let added = self.tokenizer.get_added_tokens_decoder();
        let special = added
            .into_iter()
            .filter(|(_, token)| token.special && !token.content.is_empty());
        special.map(|(id, token)| (token.content, id)).collect()
    }

    /// The ids of markup: special tokens in the text are encoded as special tokens, as in the tuning of a model; the rest is
    /// text.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn encode_markup(&self, markup: &str) -> Result<Vec<u32>, EncoderError> {
        let special = self.special();
        let (mut ids, mut rest) = (Vec::new(), markup);
        loop {
            let places = special
                .iter()
                .filter_map(|(name, id)| Some((rest.find(name.as_str())?, name, *id)));
            // The first one; of several at the same position, the longest.
            let first = places.min_by_key(|(place, name, _)| (*place, std::cmp::Reverse(name.len())));
            let Some((place, name, id)) = first else {
                ids.extend(self.encode(rest)?);
                return Ok(ids);
            };
            ids.extend(self.encode(&rest[..place])?);
            ids.push(id);
            rest = &rest[place + name.len()..];
        }
    }

    /// The text of some ids up to the first of `stop`, special entries left out, and whether one of `stop` was there;
    /// `stop` may spell special entries.
    ///
    /// # Errors
    /// The tokenizer cannot decode them.
    pub fn decode_until(&self, ids: &[u32], stop: &[String]) -> Result<(String, bool), EncoderError> {
        let decoded = self.decode(ids)?;
        let first = stop.iter().filter_map(|stop| decoded.find(stop.as_str())).min();
        let mut text = decoded[..first.unwrap_or(decoded.len())].to_owned();
        for (name, _) in self.special() {
            if text.contains(&name) {
                text = text.replace(&name, "");
            }
        }
        Ok((text, first.is_some()))
    }

    /// The text of some ids, special entries spelled out. A character of which only some bytes are in the ids becomes U+FFFD.
    ///
    /// # Errors
    /// The tokenizer cannot decode them.
    pub fn decode(&self, ids: &[u32]) -> Result<String, EncoderError> {
        guarded("decode the text", || self.tokenizer.decode(ids, false))
    }

    /// The ids of a text, without any that the tokenizer would add at its ends.
    ///
    /// # Errors
    /// If the tokenizer has no ids for the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, EncoderError> {
        let (Some(own), ModelWrapper::BPE(model)) = (&self.own, self.tokenizer.get_model()) else {
            let encoding = guarded("encode the text", || self.tokenizer.encode_fast(text, false))?;
            return Ok(encoding.get_ids().to_vec());
        };
        let lock = || own.remembered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut remembered = lock().pop().unwrap_or_default();
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        let mut spelled = String::new();
        for word in own.words.find_iter(text) {
            let word = word.as_str();
            if let Some(known) = remembered.get(word) {
                ids.extend_from_slice(known);
                continue;
            }
            spelled.clear();
            spelled.extend(word.bytes().map(|byte| own.characters[usize::from(byte)]));
            let start = ids.len();
            ids.extend(
                model
                    .tokenize(&spelled)
                    .map_err(EncoderError::of("encode the text"))?
                    .iter()
                    .map(|token| token.id),
            );
            if word.len() <= REMEMBERED_BYTES {
                if remembered.len() >= REMEMBERED_WORDS {
                    remembered.clear();
                }
                remembered.insert(word.to_owned(), ids[start..].into());
            }
        }
        lock().push(remembered);
        Ok(ids)
    }
}

/// Whether a tokenizer only does what [`Encoder::encode`] implements: the words above, bytes, merges.
fn is_own(tokenizer: &Tokenizer) -> Result<bool, EncoderError> {
    let ModelWrapper::BPE(model) = tokenizer.get_model() else {
        return Ok(false);
    };
    let specials = tokenizer.get_added_vocabulary();
    let only_specials = specials.get_added_tokens_decoder().values().all(|token| token.special);
    let same = match tokenizer.get_pre_tokenizer() {
        Some(theirs) => {
            let json = |value: &PreTokenizerWrapper| {
                serde_json::to_value(value).map_err(EncoderError::of("compare the tokenizer"))
            };
            json(theirs)? == json(&pre_tokenizer()?.into())?
        }
        None => false,
    };
    Ok(same && only_specials && tokenizer.get_normalizer().is_none() && is_plain(model))
}

/// No drop-out (which is random), unknown token, affixes or other variants of merging.
fn is_plain(model: &BPE) -> bool {
    model.dropout.is_none()
        && model.unk_token.is_none()
        && model.continuing_subword_prefix.is_none()
        && model.end_of_word_suffix.is_none()
        && !model.byte_fallback
        && !model.fuse_unk
        && !model.ignore_merges
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    const TEXTS: [&str; 6] = [
        include_str!("language/sentences.txt"),
        include_str!("encoder.rs"),
        "",
        " \n \t\r\n  x  ",
        "\u{1f600}\u{0301}\u{200d}a\u{0301}½² <|end|> नगदमुद्रा",
        "\0\u{7f}\u{ad}\u{feff}\u{10ffff}",
    ];

    /// The words of the crate, before bytes become characters.
    fn crates_words(text: &str) -> Vec<String> {
        let split = Split::new(
            SplitPattern::Regex(WORD.to_owned()),
            SplitDelimiterBehavior::Isolated,
            false,
        );
        let mut string = PreTokenizedString::from(text);
        split.expect("a pattern").pre_tokenize(&mut string).expect("split");
        let splits = string.get_splits(OffsetReferential::Original, OffsetType::None);
        splits
            .into_iter()
            .map(|(word, _, _)| word.to_owned())
            .filter(|word| !word.is_empty())
            .collect()
    }

    #[test]
    fn words_end_where_they_should() {
        assert_eq!(
            crates_words("two words, 2024"),
            ["two", " words", ",", " ", "2", "0", "2", "4"]
        );
        assert_eq!(crates_words("    return f(x)\n"), ["    ", "return", " f", "(x", ")\n"]);
        assert_eq!(crates_words("करने में"), ["करने", " में"]);
        assert_eq!(crates_words("a\n\n    b"), ["a", "\n\n", "    ", "b"]);
    }

    #[test]
    fn words_and_bytes_are_the_crates() {
        let own = words().expect("a pattern");
        for text in TEXTS {
            let own: Vec<&str> = own.find_iter(text).map(|word| word.as_str()).collect();
            assert_eq!(own, crates_words(text));
            assert_eq!(own.concat(), *text, "every character belongs to a word");
        }
        let characters: std::collections::BTreeSet<char> = byte_characters().into_iter().collect();
        assert_eq!(characters, ByteLevel::alphabet().into_iter().collect());
    }

    fn trained() -> Vec<u8> {
        let mut texts: Vec<String> = vec!["<|end|>".to_owned()];
        let characters = byte_characters();
        texts.extend(characters.iter().map(char::to_string));
        let rules: Vec<(String, String)> = [("e", "n"), ("Ġ", "t"), ("Ġt", "h"), ("a", "l"), ("Ġth", "e")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .into();
        texts.extend(rules.iter().map(|(a, b)| format!("{a}{b}")));
        let entries: tokenizers::models::bpe::Vocab = texts.into_iter().zip(0..).collect();
        let model = BPE::builder()
            .vocab_and_merges(entries, rules)
            .build()
            .expect("a model");
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_pre_tokenizer(Some(pre_tokenizer().expect("a pattern")));
        tokenizer.add_special_tokens(&[tokenizers::AddedToken::from("<|end|>", true)]);
        tokenizer.to_string(false).expect("JSON").into_bytes()
    }

    #[test]
    fn ids_are_the_crates() {
        let encoder = Encoder::new(&trained()).expect("a tokenizer");
        assert!(encoder.own.is_some() && encoder.vocabulary() == 262);
        for text in TEXTS.iter().chain(&TEXTS) {
            let theirs = encoder.tokenizer().encode_fast(*text, false).expect("encoded");
            assert_eq!(encoder.encode(text).expect("encoded"), theirs.get_ids());
        }
    }

    /// Rules that the library applies with a panic, without end or with any amount of memory are errors.
    #[test]
    fn rules_that_contradict_each_other_are_errors() {
        let json: Value = serde_json::from_slice(&trained()).expect("JSON");
        let with = |changes: &[(&str, Value)]| {
            let mut other = json.clone();
            for (pointer, value) in changes {
                *other.pointer_mut(pointer).expect("there") = value.clone();
            }
            let encoder = Encoder::new(other.to_string().as_bytes())?;
            for text in TEXTS {
                let ids = encoder.encode(text)?;
                encoder.decode_until(&ids, &[])?;
            }
            Ok::<_, EncoderError>(())
        };
        let replace =
            |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let split = |pattern: Value, behavior: &str| json!({"type": "Split", "pattern": pattern, "behavior": behavior, "invert": false});
        let sequence = |rules: Vec<Value>| json!({"type": "Sequence", "normalizers": rules});
        for (pointer, rule) in [
            ("/normalizer", replace(json!({"String": ""}), "x")),
            ("/normalizer", replace(json!({"Regex": ""}), "x")),
            ("/normalizer", sequence(vec![replace(json!({"String": ""}), "")])),
            ("/normalizer", replace(json!({"String": "a"}), &"b".repeat(2000))),
            ("/normalizer", sequence(vec![replace(json!({"String": "a"}), "aa"); 40])),
            ("/normalizer", json!({"type": "Prepend", "prepend": "x".repeat(2000)})),
            ("/pre_tokenizer", split(json!({"String": ""}), "Isolated")),
            ("/pre_tokenizer", split(json!({"Regex": ""}), "Removed")),
            ("/pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
            ("/decoder", replace(json!({"String": ""}), "x")),
        ] {
            let rule = rule.to_string();
            let changed: Value = serde_json::from_str(&rule).expect("JSON");
            let error = with(&[(pointer, changed)]).expect_err(&rule);
            assert!(
                error.source.to_string().contains(&pointer[1..]),
                "{rule}: {}",
                error.source
            );
        }
        // Patterns that match an empty text at some places, and all others: an error or ids, never a panic.
        for regex in ["x*", "^", "$", "\\b", "(?=e)", "(?<=e)(?=n)", "|e", "()", "(?:)", "e??"] {
            for behavior in [
                "Removed",
                "Isolated",
                "MergedWithPrevious",
                "MergedWithNext",
                "Contiguous",
            ] {
                let _ = with(&[("/pre_tokenizer", split(json!({ "Regex": regex }), behavior))]);
            }
            for content in ["", "x", "日本"] {
                let _ = with(&[("/normalizer", replace(json!({ "Regex": regex }), content))]);
                let _ = with(&[("/decoder", replace(json!({ "Regex": regex }), content))]);
            }
        }
        for (pointer, value) in [
            ("/added_tokens/0/id", json!(u32::MAX)),
            ("/added_tokens/0/content", json!("")),
            ("/model/merges", json!([["e", "missing"]])),
            ("/model/vocab", json!({})),
            (
                "/truncation",
                json!({"max_length": 0, "strategy": "LongestFirst", "stride": 5, "direction": "Right"}),
            ),
            (
                "/decoder",
                json!({"type": "Strip", "content": "e", "start": usize::MAX, "stop": usize::MAX}),
            ),
            ("/decoder", json!({"type": "Fuse"})),
            (
                "/pre_tokenizer",
                json!({"type": "Punctuation", "behavior": "Contiguous"}),
            ),
        ] {
            let _ = with(&[(pointer, value)]);
        }
    }

    /// A tokenizer that differs from Aurora's uses the crate.
    #[test]
    fn others_are_told_from_our_own() {
        let json: serde_json::Value = serde_json::from_slice(&trained()).expect("JSON");
        let own = |json: &serde_json::Value| {
            let encoder = Encoder::new(json.to_string().as_bytes()).expect("a tokenizer");
            let text = "The tall then ALL";
            let theirs = encoder.tokenizer().encode_fast(text, false).expect("encoded");
            assert_eq!(encoder.encode(text).expect("encoded"), theirs.get_ids());
            encoder.own.is_some()
        };
        assert!(own(&json));
        for (pointer, value) in [
            ("/normalizer", serde_json::json!({"type": "Lowercase"})),
            (
                "/pre_tokenizer",
                serde_json::json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true}),
            ),
            ("/model/ignore_merges", serde_json::json!(true)),
            ("/added_tokens/0/special", serde_json::json!(false)),
        ] {
            let mut other = json.clone();
            *other.pointer_mut(pointer).expect("there") = value;
            assert!(!own(&other), "{pointer}");
        }
    }
}
