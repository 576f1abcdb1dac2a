//! The declarations and uses of names in all files of a spec, for editors.
//!
//! In: a [`Bundle`]. Out: every place of a name, with the place of its declaration. Names are resolved by the same code as
//! in [`flatten`](super::flatten), so that an editor and the compiler agree.
//! Blocks with syntax errors have no occurrences.

use aurora_lang::ast::{
    self, Allowed, Block, Body, Entry, Expression, ExpressionKind, Field, Name, Span, StatementKind, Value, ValueKind,
};

use super::names::{Names, Target};
use super::{Bundle, Loaded};
use crate::schema::{self, FieldSchema, Type};
use crate::spec::BlockKind;

/// A place of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Occurrence {
    pub span: Span,
    /// The place of the declaration; equal to `span` for the declaration itself.
    pub declared: Span,
    pub role: OccurrenceRole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OccurrenceRole {
    Declaration,
    /// In the braces of an `import`. One name may import several blocks of different kinds.
    Import,
    Use,
}

/// A block, `let` or `param`.
#[derive(Clone, Copy, Debug)]
pub struct Declared<'b> {
    pub name: &'b Name,
    pub item: DeclaredItem<'b>,
    /// The complete block or statement.
    pub span: Span,
}

#[derive(Clone, Copy, Debug)]
pub enum DeclaredItem<'b> {
    Block(&'b Block),
    Let(&'b Value),
    Param {
        value: &'b Value,
        allowed: Option<&'b Allowed>,
    },
}

impl DeclaredItem<'_> {
    /// The keyword of the declaration.
    pub fn keyword(&self) -> &str {
        match self {
            Self::Block(block) => &block.keyword.text,
            Self::Let(_) => "let",
            Self::Param { .. } => "param",
        }
    }
}

/// One file of a spec.
#[derive(Clone, Copy, Debug)]
pub struct BundledFile<'b> {
    pub name: &'b str,
    /// Its range in the concatenated text.
    pub span: Span,
    pub parsed: &'b aurora_lang::Parsed,
    targets: &'b [Option<usize>],
}

impl<'b> BundledFile<'b> {
    /// The paths of imports and `extends`, each with the index of the file. `None` if it could not be read.
    pub fn imports(&self) -> impl Iterator<Item = (&'b ast::Quoted, Option<usize>)> + use<'b> {
        let statements = self.parsed.file.statements.iter().zip(self.targets);
        statements.filter_map(|(statement, target)| match &statement.kind {
            StatementKind::Import { path, .. } | StatementKind::Extends { path, .. } => Some((path, *target)),
            StatementKind::Let { .. } | StatementKind::Param { .. } => None,
        })
    }
}

impl Bundle {
    /// The files; the spec is the first one.
    pub fn files(&self) -> impl Iterator<Item = BundledFile<'_>> {
        let names = self.sources.files().iter();
        self.files.iter().zip(names).map(|(loaded, source)| {
            let Loaded { parsed, span, targets } = loaded;
            BundledFile {
                name: &source.name,
                span: *span,
                parsed,
                targets,
            }
        })
    }

