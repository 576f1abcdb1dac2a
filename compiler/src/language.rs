//! Languages of corpora, as BCP 47 tags.
//!
//! In: a tag as it is written. Out: its one canonical spelling, how dense its script is, and how its text is detected.
//! `code` and `other` are not languages: they name corpora without one. Not here: detection itself (`runtime::data::language`).

use icu_locale::{LanguageIdentifier, Locale, LocaleCanonicalizer, LocaleExpander, TransformResult};

/// Names of corpora without a language, and their meaning.
pub const WITHOUT: [(&str, &str); 2] = [
    ("code", "source code; no step changes a byte of it"),
    ("other", "any text; its language is not detected"),
];

/// Languages that Aurora's own rules detect. They are made to drop English in translated manuals, and languages with
/// the same script.
pub const OWN: [&str; 5] = ["en", "fi", "hi", "ja", "vi"];

/// The version of Aurora's own rules.
const OWN_RULES: &str = "aurora 1";

/// The version of the library that detects the languages of [`DETECTED`].
const WHATLANG: &str = "whatlang 0.18";

/// Languages that the library detects: the language of a tag, and the library's code for it (ISO 639-3).
pub const DETECTED: [(&str, &str); 71] = [
    ("af", "afr"),
    ("ak", "aka"),
    ("am", "amh"),
    ("ar", "ara"),
    ("az", "aze"),
    ("be", "bel"),
    ("bg", "bul"),
    ("bn", "ben"),
    ("ca", "cat"),
    ("cs", "ces"),
    ("cy", "cym"),
    ("da", "dan"),
    ("de", "deu"),
    ("el", "ell"),
    ("en", "eng"),
    ("eo", "epo"),
    ("es", "spa"),
    ("et", "est"),
    ("fa", "pes"),
    ("fi", "fin"),
    ("fil", "tgl"),
    ("fr", "fra"),
    ("gu", "guj"),
    ("he", "heb"),
    ("hi", "hin"),
    ("hr", "hrv"),
    ("hu", "hun"),
    ("hy", "hye"),
    ("id", "ind"),
    ("it", "ita"),
    ("ja", "jpn"),
    ("jv", "jav"),
    ("ka", "kat"),
    ("km", "khm"),
    ("kn", "kan"),
    ("ko", "kor"),
    ("la", "lat"),
    ("lt", "lit"),
    ("lv", "lav"),
    ("mk", "mkd"),
    ("ml", "mal"),
    ("mr", "mar"),
    ("my", "mya"),
    ("nb", "nob"),
    ("ne", "nep"),
    ("nl", "nld"),
    ("no", "nob"),
    ("or", "ori"),
    ("pa", "pan"),
    ("pl", "pol"),
    ("pt", "por"),
    ("ro", "ron"),
    ("ru", "rus"),
    ("si", "sin"),
    ("sk", "slk"),
    ("sl", "slv"),
    ("sn", "sna"),
    ("sr", "srp"),
    ("sv", "swe"),
    ("ta", "tam"),
    ("te", "tel"),
    ("th", "tha"),
    ("tk", "tuk"),
    ("tr", "tur"),
    ("uk", "ukr"),
    ("ur", "urd"),
    ("uz", "uzb"),
    ("vi", "vie"),
    ("yi", "yid"),
    ("zh", "cmn"),
    ("zu", "zul"),
];

/// Scripts that write a word or a syllable in one character.
const DENSE: [&str; 8] = ["Bopo", "Hang", "Hani", "Hans", "Hant", "Hrkt", "Jpan", "Kore"];

