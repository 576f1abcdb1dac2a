//! What may be written behind the tokens that have been walked over.

use aurora_compiler::schema::Type;
use aurora_lang::tokens::TokenKind;

use super::walk::{Entry, Frame, State, Top, Walker};
use super::{Expected, flat};

impl Walker<'_> {
    /// Fields or arguments that the innermost brackets hold: those walked over, and those from a token on.
    pub fn present(mut self, from: usize) -> Vec<String> {
        let depth = self.frames.len();
        for index in from..self.tokens.len() {
            let closes = matches!(self.tokens[index].kind, TokenKind::Close(_)) && self.frames.len() == depth;
            if closes || self.starts_item(index) {
                break;
            }
            self.feed(index);
        }
        match self.frames.get(depth.wrapping_sub(1)) {
            Some(Frame::Body(body)) => {
                let last = match &body.entry {
                    Entry::Value { path, .. } => path.last().cloned(),
                    _ => None,
                };
                body.present.iter().cloned().chain(last).collect()
            }
            Some(Frame::Call { present, .. } | Frame::ImportNames { present, .. }) => present.clone(),
            _ => Vec::new(),
        }
    }

    /// What may be written behind the last token; `new_line` says whether that is on a line of its own.
    pub fn expected(&self, new_line: bool) -> Vec<Expected> {
        let value = |state: State, types: &[&'static Type], unknown: bool, swept: bool| match state {
            State::Empty => vec![Expected::Value {
                types: types.to_vec(),
                unknown,
                swept,
            }],
            State::Every => Vec::new(),
            State::Number => vec![Expected::Unit { types: types.to_vec() }, Expected::Mark { sign: false }],
            State::Done => vec![Expected::Mark { sign: false }],
            State::At => vec![Expected::Mark { sign: true }],
            State::Mark => Vec::new(),
        };
        match self.frames.last() {
            None => match &self.top {
                Top::Start => vec![Expected::Item],
                Top::Line {
                    equals: true, state, ..
                } if !new_line || *state == State::Empty => value(*state, &[], false, false),
                Top::Line { equals: true, .. } | Top::Imported { .. } if new_line => vec![Expected::Item],
                Top::Import { .. } => vec![Expected::Path { quoted: false }],
                _ => Vec::new(),
            },
            Some(Frame::ImportNames { path, .. }) => vec![Expected::ImportName { path: path.clone() }],
            Some(Frame::List { of, state, .. }) => value(*state, of, false, false),
            Some(Frame::Call {
                call,
                present,
                argument,
                state,
                started,
                ..
            }) => {
                let schema = if *started {
                    *argument
                } else {
                    call.and_then(|call| call.first).filter(|_| present.is_empty())
                };
                let types = schema.map(|field| flat(&field.kind)).unwrap_or_default();
                let mut all = Vec::new();
                if let (State::Empty, false, Some(call)) = (*state, *started, call) {
                    all.push(Expected::Argument { call });
                }
                if schema.is_some() || *state != State::Empty {
                    all.extend(value(*state, &types, schema.is_some_and(|field| field.unknown), false));
                }
                all
            }
            Some(Frame::Gate { path, dot, state }) => match state {
                State::At => vec![Expected::Mark { sign: true }],
                State::Number => vec![Expected::Unit { types: Vec::new() }],
                State::Every => Vec::new(),
                _ if *dot => vec![Expected::Metric { path: path.clone() }],
                _ => vec![Expected::Metric { path: Vec::new() }, Expected::Mark { sign: false }],
            },
            Some(Frame::Unknown) => Vec::new(),
            Some(Frame::Body(body)) => {
                let key = |names: &[String]| match body.kind {
                    Some(kind) if names.is_empty() => vec![Expected::Key { kind }],
                    Some(_) => Vec::new(),
                    None => vec![Expected::PathKey {
                        owner: body.owner.clone(),
                        path: names.to_vec(),
                    }],
                };
                match &body.entry {
                    Entry::Start => key(&[]),
                    Entry::Path { names, dot: true } => key(names),
                    Entry::Path { .. } if body.owner == "mixture" && !new_line => vec![Expected::From],
                    Entry::Path { names, .. } if body.kind.is_none() && !new_line => match names.as_slice() {
                        // `stage cap { … }` in a profile.
                        [keyword] => vec![Expected::PathKey {
                            owner: body.owner.clone(),
                            path: vec![keyword.clone()],
                        }],
                        _ => Vec::new(),
                    },
                    Entry::Path { .. } if new_line => key(&[]),
                    Entry::Path { .. } | Entry::Head { .. } => Vec::new(),
                    Entry::Value {
                        types,
                        unknown,
                        swept,
                        state,
                        of_component,
                        settings,
                        ..
                    } => {
                        let mut all = if new_line && *state != State::Empty {
                            Vec::new()
                        } else {
                            value(*state, types, *unknown, *swept)
                        };
                        if *of_component && matches!(state, State::Done | State::Number) {
                            all.push(Expected::Setting {
                                present: settings.clone(),
                            });
                        }
                        if matches!(state, State::Done | State::Number) && (new_line || !*of_component) {
                            all.extend(key(&[]));
                        }
                        all
                    }
                }
            }
        }
    }
}
