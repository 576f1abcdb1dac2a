//! The walk itself: the frames that are open, and what stands outside of all of them.

use aurora_compiler::schema::{CallSchema, FieldSchema, Type};
use aurora_compiler::spec::BlockKind;
use aurora_lang::tokens::{Token, TokenKind};

use super::Role;
use super::body::body;

#[derive(Clone, Debug)]
pub(super) enum Frame {
    Body(Body),
    List {
        of: Vec<&'static Type>,
        state: State,
        path: Vec<String>,
        index: usize,
    },
    Call {
        call: Option<&'static CallSchema>,
        path: Vec<String>,
        present: Vec<String>,
        argument: Option<&'static FieldSchema>,
        state: State,
        started: bool,
    },
    ImportNames {
        path: String,
        present: Vec<String>,
    },
    /// The body of an `expect`, or parentheses in it.
    Gate {
        path: Vec<String>,
        dot: bool,
        state: State,
    },
    /// Brackets that are known to no table.
    Unknown,
}

#[derive(Clone, Debug)]
pub(super) struct Body {
    /// The word before the name: a kind of block, `profile`, `sweep`, `zip`, `extends`.
    pub(super) owner: String,
    pub(super) kind: Option<BlockKind>,
    /// `kind.name`, in front of the paths of its fields.
    pub(super) path: Vec<String>,
    pub(super) present: Vec<String>,
    pub(super) entry: Entry,
}

#[derive(Clone, Debug)]
pub(super) enum Entry {
    Start,
    /// Names with dots between them; `dot` says whether the last thing was a dot.
    Path {
        names: Vec<String>,
        dot: bool,
    },
    /// `kind name`, before the brace.
    Head {
        keyword: String,
        name: String,
    },
    Value {
        path: Vec<String>,
        types: Vec<&'static Type>,
        unknown: bool,
        swept: bool,
        state: State,
        of_component: bool,
        settings: Vec<String>,
    },
}

/// How far a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Empty,
    /// Behind `every`.
    Every,
    /// A number without a unit.
    Number,
    Done,
    /// Behind `@`, then its name, until its parenthesis closes.
    At,
    Mark,
}

#[derive(Clone, Debug)]
pub(super) enum Top {
    Start,
    Keyword(String),
    Named {
        keyword: String,
        name: String,
    },
    Import {
        extends: bool,
    },
    Imported {
        extends: bool,
        path: String,
    },
    Line {
        name: bool,
        param: bool,
        equals: bool,
        state: State,
    },
}

/// Walks over the tokens of one text.
#[derive(Clone, Debug)]
pub struct Walker<'t> {
    pub(super) text: &'t str,
    pub(super) tokens: &'t [Token],
    pub(super) frames: Vec<Frame>,
    pub(super) top: Top,
}

impl<'t> Walker<'t> {
    pub fn new(text: &'t str, tokens: &'t [Token]) -> Self {
        Self {
            text,
            tokens,
            frames: Vec::new(),
            top: Top::Start,
        }
    }

