//! Splits a file into its top-level blocks and statements, so that an error in one of them does not affect the others.
//!
//! In: the tokens of a file. Out: the range of each block and statement. A range has an error if it cannot be parsed by
//! itself: a text or bracket that is not closed, nesting that is too deep, text outside of blocks.
//! Not here: syntax. Only brackets, line starts and the words of `keywords` decide where a block ends.

use crate::ast::Span;
use crate::diagnostics::{Code, Diagnostic};
use crate::keywords::{CHANGE_BLOCKS, IN, STATEMENTS};
use crate::token::{Token, TokenKind};

use super::{Heading, MOST_ERRORS, MOST_NESTING};

/// A top-level block or statement.
pub(super) struct Chunk {
    pub span: Span,
    /// Keyword and name. `None` if it does not start with a keyword and a name.
    pub heading: Option<Heading>,
    /// Why the grammar cannot parse it.
    pub error: Option<Diagnostic>,
}

/// Splits a file into chunks, in order. `tokens` are all its tokens.
pub(super) fn split(text: &str, tokens: &[Token]) -> Vec<Chunk> {
    let tokens: Vec<Token> = tokens
        .iter()
        .copied()
        .filter(|token| token.kind != TokenKind::Comment)
        .collect();
    let mut splitter = Splitter {
        text,
        tokens: &tokens,
        starts: Vec::new(),
    };
    splitter.starts = (0..tokens.len()).filter(|&at| splitter.starts_chunk(at)).collect();
    let mut chunks = Vec::new();
    let (mut at, mut errors) = (0, 0);
    while at < tokens.len() && errors < MOST_ERRORS {
        let (error, end) = splitter.chunk(at);
        errors += usize::from(error.is_some());
        chunks.push(Chunk {
            span: tokens[at].span.to(tokens[end - 1].span),
            heading: splitter.heading(at),
            error,
        });
        at = end;
    }
    chunks
}

struct Splitter<'t> {
    text: &'t str,
    tokens: &'t [Token],
    /// Tokens at the left edge that start a block or statement: where parsing resumes after an error.
    starts: Vec<usize>,
}

