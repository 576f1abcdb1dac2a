//! Completion: kinds of blocks, fields, values, arguments, names, units, marks of evidence.

use aurora_compiler::language;
use aurora_compiler::schema::{self, BLOCKS, CallSchema, Default, EvalKind, FieldSchema, Type, UNITS};
use aurora_compiler::spec::{BlockKind, Unit};
use aurora_lang::ast::{Body, Entry, Span, ValueKind};
use aurora_lang::cursor::{self, CursorRole, Expected, FieldPath, PathStep};
use aurora_lang::token::TokenKind;
use camino::Utf8Path;

use super::analysis::Analysis;
use super::scope::{CursorPlace, KnownName, known_names};
use super::types::{self, ValueTypes};
use super::workspace::Workspace;
use super::{docs, uri};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuggestionKind {
    Keyword,
    Field,
    Word,
    Call,
    Name,
    Unit,
    Mark,
    File,
}

#[derive(Clone, Debug)]
pub struct Suggestion {
    pub label: String,
    pub kind: SuggestionKind,
    pub detail: String,
    pub documentation: String,
    /// The inserted text, with placeholders `$1`, `$0`.
    pub snippet: String,
    /// Whether it is required; required items come first.
    pub required: bool,
}

/// Everything that may be written at a byte of a file, and the range that it replaces.
pub fn complete(workspace: &mut Workspace, path: &Utf8Path, byte: usize) -> Option<(Span, Vec<Suggestion>)> {
    let spot = CursorPlace::new(workspace, path, byte)?;
    let inside = |index: &usize| spot.tokens[*index].span.start < byte && byte <= spot.tokens[*index].span.end;
    if let Some(index) = (0..spot.tokens.len()).find(inside) {
        let token = spot.tokens[index];
        match token.kind {
            TokenKind::Comment | TokenKind::Number => return None,
            TokenKind::Text { closed } => {
                let is_inside = !closed || byte < token.span.end;
                return (is_inside && spot.role(index) == CursorRole::ImportPath).then(|| {
                    let replaced = Span::new(token.span.start + 1, token.span.end - usize::from(closed));
                    (replaced, files(workspace, path, true))
                });
            }
            TokenKind::Word | TokenKind::Open(_) | TokenKind::Close(_) | TokenKind::Sign => {}
        }
    }
    let cursor = cursor::at(spot.text.as_str(), byte);
    let line = &spot.text.as_str()[spot.text.line_start(byte)..cursor.replaced.start];
    let analysis = workspace.analysis(path)?;
    let completer = Completer {
        path,
        scope: known_names(&analysis, path),
        analysis: &analysis,
        present: &cursor.present,
    };
    let expected = &cursor.expected;
    let starts_field = expected.iter().any(|one| matches!(one, Expected::FieldName { .. }));
    let continues_component = expected.iter().any(|one| matches!(one, Expected::Setting { .. }));
    let mut items = Vec::new();
    for expected in expected {
        // What continues the field before the cursor is only offered on its line, the next line of a mixture only on a
        // line of its own.
        let is_unlikely = match (expected, line.trim().is_empty()) {
            (Expected::Mark { .. }, true) => starts_field,
            (Expected::FieldName { .. }, false) => continues_component,
            _ => false,
        };
        if !is_unlikely {
            items.extend(completer.items(workspace, expected));
        }
    }
    Some((cursor.replaced, items))
}

/// Completes at one place of a file.
struct Completer<'a> {
    path: &'a Utf8Path,
    analysis: &'a Analysis,
    scope: Vec<KnownName>,
    /// Names that are present already, before or after the cursor. They are not offered again.
    present: &'a [String],
}

