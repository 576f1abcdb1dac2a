//! The checked spec: names resolved, units applied, defaults filled in.
//!
//! In: the values that `check` has accepted. Out: one generic tree for lowering, diff, `show` and the reference tables. Every field
//! of a block's schema is present; a field that was not written holds its default.
//! Not here: what a field means (`schema`), what work follows from it (`graph`).

mod access;

use std::collections::BTreeMap;
use std::fmt;

use aurora_lang::ast::Span;
use aurora_lang::diagnostics::SourceFile;
use serde::Serialize;

pub use access::{StageBatch, set_names};

use crate::exact::Exact;

#[derive(Clone, Debug)]
pub struct Spec {
    /// Name of the `experiment` block.
    pub name: String,
    /// The file name as given to the compiler; only for messages.
    pub file: String,
    /// Every file of the spec, its own first, each with its offset in the common text.
    pub files: Vec<SourceFile>,
    /// Ranges of the text that are not ordinary lines of the spec, each with its cause.
    pub causes: Vec<(Span, Cause)>,
    /// The profile that was applied, if any.
    pub profile: Option<String>,
    /// The point of a sweep that was selected, if any.
    pub point: Option<String>,
    /// The values of `--set`, as they were written.
    pub settings: Vec<String>,
    pub blocks: BTreeMap<BlockId, Block>,
    /// Warnings, ordered by position.
    pub warnings: Vec<aurora_lang::diagnostics::Diagnostic>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    Experiment,
    Source,
    Corpus,
    Tokenizer,
    Model,
    Mixture,
    Stage,
    Eval,
    Expect,
    Layout,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct BlockId {
    pub kind: BlockKind,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// By field name. A mixture's components are fields under their own names, each a `Call` named `component`; an
    /// `expect` block has the one field `gate`.
    pub fields: BTreeMap<String, Field>,
    /// The block's name (byte range in the common text).
    pub span: aurora_lang::ast::Span,
    /// Position among the blocks of the file, for output in that order. Not part of a key.
    pub position: usize,
}

/// A value with its evidence and origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub value: Value,
    pub origin: Origin,
    pub evidence: Option<Evidence>,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    Default,
    /// Line and column in the file that holds it; the span counts bytes of the common text.
    Written {
        line: u32,
        column: u32,
        span: Span,
    },
}

/// Why a value is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "why", content = "name", rename_all = "snake_case")]
pub enum Cause {
    /// Not written: the default.
    Default,
    /// Written in the block itself.
    Spec,
    Let(String),
    Param(String),
    /// `--set` on the command line.
    Set,
    Profile(String),
    Sweep(String),
    /// Changed in the braces of `extends`.
    Extends(String),
    /// Written in another file.
    Import,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Spec => f.write_str("spec"),
            Self::Let(name) => write!(f, "let {name}"),
            Self::Param(name) => write!(f, "param {name}"),
            Self::Set => f.write_str("--set"),
            Self::Profile(name) => write!(f, "profile {name}"),
            Self::Sweep(name) => write!(f, "sweep {name}"),
            Self::Extends(path) => write!(f, "extends {path:?}"),
            Self::Import => f.write_str("import"),
        }
    }
}

/// A mark on a value, with its text.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", content = "text", rename_all = "snake_case")]
pub enum Evidence {
    Published(String),
    Inferred(String),
    Assumed(String),
}

impl Evidence {
    /// The mark as it is written.
    pub fn mark(&self) -> String {
        match self {
            Self::Published(text) => format!("@published({text:?})"),
            Self::Inferred(text) => format!("@inferred({text:?})"),
            Self::Assumed(text) => format!("@assumed({text:?})"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Written as `unknown`: the value has not been published.
    Unknown,
    /// An optional field that is not set.
    None,
    Bool(bool),
    Integer(i64),
    Decimal(Exact),
    /// 12.5% is `Exact(12.5)`.
    Percent(Exact),
    /// Percentage points, as in `- 2 pp`.
    Points(Exact),
    Text(String),
    /// One of a closed set of words, such as `gpt_bigcode` or `start`.
    Word(String),
    /// A whole number with a unit.
    Quantity(u64, Unit),
    /// `every 10B tokens`.
    Every(Box<Value>),
    /// The name of another block, resolved.
    Reference(BlockId),
    List(Vec<Field>),
    /// `cosine(peak = 1e-4, …)`, with the call's own defaults filled in.
    Call {
        name: String,
        arguments: BTreeMap<String, Field>,
    },
    Gate(Box<Gate>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Tokens,
    Sequences,
    Steps,
    Bytes,
    Characters,
    Nodes,
    Seconds,
}

/// `left <= right`, where both sides are sums of metrics and numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    pub left: Expression,
    pub relation: Relation,
    pub right: Expression,
    /// Confidence level in percent; none if noise is ignored.
    pub confidence: Option<Exact>,
    /// The gate as written, in the formatter's layout.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub enum Relation {
    #[serde(rename = "<")]
    Less,
    #[serde(rename = "<=")]
    AtMost,
    #[serde(rename = ">")]
    Greater,
    #[serde(rename = ">=")]
    AtLeast,
}

/// The better direction of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Higher,
    Lower,
}

/// Functions of metrics in gates; `schema::FUNCTIONS` documents each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Trend,
    Forgetting,
    Mean,
    Worst,
    Gap,
}

/// One side of a gate.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    Metric(Metric),
    Function(Function, Vec<Expression>),
    Number(Exact),
    /// Percentage points: added to a metric that is a fraction, 2 pp = 0.02.
    Points(Exact),
    Add(Box<Expression>, Box<Expression>),
    Subtract(Box<Expression>, Box<Expression>),
    Multiply(Box<Expression>, Box<Expression>),
}

/// `cap.heldout.bits_per_byte.fi`: after stage `cap` (a model's name: before its first stage).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Metric {
    pub at: BlockId,
    pub eval: String,
    pub metric: String,
    /// The set's name (a language), if the eval has more than one.
    pub set: String,
}

impl BlockKind {
    /// The word for several blocks of the kind.
    pub fn plural(self) -> String {
        match self {
            Self::Corpus => "corpora".to_owned(),
            other => format!("{other}s"),
        }
    }
}

impl fmt::Display for BlockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Experiment => "experiment",
            Self::Source => "source",
            Self::Corpus => "corpus",
            Self::Tokenizer => "tokenizer",
            Self::Model => "model",
            Self::Mixture => "mixture",
            Self::Stage => "stage",
            Self::Eval => "eval",
            Self::Expect => "expect",
            Self::Layout => "layout",
        })
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.kind, self.name)
    }
}
