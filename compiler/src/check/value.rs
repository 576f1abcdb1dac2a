//! Reads written values against the types of the tables.

use std::collections::BTreeMap;

use aurora_lang::ast::{self, Name, Span, ValueKind};
use aurora_lang::diagnostics::{Applicability, Code, Diagnostic};

use super::Checker;
use super::collect::duplicate;
use crate::language;
use crate::names::{nearest, suggest};
use crate::schema::{self, CallSchema, Default, FieldSchema, TextKind, Type, describe};
use crate::server::ServerAddress;
use crate::spec::{BlockId, BlockKind, Evidence, Field, Value};

impl Checker<'_> {
    /// Reads the value of a field or argument; reports an error and returns none if it is not valid.
    pub(super) fn field(&mut self, written: &ast::Value, schema: &FieldSchema) -> Option<Field> {
        let evidence = self.evidence(written);
        let origin = self.origin(written.span);
        if matches!(&written.kind, ValueKind::Word(word) if word == "unknown") {
            if !schema.unknown {
                self.error(
                    Diagnostic::new(
                        Code::CANNOT_BE_UNKNOWN,
                        format!("`{}` cannot be `unknown`", schema.name),
                    )
                    .label(written.span, "needs a value")
                    .help("write a value with `@assumed(\"why\")` after it"),
                );
                return None;
            }
            if let Some(mark) = written.marks.first() {
                self.error(
                    Diagnostic::new(
                        Code::BAD_EVIDENCE,
                        format!("`unknown` has no evidence, but is marked `@{}`", mark.name.text),
                    )
                    .label(mark.span, "evidence for nothing")
                    .help("write the value that the evidence is for, or remove the mark"),
                );
            }
            return Some(Field {
                value: Value::Unknown,
                origin,
                evidence: None,
            });
        }
        let value = self.value(written, &schema.kind, schema.name)?;
        Some(Field {
            value,
            origin,
            evidence,
        })
    }

    fn element(&mut self, written: &ast::Value, kind: &Type, name: &str) -> Option<Field> {
        let evidence = self.evidence(written);
        let origin = self.origin(written.span);
        let value = self.value(written, kind, name)?;
        Some(Field {
            value,
            origin,
            evidence,
        })
    }

    fn evidence(&mut self, written: &ast::Value) -> Option<Evidence> {
        self.evidence_of(&written.marks)
    }

    pub(super) fn evidence_of(&mut self, marks: &[ast::Mark]) -> Option<Evidence> {
        if let [first, second, ..] = marks {
            self.error(
                Diagnostic::new(Code::BAD_EVIDENCE, "a value has one mark of evidence")
                    .label(second.span, "a second mark")
                    .label(first.span, "the first one")
                    .help("keep the mark that the value is based on"),
            );
        }
        let mark = marks.first()?;
        let text = mark.text.trim().to_owned();
        if text.is_empty() {
            self.error(
                Diagnostic::new(Code::BAD_EVIDENCE, format!("`@{}` has no text", mark.name.text))
                    .label(mark.span, "empty")
                    .help("write where it is published, how it was inferred, or why it is assumed"),
            );
        }
        match mark.name.text.as_str() {
            "published" => Some(Evidence::Published(text)),
            "inferred" => Some(Evidence::Inferred(text)),
            "assumed" => Some(Evidence::Assumed(text)),
            other => {
                let diagnostic = Diagnostic::new(Code::BAD_EVIDENCE, format!("no mark is called `@{other}`"))
                    .label(mark.name.span, "unknown mark");
                let marks = ["published", "inferred", "assumed"];
                self.error(suggest(diagnostic, &mark.name, marks.into_iter(), "a mark"));
                None
            }
        }
    }

    /// Reads a value of a type. Recursion is bounded, because the parser bounds the depth of values.
    fn value(&mut self, written: &ast::Value, kind: &Type, name: &str) -> Option<Value> {
        let span = written.span;
        match (kind, &written.kind) {
            (Type::Bool, ValueKind::Word(word)) if word == "true" || word == "false" => {
                Some(Value::Bool(word == "true"))
            }
            (
                Type::Integer {
                    least,
                    most,
                    power_of_two,
                },
                ValueKind::Number(number),
            ) => {
                let value = self.integer(number, span, *least, *most)?;
                if *power_of_two && value & (value - 1) != 0 {
                    return self.not_a_power_of_two(value, span, name);
                }
                Some(Value::Integer(value))
            }
            (Type::Decimal { range }, ValueKind::Number(number)) => {
                self.exact_number(number, span, range).map(Value::Decimal)
            }
            (Type::Percent { range }, ValueKind::Number(number)) => {
                self.percent(number, span, range).map(Value::Percent)
            }
            (Type::Text(kind), ValueKind::Text(text)) => self.text(text, *kind, span).map(Value::Text),
            (Type::Word(words), ValueKind::Word(word)) => {
                if words.iter().any(|(allowed, _)| allowed == word) {
                    return Some(Value::Word(word.clone()));
                }
                let diagnostic = Diagnostic::new(Code::UNKNOWN_WORD, format!("`{name}` cannot be `{word}`"))
                    .label(span, format!("expected {}", describe(kind)));
                self.unknown_word(diagnostic, word, span, words)
            }
            (Type::Language, ValueKind::Word(tag) | ValueKind::Text(tag)) => self.language(tag, span).map(Value::Word),
            (Type::Quantity { units, least, most }, ValueKind::Number(number)) => self
                .quantity(number, span, units, *least..=*most)
                .map(|(count, unit)| Value::Quantity(count, unit)),
            (Type::Every(units), ValueKind::Every(inner)) => {
                let ValueKind::Number(number) = &inner.kind else {
                    return self.wrong_type(written, kind, name);
                };
                let (count, unit) = self.quantity(number, inner.span, units, 1..=u64::MAX)?;
                Some(Value::Every(Box::new(Value::Quantity(count, unit))))
            }
            (Type::Every(_), ValueKind::Number(_)) => {
                let diagnostic = Diagnostic::new(Code::WRONG_TYPE, format!("`{name}` is an interval"))
                    .label(span, "expected `every`");
                let text = format!("every {}", self.source_text(span));
                self.error(diagnostic.help_edit(format!("write `{text}`"), span, text, Applicability::Safe));
                None
            }
            (Type::Reference(kinds), ValueKind::Word(word)) => self.reference(word, span, kinds),
            (Type::List { of, least }, ValueKind::List(items)) => self.list(items, span, of, *least, name),
            (Type::List { of, .. }, other) if !matches!(other, ValueKind::List(_)) => {
                let diagnostic = Diagnostic::new(Code::WRONG_TYPE, format!("`{name}` is a list"))
                    .label(span, format!("expected a list, each element {}", describe(of)));
                let text = format!("[{}]", self.source_text(span));
                self.error(match looks_like(written, of) {
                    true => diagnostic.help_edit(format!("write `{text}`"), span, text, Applicability::Safe),
                    false => diagnostic,
                });
                None
            }
            (Type::Call(calls), ValueKind::Call(call)) => self.call(&call.name, &call.arguments, calls, name),
            (Type::Call(calls), ValueKind::Word(word)) => {
                let call = Name {
                    text: word.clone(),
                    span,
                };
                self.call(&call, &[], calls, name)
            }
            (Type::OneOf(types), _) => match meant(written, types) {
                Some(kind) => self.value(written, kind, name),
                None => self.wrong_type(written, kind, name),
            },
            (Type::Nothing, ValueKind::Word(word)) if word == "none" => Some(Value::None),
            _ => self.wrong_type(written, kind, name),
        }
    }

    fn language(&mut self, written: &str, span: Span) -> Option<String> {
        match language::canonical(written) {
            Ok(tag) => Some(tag),
            Err(why) => {
                let known = language::DETECTED.into_iter().map(|(tag, _)| tag);
                let known = known.chain(language::WITHOUT.map(|(name, _)| name));
                let name = Name {
                    text: written.to_owned(),
                    span,
                };
                let diagnostic = Diagnostic::new(Code::UNKNOWN_WORD, why).label(span, "unknown language");
                self.error(suggest(diagnostic, &name, known, "a language"));
                None
            }
        }
    }

    fn source_text(&self, span: Span) -> &str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }

    fn not_a_power_of_two(&mut self, value: i64, span: Span, name: &str) -> Option<Value> {
        let below = 1_i64 << (63 - value.leading_zeros());
        self.error(
            Diagnostic::new(
                Code::OUT_OF_RANGE,
                format!("`{name}` must be a power of two, and {value} is not"),
            )
            .label(span, "not a power of two")
            .help(format!("the nearest are {below} and {}", below * 2)),
        );
        None
    }

    fn unknown_word(
        &mut self,
        diagnostic: Diagnostic,
        word: &str,
        span: Span,
        words: &[(&str, &str)],
    ) -> Option<Value> {
        let allowed = words.iter().map(|(allowed, _)| *allowed);
        let written = Name {
            text: word.to_owned(),
            span,
        };
        self.error(match nearest(word, allowed.clone()) {
            Some(_) => suggest(diagnostic, &written, allowed, "a word"),
            None => diagnostic,
        });
        None
    }

    fn wrong_type(&mut self, written: &ast::Value, kind: &Type, name: &str) -> Option<Value> {
        let found = match &written.kind {
            ValueKind::Number(_) => "a number".to_owned(),
            ValueKind::Text(_) => "a text".to_owned(),
            ValueKind::Word(word) => format!("the word `{word}`"),
            ValueKind::Every(_) => "an interval".to_owned(),
            ValueKind::List(_) => "a list".to_owned(),
            ValueKind::Call(call) => format!("a call of `{}`", call.name.text),
        };
        let expected = describe(kind);
        let mut diagnostic = Diagnostic::new(Code::WRONG_TYPE, format!("`{name}` is {expected}, not {found}"))
            .label(written.span, format!("expected {expected}"));
        if let (Type::Text(_), ValueKind::Word(word)) = (kind, &written.kind) {
            diagnostic = diagnostic.help_edit(
                format!("write `\"{word}\"`"),
                written.span,
                format!("\"{word}\""),
                Applicability::Safe,
            );
        }
        if let (Type::Word(_) | Type::Reference(_) | Type::Bool, ValueKind::Text(text)) = (kind, &written.kind) {
            diagnostic = diagnostic.help_edit(
                "write it without quotes",
                written.span,
                text.clone(),
                Applicability::Safe,
            );
        }
        self.error(diagnostic);
        None
    }

    fn text(&mut self, text: &str, kind: TextKind, span: Span) -> Option<String> {
        let error = match kind {
            TextKind::Plain if text.is_empty() => {
                Some(Diagnostic::new(Code::OUT_OF_RANGE, "this text is empty").label(span, "empty"))
            }
            TextKind::Plain => None,
            TextKind::Source => super::source::reference_error(text, span),
            TextKind::Pattern => super::source::pattern_error(text, span),
            TextKind::Server => server_error(text, span),
            TextKind::Repository => super::source::repository_error(text, span),
            TextKind::Encoding => super::source::encoding_error(text, span),
            TextKind::Delimiter => super::source::delimiter_error(text, span),
        };
        match error {
            Some(error) => {
                self.error(error);
                None
            }
            None => Some(text.to_owned()),
        }
    }

    fn reference(&mut self, word: &str, span: Span, kinds: &[BlockKind]) -> Option<Value> {
        if self.names.anything.contains(word) {
            return None;
        }
        for &kind in kinds {
            let id = BlockId {
                kind,
                name: word.to_owned(),
            };
            if self.names.declared.contains_key(&id) {
                return Some(Value::Reference(id));
            }
        }
        let wanted = schema::kind_names(kinds);
        let other = self.names.declared.iter().find(|(id, _)| id.name == word);
        let written = Name {
            text: word.to_owned(),
            span,
        };
        let candidates: Vec<String> = kinds
            .iter()
            .flat_map(|&kind| self.names.of_kind(kind))
            .map(str::to_owned)
            .collect();
        // After a hundred errors, suggestions are not useful, and each costs a comparison with every name.
        let candidates = if self.errors.len() < 100 {
            candidates
        } else {
            Vec::new()
        };
        let candidates = candidates.iter().map(String::as_str);
        let diagnostic = match other {
            Some((id, place)) => {
                let message = format!("`{word}` is {}, expected {wanted}", schema::with_article(id.kind));
                let diagnostic = Diagnostic::new(Code::WRONG_KIND, message).label(span, format!("expected {wanted}"));
                let diagnostic = match *place {
                    Some(place) => diagnostic.label(place, "declared here"),
                    None => diagnostic,
                };
                suggest(diagnostic, &written, candidates, "one")
            }
            None => {
                let message = format!("no {} is called `{word}`", kind_list(kinds));
                let diagnostic = Diagnostic::new(Code::UNKNOWN_NAME, message).label(span, "unknown name");
                suggest(diagnostic, &written, candidates, "one")
            }
        };
        self.error(diagnostic);
        None
    }

    fn list(&mut self, items: &[ast::Value], span: Span, of: &Type, least: usize, name: &str) -> Option<Value> {
        if items.len() < least {
            self.error(
                Diagnostic::new(Code::BAD_LIST, format!("`{name}` is empty"))
                    .label(span, format!("needs at least one element, {}", describe(of))),
            );
            return None;
        }
        let mut fields: Vec<Field> = Vec::new();
        let mut is_valid = true;
        for item in items {
            match self.element(item, of, name) {
                Some(field) => {
                    let twice = !matches!(field.value, Value::Call { .. })
                        && fields.iter().any(|earlier| earlier.value == field.value);
                    if twice {
                        let message = format!("`{name}` contains `{}` twice", field.value);
                        self.error(
                            Diagnostic::new(Code::BAD_LIST, message)
                                .label(item.span, "again")
                                .help("remove it"),
                        );
                        is_valid = false;
                    }
                    fields.push(field);
                }
                None => is_valid = false,
            }
        }
        is_valid.then_some(Value::List(fields))
    }

    fn call(
        &mut self,
        name: &Name,
        written: &[ast::Argument],
        calls: &'static [CallSchema],
        field: &str,
    ) -> Option<Value> {
        let Some(call) = calls.iter().find(|call| call.name == name.text) else {
            let message = format!("`{field}` cannot be `{}`", name.text);
            let diagnostic = Diagnostic::new(Code::UNKNOWN_CALL, message)
                .label(name.span, format!("expected {}", describe(&Type::Call(calls))));
            self.error(match nearest(&name.text, calls.iter().map(|call| call.name)) {
                Some(_) => suggest(diagnostic, name, calls.iter().map(|call| call.name), "one"),
                None => diagnostic,
            });
            return None;
        };
        self.arguments(call, name, written).map(|arguments| Value::Call {
            name: call.name.to_owned(),
            arguments,
        })
    }

    fn arguments(
        &mut self,
        call: &CallSchema,
        name: &Name,
        written: &[ast::Argument],
    ) -> Option<BTreeMap<String, Field>> {
        let mut arguments = BTreeMap::new();
        let mut given: Vec<(&str, Span)> = Vec::new();
        let mut is_valid = true;
        for (index, argument) in written.iter().enumerate() {
            let schema = match argument_schema(call, argument, index) {
                Ok(schema) => schema,
                Err(diagnostic) => {
                    self.error(diagnostic);
                    is_valid = false;
                    continue;
                }
            };
            if let Some((_, first)) = given.iter().find(|(given, _)| *given == schema.name) {
                let again = Name {
                    text: schema.name.to_owned(),
                    span: argument.span,
                };
                self.error(duplicate(&again, *first, "argument"));
                is_valid = false;
                continue;
            }
            given.push((schema.name, argument.span));
            match self.field(&argument.value, schema) {
                Some(field) => {
                    arguments.insert(schema.name.to_owned(), field);
                }
                None => is_valid = false,
            }
        }
        for schema in call
            .all()
            .filter(|schema| !given.iter().any(|(given, _)| *given == schema.name))
        {
            if schema.default == Default::Required {
                is_valid = false;
                // A misspelt or unnamed argument is most likely this one.
                let meant = |argument: &ast::Argument| match &argument.name {
                    Some(name) => {
                        call.all().all(|known| known.name != name.text)
                            && nearest(&name.text, [schema.name].into_iter()).is_some()
                    }
                    None => !given.iter().any(|(_, span)| *span == argument.span),
                };
                if !written.iter().any(meant) {
                    self.error(missing_argument(call, schema, name));
                }
                continue;
            }
            if let Some(field) = self.default_field(schema) {
                arguments.insert(schema.name.to_owned(), field);
            }
        }
        is_valid.then_some(arguments)
    }

    /// A line of a mixture, as a call named `component`.
    pub(super) fn component(&mut self, written: &ast::Component) -> Option<Field> {
        let call = schema::component();
        let mut arguments = vec![ast::Argument {
            name: Some(Name {
                text: "from".to_owned(),
                span: written.from.span,
            }),
            value: written.from.clone(),
            span: written.from.span,
        }];
        for (word, value) in &written.settings {
            let span = word.span.to(value.span);
            arguments.push(ast::Argument {
                name: Some(word.clone()),
                value: value.clone(),
                span,
            });
        }
        let has_weight = written.settings.iter().any(|(word, _)| word.text == "weight");
        if !has_weight {
            self.error(
                Diagnostic::new(
                    Code::MISSING_FIELD,
                    format!("component `{}` has no `weight`", written.name.text),
                )
                .label(written.name.span, "needs `weight`")
                .help(format!(
                    "write `{} from … weight 30%`, or `weight unknown`",
                    written.name.text
                )),
            );
            return None;
        }
        let origin = self.origin(written.span);
        let arguments = self.arguments(call, &written.name, &arguments)?;
        let value = Value::Call {
            name: call.name.to_owned(),
            arguments,
        };
        Some(Field {
            value,
            origin,
            evidence: None,
        })
    }
}