impl Splitter<'_> {
    fn word(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text(self.text))
    }

    /// The kind of a token that continues the line of the one before it.
    fn kind_on_line(&self, at: usize) -> Option<TokenKind> {
        let token = self.tokens.get(at)?;
        (!token.first_on_line).then_some(token.kind)
    }

    /// `let NAME`, `param NAME`, `import "…"`, `extends "…"`.
    fn starts_statement(&self, at: usize) -> bool {
        let next = self.kind_on_line(at + 1);
        STATEMENTS.contains(&self.word(at)) && matches!(next, Some(TokenKind::Word | TokenKind::Text { .. }))
    }

    /// `word word {` or a statement, at the left edge.
    fn starts_chunk(&self, at: usize) -> bool {
        let token = self.tokens[at];
        let starts_block = || {
            self.kind_on_line(at + 1) == Some(TokenKind::Word)
                && self.kind_on_line(at + 2) == Some(TokenKind::Open(b'{'))
        };
        token.kind == TokenKind::Word && token.at_left_edge(self.text) && (self.starts_statement(at) || starts_block())
    }

    /// Keyword and name of the chunk at a token. A statement may have no name.
    fn heading(&self, at: usize) -> Option<Heading> {
        let keyword = Some(self.word(at)).filter(|_| self.tokens[at].kind == TokenKind::Word)?;
        let has_name = self.kind_on_line(at + 1) == Some(TokenKind::Word);
        (has_name || STATEMENTS.contains(&keyword)).then(|| Heading {
            keyword: keyword.to_owned(),
            name: if has_name { self.word(at + 1) } else { "" }.to_owned(),
        })
    }

    /// Whether a statement ends before this token, if no bracket is open.
    fn ends_statement(&self, at: usize) -> bool {
        let token = self.tokens[at];
        let starts_next = match token.kind {
            TokenKind::Word => self.word(at) != IN,
            TokenKind::Close(bracket) => bracket == b'}',
            _ => false,
        };
        token.first_on_line && starts_next
    }

    /// The error of the chunk at a token, if it has one, and the token after the chunk.
    fn chunk(&self, at: usize) -> (Option<Diagnostic>, usize) {
        if self.tokens[at].kind != TokenKind::Word {
            return self.stray(at);
        }
        let following = self
            .starts
            .get(self.starts.partition_point(|&start| start <= at))
            .copied();
        let resume = following.unwrap_or(self.tokens.len());
        let holds_blocks = CHANGE_BLOCKS.contains(&self.word(at));
        let is_statement = self.starts_statement(at);
        let mut open: Vec<Token> = Vec::new();
        for next in at + 1..self.tokens.len() {
            let token = self.tokens[next];
            if is_statement && open.is_empty() && self.ends_statement(next) {
                return (None, next);
            }
            if following == Some(next) && !holds_blocks {
                // A block starts at the left edge inside of another one, which is therefore not closed. If no bracket
                // is open, the grammar reports what is wrong with the words before.
                let error = open
                    .last()
                    .map(|&open| unclosed(open, Some((token, "a new block starts here"))));
                return (error, next);
            }
            match token.kind {
                TokenKind::Text { closed: false } => {
                    let error = Diagnostic::new(Code::UNCLOSED_STRING, "this text is never closed")
                        .label(token.span, "no `\"` follows on this line")
                        .help("close it with `\"`; a text cannot span lines, but may contain `\\n`");
                    return (Some(error), resume);
                }
                TokenKind::Open(_) => {
                    open.push(token);
                    if open.len() > MOST_NESTING {
                        return (Some(nested_too_deep(token)), resume);
                    }
                }
                TokenKind::Close(bracket) => match open.last() {
                    Some(last) if last.kind == TokenKind::Open(opening(bracket)) => {
                        open.pop();
                        if open.is_empty() && bracket == b'}' && !is_statement {
                            return (None, next + 1);
                        }
                    }
                    Some(&last) => return (Some(unclosed(last, Some((token, "closed by this instead")))), resume),
                    // The grammar reports the bracket.
                    None => return (None, next + 1),
                },
                TokenKind::Word
                | TokenKind::Number
                | TokenKind::Text { closed: true }
                | TokenKind::Comment
                | TokenKind::Sign => {}
            }
        }
        match open.last() {
            Some(&last) => (Some(unclosed(last, None)), resume),
            None if is_statement => (None, self.tokens.len()),
            None => (None, resume),
        }
    }

    /// Text outside of all blocks, up to the next word at the left edge.
    fn stray(&self, at: usize) -> (Option<Diagnostic>, usize) {
        let word = self.word(at);
        let error = Diagnostic::new(Code::SYNTAX, format!("expected a block, found `{word}`"))
            .label(self.tokens[at].span, "a block cannot start with this")
            .help(match word {
                "}" => "remove this brace: every block above is closed already",
                _ => "a file is a list of blocks such as `stage cap { … }`",
            });
        let is_word = |token: &Token| token.kind == TokenKind::Word && token.at_left_edge(self.text);
        let rest = &self.tokens[at + 1..];
        let resume = rest.iter().position(is_word).unwrap_or(rest.len());
        (Some(error), at + 1 + resume)
    }
}

/// The error of a text whose brackets are nested too deep for the grammar, which is recursive.
pub(super) fn too_deep(tokens: &[Token]) -> Option<Diagnostic> {
    let mut open: usize = 0;
    for token in tokens {
        match token.kind {
            TokenKind::Open(_) => open += 1,
            TokenKind::Close(_) => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MOST_NESTING {
            return Some(nested_too_deep(*token));
        }
    }
    None
}

fn nested_too_deep(bracket: Token) -> Diagnostic {
    Diagnostic::new(Code::TOO_DEEP, format!("nested more than {MOST_NESTING} deep"))
        .label(bracket.span, "one bracket too many")
        .help("no field needs more than four levels")
}

fn unclosed(open: Token, related: Option<(Token, &str)>) -> Diagnostic {
    let (opening, closing) = match open.kind {
        TokenKind::Open(b'{') => ('{', '}'),
        TokenKind::Open(b'[') => ('[', ']'),
        _ => ('(', ')'),
    };
    let mut diagnostic = Diagnostic::new(Code::UNCLOSED, format!("this `{opening}` is never closed"))
        .label(open.span, format!("no `{closing}` for this"));
    if let Some((token, text)) = related {
        let start = token.span.start;
        diagnostic = diagnostic.label(Span::new(start, start + 1), text);
    }
    diagnostic.help(format!("add `{closing}`"))
}

/// The bracket that a closing bracket closes.
pub(super) fn opening(close: u8) -> u8 {
    match close {
        b'}' => b'{',
        b']' => b'[',
        _ => b'(',
    }
}
