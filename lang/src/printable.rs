//! Texts of specs, data and programs, as a terminal may print them: characters that control it are printed as codes.

use std::borrow::Cow;

/// A text in one line: line ends and tabs are printed as `\n` and `\t`, other characters that control a terminal or change the
/// direction of text as `\u{…}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// As [`printable`], of a text with several lines: line ends and tabs stay.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| matches!(character, '\n' | '\t'))
}

/// As [`printable_lines`], of a text that was coloured for a terminal: sequences that set colours stay.
pub fn printable_coloured(text: &str) -> Cow<'_, str> {
    let parts = text.split_inclusive('\u{1b}');
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    for part in parts {
        let before = part.trim_end_matches('\u{1b}');
        safe.push_str(&printable_lines(before));
        rest = &rest[part.len()..];
        if part.len() > before.len() {
            let sets_colour = colour(rest);
            safe.push_str(if sets_colour { "\u{1b}" } else { "\\u{1b}" });
        }
    }
    Cow::Owned(safe)
}

/// Whether the text after an escape character sets colours: `[ … m`.
fn colour(text: &str) -> bool {
    let numbers = text.strip_prefix('[').unwrap_or_default();
    let end = numbers.find(|character: char| !character.is_ascii_digit() && character != ';');
    end.is_some_and(|end| numbers[end..].starts_with('m'))
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_safe = |character: char| !controls(character) || stays(character);
    if text.chars().all(is_safe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            _ if is_safe(character) => safe.push(character),
            '\n' => safe.push_str("\\n"),
            '\t' => safe.push_str("\\t"),
            _ => safe.extend(character.escape_unicode()),
        }
    }
    Cow::Owned(safe)
}

/// Control characters, line and paragraph separators, and those that change the direction of the text after them.
pub fn controls(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_control_the_terminal() {
        assert_eq!(printable("Ünïcode: 東京 👩‍🔬"), "Ünïcode: 東京 👩‍🔬");
        for (text, safe) in [
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\u{1b}[31mb", "a\\u{1b}[31mb"),
            ("title \u{1b}]0;x\u{7}", "title \\u{1b}]0;x\\u{7}"),
            ("over\rwritten", "over\\u{d}written"),
            ("\u{9b}1A", "\\u{9b}1A"),
            ("left \u{202e}right", "left \\u{202e}right"),
            ("a\u{2028}b\u{200f}", "a\\u{2028}b\\u{200f}"),
        ] {
            assert_eq!(printable(text), safe);
            assert_eq!(printable_lines(text), safe);
        }
        assert_eq!(printable("a\nb\tc"), "a\\nb\\tc");
        assert_eq!(printable_lines("a\nb\tc\u{7}"), "a\nb\tc\\u{7}");
        let coloured = "\u{1b}[1;31merror\u{1b}[0m: x\n\ty";
        assert_eq!(printable_coloured(coloured), coloured);
        assert_eq!(
            printable_coloured("\u{1b}[2J\u{1b}\u{1b}[31\u{9b}"),
            "\\u{1b}[2J\\u{1b}\\u{1b}[31\\u{9b}"
        );
    }
}