    /// Every declaration that a file can refer to, sorted by name.
    pub fn in_scope(&self, file: usize) -> Vec<Declared<'_>> {
        let names = Names::of(self);
        let targets: Vec<Target> = names.all_targets(file).collect();
        targets
            .into_iter()
            .filter_map(|target| declared(&names, target))
            .collect()
    }

    /// The declaration whose name is at a place.
    pub fn declared_at(&self, place: Span) -> Option<Declared<'_>> {
        let names = Names::of(self);
        let file = self.files.iter().position(|file| file.span.contains(place))?;
        let loaded = &self.files[file].parsed.file;
        let blocks = (0..loaded.items.len()).map(|index| Target::Block(file, index));
        let statements = (0..loaded.statements.len()).map(|index| Target::Statement(file, index));
        let mut all = blocks.chain(statements).filter_map(|target| declared(&names, target));
        all.find(|declared| declared.name.span == place)
    }

    /// The occurrences of all names, sorted.
    pub fn occurrences(&self) -> Vec<Occurrence> {
        let names = Names::of(self);
        let mut found = Vec::new();
        for (file, loaded) in self.files.iter().enumerate() {
            let mut visitor = NameVisitor {
                names: &names,
                file,
                found: &mut found,
            };
            for (index, block) in loaded.parsed.file.items.iter().enumerate() {
                visitor.declaration(Target::Block(file, index));
                visitor.block(block);
            }
            for (index, statement) in loaded.parsed.file.statements.iter().enumerate() {
                visitor.declaration(Target::Statement(file, index));
                visitor.statement(&statement.kind, loaded.targets[index]);
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn declared<'b>(names: &Names<'b>, target: Target) -> Option<Declared<'b>> {
    if let Some(block) = names.block(target) {
        return Some(Declared {
            name: &block.name,
            item: DeclaredItem::Block(block),
            span: block.span,
        });
    }
    let statement = names.statement(target)?;
    let (name, item) = match &statement.kind {
        StatementKind::Let { name, value } => (name, DeclaredItem::Let(value)),
        StatementKind::Param { name, value, allowed } => {
            let allowed = allowed.as_deref();
            (name, DeclaredItem::Param { value, allowed })
        }
        StatementKind::Import { .. } | StatementKind::Extends { .. } => return None,
    };
    Some(Declared {
        name,
        item,
        span: statement.span,
    })
}

struct NameVisitor<'w, 'b> {
    names: &'w Names<'b>,
    file: usize,
    found: &'w mut Vec<Occurrence>,
}

/// The types that a word may have as a name of a block. `None` for any kind of block.
type Kinds<'k> = Option<&'k [&'static Type]>;

impl NameVisitor<'_, '_> {
    fn declaration(&mut self, target: Target) {
        if let Some(declared) = declared(self.names, target) {
            let span = declared.name.span;
            self.add(span, span, OccurrenceRole::Declaration);
        }
    }

    fn add(&mut self, span: Span, declared: Span, role: OccurrenceRole) {
        self.found.push(Occurrence { span, declared, role });
    }

    fn add_target(&mut self, span: Span, target: Target, role: OccurrenceRole) {
        if let Some(declared) = declared(self.names, target) {
            self.add(span, declared.name.span, role);
        }
    }

    fn is_statement(target: &Target) -> bool {
        matches!(target, Target::Statement(..))
    }

    fn kind(&self, target: Target) -> Option<BlockKind> {
        schema::kind(&self.names.block(target)?.keyword.text)
    }

    fn block(&mut self, block: &Block) {
        match &block.body {
            Body::Gate(gate) => {
                self.expression(&gate.left);
                self.expression(&gate.right);
            }
            Body::Entries(entries) => match schema::kind(&block.keyword.text) {
                Some(kind) => self.entries(kind, entries),
                None => self.changes(entries, block.keyword.text == "sweep"),
            },
        }
    }

    fn entries(&mut self, kind: BlockKind, entries: &[Entry]) {
        for entry in entries {
            match entry {
                Entry::Field(field) => {
                    let schema = schema_of(kind, &field.path);
                    self.field(schema, field, false);
                }
                Entry::Component(component) => {
                    let table = schema::component();
                    let kind = |name: &str| {
                        table
                            .all()
                            .find(|schema| schema.name == name)
                            .map(|schema| &schema.kind)
                    };
                    self.value(&component.from, kind("from"));
                    for (word, value) in &component.settings {
                        self.value(value, kind(&word.text));
                    }
                }
                Entry::Block(_) => {}
            }
        }
    }

    fn field(&mut self, schema: Option<&'static FieldSchema>, field: &Field, is_swept: bool) {
        let kind = schema.map(|schema| &schema.kind);
        match &field.value.kind {
            ValueKind::List(values) if is_swept => values.iter().for_each(|value| self.value(value, kind)),
            _ => self.value(&field.value, kind),
        }
    }

    /// The entries of a profile, a sweep or `extends`.
    fn changes(&mut self, entries: &[Entry], is_swept: bool) {
        for entry in entries {
            match entry {
                Entry::Field(field) => {
                    let mut schema = None;
                    match field.path.as_slice() {
                        [param] => {
                            if let Some(target) = self.names.param(self.file, &param.text) {
                                self.add_target(param.span, target, OccurrenceRole::Use);
                            }
                        }
                        [keyword, name, path @ ..] => {
                            if let Some(kind) = schema::kind(&keyword.text) {
                                self.name(&name.text, name.span, &[kind]);
                                schema = schema_of(kind, path);
                            }
                        }
                        [] => {}
                    }
                    self.field(schema, field, is_swept);
                }
                Entry::Block(block) => match (schema::kind(&block.keyword.text), &block.body) {
                    (Some(kind), Body::Entries(entries)) => {
                        self.name(&block.name.text, block.name.span, &[kind]);
                        self.entries(kind, entries);
                    }
                    (None, Body::Entries(entries)) => self.changes(entries, is_swept),
                    (_, Body::Gate(_)) => {}
                },
                Entry::Component(_) => {}
            }
        }
    }

    fn statement(&mut self, statement: &StatementKind, target: Option<usize>) {
        match statement {
            StatementKind::Import { names, .. } => {
                let Some(theirs) = target else { return };
                for name in names.iter().flatten() {
                    for &target in self.names.targets(theirs, &name.text) {
                        self.add_target(name.span, target, OccurrenceRole::Import);
                    }
                }
            }
            StatementKind::Extends { entries, .. } => self.changes(entries, false),
            StatementKind::Let { value, .. } => self.value(value, None),
            StatementKind::Param { value, allowed, .. } => {
                self.value(value, None);
                if let Some(Allowed::OneOf(values)) = allowed.as_deref() {
                    values.iter().for_each(|value| self.value(value, None));
                }
            }
        }
    }

    fn value(&mut self, value: &Value, kind: Option<&'static Type>) {
        let mut types = Vec::new();
        if let Some(kind) = kind {
            flat(kind, &mut types);
        }
        self.typed(value, kind.map(|_| types.as_slice()));
    }

    fn typed(&mut self, value: &Value, types: Kinds<'_>) {
        match &value.kind {
            ValueKind::Word(word) => self.word(word, value.span, types),
            ValueKind::List(items) => {
                let of = types.map(|types| {
                    let mut inner = Vec::new();
                    for kind in types {
                        if let Type::List { of, .. } = kind {
                            flat(of, &mut inner);
                        }
                    }
                    inner
                });
                items.iter().for_each(|item| self.typed(item, of.as_deref()));
            }
            ValueKind::Call(call) => {
                let Some(call_schema) = schema::call(&call.name.text) else {
                    return;
                };
                for argument in &call.arguments {
                    let schema = match &argument.name {
                        None => call_schema.first,
                        Some(name) => call_schema.arguments.iter().find(|schema| schema.name == name.text),
                    };
                    self.value(&argument.value, schema.map(|schema| &schema.kind));
                }
            }
            ValueKind::Number(_) | ValueKind::Text(_) | ValueKind::Every(_) => {}
        }
    }

    fn word(&mut self, word: &str, span: Span, types: Kinds<'_>) {
        let targets = self.names.targets(self.file, word);
        if let Some(&statement) = targets.iter().find(|target| Self::is_statement(target)) {
            return self.add_target(span, statement, OccurrenceRole::Use);
        }
        match types {
            None => {
                for &target in targets {
                    self.add_target(span, target, OccurrenceRole::Use);
                }
            }
            Some(types) => {
                for kind in types {
                    if let Type::Reference(kinds) = kind {
                        self.name(word, span, kinds);
                    }
                }
            }
        }
    }

    /// Adds the use of a block of one of these kinds.
    fn name(&mut self, name: &str, span: Span, kinds: &[BlockKind]) {
        for &target in self.names.targets(self.file, name) {
            if self.kind(target).is_some_and(|kind| kinds.contains(&kind)) {
                self.add_target(span, target, OccurrenceRole::Use);
            }
        }
    }

    /// `cap.heldout.bits_per_byte.fi`, or a single name of a number.
    fn expression(&mut self, written: &Expression) {
        match &written.kind {
            ExpressionKind::Number(_) => {}
            ExpressionKind::Function { arguments, .. } => {
                arguments.iter().for_each(|argument| self.expression(argument))
            }
            ExpressionKind::Group(inner) => self.expression(inner),
            ExpressionKind::Binary { left, right, .. } => {
                self.expression(left);
                self.expression(right);
            }
            ExpressionKind::Metric(path) => match path.as_slice() {
                [name] => self.word(&name.text, name.span, Some(&[])),
                [at, eval, rest @ ..] => {
                    self.name(&at.text, at.span, &[BlockKind::Stage, BlockKind::Model]);
                    self.name(&eval.text, eval.span, &[BlockKind::Eval]);
                    if let [_, set] = rest {
                        self.set(&eval.text, set);
                    }
                }
                [] => {}
            },
        }
    }

    /// Adds the use of a corpus as the set of a metric: a set has the name of its corpus if two corpora of the eval have the
    /// same language.
    fn set(&mut self, eval: &str, set: &Name) {
        let targets = self.names.targets(self.file, eval).iter();
        let Some(data) = targets
            .filter(|&&target| self.kind(target) == Some(BlockKind::Eval))
            .find_map(|&target| field(self.names.block(target)?, "data"))
        else {
            return;
        };
        let ValueKind::List(corpora) = &data.kind else { return };
        let corpora: Vec<(Target, Option<&str>)> = corpora
            .iter()
            .filter_map(|corpus| match &corpus.kind {
                ValueKind::Word(word) => self
                    .names
                    .targets(self.file, word)
                    .iter()
                    .copied()
                    .find(|&target| self.kind(target) == Some(BlockKind::Corpus)),
                _ => None,
            })
            .map(|target| (target, self.names.block(target).and_then(language)))
            .collect();
        let named = corpora.iter().find(|(target, language)| {
            let is_called = self
                .names
                .block(*target)
                .is_some_and(|block| block.name.text == set.text);
            is_called && corpora.iter().filter(|(_, other)| other == language).count() > 1
        });
        if let Some(&(target, _)) = named {
            self.add_target(set.span, target, OccurrenceRole::Use);
        }
    }
}

fn field<'b>(block: &'b Block, name: &str) -> Option<&'b Value> {
    let Body::Entries(entries) = &block.body else {
        return None;
    };
    entries.iter().find_map(|entry| match entry {
        Entry::Field(field) if field.path.len() == 1 && field.path[0].text == name => Some(&field.value),
        _ => None,
    })
}

