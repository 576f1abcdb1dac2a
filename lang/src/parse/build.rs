//! Builds the syntax tree from pest's pairs.
//!
//! Asserts the structure that the grammar guarantees. Errors that the grammar accepts (an unknown escape, a gate of
//! hundreds of operators) are collected as diagnostics.

use pest::iterators::Pair;

use super::grammar::Rule;
use super::{MOST_ELEMENTS, MOST_OPERATORS};
use crate::ast::{
    Allowed, Argument, Block, Body, Call, Component, Confidence, Entry, Expression, ExpressionKind, Field, File, Gate,
    Mark, Name, Number, Operator, Quoted, Span, Statement, StatementKind, Value, ValueKind,
};
use crate::diagnostics::{Code, Diagnostic};

pub(super) struct Builder {
    /// Where the chunk starts in the text.
    pub offset: usize,
    pub errors: Vec<Diagnostic>,
}

impl Builder {
    fn span(&self, pair: &Pair<'_, Rule>) -> Span {
        // If the optional last part of a rule is missing, pest's span includes the white space and comments before it.
        // The rule ends where its last part ends.
        let mut last = pair.clone();
        while let Some(inner) = last.clone().into_inner().next_back() {
            last = inner;
        }
        Span::new(self.offset + pair.as_span().start(), self.offset + last.as_span().end())
    }

    fn name(&self, pair: Pair<'_, Rule>) -> Name {
        Name {
            text: pair.as_str().to_owned(),
            span: self.span(&pair),
        }
    }

    /// Adds the block or statement of a chunk to the file.
    pub(super) fn item(&mut self, pair: Pair<'_, Rule>, file: &mut File) {
        assert_eq!(pair.as_rule(), Rule::item); // item = { import | extends | let_line | param | gate_block | block }
        let inner = children(pair)
            .into_iter()
            .find(|pair| pair.as_rule() != Rule::EOI)
            .expect("an item holds a block or a statement");
        let span = self.span(&inner);
        let kind = match inner.as_rule() {
            Rule::gate_block => return file.items.push(self.gate_block(inner)),
            Rule::block => return file.items.push(self.block(inner)),
            Rule::import => self.import(inner),
            Rule::extends => self.extends(inner),
            Rule::let_line => self.let_line(inner),
            rule => {
                assert_eq!(rule, Rule::param);
                self.param(inner)
            }
        };
        file.statements.push(Statement { kind, span });
    }

    fn import(&mut self, pair: Pair<'_, Rule>) -> StatementKind {
        // import = { import_word ~ text ~ names? }
        let mut parts = children(pair).into_iter().skip(1);
        let path = self.quoted(parts.next().expect("an import has a path"));
        let names = parts.next().map(|names| {
            let span = self.span(&names);
            let names = children(names);
            self.bounded(names.len(), span, "names");
            names
                .into_iter()
                .take(MOST_ELEMENTS)
                .map(|name| self.name(name))
                .collect()
        });
        StatementKind::Import { path, names }
    }

    fn extends(&mut self, pair: Pair<'_, Rule>) -> StatementKind {
        // extends = { extends_word ~ text ~ entry* }
        let span = self.span(&pair);
        let mut parts = children(pair).into_iter().skip(1);
        let path = self.quoted(parts.next().expect("`extends` has a path"));
        self.bounded(parts.len(), span, "entries");
        let entries = parts.take(MOST_ELEMENTS).map(|entry| self.entry(entry)).collect();
        StatementKind::Extends { path, entries }
    }

    fn let_line(&mut self, pair: Pair<'_, Rule>) -> StatementKind {
        let [_, name, value] = children(pair)
            .try_into()
            .expect("let_line = { let_word ~ name ~ marked }");
        StatementKind::Let {
            name: self.name(name),
            value: self.marked(value),
        }
    }

    fn param(&mut self, pair: Pair<'_, Rule>) -> StatementKind {
        // param = { param_word ~ name ~ marked ~ (in_word ~ (list | between))? }
        let mut parts = children(pair).into_iter().skip(1);
        let name = self.name(parts.next().expect("a parameter has a name"));
        let value = self.marked(parts.next().expect("a parameter has a value"));
        let allowed = parts.nth(1).map(|allowed| {
            if allowed.as_rule() == Rule::list {
                return Box::new(Allowed::OneOf(
                    children(allowed).into_iter().map(|item| self.marked(item)).collect(),
                ));
            }
            let [least, _, most] = children(allowed)
                .try_into()
                .expect("between = { number ~ to_sign ~ number }");
            Box::new(Allowed::Between(self.bare_number(least), self.bare_number(most)))
        });
        StatementKind::Param { name, value, allowed }
    }

