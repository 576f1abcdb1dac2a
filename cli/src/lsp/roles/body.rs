//! Tokens between the braces of a block: its fields, a mixture's lines, the paths of a profile.

use aurora_compiler::schema;
use aurora_compiler::spec::BlockKind;
use aurora_lang::tokens::{Token, TokenKind};

use super::value::gate;
use super::walk::{Body, Entry, Frame, State, Walker};
use super::{Role, flat};

impl Walker<'_> {
    pub(super) fn feed_body(&mut self, index: usize, token: Token) -> Role {
        let word = self.word(index).to_owned();
        let next = self.word(index + 1);
        let is_word = token.kind == TokenKind::Word;
        let next_on_line = self
            .tokens
            .get(index + 1)
            .is_some_and(|next| next.kind == TokenKind::Word && !next.first_on_line);
        let Some(Frame::Body(body)) = self.frames.last_mut() else {
            return Role::Other;
        };
        // A word behind a whole value starts the next entry, unless it is a unit or a setting.
        if let Entry::Value {
            path,
            state,
            of_component,
            ..
        } = &body.entry
        {
            let starts = matches!(next, "=" | "." | "{" | "from")
                || next_on_line
                    && !*of_component
                    && self
                        .tokens
                        .get(index + 2)
                        .is_some_and(|third| third.kind == TokenKind::Open(b'{'));
            let is_unit = *state == State::Number && !token.first_on_line && !starts;
            let is_setting = *of_component && matches!(word.as_str(), "weight" | "max_epochs") && next != "=";
            let may_start = match state {
                State::Done | State::Number => !is_unit && !is_setting,
                State::Empty | State::Every | State::At | State::Mark => token.first_on_line && starts,
            };
            if is_word && may_start {
                body.present.extend(path.last().cloned());
                body.entry = Entry::Start;
            }
        }
        match &mut body.entry {
            Entry::Start if is_word => {
                body.entry = Entry::Path {
                    names: vec![word],
                    dot: false,
                };
                self.role_of_path(index)
            }
            Entry::Path { dot, .. } if word == "." => {
                *dot = true;
                Role::Other
            }
            Entry::Path { names, dot } if is_word && *dot => {
                names.push(word);
                *dot = false;
                self.role_of_path(index)
            }
            Entry::Path { names, .. } if word == "=" => {
                let names = names.clone();
                body.entry = value_of(body, names);
                Role::Other
            }
            Entry::Path { names, .. }
                if is_word && matches!(word.as_str(), "from" | "weight" | "max_epochs") && names.len() == 1 =>
            {
                let path: Vec<String> = body.path.iter().chain(names.iter()).cloned().collect();
                body.entry = component(path, &word, Vec::new());
                Role::Keyword
            }
            Entry::Path { names, .. } if is_word && !token.first_on_line => {
                let keyword = names.pop().unwrap_or_default();
                body.entry = Entry::Head { keyword, name: word };
                Role::Block
            }
            Entry::Path { names, .. } if is_word => {
                body.present.extend(names.pop());
                body.entry = Entry::Path {
                    names: vec![word],
                    dot: false,
                };
                self.role_of_path(index)
            }
            Entry::Head { keyword, name } if token.kind == TokenKind::Open(b'{') => {
                let frame = self::body(keyword, Some(name));
                body.entry = Entry::Start;
                self.frames.push(frame);
                Role::Other
            }
            Entry::Value {
                path,
                of_component: true,
                settings,
                state: State::Done | State::Number,
                ..
            } if is_word => {
                settings.push(word.clone());
                let (path, settings) = (path.clone(), settings.clone());
                body.entry = component(path, &word, settings);
                Role::Keyword
            }
            Entry::Value {
                path,
                types,
                swept,
                state,
                ..
            } => {
                let (path, types, swept, mut own) = (path.clone(), types.clone(), *swept, *state);
                let at = self.frames.len() - 1;
                let role = self.feed_value(index, token, &mut own, &types, &path, swept);
                if let Some(Frame::Body(Body {
                    entry: Entry::Value { state, .. },
                    ..
                })) = self.frames.get_mut(at)
                {
                    *state = own;
                }
                role
            }
            _ => {
                if let TokenKind::Open(_) = token.kind {
                    self.frames.push(Frame::Unknown);
                }
                Role::Other
            }
        }
    }

    /// The name that a path has just got.
    fn role_of_path(&self, index: usize) -> Role {
        let Some(Frame::Body(Body {
            kind,
            path,
            owner,
            entry: Entry::Path { names, .. },
            ..
        })) = self.frames.last()
        else {
            return Role::Other;
        };
        let full: Vec<String> = path.iter().chain(names).cloned().collect();
        if kind.is_none() {
            let opens_block = self.kind(index + 2) == Some(TokenKind::Open(b'{'));
            return match names.as_slice() {
                [_] if self.word(index + 1) == "." || opens_block => Role::Keyword,
                // A parameter.
                [_] => Role::Block,
                [_, _] => Role::Block,
                [kind, _, rest @ ..] => key(schema::kind(kind), rest, full.clone()),
                [] => Role::Other,
            };
        }
        if owner == "mixture" {
            return Role::Component { path: full };
        }
        key(*kind, names, full)
    }
}

fn key(kind: Option<BlockKind>, names: &[String], path: Vec<String>) -> Role {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let schema = kind.and_then(|kind| schema::at_path(kind, &names));
    if kind == Some(BlockKind::Mixture) && names.len() == 1 {
        return Role::Component { path };
    }
    Role::Key { path, schema }
}

pub(super) fn body(owner: &str, name: Option<&str>) -> Frame {
    let kind = schema::kind(owner);
    if kind == Some(BlockKind::Expect) {
        return gate();
    }
    let path = match (kind, name) {
        (Some(_), Some(name)) => vec![owner.to_owned(), name.to_owned()],
        _ => Vec::new(),
    };
    Frame::Body(Body {
        owner: owner.to_owned(),
        kind,
        path,
        present: Vec::new(),
        entry: Entry::Start,
    })
}

/// What stands behind the `=` of a field.
fn value_of(body: &Body, names: Vec<String>) -> Entry {
    let relative: Vec<&str> = names.iter().map(String::as_str).collect();
    let schema = match (body.kind, relative.as_slice()) {
        (Some(kind), names) => schema::at_path(kind, names),
        (None, [kind, _, rest @ ..]) => schema::kind(kind).and_then(|kind| schema::at_path(kind, rest)),
        (None, _) => None,
    };
    Entry::Value {
        path: body.path.iter().chain(&names).cloned().collect(),
        types: schema.map(|field| flat(&field.kind)).unwrap_or_default(),
        unknown: schema.is_some_and(|field| field.unknown),
        swept: matches!(body.owner.as_str(), "sweep" | "zip"),
        state: State::Empty,
        of_component: false,
        settings: Vec::new(),
    }
}

/// What stands behind `from`, `weight` or `max_epochs` in a line of a mixture.
fn component(path: Vec<String>, word: &str, mut settings: Vec<String>) -> Entry {
    let schema = schema::component().all().find(|field| field.name == word);
    if !settings.iter().any(|known| known == word) {
        settings.push(word.to_owned());
    }
    Entry::Value {
        path,
        types: schema.map(|field| flat(&field.kind)).unwrap_or_default(),
        unknown: schema.is_some_and(|field| field.unknown),
        swept: false,
        state: State::Empty,
        of_component: true,
        settings,
    }
}