impl Completer<'_> {
    fn is_free(&self, name: &str) -> bool {
        !self.present.iter().any(|present| present == name)
    }

    fn items(&self, workspace: &mut Workspace, expected: &Expected) -> Vec<Suggestion> {
        match expected {
            Expected::Item => top(),
            Expected::ImportPath => files(workspace, self.path, false),
            Expected::ImportName { file } => self.import_names(workspace, file).unwrap_or_default(),
            Expected::FieldName { path } => self.field_names(path),
            Expected::AfterName { path } if path.owner.keyword == "mixture" => {
                vec![item("from", SuggestionKind::Keyword, "the corpora of the component", "").then("from [$0]")]
            }
            // `stage cap { … }` in a profile.
            Expected::AfterName { path } if schema::kind(&path.owner.keyword).is_none() && path.names.len() == 1 => {
                self.path_names(&path.owner.keyword, &path.names)
            }
            Expected::AfterName { .. } => Vec::new(),
            Expected::Setting { present } => {
                let all = schema::component().all();
                all.filter(|field| !present.iter().any(|name| name == field.name))
                    .map(setting)
                    .collect()
            }
            Expected::Value { path } => match path.steps.last() {
                Some(PathStep::Argument { call, index, name })
                    if types::argument(call, name.as_deref(), *index).is_none() =>
                {
                    Vec::new()
                }
                _ => self.values(&types::value(path)),
            },
            Expected::Argument { call } => {
                let arguments = schema::call(call).map_or(&[][..], |call| call.arguments);
                arguments
                    .iter()
                    .filter(|field| self.is_free(field.name))
                    .map(key)
                    .collect()
            }
            Expected::Unit { path } => units(&types::value(path).types),
            Expected::Mark { has_sign } => marks(*has_sign),
            Expected::Metric { names } => metric(self.analysis, self.path, &self.scope, names),
        }
    }

    fn import_names(&self, workspace: &mut Workspace, file: &str) -> Option<Vec<Suggestion>> {
        let full = uri::normal(&self.path.parent()?.join(file));
        let theirs = workspace.analysis(&full)?;
        let names = known_names(&theirs, &full);
        Some(
            names
                .iter()
                .filter(|known| self.is_free(&known.name))
                .map(name)
                .collect(),
        )
    }

    fn field_names(&self, path: &FieldPath) -> Vec<Suggestion> {
        match schema::kind(&path.owner.keyword) {
            Some(BlockKind::Mixture) if path.names.is_empty() => vec![Suggestion {
                snippet: "${1:name} from [${2:corpus}] weight ${3:10}%$0".to_owned(),
                ..item(
                    "component",
                    SuggestionKind::Field,
                    "NAME from [CORPORA] weight PERCENTAGE",
                    schema::component().meaning,
                )
            }],
            Some(kind) if path.names.is_empty() => {
                let fields = schema::block(kind).fields.iter();
                fields.filter(|field| self.is_free(field.name)).map(key).collect()
            }
            Some(_) => Vec::new(),
            None => self.path_names(&path.owner.keyword, &path.names),
        }
    }

    fn path_names(&self, owner: &str, names: &[String]) -> Vec<Suggestion> {
        path_key(self.analysis, self.path, &self.scope, owner, names)
    }

    fn values(&self, value: &ValueTypes) -> Vec<Suggestion> {
        if value.is_sweep {
            return vec![item("[…]", SuggestionKind::Word, "the values of the sweep", "").then("[$0]")];
        }
        let mut items: Vec<Suggestion> = value
            .types
            .iter()
            .flat_map(|kind| self::value(kind, &self.scope))
            .collect();
        if value.unknown {
            items.push(item(
                "unknown",
                SuggestionKind::Keyword,
                "the value is not published",
                "",
            ));
        }
        let names = self
            .scope
            .iter()
            .filter(|known| known.is_value_declaration() || value.types.is_empty() && known.kind().is_some());
        items.extend(names.map(name));
        items
    }
}

fn setting(field: &FieldSchema) -> Suggestion {
    let (detail, documentation) = (schema::describe(&field.kind), docs::field(field));
    item(field.name, SuggestionKind::Keyword, &detail, &documentation).then(&format!("{} ", field.name))
}

