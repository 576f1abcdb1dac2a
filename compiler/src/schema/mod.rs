//! The schema of the language: every block, field, call, word and unit, with its meaning, default and range.
//!
//! Constant tables. The checker, the defaults, suggestions, `aurora show`, editors and the language reference all read
//! them, so that what is checked is what is documented.
//! Not here: rules about more than one value (`check::rules`).

mod blocks;
mod calls;
mod eval_kind;
mod evals;
mod functions;
mod reference;
mod types;
mod units;

pub use blocks::{BLOCKS, component};
pub use eval_kind::{EvalKind, FieldUse, MetricSchema, better};
pub use functions::{FUNCTIONS, FunctionSchema, function};
pub use reference::reference;
pub use units::{UNITS, WrittenUnit, largest, written_unit};

use crate::spec::{BlockKind, Unit};
use crate::text::list_or;

/// A kind of block.
#[derive(Clone, Copy, Debug)]
pub struct BlockSchema {
    pub kind: BlockKind,
    /// One sentence.
    pub meaning: &'static str,
    pub fields: &'static [FieldSchema],
    /// A valid block, for the reference.
    pub example: &'static str,
}

/// A field of a block or an argument of a call.
#[derive(Clone, Copy, Debug)]
pub struct FieldSchema {
    pub name: &'static str,
    pub kind: Type,
    pub default: Default,
    /// One sentence.
    pub meaning: &'static str,
    /// What a value without an effect is, such as "an error with `load`". `None` if the field always has an effect.
    pub ignored: Option<&'static str>,
    pub effect: FieldEffect,
    /// Whether the value may be `unknown`, that is, not published.
    pub unknown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    Required,
    /// Not set. The text says what that means.
    Unset(&'static str),
    /// A value, as it is written in a spec.
    Value(&'static str),
    /// Computed from other fields. The text describes the rule.
    Derived(&'static str),
}

/// How a field can affect a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldEffect {
    /// It can change a result, and is part of keys.
    Semantic,
    /// Where a run is executed. Never part of a key.
    Placement,
    /// Documentation. Never part of a key.
    Description,
}

#[derive(Clone, Copy, Debug)]
pub enum Type {
    Bool,
    /// A whole number without a unit.
    Integer {
        least: i64,
        most: i64,
        power_of_two: bool,
    },
    /// An exact decimal number; the bounds are written as in a spec.
    Decimal {
        range: Range,
    },
    /// A percentage. The bounds are percentages.
    Percent {
        range: Range,
    },
    Text(TextKind),
    /// One of a closed set of words, each with its meaning.
    Word(&'static [(&'static str, &'static str)]),
    /// A language tag (BCP 47), `code` or `other`: a word, or a text if it has a `-`.
    Language,
    /// A whole number of one of these units.
    Quantity {
        units: &'static [Unit],
        least: u64,
        /// The unit has a bound of its own ([`largest`]); the smaller one holds.
        most: u64,
    },
    /// `every QUANTITY`.
    Every(&'static [Unit]),
    /// The name of a block of one of these kinds.
    Reference(&'static [BlockKind]),
    List {
        of: &'static Type,
        least: usize,
    },
    Call(&'static [CallSchema]),
    /// The first of these types that the value looks like.
    OneOf(&'static [Type]),
    /// The word `none`: not set, on purpose.
    Nothing,
}

/// Bounds of a decimal number.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub least: &'static str,
    /// Whether `least` itself is allowed.
    pub includes_least: bool,
    pub most: Option<&'static str>,
    /// Whether `most` itself is allowed.
    pub includes_most: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextKind {
    Plain,
    /// The location of a source: `pkg:…`, `file:…`, `hf:…`.
    Source,
    /// A glob pattern over the paths inside a source.
    Pattern,
    /// `organisation/name` on the Hugging Face hub.
    Repository,
    /// The address of a server: `https://…` or `http://…`.
    Server,
    /// The name of a text encoding.
    Encoding,
    /// One character that separates columns.
    Delimiter,
}

/// A call such as `cosine(peak = 1e-4, …)`.
#[derive(Clone, Copy, Debug)]
pub struct CallSchema {
    pub name: &'static str,
    /// One sentence.
    pub meaning: &'static str,
    /// The argument that is written first, without its name.
    pub first: Option<&'static FieldSchema>,
    pub arguments: &'static [FieldSchema],
}

impl BlockSchema {
    pub fn field(&self, name: &str) -> Option<&'static FieldSchema> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl CallSchema {
    /// All arguments, the unnamed one first.
    pub fn all(&self) -> impl Iterator<Item = &'static FieldSchema> {
        self.first.into_iter().chain(self.arguments)
    }
}

/// The schema of a kind of block.
pub fn block(kind: BlockKind) -> &'static BlockSchema {
    BLOCKS
        .iter()
        .find(|block| block.kind == kind)
        .expect("every kind has a schema")
}

/// The kind of block with a keyword.
pub fn kind(keyword: &str) -> Option<BlockKind> {
    BLOCKS
        .iter()
        .map(|block| block.kind)
        .find(|kind| kind.to_string() == keyword)
}

/// The schema of a path inside a block: a field, an argument of its call, or a setting of a component.
pub fn at_path(kind: BlockKind, path: &[&str]) -> Option<&'static FieldSchema> {
    match (kind, path) {
        (BlockKind::Mixture, [_, setting]) => component().all().find(|field| field.name == *setting),
        (_, [name]) => block(kind).field(name),
        (_, [name, argument]) => calls_of(&block(kind).field(name)?.kind)
            .into_iter()
            .flat_map(CallSchema::all)
            .find(|field| field.name == *argument),
        _ => None,
    }
}

/// The calls that are values of a type.
pub fn calls_of(kind: &'static Type) -> Vec<&'static CallSchema> {
    match kind {
        Type::Call(calls) => calls.iter().collect(),
        Type::OneOf(types) => types.iter().flat_map(calls_of).collect(),
        _ => Vec::new(),
    }
}

/// The keywords of top-level blocks: the kinds, `profile` and `sweep`.
pub fn keywords() -> Vec<String> {
    BLOCKS
        .iter()
        .map(|block| block.kind.to_string())
        .chain(["profile".to_owned(), "sweep".to_owned()])
        .collect()
}

/// Describes a type in messages: "a whole number", "a number of tokens", "`a` or `b`".
pub fn describe(kind: &Type) -> String {
    match kind {
        Type::Bool => "`true` or `false`".to_owned(),
        Type::Integer { .. } => "a whole number".to_owned(),
        Type::Decimal { .. } => "a number".to_owned(),
        Type::Percent { .. } => "a percentage such as `12.5%`".to_owned(),
        Type::Text(TextKind::Source) => "a source in double quotes, such as `\"file:data/text.txt\"`".to_owned(),
        Type::Text(TextKind::Pattern) => "a pattern of paths in double quotes".to_owned(),
        Type::Text(TextKind::Repository) => "a repository in double quotes, such as `\"organisation/name\"`".to_owned(),
        Type::Text(TextKind::Server) => "an address in double quotes, such as `\"https://HOST/v1\"`".to_owned(),
        Type::Text(TextKind::Encoding) => "an encoding in double quotes, such as `\"windows-1252\"`".to_owned(),
        Type::Text(TextKind::Delimiter) => "one character in double quotes, such as `\";\"`".to_owned(),
        Type::Text(TextKind::Plain) => "a text in double quotes".to_owned(),
        Type::Word(words) => list_or(&words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>()),
        Type::Language => "a language such as `de` or `\"pt-BR\"`, `code` or `other`".to_owned(),
        Type::Quantity { units, .. } => format!("a number of {}", unit_names(units)),
        Type::Every(units) => format!("an interval in {}, such as `every 10 {}`", unit_names(units), units[0]),
        Type::Reference(kinds) => format!("the name of {}", kind_names(kinds)),
        Type::List { of, .. } => format!("a list, each element {}", describe(of)),
        Type::Call(calls) => list_or(
            &calls
                .iter()
                .map(|call| format!("`{}(…)`", call.name))
                .collect::<Vec<_>>(),
        ),
        Type::OneOf(types) => list_or(&types.iter().map(describe).collect::<Vec<_>>()),
        Type::Nothing => "`none`".to_owned(),
    }
}

/// "tokens", "tokens or steps".
pub fn unit_names(units: &[Unit]) -> String {
    list_or(&units.iter().map(|unit| unit.to_string()).collect::<Vec<_>>())
}

/// "a corpus", "a model or a stage".
pub fn kind_names(kinds: &[BlockKind]) -> String {
    list_or(&kinds.iter().map(|&kind| with_article(kind)).collect::<Vec<_>>())
}

/// "an eval", "a stage".
pub fn with_article(kind: BlockKind) -> String {
    let article = if matches!(kind, BlockKind::Eval | BlockKind::Expect | BlockKind::Experiment) {
        "an"
    } else {
        "a"
    };
    format!("{article} {kind}")
}

const fn field(name: &'static str, kind: Type, meaning: &'static str) -> FieldSchema {
    FieldSchema {
        name,
        kind,
        default: Default::Required,
        meaning,
        ignored: None,
        effect: FieldEffect::Semantic,
        unknown: false,
    }
}

impl FieldSchema {
    const fn or(self, default: &'static str) -> Self {
        Self {
            default: Default::Value(default),
            ..self
        }
    }

    const fn or_unset(self, meaning: &'static str) -> Self {
        Self {
            default: Default::Unset(meaning),
            ..self
        }
    }

    /// The default follows from other fields: `check/rules/derive.rs` computes it, and `rule` describes it in the book.
    const fn or_derived(self, rule: &'static str) -> Self {
        Self {
            default: Default::Derived(rule),
            ..self
        }
    }

    const fn ignored(self, when: &'static str) -> Self {
        Self {
            ignored: Some(when),
            ..self
        }
    }

    const fn placement(self) -> Self {
        Self {
            effect: FieldEffect::Placement,
            ..self
        }
    }

    const fn description(self) -> Self {
        Self {
            effect: FieldEffect::Description,
            ..self
        }
    }

    const fn may_be_unknown(self) -> Self {
        Self { unknown: true, ..self }
    }
}

const fn positive(most: &'static str) -> Type {
    Type::Decimal {
        range: Range {
            least: "0",
            includes_least: false,
            most: Some(most),
            includes_most: true,
        },
    }
}

const fn between(least: &'static str, most: &'static str) -> Type {
    Type::Decimal {
        range: Range {
            least,
            includes_least: true,
            most: Some(most),
            includes_most: true,
        },
    }
}

const fn whole(least: i64, most: i64) -> Type {
    Type::Integer {
        least,
        most,
        power_of_two: false,
    }
}

const fn power_of_two(most: i64) -> Type {
    Type::Integer {
        least: 1,
        most,
        power_of_two: true,
    }
}

/// The call of a name. Names of calls are unique in the language.
pub fn call(name: &str) -> Option<&'static CallSchema> {
    calls::ALL
        .iter()
        .flat_map(|table| table.iter())
        .chain([component()])
        .find(|call| call.name == name)
}
