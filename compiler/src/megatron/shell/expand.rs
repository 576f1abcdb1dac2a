//! Word expansion of the shell: quotes, escapes, parameters, arithmetic, and splitting of unquoted text.

use super::{Shell, Value, arithmetic};
use crate::megatron::text::{SourceChar, SourceText, at, first_unknown, plain, unknown, unknown_of};

/// The maximum nesting of `${A:-${B:-…}}`.
const DEEPEST: usize = 40;

/// The words of an expansion.
#[derive(Default)]
struct Words {
    done: Vec<SourceText>,
    current: Option<SourceText>,
    /// Whether unquoted spaces separate words. They do not on the right side of an assignment.
    split: bool,
}

impl Words {
    fn open(&mut self) -> &mut SourceText {
        self.current.get_or_insert_default()
    }

    fn end_word(&mut self) {
        self.done.extend(self.current.take());
    }

    fn value(&mut self, value: SourceText, quoted: bool) {
        if quoted || !self.split {
            self.open().extend(value);
            return;
        }
        for character in value {
            if character.char.is_ascii_whitespace() {
                self.end_word();
            } else {
                self.open().push(character);
            }
        }
    }

    fn values(&mut self, values: Vec<SourceText>, quoted: bool) {
        for (index, value) in values.into_iter().enumerate() {
            if index > 0 {
                if self.split {
                    self.end_word();
                } else {
                    self.open()
                        .extend(at(value.first().map_or(0, |character| character.line), " "));
                }
            }
            self.value(value, quoted);
        }
    }
}

impl Shell {
    /// Expands a part of a command to words.
    pub(super) fn words(&mut self, written: &[SourceChar]) -> Vec<SourceText> {
        let mut words = Words {
            split: true,
            ..Words::default()
        };
        self.expand(written, &mut words, false);
        words.end_word();
        words.done
    }

    /// Expands a part of the script to one text, without splitting it.
    pub(super) fn expand_unsplit(&mut self, written: &[SourceChar]) -> SourceText {
        let mut words = Words::default();
        self.expand(written, &mut words, false);
        words.current.unwrap_or_default()
    }

    fn expand(&mut self, written: &[SourceChar], words: &mut Words, mut quoted: bool) {
        let mut index = 0;
        while let Some(&character) = written.get(index) {
            let next = written.get(index + 1).map(|character| character.char);
            index += 1;
            match character.char {
                '\'' if !quoted => {
                    let end = position(&written[index..], '\'');
                    words.open().extend(&written[index..index + end]);
                    index += end + 1;
                }
                '"' => {
                    words.open();
                    quoted = !quoted;
                }
                '\\' => {
                    let escapes = !quoted || matches!(next, Some('$' | '`' | '"' | '\\' | '\n'));
                    if !escapes {
                        words.open().push(character);
                        continue;
                    }
                    if let Some(&escaped) = written.get(index).filter(|character| character.char != '\n') {
                        words.open().push(escaped);
                    }
                    index += 1;
                }
                '`' => {
                    let end = position(&written[index..], '`');
                    let unknown =
                        self.command_output(&written[index..(index + end).min(written.len())], character.line);
                    words.value(unknown, true);
                    index += end + 1;
                }
                '$' if next == Some('\'') && !quoted => {}
                '$' => index += self.parameter(&written[index - 1..], words, quoted) - 1,
                char if char.is_ascii_whitespace() && !quoted && words.split => words.end_word(),
                _ => words.open().push(character),
            }
        }
    }

    /// Expands text that starts with `$`, and returns its length in the script.
    fn parameter(&mut self, written: &[SourceChar], words: &mut Words, quoted: bool) -> usize {
        let line = written[0].line;
        let char = |index: usize| written.get(index).map(|character| character.char);
        match (char(1), char(2)) {
            (Some('('), Some('(')) => {
                let end = closing(&written[1..], '(', ')');
                let inner = written.get(3..end).unwrap_or_default();
                let value = self.arithmetic(inner, line);
                words.value(value, quoted);
                (end + 2).min(written.len())
            }
            (Some('('), _) => {
                let end = closing(&written[1..], '(', ')');
                let value = self.command_output(written.get(2..=end).unwrap_or_default(), line);
                words.value(value, true);
                (end + 2).min(written.len())
            }
            (Some('{'), _) => {
                let end = closing(&written[1..], '{', '}');
                self.depth += 1;
                if self.depth > DEEPEST {
                    let value = self.unknown("it is nested too deeply", line);
                    words.value(value, quoted);
                } else {
                    self.braced(written.get(2..=end).unwrap_or_default(), line, words, quoted);
                }
                self.depth -= 1;
                (end + 2).min(written.len())
            }
            (Some(first), _) if first.is_ascii_alphabetic() || first == '_' => {
                let name: String = written[1..]
                    .iter()
                    .map(|character| character.char)
                    .take_while(|&char| is_name(char))
                    .collect();
                let value = self.variable(&name, line);
                words.value(value, quoted);
                1 + name.len()
            }
            (Some('@' | '*'), _) => {
                let values = self.all(None, line);
                words.values(values, quoted);
                2
            }
            (Some(first @ ('0'..='9' | '#' | '?' | '$' | '!' | '-')), _) => {
                let value = self.variable(&first.to_string(), line);
                words.value(value, quoted);
                2
            }
            _ => {
                words.open().push(written[0]);
                1
            }
        }
    }