fn marks(has_sign: bool) -> Vec<Suggestion> {
    let sign = if has_sign { "" } else { "@" };
    let marks = docs::MARKS.iter().map(|(word, argument, meaning)| {
        let label = format!("@{word}");
        item(
            &label,
            SuggestionKind::Mark,
            &format!("{label}(\"{argument}\")"),
            meaning,
        )
        .then(&format!("{sign}{word}(\"${{1:{argument}}}\")$0"))
    });
    marks.collect()
}

fn item(label: &str, kind: SuggestionKind, detail: &str, documentation: &str) -> Suggestion {
    Suggestion {
        label: label.to_owned(),
        kind,
        detail: detail.to_owned(),
        documentation: documentation.to_owned(),
        snippet: label.to_owned(),
        required: false,
    }
}

impl Suggestion {
    fn then(self, snippet: &str) -> Self {
        Self {
            snippet: snippet.to_owned(),
            ..self
        }
    }
}

fn function(table: &schema::FunctionSchema) -> Suggestion {
    item(table.name, SuggestionKind::Call, table.meaning, table.example).then(&format!("{}($0)", table.name))
}

fn name(known: &KnownName) -> Suggestion {
    item(&known.name, SuggestionKind::Name, &known.keyword, &known.detail)
}

fn top() -> Vec<Suggestion> {
    let blocks = BLOCKS.iter().map(|block| {
        let keyword = block.kind.to_string();
        let mut snippet = format!("{keyword} ${{1:name}} {{\n");
        let required = block.fields.iter().filter(|field| field.default == Default::Required);
        for (index, field) in required.enumerate() {
            snippet.push_str(&format!("  {} = ${}\n", field.name, index + 2));
        }
        snippet.push_str("  $0\n}");
        item(
            &keyword,
            SuggestionKind::Keyword,
            block.meaning,
            &format!("```aur\n{}\n```", block.example),
        )
        .then(&snippet)
    });
    let statements = docs::STATEMENTS
        .iter()
        .map(|(word, snippet, meaning)| item(word, SuggestionKind::Keyword, meaning, "").then(snippet));
    blocks.chain(statements).collect()
}

fn key(field: &FieldSchema) -> Suggestion {
    Suggestion {
        required: field.default == Default::Required,
        ..item(
            field.name,
            SuggestionKind::Field,
            &schema::describe(&field.kind),
            &docs::field(field),
        )
        .then(&format!("{} = $0", field.name))
    }
}

fn value(kind: &'static Type, scope: &[KnownName]) -> Vec<Suggestion> {
    match kind {
        Type::Bool => ["true", "false"]
            .map(|word| item(word, SuggestionKind::Word, "", ""))
            .into(),
        Type::Word(words) => words
            .iter()
            .map(|(word, meaning)| item(word, SuggestionKind::Word, meaning, ""))
            .collect(),
        Type::Language => languages(),
        Type::Call(calls) => calls.iter().map(call).collect(),
        Type::Reference(kinds) => scope
            .iter()
            .filter(|known| known.kind().is_some_and(|kind| kinds.contains(&kind)))
            .map(name)
            .collect(),
        Type::Every(_) => vec![
            item(
                "every",
                SuggestionKind::Keyword,
                "an interval such as `every 10B tokens`",
                "",
            )
            .then("every $0"),
        ],
        Type::List { of, .. } => {
            let mut all = vec![item("[…]", SuggestionKind::Word, &schema::describe(kind), "").then("[$0]")];
            // The elements are offered too, in a list.
            all.extend(value(of, scope).into_iter().map(|inner| Suggestion {
                label: format!("[{}]", inner.label),
                snippet: format!("[{}]", inner.snippet),
                ..inner
            }));
            all
        }
        Type::Text(_) => vec![item("\"…\"", SuggestionKind::Word, &schema::describe(kind), "").then("\"$0\"")],
        Type::Nothing => vec![item("none", SuggestionKind::Word, "not set, on purpose", "")],
        Type::OneOf(all) => all.iter().flat_map(|kind| value(kind, scope)).collect(),
        Type::Integer { .. } | Type::Decimal { .. } | Type::Percent { .. } | Type::Quantity { .. } => Vec::new(),
    }
}

