//! The syntax tree: the text of a file as data, with the place of each part.
//!
//! The parser builds it; `check` and the formatter read it. Numbers keep their written digits, because only `check` knows
//! what they count. Comments are in a list of their own, sorted by place.
//! Not here: meaning. Whether a block, field or call exists is not known yet.

use schemars::JsonSchema;
use serde::Serialize;

/// A range of bytes of the text, `start..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The empty range at the end of this one.
    pub fn after(self) -> Self {
        Self {
            start: self.end,
            end: self.end,
        }
    }

    /// From the start of this range to the end of the other.
    pub fn to(self, other: Self) -> Self {
        Self {
            start: self.start,
            end: other.end,
        }
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    pub fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

/// A complete file: blocks and statements, each in the order of the text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    pub items: Vec<Block>,
    /// Top-level items other than blocks: imports, and names for values.
    pub statements: Vec<Statement>,
    /// Every comment, documentation included, sorted by place.
    pub comments: Vec<Comment>,
}

/// `// text` or `/// documentation`, without the line break.
#[derive(Clone, Debug, PartialEq)]
pub struct Comment {
    pub span: Span,
    /// From the slashes on, without trailing white space.
    pub text: String,
    /// Whether only white space precedes it on its line.
    pub own_line: bool,
}

impl Comment {
    /// Whether it is documentation (`///`) of the next block.
    pub fn is_documentation(&self) -> bool {
        self.text.starts_with("///") && !self.text.starts_with("////")
    }
}

/// A top-level item without a kind and a name: an import, `extends`, `let` or `param`.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    pub kind: StatementKind,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum StatementKind {
    /// `import "lib/corpora.aur" { finnish, hindi }`. Without braces it imports every name.
    Import { path: Quoted, names: Option<Vec<Name>> },
    /// `extends "base.aur" { stage.cap.budget = 1M tokens }`.
    Extends { path: Quoted, entries: Vec<Entry> },
    /// `let context = 2048 tokens`.
    Let { name: Name, value: Value },
    /// `param peak = 1e-4 in 1e-5 .. 1e-3`.
    Param {
        name: Name,
        value: Value,
        allowed: Option<Box<Allowed>>,
    },
}

impl StatementKind {
    /// The first word of the statement.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::Import { .. } => "import",
            Self::Extends { .. } => "extends",
            Self::Let { .. } => "let",
            Self::Param { .. } => "param",
        }
    }
}

/// The values that a `param` allows.
#[derive(Clone, Debug, PartialEq)]
pub enum Allowed {
    /// `1e-5 .. 1e-3`, including both ends.
    Between(Value, Value),
    /// `[small, large]`.
    OneOf(Vec<Value>),
}

/// A text in double quotes. The span includes the quotes.
#[derive(Clone, Debug, PartialEq)]
pub struct Quoted {
    pub text: String,
    pub span: Span,
}

/// An identifier with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Name {
    pub text: String,
    pub span: Span,
}

/// `stage cap { … }`, at the top level or in a profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    pub keyword: Name,
    pub name: Name,
    pub body: Body,
    /// From the keyword to the closing brace.
    pub span: Span,
    /// The `///` lines directly before the block, without the slashes.
    pub documentation: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Entries(Vec<Entry>),
    /// The body of an `expect` block.
    Gate(Box<Gate>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    Field(Field),
    Component(Component),
    Block(Block),
}

impl Entry {
    pub fn span(&self) -> Span {
        match self {
            Self::Field(field) => field.span,
            Self::Component(component) => component.span,
            Self::Block(block) => block.span,
        }
    }
}

/// `budget = 377B tokens`. In a profile the name may be a path, as in `stage.cap.budget = 1M tokens`.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// At least one name.
    pub path: Vec<Name>,
    pub value: Value,
    pub span: Span,
}

/// A component of a mixture: `fi from [finnish_web] weight 15% max_epochs 4`.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    pub name: Name,
    /// The value after `from`.
    pub from: Value,
    /// The settings after it: a word and its value.
    pub settings: Vec<(Name, Value)>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub kind: ValueKind,
    /// Without the marks.
    pub span: Span,
    pub marks: Vec<Mark>,
}

/// `@published("config.json")`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    pub name: Name,
    pub text: String,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ValueKind {
    Number(Number),
    Text(String),
    /// `true`, `unknown`, `gpt_bigcode`, or the name of a block.
    Word(String),
    /// `every 10B tokens`.
    Every(Box<Value>),
    List(Vec<Value>),
    Call(Call),
}

/// A number as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    /// Sign, digits, `_`, point and exponent.
    pub digits: String,
    /// `K`, `M`, `B` or `T`.
    pub suffix: Option<char>,
    pub percent: bool,
    pub unit: Option<Name>,
}

/// `cosine(peak = 1e-4, warmup = 2000 steps)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub name: Name,
    pub arguments: Vec<Argument>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Argument {
    pub name: Option<Name>,
    pub value: Value,
    pub span: Span,
}

/// `left <= right with 95% confidence`, and its marks.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    pub left: Expression,
    pub relation: Name,
    pub right: Expression,
    pub confidence: Option<Confidence>,
    /// Without the marks.
    pub span: Span,
    pub marks: Vec<Mark>,
}

/// `95%`.
#[derive(Clone, Debug, PartialEq)]
pub struct Confidence {
    pub number: Number,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    pub kind: ExpressionKind,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ExpressionKind {
    Number(Number),
    /// `cap.humaneval.pass@1`.
    Metric(Vec<Name>),
    /// `trend(cap.heldout.bits_per_byte.fi)`.
    Function {
        name: Name,
        arguments: Vec<Expression>,
    },
    /// An expression in parentheses.
    Group(Box<Expression>),
    Binary {
        left: Box<Expression>,
        operator: Operator,
        right: Box<Expression>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
}

impl Operator {
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
        }
    }
}
