//! GNU message catalogues (`.mo`).
//!
//! A document has [`MESSAGES`] translations, one per line: a catalogue is one long list, and a corpus of a few catalogues
//! could not be split into training and held-out documents otherwise. Source: "The Format of GNU MO Files", gettext
//! manual.

use super::{Extracted, Skip};
use crate::data::whitespace::push_paragraph;

/// Translations of one document.
const MESSAGES: usize = 32;

pub(super) fn read(bytes: &[u8]) -> Extracted {
    let Some(messages) = messages(bytes) else {
        return Extracted::dropped(Skip::Malformed, "it is not a message catalogue");
    };
    let mut extracted = Extracted::default();
    let mut document = String::new();
    let mut in_document = 0;
    for (original, translation) in messages {
        let (Ok(original), Ok(translation)) = (std::str::from_utf8(original), std::str::from_utf8(translation)) else {
            extracted.leave_out(Skip::InvalidMessage);
            continue;
        };
        let Some(text) = translated(original, translation) else {
            if !original.is_empty() {
                extracted.leave_out(Skip::Untranslated);
            }
            continue;
        };
        for paragraph in text.split("\n\n") {
            push_paragraph(&mut document, paragraph);
        }
        in_document += 1;
        if in_document == MESSAGES {
            extracted.texts.push(std::mem::take(&mut document));
            in_document = 0;
        }
    }
    if in_document > 0 {
        extracted.texts.push(document);
    }
    extracted
}

/// The translation without accelerator marks, if there is one.
fn translated(original: &str, translation: &str) -> Option<String> {
    if original.is_empty() {
        return None; // the catalogue's header
    }
    let original = original.split_once('\u{4}').map_or(original, |(_, original)| original);
    let original = original.split('\0').next().unwrap_or_default();
    let translation = translation.split('\0').next().unwrap_or_default();
    if translation.trim().is_empty() || translation == original {
        return None;
    }
    Some(without_accelerators(original, translation))
}

/// Removes the mark of the key that opens a menu item: `_File`, `&File`, `~File`, `ファイル(_F)`.
///
/// A mark inside a word counts only in short messages whose original has exactly one too: a longer message with `snake_case`
/// is prose.
fn without_accelerators(original: &str, translation: &str) -> String {
    let characters: Vec<char> = translation.chars().collect();
    let mark = |c: char| matches!(c, '_' | '&' | '~');
    let short = characters.len() <= 60;
    let mut out = String::with_capacity(translation.len());
    let mut at = 0;
    while at < characters.len() {
        let c = characters[at];
        if let [open @ ('(' | '（'), m, key, close @ (')' | '）'), ..] = characters[at..]
            && mark(m)
            && key.is_ascii_alphanumeric()
            && (open == '(') == (close == ')')
        {
            at += 4;
            continue;
        }
        let next_is_letter = characters.get(at + 1).is_some_and(|next| next.is_alphanumeric());
        let single = |text: &str| text.chars().filter(|&other| other == c).count() == 1;
        if mark(c) && next_is_letter && short && single(original) && single(translation) {
            at += 1;
            continue;
        }
        out.push(c);
        at += 1;
    }
    out
}

type Message<'a> = (&'a [u8], &'a [u8]);