    fn quoted(&mut self, pair: Pair<'_, Rule>) -> Quoted {
        let span = Span::new(self.offset + pair.as_span().start(), self.offset + pair.as_span().end());
        Quoted {
            text: self.text(pair),
            span,
        }
    }

    fn bare_number(&self, pair: Pair<'_, Rule>) -> Value {
        let span = self.span(&pair);
        Value {
            kind: ValueKind::Number(self.number(pair)),
            span,
            marks: Vec::new(),
        }
    }

    fn block(&mut self, pair: Pair<'_, Rule>) -> Block {
        assert_eq!(pair.as_rule(), Rule::block); // block = { name ~ block_name ~ entry* }
        let span = self.span(&pair);
        let mut parts = children(pair).into_iter();
        let keyword = self.name(parts.next().expect("a block has a keyword"));
        let name = self.name(parts.next().expect("a block has a name"));
        self.bounded(parts.len(), span, "entries");
        let entries = parts.take(MOST_ELEMENTS).map(|entry| self.entry(entry)).collect();
        Block {
            keyword,
            name,
            body: Body::Entries(entries),
            span,
            documentation: Vec::new(),
        }
    }

    fn gate_block(&mut self, pair: Pair<'_, Rule>) -> Block {
        assert_eq!(pair.as_rule(), Rule::gate_block); // gate_block = { expect_word ~ block_name ~ gate ~ mark* }
        let span = self.span(&pair);
        let mut parts = children(pair).into_iter();
        let keyword = self.name(parts.next().expect("a gate block has a keyword"));
        let name = self.name(parts.next().expect("a gate block has a name"));
        let gate = parts.next().expect("a gate block has a gate");
        let gate_span = self.span(&gate);
        // gate = { expression ~ relation ~ expression ~ confidence? }
        let mut sides = children(gate).into_iter();
        let mut next = || sides.next().expect("a gate has two sides and a relation");
        let (left, relation, right) = (next(), next(), next());
        let gate = Gate {
            left: self.expression(left),
            relation: self.name(relation),
            right: self.expression(right),
            confidence: sides.next().map(|pair| {
                let number = only_child(pair); // confidence = { with_word ~ number ~ confidence_word }
                Confidence {
                    span: self.span(&number),
                    number: self.number(number),
                }
            }),
            span: gate_span,
            marks: parts.map(|mark| self.mark(mark)).collect(),
        };
        Block {
            keyword,
            name,
            body: Body::Gate(Box::new(gate)),
            span,
            documentation: Vec::new(),
        }
    }

    fn entry(&mut self, pair: Pair<'_, Rule>) -> Entry {
        let span = self.span(&pair);
        match pair.as_rule() {
            Rule::nested => Entry::Block(self.block(only_child(pair))),
            Rule::component => {
                // component = { name ~ from_word ~ marked ~ setting* }
                let mut parts = children(pair).into_iter();
                let name = self.name(parts.next().expect("a component has a name"));
                parts.next().expect("a component has `from`");
                let from = self.marked(parts.next().expect("a component has a list"));
                let settings = parts
                    .map(|setting| {
                        let [word, value] = children(setting)
                            .try_into()
                            .expect("setting = { setting_word ~ marked }");
                        (self.name(word), self.marked(value))
                    })
                    .collect();
                Entry::Component(Component {
                    name,
                    from,
                    settings,
                    span,
                })
            }
            _ => Entry::Field(self.field(pair)),
        }
    }

    fn field(&mut self, pair: Pair<'_, Rule>) -> Field {
        assert_eq!(pair.as_rule(), Rule::field); // field = { path ~ equals ~ marked }
        let span = self.span(&pair);
        let [path, value] = children(pair).try_into().expect("field = { path ~ marked }");
        let path = children(path).into_iter().map(|name| self.name(name)).collect();
        Field {
            path,
            value: self.marked(value),
            span,
        }
    }

    pub(super) fn lone_field(&mut self, pair: Pair<'_, Rule>) -> Field {
        assert_eq!(pair.as_rule(), Rule::lone_field); // lone_field = { field }
        self.field(only_child(pair))
    }

    fn marked(&mut self, pair: Pair<'_, Rule>) -> Value {
        assert_eq!(pair.as_rule(), Rule::marked); // marked = { value ~ mark* }
        let mut parts = children(pair).into_iter();
        let value = parts.next().expect("a marked value has a value");
        let mut value = self.value(value);
        value.marks = parts.map(|mark| self.mark(mark)).collect();
        value
    }