/// Languages that can be detected, and the words for corpora without one. Others can be written too.
fn languages() -> Vec<Suggestion> {
    let detected = language::DETECTED.into_iter().map(|(tag, _)| (tag, "a language"));
    let all = detected.chain(language::WITHOUT);
    all.map(|(word, meaning)| item(word, SuggestionKind::Word, meaning, ""))
        .collect()
}

/// A call with its required arguments.
fn call(call: &'static CallSchema) -> Suggestion {
    let required = call.all().filter(|field| field.default == Default::Required);
    let parts: Vec<String> = required
        .enumerate()
        .map(|(index, field)| match call.first {
            Some(first) if first.name == field.name => format!("${{{}:{}}}", index + 1, field.name),
            _ => format!("{} = ${}", field.name, index + 1),
        })
        .collect();
    let inner = if parts.is_empty() {
        "$0".to_owned()
    } else {
        parts.join(", ")
    };
    item(call.name, SuggestionKind::Call, call.meaning, &docs::call(call)).then(&format!("{}({inner})", call.name))
}

fn units(types: &[&'static Type]) -> Vec<Suggestion> {
    let wanted: Vec<Unit> = types
        .iter()
        .filter_map(|kind| match kind {
            Type::Quantity { units, .. } | Type::Every(units) => Some(units.iter().copied()),
            _ => None,
        })
        .flatten()
        .collect();
    let fits = |unit: Unit| types.is_empty() || wanted.contains(&unit);
    let fitting = UNITS
        .iter()
        .filter(|written| fits(written.unit))
        .map(|written| written.text);
    let percentage_points = types.is_empty().then_some("pp");
    fitting
        .chain(percentage_points)
        .map(|unit| item(unit, SuggestionKind::Unit, &docs::unit(unit), ""))
        .collect()
}

fn files(workspace: &mut Workspace, path: &Utf8Path, quoted: bool) -> Vec<Suggestion> {
    let Some(folder) = path.parent() else { return Vec::new() };
    let below = |file: &Utf8Path| file.strip_prefix(folder).ok().map(ToString::to_string);
    let above = |file: &Utf8Path| {
        let parent = folder.parent().filter(|parent| parent.parent().is_some())?;
        file.strip_prefix(parent).ok().map(|rest| format!("../{rest}"))
    };
    let others: Vec<String> = workspace
        .files()
        .iter()
        .filter(|file| *file != path)
        .filter_map(|file| below(file).or_else(|| above(file)))
        .collect();
    let quote = |file: String| if quoted { file } else { format!("\"{file}\"") };
    others
        .into_iter()
        .map(|file| item(&quote(file), SuggestionKind::File, "", ""))
        .collect()
}

/// The names that may follow the dots of a path such as `stage.cap.learning_rate.peak`.
fn path_key(
    analysis: &Analysis,
    file: &Utf8Path,
    scope: &[KnownName],
    owner: &str,
    path: &[String],
) -> Vec<Suggestion> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        [] => {
            let kinds = BLOCKS.iter().filter(|block| block.kind != BlockKind::Expect);
            let mut all: Vec<Suggestion> = kinds
                .map(|block| item(&block.kind.to_string(), SuggestionKind::Keyword, block.meaning, ""))
                .collect();
            all.extend(
                scope
                    .iter()
                    .filter(|known| known.keyword == "param")
                    .map(|known| name(known).then(&format!("{} = $0", known.name))),
            );
            if owner == "sweep" {
                all.push(
                    item("zip", SuggestionKind::Keyword, "paths that change together", "")
                        .then("zip ${1:name} {\n  $0\n}"),
                );
            }
            all
        }
        [kind] => scope.iter().filter(|known| known.keyword == **kind).map(name).collect(),
        ["mixture", mixture] => components(analysis, file, mixture),
        ["mixture", _, _] => schema::component().all().map(key).collect(),
        [kind, _] => schema::kind(kind)
            .into_iter()
            .flat_map(|kind| schema::block(kind).fields)
            .map(key)
            .collect(),
        [kind, _, field] => {
            let field = schema::kind(kind).and_then(|kind| schema::block(kind).field(field));
            field
                .into_iter()
                .flat_map(|field| schema::calls_of(&field.kind))
                .flat_map(CallSchema::all)
                .map(key)
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The entries of the block with a kind and a name.
fn entries<'a>(analysis: &'a Analysis, file: &Utf8Path, kind: &str, name: &str) -> Vec<&'a Entry> {
    let Some((index, _)) = analysis.file(file) else {
        return Vec::new();
    };
    let found = analysis
        .bundle
        .in_scope(index)
        .into_iter()
        .find_map(|declared| match declared.item {
            aurora_compiler::compose::DeclaredItem::Block(block)
                if block.keyword.text == kind && block.name.text == name =>
            {
                Some(block)
            }
            _ => None,
        });
    match found.map(|block| &block.body) {
        Some(Body::Entries(entries)) => entries.iter().collect(),
        _ => Vec::new(),
    }
}