/// The type that a value has the form of. A number with a unit is a count, one with `%` a fraction.
fn meant(written: &ast::Value, types: &'static [Type]) -> Option<&'static Type> {
    let by_unit = |kind: &&Type| match &written.kind {
        ValueKind::Number(number) if number.unit.is_some() => matches!(kind, Type::Quantity { .. }),
        ValueKind::Number(number) if number.percent => matches!(kind, Type::Percent { .. }),
        _ => false,
    };
    let first = || types.iter().find(|kind| looks_like(written, kind));
    types.iter().find(by_unit).or_else(first)
}

/// Whether a value has the form of a type, so that its errors are reported for that type.
fn looks_like(written: &ast::Value, kind: &Type) -> bool {
    match (kind, &written.kind) {
        (Type::Bool, ValueKind::Word(word)) => word == "true" || word == "false",
        (Type::Nothing, ValueKind::Word(word)) => word == "none",
        (Type::Word(_) | Type::Reference(_) | Type::Call(_) | Type::Language, ValueKind::Word(_)) => true,
        (Type::Language, ValueKind::Text(_)) => true,
        (Type::Call(_), ValueKind::Call(_)) => true,
        (
            Type::Integer { .. } | Type::Decimal { .. } | Type::Percent { .. } | Type::Quantity { .. },
            ValueKind::Number(_),
        ) => true,
        (Type::Text(_), ValueKind::Text(_)) => true,
        (Type::Every(_), ValueKind::Every(_) | ValueKind::Number(_)) => true,
        (Type::List { .. }, ValueKind::List(_)) => true,
        (Type::OneOf(types), _) => types.iter().any(|kind| looks_like(written, kind)),
        _ => false,
    }
}

/// The argument that is meant, or the error in its name.
fn argument_schema(
    call: &CallSchema,
    argument: &ast::Argument,
    index: usize,
) -> Result<&'static FieldSchema, Diagnostic> {
    let Some(named) = &argument.name else {
        if let Some(first) = call.first.filter(|_| index == 0) {
            return Ok(first);
        }
        let names = call.arguments.iter().map(|known| format!("`{} = …`", known.name));
        let names: Vec<String> = names.collect();
        let diagnostic = Diagnostic::new(Code::BAD_ARGUMENT, "this argument needs its name")
            .label(argument.span, "which argument is this?");
        return Err(match names.is_empty() {
            true => diagnostic,
            false => diagnostic.help(format!("`{}` takes {}", call.name, names.join(", "))),
        });
    };
    if let Some(known) = call.arguments.iter().find(|known| known.name == named.text) {
        return Ok(known);
    }
    if call.first.is_some_and(|first| first.name == named.text) {
        let message = format!("`{}` is written first and without its name", named.text);
        return Err(Diagnostic::new(Code::BAD_ARGUMENT, message).label(named.span, "remove the name"));
    }
    let message = format!("no argument `{}` of `{}`", named.text, call.name);
    let diagnostic = Diagnostic::new(Code::UNKNOWN_ARGUMENT, message).label(named.span, "unknown argument");
    let known = call.arguments.iter().map(|known| known.name);
    Err(suggest(diagnostic, named, known, "an argument"))
}