    fn mark(&mut self, pair: Pair<'_, Rule>) -> Mark {
        assert_eq!(pair.as_rule(), Rule::mark); // mark = { at_sign ~ name ~ text }
        let span = self.span(&pair);
        let [name, text] = children(pair).try_into().expect("mark = { name ~ text }");
        Mark {
            name: self.name(name),
            text: self.text(text),
            span,
        }
    }

    fn value(&mut self, pair: Pair<'_, Rule>) -> Value {
        assert_eq!(pair.as_rule(), Rule::value); // value = { every | call | word | number | text | list }
        let inner = only_child(pair);
        let span = self.span(&inner);
        let kind = match inner.as_rule() {
            Rule::every => {
                let number = children(inner).pop().expect("every = { every_word ~ number }");
                ValueKind::Every(Box::new(self.bare_number(number)))
            }
            Rule::call => {
                let mut parts = children(inner).into_iter();
                let name = self.name(parts.next().expect("a call has a name"));
                ValueKind::Call(Call {
                    name,
                    arguments: parts.map(|argument| self.argument(argument)).collect(),
                })
            }
            Rule::word => ValueKind::Word(inner.as_str().to_owned()),
            Rule::number => ValueKind::Number(self.number(inner)),
            Rule::text => ValueKind::Text(self.text(inner)),
            rule => {
                assert_eq!(rule, Rule::list);
                {
                    let items = children(inner);
                    self.bounded(items.len(), span, "elements");
                    ValueKind::List(
                        items
                            .into_iter()
                            .take(MOST_ELEMENTS)
                            .map(|item| self.marked(item))
                            .collect(),
                    )
                }
            }
        };
        Value {
            kind,
            span,
            marks: Vec::new(),
        }
    }

    /// Reports too many elements.
    fn bounded(&mut self, count: usize, span: Span, what: &str) {
        if count > MOST_ELEMENTS {
            let message = format!("{count} {what}, and the limit is {MOST_ELEMENTS}");
            self.errors.push(
                Diagnostic::new(Code::FILE_TOO_LARGE, message).label(Span::new(span.start, span.start + 1), "too long"),
            );
        }
    }

    fn argument(&mut self, pair: Pair<'_, Rule>) -> Argument {
        assert_eq!(pair.as_rule(), Rule::argument); // argument = { (name ~ equals)? ~ marked }
        let span = self.span(&pair);
        let mut parts = children(pair);
        let value = parts.pop().expect("an argument has a value");
        let name = parts.pop().map(|name| self.name(name));
        Argument {
            name,
            value: self.marked(value),
            span,
        }
    }

    fn number(&self, pair: Pair<'_, Rule>) -> Number {
        assert_eq!(pair.as_rule(), Rule::number); // number = ${ digits ~ suffix? ~ percent? ~ unit? }
        let mut number = Number {
            digits: String::new(),
            suffix: None,
            percent: false,
            unit: None,
        };
        for part in pair.into_inner() {
            match part.as_rule() {
                Rule::digits => number.digits = part.as_str().to_owned(),
                Rule::suffix => number.suffix = part.as_str().chars().next(),
                Rule::percent => number.percent = true,
                _ => number.unit = Some(self.name(part)),
            }
        }
        number
    }

