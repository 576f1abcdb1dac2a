//! Tokens of values: lists, calls, marks, and the expressions of gates.

use aurora_compiler::schema::{self, Type};
use aurora_lang::tokens::{Token, TokenKind};

use super::walk::{Frame, State, Walker};
use super::{Role, flat};

impl Walker<'_> {
    /// A token of a value; opens the frame of a bracket.
    pub(super) fn feed_value(
        &mut self,
        index: usize,
        token: Token,
        state: &mut State,
        types: &[&'static Type],
        path: &[String],
        swept: bool,
    ) -> Role {
        let word = self.word(index);
        let next_opens = self.kind(index + 1) == Some(TokenKind::Open(b'('));
        match (token.kind, *state) {
            (TokenKind::Sign, _) if word == "@" => {
                *state = State::At;
                Role::Mark
            }
            (TokenKind::Word, State::At) => {
                *state = State::Mark;
                Role::Mark
            }
            (TokenKind::Open(_), State::Mark | State::At) => {
                self.frames.push(Frame::Unknown);
                Role::Other
            }
            (TokenKind::Word, State::Number) => {
                *state = State::Done;
                Role::Unit
            }
            (TokenKind::Word, _) if word == "every" => {
                *state = State::Every;
                Role::Keyword
            }
            (TokenKind::Word, _) if next_opens => {
                *state = State::Done;
                Role::Call { name: word.to_owned() }
            }
            (TokenKind::Word, _) => {
                *state = State::Done;
                Role::Word { types: types.to_vec() }
            }
            (TokenKind::Number, _) => {
                *state = if word.ends_with('%') {
                    State::Done
                } else {
                    State::Number
                };
                Role::Number
            }
            (TokenKind::Text { .. }, _) => {
                *state = State::Done;
                Role::Text
            }
            (TokenKind::Open(b'['), _) => {
                let of = if swept { types.to_vec() } else { elements(types) };
                self.frames.push(Frame::List {
                    of,
                    state: State::Empty,
                    path: path.to_vec(),
                    index: 0,
                });
                Role::Other
            }
            (TokenKind::Open(b'('), _) => {
                let call = schema::call(index.checked_sub(1).map_or("", |before| self.word(before)));
                let path = path.to_vec();
                self.frames.push(Frame::Call {
                    call,
                    path,
                    present: Vec::new(),
                    argument: None,
                    state: State::Empty,
                    started: false,
                });
                Role::Other
            }
            (TokenKind::Open(_), _) => {
                self.frames.push(Frame::Unknown);
                Role::Other
            }
            _ => Role::Other,
        }
    }

    pub(super) fn feed_list(&mut self, index: usize, token: Token) -> Role {
        let comma = self.word(index) == ",";
        let Some(Frame::List {
            of,
            state,
            path,
            index: element,
        }) = self.frames.last_mut()
        else {
            return Role::Other;
        };
        if comma {
            *element += 1;
            *state = State::Empty;
            return Role::Other;
        }
        let (of, mut own) = (of.clone(), *state);
        let path: Vec<String> = path.iter().cloned().chain([element.to_string()]).collect();
        let at = self.frames.len() - 1;
        let role = self.feed_value(index, token, &mut own, &of, &path, false);
        if let Some(Frame::List { state, .. }) = self.frames.get_mut(at) {
            *state = own;
        }
        role
    }

    pub(super) fn feed_call(&mut self, index: usize, token: Token) -> Role {
        let word = self.word(index).to_owned();
        let names = token.kind == TokenKind::Word && self.word(index + 1) == "=";
        let Some(Frame::Call {
            call,
            path,
            present,
            argument,
            state,
            started,
        }) = self.frames.last_mut()
        else {
            return Role::Other;
        };
        if word == "," {
            (*argument, *state, *started) = (None, State::Empty, false);
            if let Some(first) = call.and_then(|call| call.first).filter(|_| present.is_empty()) {
                present.push(first.name.to_owned());
            }
            return Role::Other;
        }
        if names && *state == State::Empty {
            *argument = call.and_then(|call| call.arguments.iter().find(|field| field.name == word));
            present.push(word.clone());
            *started = true;
            let path = path.iter().cloned().chain([word]).collect();
            return Role::Argument {
                path,
                schema: *argument,
            };
        }
        if word == "=" {
            *started = true;
            return Role::Other;
        }
        let schema = if *started {
            *argument
        } else {
            call.and_then(|call| call.first)
        };
        let types = schema.map(|field| flat(&field.kind)).unwrap_or_default();
        let path: Vec<String> = path
            .iter()
            .cloned()
            .chain(schema.map(|field| field.name.to_owned()))
            .collect();
        let mut own = *state;
        let at = self.frames.len() - 1;
        let role = self.feed_value(index, token, &mut own, &types, &path, false);
        if let Some(Frame::Call { state, .. }) = self.frames.get_mut(at) {
            *state = own;
        }
        role
    }

    pub(super) fn feed_names(&mut self, index: usize, token: Token) -> Role {
        let word = self.word(index).to_owned();
        match self.frames.last_mut() {
            Some(Frame::ImportNames { present, .. }) if token.kind == TokenKind::Word => {
                present.push(word);
                Role::ImportName
            }
            _ => Role::Other,
        }
    }

    pub(super) fn feed_gate(&mut self, index: usize, token: Token) -> Role {
        let word = self.word(index).to_owned();
        let Some(Frame::Gate { path, dot, state }) = self.frames.last_mut() else {
            return Role::Other;
        };
        match token.kind {
            // `with 95% confidence`
            TokenKind::Word if *state != State::At && matches!(word.as_str(), "with" | "confidence") && !*dot => {
                path.clear();
                *state = if word == "with" { State::Every } else { State::Done };
                Role::Keyword
            }
            TokenKind::Word if matches!(state, State::At | State::Number) => {
                *state = if *state == State::At { State::Mark } else { State::Done };
                if *state == State::Mark { Role::Mark } else { Role::Unit }
            }
            TokenKind::Word => {
                if !*dot {
                    path.clear();
                }
                let calls = !*dot && self.kind(index + 1) == Some(TokenKind::Open(b'('));
                let Some(Frame::Gate { path, dot, .. }) = self.frames.last_mut() else {
                    return Role::Other;
                };
                *dot = false;
                if calls {
                    return Role::Call { name: word };
                }
                path.push(word);
                Role::Metric
            }
            TokenKind::Sign if word == "." => {
                *dot = true;
                Role::Other
            }
            // `pass@1` is one name.
            TokenKind::Sign if word == "@" && path.last().is_some_and(|name| name == "pass") => Role::Metric,
            TokenKind::Sign if word == "@" => {
                *state = State::At;
                Role::Mark
            }
            TokenKind::Number => {
                // Behind the number of `with 95%` no unit stands.
                *state = if *state == State::Every {
                    State::Done
                } else {
                    State::Number
                };
                Role::Number
            }
            TokenKind::Open(_) => {
                let frame = if *state == State::Mark { Frame::Unknown } else { gate() };
                self.frames.push(frame);
                Role::Other
            }
            _ => {
                path.clear();
                (*dot, *state) = (false, State::Empty);
                Role::Other
            }
        }
    }
}

/// What the elements of a list may be.
fn elements(types: &[&'static Type]) -> Vec<&'static Type> {
    let lists = types.iter().filter_map(|kind| match kind {
        Type::List { of, .. } => Some(*of),
        _ => None,
    });
    lists.flat_map(flat).collect()
}

pub(super) fn gate() -> Frame {
    Frame::Gate {
        path: Vec::new(),
        dot: false,
        state: State::Empty,
    }
}
