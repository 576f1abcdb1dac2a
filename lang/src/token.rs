//! Splits a text into tokens. The parser's chunks and the editor's roles both use it.
//!
//! In: any text, valid or not. Out: its tokens in order, comments included.
//! Not here: syntax (`parse`).

use crate::ast::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// `stage`, `cosine`, `true`.
    Word,
    /// `377B`, `12.5%`, `1e-4`; a unit is a word of its own.
    Number,
    /// Text in double quotes. If the line does not close it, it ends with the line.
    Text { closed: bool },
    /// `// …`, without the line break.
    Comment,
    /// `{`, `[` or `(`.
    Open(u8),
    /// `}`, `]` or `)`.
    Close(u8),
    /// Any other character, or `..`, `<=`, `>=`.
    Sign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: TokenKind,
    pub span: Span,
    /// Whether only white space precedes it on its line.
    pub first_on_line: bool,
}

impl Token {
    pub fn text<'t>(&self, text: &'t str) -> &'t str {
        &text[self.span.start..self.span.end]
    }

    /// Whether it starts in the first column, where only the items of a file start.
    pub fn at_left_edge(&self, text: &str) -> bool {
        self.first_on_line && (self.span.start == 0 || text.as_bytes()[self.span.start - 1] == b'\n')
    }
}

/// Returns the tokens of a text.
pub fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut all = Vec::with_capacity(bytes.len() / 4);
    let mut at = 0;
    let mut first_on_line = true;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'\n' {
            first_on_line = true;
        }
        // The same white space as in the grammar; that includes a byte-order mark.
        let space = text[at..].chars().next().filter(|&character| is_space(character));
        if let Some(space) = space {
            at += space.len_utf8();
            continue;
        }
        let (kind, length) = token(&text[at..], byte);
        all.push(Token {
            kind,
            span: Span::new(at, at + length),
            first_on_line,
        });
        first_on_line = false;
        at += length;
    }
    all
}

fn token(rest: &str, first: u8) -> (TokenKind, usize) {
    let bytes = rest.as_bytes();
    let line = || rest.find('\n').map_or(rest, |end| &rest[..end]).trim_end();
    match first {
        b'/' if bytes.get(1) == Some(&b'/') => (TokenKind::Comment, line().len()),
        b'"' => match text_end(bytes) {
            Some(end) => (TokenKind::Text { closed: true }, end),
            None => (TokenKind::Text { closed: false }, line().len()),
        },
        b'{' | b'[' | b'(' => (TokenKind::Open(first), 1),
        b'}' | b']' | b')' => (TokenKind::Close(first), 1),
        _ if is_name(first) && !first.is_ascii_digit() => {
            (TokenKind::Word, bytes.iter().take_while(|&&byte| is_name(byte)).count())
        }
        _ if first.is_ascii_digit() => (TokenKind::Number, number_end(bytes)),
        _ if ["..", "<=", ">="].iter().any(|sign| rest.starts_with(sign)) => (TokenKind::Sign, 2),
        _ => (TokenKind::Sign, rest.chars().next().map_or(1, char::len_utf8)),
    }
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n' | '\u{FEFF}')
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The length of digits, fraction, exponent, suffix and percent sign, as in the grammar.
fn number_end(bytes: &[u8]) -> usize {
    let digits = |from: usize| {
        let is_digit = |&&byte: &&u8| byte.is_ascii_digit() || byte == b'_';
        from + bytes[from..].iter().take_while(is_digit).count()
    };
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut at = digits(0);
    if bytes.get(at) == Some(&b'.') && digit(at + 1) {
        at = digits(at + 1);
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        if digit(at + 1 + sign) {
            at = digits(at + 1 + sign);
        }
    }
    let suffix = matches!(bytes.get(at), Some(b'K' | b'M' | b'B' | b'T'));
    if suffix && !bytes.get(at + 1).copied().is_some_and(is_name) {
        at += 1;
    }
    at + usize::from(bytes.get(at) == Some(&b'%'))
}

/// The length of a text that starts here, quotes included. `None` if its line does not close it.
fn text_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\n' => return None,
            b'\\' if bytes.get(at + 1).is_some_and(|&escaped| escaped != b'\n') => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{TokenKind, tokens};

    #[test]
    fn every_text_has_tokens() {
        let text = "stage cap { // é\n  budget = 377B tokens @assumed(\"a \\\" b\")\n  x = 1e-4..2.5%, 3 K \"open";
        let found: Vec<&str> = tokens(text).iter().map(|token| token.text(text)).collect();
        let expected = [
            "stage",
            "cap",
            "{",
            "// é",
            "budget",
            "=",
            "377B",
            "tokens",
            "@",
            "assumed",
            "(",
            "\"a \\\" b\"",
            ")",
            "x",
            "=",
            "1e-4",
            "..",
            "2.5%",
            ",",
            "3",
            "K",
            "\"open",
        ];
        assert_eq!(found, expected);
        let last = tokens(text).pop().map(|token| token.kind);
        assert_eq!(last, Some(TokenKind::Text { closed: false }));
        let first: Vec<&str> = tokens(text)
            .iter()
            .filter(|token| token.first_on_line)
            .map(|token| token.text(text))
            .collect();
        assert_eq!(first, ["stage", "budget", "x"]);
        assert_eq!(tokens("é ü").len(), 2);
    }
}
