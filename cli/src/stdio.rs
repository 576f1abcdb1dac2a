//! Standard output and standard error, without the panics of `println!`.
//!
//! Results go to standard output through [`out!`] and [`outln!`], everything else to standard error through [`errln!`].

use std::borrow::Cow;
use std::fmt::Arguments;
use std::io::{self, Write};

use aurora_runtime::redact;

/// Writes to standard output. A closed pipe (`aurora build SPEC | head`) is an error, which ends the command.
macro_rules! out {
    ($($text:tt)*) => { $crate::stdio::write_out(format_args!($($text)*)) };
}

/// Writes a line to standard output, as [`out!`] does.
macro_rules! outln {
    ($($text:tt)*) => { $crate::stdio::write_out(format_args!("{}\n", format_args!($($text)*))) };
}

/// Writes a line to standard error, without secrets. Nothing can be reported if that fails.
macro_rules! errln {
    ($($text:tt)*) => { $crate::stdio::write_err(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {errln, out, outln};

pub fn write_out(text: Arguments<'_>) -> io::Result<()> {
    io::stdout().lock().write_all(printable(&text.to_string()).as_bytes())
}

pub fn write_err(text: Arguments<'_>) {
    let text = text.to_string();
    let _ = io::stderr()
        .lock()
        .write_all(printable(&redact::message(&text)).as_bytes());
}

/// A text without characters that control a terminal: each is printed as its code. Texts of specs, data and programs may have
/// any; line ends, tabs, and the sequences that set colours stay.
fn printable(text: &str) -> Cow<'_, str> {
    let is_safe = |character: char| !is_control(character) || matches!(character, '\n' | '\t');
    if text.chars().all(is_safe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let length = match colour(rest) {
            Some(length) => length,
            None => character.len_utf8(),
        };
        if is_safe(character) || length > 1 && character == '\u{1b}' {
            safe.push_str(&rest[..length]);
        } else {
            safe.extend(character.escape_unicode());
        }
        rest = &rest[length..];
    }
    Cow::Owned(safe)
}

/// Control characters, and those that change the direction of the text after them.
fn is_control(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The length of a sequence that sets colours, if the text begins with one: `ESC [ … m`.
fn colour(text: &str) -> Option<usize> {
    let numbers = text.strip_prefix("\u{1b}[")?;
    let end = numbers.find(|character: char| !character.is_ascii_digit() && character != ';')?;
    numbers[end..].starts_with('m').then_some(2 + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_control_the_terminal() {
        let coloured = "\u{1b}[1;31merror\u{1b}[0m: Ünïcode\n\ttabs";
        assert_eq!(printable(coloured), coloured);
        for (text, safe) in [
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("title \u{1b}]0;x\u{7}", "title \\u{1b}]0;x\\u{7}"),
            ("over\rwritten", "over\\u{d}written"),
            ("\u{9b}1A", "\\u{9b}1A"),
            ("left \u{202e}right", "left \\u{202e}right"),
            ("\u{1b}[31", "\\u{1b}[31"),
        ] {
            assert_eq!(printable(text), safe);
        }
    }
}