/// All pairs of original and translation; `None` if the file is not a catalogue, has offsets outside the file, or has texts
/// in several messages.
fn messages(bytes: &[u8]) -> Option<Vec<Message<'_>>> {
    let big = match bytes.get(..4)? {
        [0xde, 0x12, 0x04, 0x95] => false,
        [0x95, 0x04, 0x12, 0xde] => true,
        _ => return None,
    };
    let word = |at: usize| -> Option<usize> {
        let word: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(if big {
            u32::from_be_bytes(word)
        } else {
            u32::from_le_bytes(word)
        })
        .ok()
    };
    let string = |table: usize, i: usize| -> Option<&[u8]> {
        let entry = table.checked_add(i.checked_mul(8)?)?;
        let (length, start) = (word(entry)?, word(entry + 4)?);
        bytes.get(start..start.checked_add(length)?)
    };
    let (count, originals, translations) = (word(8)?, word(12)?, word(16)?);
    if count > bytes.len() / 16 {
        return None;
    }
    // Texts do not overlap: a small catalogue would otherwise be any number of copies of one text.
    let mut left = bytes.len();
    (0..count)
        .map(|i| {
            let message = (string(originals, i)?, string(translations, i)?);
            left = left.checked_sub(message.0.len() + message.1.len())?;
            Some(message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_malformed(extracted: &Extracted) -> bool {
        matches!(extracted.dropped, Some((Skip::Malformed, _)))
    }

    fn catalogue(messages: &[(&str, &str)], big: bool) -> Vec<u8> {
        let word = |n: usize| {
            if big {
                (n as u32).to_be_bytes()
            } else {
                (n as u32).to_le_bytes()
            }
        };
        let (count, mut data) = (messages.len(), Vec::new());
        let mut bytes: Vec<u8> = [0x9504_12de, 0, count, 28, 28 + 8 * count, 0, 0]
            .into_iter()
            .flat_map(word)
            .collect();
        let base = 28 + 16 * count;
        for side in [0, 1] {
            for message in messages {
                let text = if side == 0 { message.0 } else { message.1 };
                bytes.extend(word(text.len()));
                bytes.extend(word(base + data.len()));
                data.extend_from_slice(text.as_bytes());
                data.push(0);
            }
        }
        bytes.extend(data);
        bytes
    }

    #[test]
    fn translations_without_header_originals_and_marks() {
        let messages = [
            ("", "Content-Type: text/plain; charset=UTF-8\n"),
            ("%d file\0%d files", "%d tiedosto\0%d tiedostoa"),
            ("Cancel", "Cancel"),
            ("Empty", ""),
            ("_Open", "_Avaa"),
            ("_Save", "保存(_S)"),
            ("menu\u{4}&File", "&Tiedosto"),
            (
                "the variable my_name is not set",
                "muuttujaa my_name ei ole asetettu, joten sitä ei voi käyttää tässä näin",
            ),
            ("one\n\ntwo", "yksi\nrivi\n\nkaksi"),
        ];
        for big in [false, true] {
            let extracted = read(&catalogue(&messages, big));
            assert_eq!(
                extracted.texts,
                [
                    "%d tiedosto\nAvaa\n保存\nTiedosto\nmuuttujaa my_name ei ole asetettu, joten sitä ei voi käyttää tässä näin\nyksi rivi\nkaksi"
                ]
            );
            assert_eq!(extracted.left_out, [(Skip::Untranslated, 2)]);
        }
    }

    #[test]
    fn long_catalogues_are_several_documents() {
        let texts: Vec<(String, String)> = (0..70).map(|i| (format!("k{i}"), format!("viesti {i}"))).collect();
        let messages: Vec<(&str, &str)> = texts.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let extracted = read(&catalogue(&messages, false));
        assert_eq!(
            extracted
                .texts
                .iter()
                .map(|text| text.lines().count())
                .collect::<Vec<_>>(),
            [32, 32, 6]
        );
    }

    /// A small catalogue cannot have more text than bytes.
    #[test]
    fn texts_that_overlap_are_refused() {
        let text = "x".repeat(1000);
        let mut bytes = catalogue(&[(text.as_str(), "a"), ("b", "c")], false);
        assert_eq!(read(&bytes).texts, ["a\nc"]);
        // The second message has the first one's text, too.
        bytes.copy_within(28..36, 36);
        assert!(is_malformed(&read(&bytes)));
    }

    #[test]
    fn damaged_catalogues_are_refused_whole() {
        let good = catalogue(&[("a", "b"), ("c", "d")], false);
        for length in 0..good.len() - 1 {
            let extracted = read(&good[..length]);
            assert!(extracted.texts.is_empty() && is_malformed(&extracted), "{length}");
        }
    }
}