/// A tag as every key, score and report has it: `DE` is `de`, `iw` is `he`, `zh-hant-tw` is `zh-Hant-TW`.
///
/// # Errors
/// Why the text is not the tag of a known language.
pub fn canonical(written: &str) -> Result<String, String> {
    if WITHOUT.iter().any(|(name, _)| *name == written) {
        return Ok(written.to_owned());
    }
    let unreadable =
        || format!("`{written}` is not a language tag (BCP 47), such as `de`, `\"pt-BR\"` or `\"zh-Hant\"`");
    let mut locale: Locale = written.parse().map_err(|_| unreadable())?;
    LocaleCanonicalizer::new_extended().canonicalize(&mut locale);
    let language = locale.id.language.as_str();
    if language.len() > 3 {
        return Err(format!(
            "{}; languages have codes of two or three letters",
            unreadable()
        ));
    }
    let is_private = language.len() == 3 && ("qaa"..="qtz").contains(&language);
    if !is_private && expanded(&locale.id).is_none() {
        return Err(format!("no language has the code `{language}`"));
    }
    Ok(locale.to_string())
}

/// The tag with its likely script; none if the language is not known.
fn expanded(tag: &LanguageIdentifier) -> Option<LanguageIdentifier> {
    let mut bare = LanguageIdentifier {
        language: tag.language,
        ..LanguageIdentifier::UNKNOWN
    };
    let known = LocaleExpander::new_extended().maximize(&mut bare) == TransformResult::Modified;
    let mut tag = tag.clone();
    LocaleExpander::new_extended().maximize(&mut tag);
    known.then_some(tag)
}

/// The characters that a unit of text has at least, if a spec does not say: 12 where a character is a word or a syllable,
/// otherwise 30.
pub fn usual_minimum(tag: &str) -> u64 {
    let script = tag
        .parse::<Locale>()
        .ok()
        .and_then(|locale| expanded(&locale.id)?.script);
    match script {
        Some(script) if DENSE.contains(&script.as_str()) => 12,
        _ => 30,
    }
}

/// How the text of a language is detected: by what, in which version, and its code there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    pub by: &'static str,
    pub code: &'static str,
}

/// How a canonical tag's text is detected; none if nothing here detects it.
pub fn detection(tag: &str) -> Option<Detection> {
    let language = tag.split('-').next().unwrap_or_default();
    if let Some(code) = OWN.into_iter().find(|own| *own == language) {
        return Some(Detection { by: OWN_RULES, code });
    }
    let (_, code) = DETECTED.into_iter().find(|(known, _)| *known == language)?;
    Some(Detection { by: WHATLANG, code })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_have_one_spelling() {
        // Expected: Python's langcodes 3.4 (`standardize_tag`) for those that it knows, RFC 5646 for the rest.
        for (written, tag) in [
            ("de", "de"),
            ("DE", "de"),
            ("zh-hant", "zh-Hant"),
            ("pt-br", "pt-BR"),
            ("iw", "he"),
            ("sr-latn-rs", "sr-Latn-RS"),
            ("yue", "yue"),
            ("qaa", "qaa"),
            ("code", "code"),
            ("other", "other"),
        ] {
            assert_eq!(canonical(written).as_deref(), Ok(tag));
            assert_eq!(canonical(tag).as_deref(), Ok(tag));
        }
        for wrong in ["english", "e", "", "de-", "deutsch", "xx", "f i", "zz"] {
            assert!(canonical(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn dense_scripts_have_a_shorter_minimum() {
        for (tag, least) in [
            ("ja", 12),
            ("zh", 12),
            ("zh-Hant", 12),
            ("ko", 12),
            ("yue", 12),
            ("de", 30),
            ("hi", 30),
            ("other", 30),
        ] {
            assert_eq!(usual_minimum(tag), least, "{tag}");
        }
    }

    #[test]
    fn every_detected_language_is_a_canonical_tag() {
        for (tag, _) in DETECTED {
            assert_eq!(canonical(tag).as_deref(), Ok(tag));
        }
        assert!(DETECTED.is_sorted());
        assert_eq!(detection("fi").expect("own").by, "aurora 1");
        assert_eq!(detection("pt-BR").expect("detected").code, "por");
        assert_eq!(detection("sw"), None);
    }
}