    /// Expands `${…}`: a name, an array, or a name with a default.
    fn braced(&mut self, inner: &[SourceChar], line: u32, words: &mut Words, quoted: bool) {
        let length = inner.iter().take_while(|character| is_name(character.char)).count();
        let name = plain(&inner[..length]);
        let rest = &inner[length..];
        let tail = plain(rest);
        if !name.is_empty() && tail.is_empty() {
            let value = self.variable(&name, line);
            return words.value(value, quoted);
        }
        if !name.is_empty() && (tail == "[@]" || tail == "[*]") {
            let values = self.all(Some(&name), line);
            return words.values(values, quoted);
        }
        let index = tail.strip_prefix('[').and_then(|tail| tail.strip_suffix(']'));
        if let Some(index) = index.and_then(|index| index.parse::<usize>().ok()) {
            let values = self.all(Some(&name), line);
            return words.value(values.into_iter().nth(index).unwrap_or_default(), quoted);
        }
        let (counts_empty, operator) = match tail.strip_prefix(':') {
            Some(after) => (true, after.chars().next()),
            None => (false, tail.chars().next()),
        };
        let known = matches!(operator, Some('-' | '=' | '+' | '?'));
        if name.is_empty() || !known {
            let value = self.unknown(&format!("`${{{}}}` is evaluated by the shell", plain(inner)), line);
            return words.value(value, quoted);
        }
        let other = &rest[1 + usize::from(counts_empty)..];
        let own = self.lookup(&name);
        let is_set = own.as_ref().is_some_and(|own| !counts_empty || !own.is_empty());
        match (operator, own) {
            (Some('+'), _) if is_set => self.expand(other, words, quoted),
            (Some('+'), _) => {}
            (_, Some(own)) if is_set => words.value(own, quoted),
            (Some('?'), _) => {
                let value = self.variable(&name, line);
                words.value(value, quoted);
            }
            (operator, _) => {
                let default = self.expand_unsplit(other);
                self.note_default(&name, &default, line);
                if operator == Some('=') {
                    self.set(&name, Value::Scalar(default.clone()));
                }
                words.value(default, quoted);
            }
        }
    }

    fn arithmetic(&mut self, inner: &[SourceChar], line: u32) -> SourceText {
        let expression = self.expand_unsplit(inner);
        if let Some(number) = first_unknown(&expression) {
            return at(line, &unknown(number).to_string());
        }
        let text = plain(&expression);
        let mut missing = None;
        let value = arithmetic::value(&text, &mut |name| {
            let value = self.variable(name, line);
            missing = missing.or(first_unknown(&value));
            plain(&value).trim().parse().ok()
        });
        match (value, missing) {
            (Some(value), _) => at(line, &value.to_string()),
            (None, Some(number)) => at(line, &unknown(number).to_string()),
            (None, None) => self.unknown(&format!("`$(({}))` is evaluated by the shell", plain(inner)), line),
        }
    }

    fn command_output(&mut self, command: &[SourceChar], line: u32) -> SourceText {
        let command: String = plain(command).split_whitespace().collect::<Vec<_>>().join(" ");
        self.unknown(&format!("it is the output of `{command}`"), line)
    }
}

fn is_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

fn position(characters: &[SourceChar], char: char) -> usize {
    characters
        .iter()
        .position(|character| character.char == char)
        .unwrap_or(characters.len())
}

/// The index of the bracket that closes the first bracket of a text, or its end. Quotes and escapes are skipped.
fn closing(characters: &[SourceChar], open: char, close: char) -> usize {
    let mut depth = 0_usize;
    let mut index = 0;
    while let Some(character) = characters.get(index) {
        match character.char {
            '\\' => index += 1,
            '\'' if open == '(' => index += 1 + position(&characters[index + 1..], '\''),
            char if char == open => depth += 1,
            char if char == close => {
                depth -= 1;
                if depth == 0 {
                    return index;
                }
            }
            _ => {}
        }
        index += 1;
    }
    characters.len()
}

/// A text for messages, with `…` for its unknown parts.
pub fn shown(text: &[SourceChar]) -> String {
    text.iter()
        .map(|character| {
            if unknown_of(character.char).is_some() {
                '…'
            } else {
                character.char
            }
        })
        .collect()
}