    pub(super) fn word(&self, index: usize) -> &'t str {
        self.tokens.get(index).map_or("", |token| token.text(self.text))
    }

    pub(super) fn kind(&self, index: usize) -> Option<TokenKind> {
        self.tokens.get(index).map(|token| token.kind)
    }

    /// `word word {` or a statement at the left edge, where no block can be open.
    pub(super) fn starts_item(&self, index: usize) -> bool {
        let token = &self.tokens[index];
        let at_edge = token.span.start == 0 || self.text.as_bytes()[token.span.start - 1] == b'\n';
        if !at_edge || token.kind != TokenKind::Word {
            return false;
        }
        let statement = matches!(self.word(index), "import" | "extends" | "let" | "param");
        let next = self.kind(index + 1);
        statement && matches!(next, Some(TokenKind::Word | TokenKind::Text { .. }))
            || next == Some(TokenKind::Word) && self.kind(index + 2) == Some(TokenKind::Open(b'{'))
    }

    /// Takes the next token in and says what it is for.
    pub fn feed(&mut self, index: usize) -> Role {
        let token = self.tokens[index];
        if token.kind == TokenKind::Comment {
            return Role::Comment;
        }
        let holds_blocks = matches!(self.frames.first(), Some(Frame::Body(body)) if body.kind.is_none());
        if self.starts_item(index) && !holds_blocks {
            self.frames.clear();
            self.top = Top::Start;
        }
        if self.frames.is_empty() {
            return self.feed_top(index, token);
        }
        if let TokenKind::Close(_) = token.kind {
            self.close();
            return Role::Other;
        }
        match self.frames.last() {
            Some(Frame::Body(_)) => self.feed_body(index, token),
            Some(Frame::List { .. }) => self.feed_list(index, token),
            Some(Frame::Call { .. }) => self.feed_call(index, token),
            Some(Frame::Gate { .. }) => self.feed_gate(index, token),
            Some(Frame::ImportNames { .. }) => self.feed_names(index, token),
            Some(Frame::Unknown) | None => {
                if let TokenKind::Open(_) = token.kind {
                    self.frames.push(Frame::Unknown);
                }
                match token.kind {
                    TokenKind::Text { .. } => Role::Text,
                    TokenKind::Number => Role::Number,
                    _ => Role::Other,
                }
            }
        }
    }

    fn close(&mut self) {
        self.frames.pop();
        match self.frames.last_mut() {
            Some(Frame::Body(body)) => match &mut body.entry {
                Entry::Value { state, .. } => *state = State::Done,
                entry => *entry = Entry::Start,
            },
            Some(Frame::List { state, .. } | Frame::Call { state, .. } | Frame::Gate { state, .. }) => {
                *state = State::Done
            }
            Some(Frame::ImportNames { .. } | Frame::Unknown) => {}
            None => match &mut self.top {
                Top::Line { state, .. } => *state = State::Done,
                top => *top = Top::Start,
            },
        }
    }

    fn feed_top(&mut self, index: usize, token: Token) -> Role {
        let word = self.word(index).to_owned();
        let is_word = token.kind == TokenKind::Word;
        // A statement ends where a new line starts with a word.
        let ends = matches!(self.top, Top::Line { equals: true, .. } | Top::Imported { .. });
        if ends && token.first_on_line && is_word && word != "in" {
            self.top = Top::Start;
        }
        match &mut self.top {
            Top::Start if is_word => {
                self.top = match word.as_str() {
                    "import" | "extends" => Top::Import {
                        extends: word == "extends",
                    },
                    "let" | "param" => Top::Line {
                        name: false,
                        param: word == "param",
                        equals: false,
                        state: State::Empty,
                    },
                    _ => Top::Keyword(word),
                };
                Role::Keyword
            }
            Top::Keyword(keyword) if is_word => {
                let keyword = keyword.clone();
                self.top = Top::Named {
                    keyword: keyword.clone(),
                    name: word,
                };
                Role::Declared { keyword }
            }
            Top::Named { keyword, name } if token.kind == TokenKind::Open(b'{') => {
                let body = body(keyword, Some(name));
                self.top = Top::Start;
                self.frames.push(body);
                Role::Other
            }
            Top::Import { extends } if matches!(token.kind, TokenKind::Text { .. }) => {
                let path = word.trim_matches('"').to_owned();
                self.top = Top::Imported {
                    extends: *extends,
                    path,
                };
                Role::Path
            }
            Top::Imported { extends, path } if token.kind == TokenKind::Open(b'{') => {
                let frame = if *extends {
                    body("extends", None)
                } else {
                    Frame::ImportNames {
                        path: path.clone(),
                        present: Vec::new(),
                    }
                };
                self.top = Top::Start;
                self.frames.push(frame);
                Role::Other
            }
            Top::Line { name, param, .. } if !*name && is_word => {
                *name = true;
                Role::Declared {
                    keyword: if *param { "param" } else { "let" }.to_owned(),
                }
            }
            Top::Line { equals, .. } if !*equals && word == "=" => {
                *equals = true;
                Role::Other
            }
            Top::Line {
                equals: true, state, ..
            } => {
                if word == "in" && *state != State::Empty {
                    *state = State::Empty;
                    return Role::Keyword;
                }
                let mut state = *state;
                let role = self.feed_value(index, token, &mut state, &[], &[], false);
                if let Top::Line { state: own, .. } = &mut self.top {
                    *own = state;
                }
                role
            }
            _ => {
                if let TokenKind::Open(_) = token.kind {
                    self.frames.push(Frame::Unknown);
                }
                self.top = Top::Start;
                Role::Other
            }
        }
    }
}
