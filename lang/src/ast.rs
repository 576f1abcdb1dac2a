//! The syntax tree: what was written, with its place.
//!
//! In: the parser's findings. Out: plain data for `check` and the formatter. Numbers keep their written digits, because
//! only `check` knows what they count; comments stand beside the items, sorted by place.
//! Not here: meaning. Whether a block, field or call exists is not known at this stage.

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

    /// The same range of a text that stands `by` bytes further on.
    #[must_use]
    pub fn moved(self, by: usize) -> Self {
        Self {
            start: self.start + by,
            end: self.end + by,
        }
    }

    /// The empty range just behind this one.
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

/// A whole file: blocks and statements, each in the order they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct File {
    pub items: Vec<Block>,
    /// What stands between the blocks without braces of its own: imports and names for values.
    pub statements: Vec<Statement>,
    /// Every comment, documentation included, in order of place.
    pub comments: Vec<Comment>,
}

/// `// text` or `/// documentation`, without the line's end.
#[derive(Clone, Debug, PartialEq)]
pub struct Comment {
    pub span: Span,
    /// As written, from the slashes on, without trailing white space.
    pub text: String,
    /// Nothing but white space stands before it on its line.
    pub own_line: bool,
}

impl Comment {
    /// Whether this is documentation (`///`) of what follows.
    pub fn is_documentation(&self) -> bool {
        self.text.starts_with("///") && !self.text.starts_with("////")
    }
}

/// A line on the top level that is no block.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    pub kind: StatementKind,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum StatementKind {
    /// `import "lib/corpora.aur" { finnish, hindi }`; without braces everything that is used.
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
    /// The word that the statement starts with.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::Import { .. } => "import",
            Self::Extends { .. } => "extends",
            Self::Let { .. } => "let",
            Self::Param { .. } => "param",
        }
    }
}

/// Which values a `param` takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Allowed {
    /// `1e-5 .. 1e-3`, both ends included.
    Between(Value, Value),
    /// `[small, large]`.
    OneOf(Vec<Value>),
}

/// A text in double quotes with its place, quotes included.
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

/// `stage cap { … }`, on the top level or inside a profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    pub keyword: Name,
    pub name: Name,
    pub body: Body,
    /// From the keyword to the closing brace.
    pub span: Span,
    /// The `///` lines right before the block, without the slashes.
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

/// `budget = 377B tokens`; in a profile the name may be a path, as in `stage.cap.budget = 1M tokens`.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// One name or more, never none.
    pub path: Vec<Name>,
    pub value: Value,
    pub span: Span,
}

/// `fi from [finnish_web] weight 15% max_epochs 4`, a line of a mixture.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    pub name: Name,
    /// Behind `from`.
    pub from: Value,
    /// What follows, as pairs of a word and a value.
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

/// `left <= right with 95% confidence`, with the marks behind it.
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
    /// In parentheses.
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