    fn text(&mut self, pair: Pair<'_, Rule>) -> String {
        assert_eq!(pair.as_rule(), Rule::text); // text = ${ quote ~ inner ~ quote }
        let inner = pair
            .into_inner()
            .find(|part| part.as_rule() == Rule::inner)
            .expect("a text has an inside");
        let start = self.offset + inner.as_span().start();
        let mut text = String::new();
        let mut characters = inner.as_str().char_indices();
        while let Some((at, character)) = characters.next() {
            if character != '\\' {
                text.push(character);
                continue;
            }
            match characters.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, same @ ('"' | '\\'))) => text.push(same),
                other => {
                    let escaped = other.map_or(String::new(), |(_, escaped)| escaped.to_string());
                    let span = Span::new(start + at, start + at + 1 + escaped.len());
                    self.errors.push(
                        Diagnostic::new(Code::UNKNOWN_ESCAPE, format!("unknown escape `\\{escaped}` in a text"))
                            .label(span, "not an escape")
                            .help(
                                "the escapes are `\\\"`, `\\\\`, `\\n` and `\\t`; a single backslash is written `\\\\`",
                            ),
                    );
                }
            }
        }
        text
    }

    fn expression(&mut self, pair: Pair<'_, Rule>) -> Expression {
        // expression = { term ~ (sum_sign ~ term)* }, and term alike
        let span = self.span(&pair);
        let mut parts = children(pair).into_iter();
        let mut left = self.operand(parts.next().expect("an expression has an operand"));
        let mut operators = 0;
        while let (Some(sign), Some(right)) = (parts.next(), parts.next()) {
            operators += 1;
            if operators > MOST_OPERATORS {
                self.errors.push(
                    Diagnostic::new(
                        Code::TOO_DEEP,
                        format!("more than {MOST_OPERATORS} operators in one expression"),
                    )
                    .label(span, "too long")
                    .help("a gate compares a metric with another one and a tolerance"),
                );
                break;
            }
            let operator = match sign.as_str() {
                "+" => Operator::Add,
                "-" => Operator::Subtract,
                _ => Operator::Multiply,
            };
            let right = self.operand(right);
            let span = left.span.to(right.span);
            let kind = ExpressionKind::Binary {
                left: Box::new(left),
                operator,
                right: Box::new(right),
            };
            left = Expression { kind, span };
        }
        left
    }

    fn operand(&mut self, pair: Pair<'_, Rule>) -> Expression {
        if pair.as_rule() == Rule::term {
            return self.expression(pair);
        }
        assert_eq!(pair.as_rule(), Rule::factor); // factor = { number | function | metric | group }
        let inner = only_child(pair);
        let span = self.span(&inner);
        let kind = match inner.as_rule() {
            Rule::number => ExpressionKind::Number(self.number(inner)),
            Rule::metric => ExpressionKind::Metric(children(inner).into_iter().map(|name| self.name(name)).collect()),
            Rule::function => {
                // function = { name ~ expression* }
                let mut parts = children(inner).into_iter();
                let name = self.name(parts.next().expect("a function has a name"));
                let arguments: Vec<Expression> = parts
                    .take(MOST_OPERATORS + 1)
                    .map(|argument| self.expression(argument))
                    .collect();
                if arguments.len() > MOST_OPERATORS {
                    self.errors.push(
                        Diagnostic::new(Code::TOO_DEEP, format!("more than {MOST_OPERATORS} arguments"))
                            .label(span, "too long")
                            .help("a gate compares a few metrics"),
                    );
                }
                ExpressionKind::Function { name, arguments }
            }
            rule => {
                assert_eq!(rule, Rule::group);
                ExpressionKind::Group(Box::new(self.expression(only_child(inner))))
            }
        };
        Expression { kind, span }
    }
}

/// The parts of a pair without punctuation.
fn children(pair: Pair<'_, Rule>) -> Vec<Pair<'_, Rule>> {
    let punctuation = [
        Rule::equals,
        Rule::dot,
        Rule::comma,
        Rule::at_sign,
        Rule::quote,
        Rule::open_brace,
        Rule::close_brace,
        Rule::open_paren,
        Rule::close_paren,
        Rule::with_word,
        Rule::confidence_word,
        Rule::open_bracket,
        Rule::close_bracket,
    ];
    pair.into_inner()
        .filter(|part| !punctuation.contains(&part.as_rule()))
        .collect()
}

fn only_child(pair: Pair<'_, Rule>) -> Pair<'_, Rule> {
    children(pair)
        .into_iter()
        .next()
        .expect("the grammar gives this rule one part")
}

/// Attaches the `///` lines directly before a block to it.
pub(super) fn attach_documentation(file: &mut File, text: &str) {
    let mut next = 0;
    for item in &mut file.items {
        let mut lines: Vec<String> = Vec::new();
        let mut end = None;
        while let Some(comment) = file
            .comments
            .get(next)
            .filter(|comment| comment.span.start < item.span.start)
        {
            next += 1;
            let joins = |end: usize| text[end..comment.span.start].trim_matches(['\r', ' ', '\t']) == "\n";
            if !comment.is_documentation() || !comment.own_line {
                lines.clear();
                end = None;
                continue;
            }
            if !end.is_some_and(joins) {
                lines.clear();
            }
            lines.push(comment.text.trim_start_matches('/').trim().to_owned());
            end = Some(comment.span.end);
        }
        if end.is_some_and(|end| text[end..item.span.start].matches('\n').count() <= 1) {
            item.documentation = lines;
        }
        while file
            .comments
            .get(next)
            .is_some_and(|comment| comment.span.start < item.span.end)
        {
            next += 1;
        }
    }
}