fn language(corpus: &Block) -> Option<&str> {
    match &field(corpus, "language")?.kind {
        ValueKind::Word(word) => Some(word),
        _ => None,
    }
}

/// The alternatives of a type.
fn flat(kind: &'static Type, types: &mut Vec<&'static Type>) {
    match kind {
        Type::OneOf(all) => all.iter().for_each(|kind| flat(kind, types)),
        _ => types.push(kind),
    }
}

/// The schema of a path inside a block: a field, an argument of its call, or a setting of a component.
fn schema_of(kind: BlockKind, path: &[Name]) -> Option<&'static FieldSchema> {
    let names: Vec<&str> = path.iter().map(|name| name.text.as_str()).collect();
    schema::at_path(kind, &names)
}

#[cfg(test)]
mod tests {
    use super::OccurrenceRole;
    use crate::compose::Bundle;

    /// Every occurrence as `FILE:text → FILE:keyword`, in order.
    fn listing(main: &str, library: &str) -> Vec<String> {
        let bundle = Bundle::read("main.aur", main, &mut |_| Ok(library.to_owned()));
        let view = bundle.sources().view();
        let occurrences = bundle.occurrences();
        let uses = occurrences
            .iter()
            .filter(|found| found.role != OccurrenceRole::Declaration);
        uses.map(|found| {
            let declared = bundle.declared_at(found.declared).expect("a declaration");
            let text = &view.text[found.span.start..found.span.end];
            assert_eq!(text, declared.name.text);
            let file = |byte| view.file(byte).1.trim_end_matches(".aur");
            format!(
                "{} {text} = {} {}",
                file(found.span.start),
                file(found.declared.start),
                declared.item.keyword()
            )
        })
        .collect()
    }