fn components(analysis: &Analysis, file: &Utf8Path, mixture: &str) -> Vec<Suggestion> {
    let names = entries(analysis, file, "mixture", mixture)
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Component(component) => Some(item(&component.name.text, SuggestionKind::Name, "component", "")),
            _ => None,
        });
    names.collect()
}

/// The names of a metric: stage or model, eval, metric, set.
fn metric(analysis: &Analysis, file: &Utf8Path, scope: &[KnownName], path: &[String]) -> Vec<Suggestion> {
    let of_kinds = |kinds: &[BlockKind]| {
        scope
            .iter()
            .filter(|known| known.kind().is_some_and(|kind| kinds.contains(&kind)))
            .map(name)
            .collect::<Vec<_>>()
    };
    let fields = |kind: &str, name: &str, field: &str| {
        let found = entries(analysis, file, kind, name)
            .into_iter()
            .find_map(|entry| match entry {
                Entry::Field(written) if written.path.len() == 1 && written.path[0].text == field => {
                    Some(&written.value.kind)
                }
                _ => None,
            });
        match found {
            Some(ValueKind::Word(word)) => vec![word.clone()],
            Some(ValueKind::List(items)) => items.iter().map(aurora_lang::format::value).collect(),
            _ => Vec::new(),
        }
    };
    match path {
        [] => {
            let mut all = of_kinds(&[BlockKind::Stage, BlockKind::Model]);
            all.extend(scope.iter().filter(|known| known.is_value_declaration()).map(name));
            all.extend(schema::FUNCTIONS.iter().map(function));
            all
        }
        [_] => of_kinds(&[BlockKind::Eval]),
        [_, eval] => {
            let kind = fields("eval", eval, "kind").pop().unwrap_or_default();
            let metrics = EvalKind::named(&kind).map_or(&[][..], EvalKind::metrics);
            let names = metrics
                .iter()
                .map(|metric| metric.name)
                .flat_map(|metric| match metric {
                    "pass@" => fields("eval", eval, "k").iter().map(|k| format!("pass@{k}")).collect(),
                    metric => vec![metric.to_owned()],
                });
            names.map(|name| item(&name, SuggestionKind::Word, &kind, "")).collect()
        }
        [_, eval, _] => {
            let corpora = fields("eval", eval, "data");
            let mut sets: Vec<String> = corpora
                .iter()
                .flat_map(|corpus| fields("corpus", corpus, "language"))
                .collect();
            sets.sort();
            sets.dedup();
            sets.iter()
                .map(|set| item(set, SuggestionKind::Word, "set", ""))
                .collect()
        }
        _ => Vec::new(),
    }
}
