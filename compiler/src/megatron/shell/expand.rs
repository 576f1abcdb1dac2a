//! Words of a command as the shell makes them: quotes, escapes, parameters, arithmetic, and the splitting of what is not quoted.

use super::{Shell, Value, arithmetic};
use crate::megatron::text::{Sign, Text, at, first_unknown, plain, unknown, unknown_of};

/// `${A:-${B:-…}}` may go so deep.
const DEEPEST: usize = 40;

/// Words that are being put together.
#[derive(Default)]
struct Words {
    done: Vec<Text>,
    current: Option<Text>,
    /// Unquoted spaces part words; they don't on the right of an assignment.
    split: bool,
}

impl Words {
    fn open(&mut self) -> &mut Text {
        self.current.get_or_insert_default()
    }

    fn part(&mut self) {
        self.done.extend(self.current.take());
    }

    fn value(&mut self, value: Text, quoted: bool) {
        if quoted || !self.split {
            self.open().extend(value);
            return;
        }
        for sign in value {
            if sign.char.is_ascii_whitespace() {
                self.part();
            } else {
                self.open().push(sign);
            }
        }
    }

    fn values(&mut self, values: Vec<Text>, quoted: bool) {
        for (index, value) in values.into_iter().enumerate() {
            if index > 0 {
                if self.split {
                    self.part();
                } else {
                    self.open().extend(at(value.first().map_or(0, |sign| sign.line), " "));
                }
            }
            self.value(value, quoted);
        }
    }
}

impl Shell {
    /// The words that a piece of a command becomes.
    pub(super) fn words(&mut self, written: &[Sign]) -> Vec<Text> {
        let mut words = Words {
            split: true,
            ..Words::default()
        };
        self.expand(written, &mut words, false);
        words.part();
        words.done
    }

    /// The text that a piece of a script becomes where nothing is split.
    pub(super) fn whole(&mut self, written: &[Sign]) -> Text {
        let mut words = Words::default();
        self.expand(written, &mut words, false);
        words.current.unwrap_or_default()
    }

    fn expand(&mut self, written: &[Sign], words: &mut Words, mut quoted: bool) {
        let mut index = 0;
        while let Some(&sign) = written.get(index) {
            let next = written.get(index + 1).map(|sign| sign.char);
            index += 1;
            match sign.char {
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
                        words.open().push(sign);
                        continue;
                    }
                    if let Some(&escaped) = written.get(index).filter(|sign| sign.char != '\n') {
                        words.open().push(escaped);
                    }
                    index += 1;
                }
                '`' => {
                    let end = position(&written[index..], '`');
                    let unknown = self.command_output(&written[index..(index + end).min(written.len())], sign.line);
                    words.value(unknown, true);
                    index += end + 1;
                }
                '$' if next == Some('\'') && !quoted => {}
                '$' => index += self.parameter(&written[index - 1..], words, quoted) - 1,
                char if char.is_ascii_whitespace() && !quoted && words.split => words.part(),
                _ => words.open().push(sign),
            }
        }
    }

    /// Expands what begins with `$`; returns how many characters of the script it was.
    fn parameter(&mut self, written: &[Sign], words: &mut Words, quoted: bool) -> usize {
        let line = written[0].line;
        let char = |index: usize| written.get(index).map(|sign| sign.char);
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
                    .map(|sign| sign.char)
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

    /// `${…}`: a name, an array, or a name with a default.
    fn braced(&mut self, inner: &[Sign], line: u32, words: &mut Words, quoted: bool) {
        let length = inner.iter().take_while(|sign| is_name(sign.char)).count();
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
            let value = self.unknown(&format!("`${{{}}}` is worked out by the shell", plain(inner)), line);
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
                let default = self.whole(other);
                self.took_default(&name, &default, line);
                if operator == Some('=') {
                    self.set(&name, Value::Scalar(default.clone()));
                }
                words.value(default, quoted);
            }
        }
    }

    fn arithmetic(&mut self, inner: &[Sign], line: u32) -> Text {
        let expression = self.whole(inner);
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
            (None, None) => self.unknown(&format!("`$(({}))` is worked out by the shell", plain(inner)), line),
        }
    }

    fn command_output(&mut self, command: &[Sign], line: u32) -> Text {
        let command: String = plain(command).split_whitespace().collect::<Vec<_>>().join(" ");
        self.unknown(&format!("it is what `{command}` prints"), line)
    }
}

fn is_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

fn position(signs: &[Sign], char: char) -> usize {
    signs.iter().position(|sign| sign.char == char).unwrap_or(signs.len())
}

/// Where the bracket that a text begins with is closed; its end if it is not. Quotes and escapes are stepped over.
fn closing(signs: &[Sign], open: char, close: char) -> usize {
    let mut depth = 0_usize;
    let mut index = 0;
    while let Some(sign) = signs.get(index) {
        match sign.char {
            '\\' => index += 1,
            '\'' if open == '(' => index += 1 + position(&signs[index + 1..], '\''),
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
    signs.len()
}

/// A text with the reasons of its unknown parts written out.
pub fn shown(text: &[Sign]) -> String {
    text.iter()
        .map(|sign| {
            if unknown_of(sign.char).is_some() {
                '…'
            } else {
                sign.char
            }
        })
        .collect()
}