    #[test]
    fn names_are_found_in_every_place_that_takes_one() {
        let library = "let share = 50%\nsource web { from = \"file:a\" }\ncorpus fi { language = fi from = [text(web)] }\nmixture fi { fi from [fi] weight share }";
        let main = "import \"lib.aur\" { fi }\nparam length = 128 tokens\nlet first = small\n\
            model small { context = length }\n\
            stage cap { start = first mixture = fi sequence = length }\nstage cat { start = cap }\n\
            eval held { data = [fi] stages = [cap] }\nexpect ok { cat.held.perplexity.fi < small.held.perplexity.fi * length }\n\
            profile p { length = 64 tokens stage.cap.start = small mixture fi { fi from [fi] weight 100% } }\n\
            sweep s { stage.cat.start = [cap, small] zip z { length = [1 tokens, 2 tokens] } }";
        let expected = "\
main fi = lib corpus
main fi = lib mixture
main small = main model
main length = main param
main first = main let
main fi = lib mixture
main length = main param
main cap = main stage
main fi = lib corpus
main cap = main stage
main cat = main stage
main held = main eval
main small = main model
main held = main eval
main length = main param
main length = main param
main cap = main stage
main small = main model
main fi = lib mixture
main fi = lib corpus
main cat = main stage
main cap = main stage
main small = main model
main length = main param
lib web = lib source
lib fi = lib corpus
lib share = lib let";
        assert_eq!(listing(main, library).join("\n"), expected);
    }

    #[test]
    fn a_set_is_a_corpus_if_two_corpora_have_the_same_language() {
        let corpora = "corpus a { language = fi }\ncorpus b { language = fi }\ncorpus c { language = en }\nmodel m { layers = 1 }\n";
        let gate = |eval: &str, set: &str| {
            let text = format!("{corpora}{eval}\nexpect x {{ m.e.perplexity.{set} < 1 }}");
            listing(&text, "")
                .iter()
                .filter(|line| line.ends_with("corpus"))
                .count()
        };
        assert_eq!(gate("eval e { data = [a, b] }", "a"), 3);
        assert_eq!(gate("eval e { data = [a, c] }", "a"), 2);
    }
}