fn missing_argument(call: &CallSchema, schema: &FieldSchema, name: &Name) -> Diagnostic {
    let help = if call.first.is_some_and(|first| first.name == schema.name) {
        format!(
            "write it first, without a name: `{}({}, …)`",
            call.name,
            schema.name.to_uppercase()
        )
    } else {
        format!("add `{} = …`, {}", schema.name, describe(&schema.kind))
    };
    Diagnostic::new(Code::BAD_ARGUMENT, format!("`{}` has no `{}`", call.name, schema.name))
        .label(name.span, format!("needs `{}`", schema.name))
        .help(help)
}

/// "model or stage".
fn kind_list(kinds: &[BlockKind]) -> String {
    kinds
        .iter()
        .map(|kind| kind.to_string())
        .collect::<Vec<_>>()
        .join(" or ")
}

/// The text is not in the message: it may have a password.
fn server_error(text: &str, span: Span) -> Option<Diagnostic> {
    let why = ServerAddress::parse(text).err()?;
    let help = if text.contains('@') {
        "put a key into an environment variable and name it with `secret`: everyone who reads the spec or the lock would know it"
    } else {
        "write it as `\"https://HOST/PATH\"`, without `?` and `#`"
    };
    let message = format!("this is not the address of a server: {why}");
    Some(
        Diagnostic::new(Code::BAD_ARGUMENT, message)
            .label(span, "not a valid address")
            .help(help),
    )
}
