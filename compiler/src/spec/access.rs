//! Accessors for the values of a checked spec. Each returns none if the value is absent, unknown or of another type.

use std::collections::BTreeMap;

use aurora_lang::ast::Span;

use super::{Block, BlockId, BlockKind, Cause, Field, Origin, Spec, Unit, Value};
use crate::exact::Exact;

impl Field {
    /// Where the value was written.
    pub fn span(&self) -> Option<Span> {
        match self.origin {
            Origin::Default => None,
            Origin::Written { span, .. } => Some(span),
        }
    }

    pub fn is_written(&self) -> bool {
        self.origin != Origin::Default
    }

    pub fn integer(&self) -> Option<i64> {
        if let Value::Integer(value) = self.value {
            Some(value)
        } else {
            None
        }
    }

    /// A count and its unit, also of an interval (`every …`).
    pub fn quantity(&self) -> Option<(u64, Unit)> {
        match &self.value {
            Value::Quantity(count, unit) => Some((*count, *unit)),
            Value::Every(inner) => match **inner {
                Value::Quantity(count, unit) => Some((count, unit)),
                _ => None,
            },
            _ => None,
        }
    }

    pub fn number(&self) -> Option<Exact> {
        match self.value {
            Value::Decimal(value) | Value::Percent(value) => Some(value),
            Value::Integer(value) => Some(Exact::new(value.into())),
            _ => None,
        }
    }

    pub fn reference(&self) -> Option<&BlockId> {
        if let Value::Reference(id) = &self.value {
            Some(id)
        } else {
            None
        }
    }

    /// A word, or the name of a call.
    pub fn word(&self) -> Option<&str> {
        match &self.value {
            Value::Word(word) => Some(word),
            Value::Call { name, .. } => Some(name),
            _ => None,
        }
    }

    /// The elements of a list; none of anything else.
    pub fn elements(&self) -> &[Field] {
        if let Value::List(elements) = &self.value {
            elements
        } else {
            &[]
        }
    }

    pub fn arguments(&self) -> Option<&BTreeMap<String, Field>> {
        if let Value::Call { arguments, .. } = &self.value {
            Some(arguments)
        } else {
            None
        }
    }

    pub fn argument(&self, name: &str) -> Option<&Field> {
        self.arguments().and_then(|arguments| arguments.get(name))
    }
}

impl Block {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(name)
    }

    pub fn integer(&self, name: &str) -> Option<i64> {
        self.field(name).and_then(Field::integer)
    }

    pub fn quantity(&self, name: &str) -> Option<(u64, Unit)> {
        self.field(name).and_then(Field::quantity)
    }

    pub fn word(&self, name: &str) -> Option<&str> {
        self.field(name).and_then(Field::word)
    }

    pub fn reference(&self, name: &str) -> Option<&BlockId> {
        self.field(name).and_then(Field::reference)
    }

    /// The blocks that a list names.
    pub fn references(&self, name: &str) -> Vec<&BlockId> {
        self.field(name)
            .map_or(&[][..], Field::elements)
            .iter()
            .filter_map(Field::reference)
            .collect()
    }

    /// Where the field was written; the block's name if it was not.
    pub fn place(&self, name: &str) -> Span {
        self.field(name).and_then(Field::span).unwrap_or(self.span)
    }
}

impl Spec {
    /// The file that holds a place.
    pub fn file_of(&self, span: Span) -> &str {
        let index = self.files.partition_point(|file| file.start <= span.start);
        self.files
            .get(index.saturating_sub(1))
            .map_or(&self.file, |file| &file.name)
    }

    /// Where a value was written, as `FILE:LINE:COLUMN`; none for a default.
    pub fn place(&self, origin: &Origin) -> Option<String> {
        match *origin {
            Origin::Default => None,
            Origin::Written { line, column, span } => Some(format!("{}:{line}:{column}", self.file_of(span))),
        }
    }

    /// Why a value is what it is.
    pub fn cause(&self, origin: &Origin) -> Cause {
        match origin {
            Origin::Default => Cause::Default,
            Origin::Written { span, .. } => {
                let found = self
                    .causes
                    .iter()
                    .find(|(range, _)| range.contains(*span) && span.start < range.end);
                found.map_or(Cause::Spec, |(_, cause)| cause.clone())
            }
        }
    }

    pub fn block(&self, kind: BlockKind, name: &str) -> Option<&Block> {
        self.blocks.get(&BlockId {
            kind,
            name: name.to_owned(),
        })
    }

    /// The blocks of a kind, by name.
    pub fn of_kind(&self, kind: BlockKind) -> impl Iterator<Item = (&BlockId, &Block)> {
        self.blocks.iter().filter(move |(id, _)| id.kind == kind)
    }

    pub fn experiment(&self) -> Option<&Block> {
        self.block(BlockKind::Experiment, &self.name)
    }

    /// The model that a stage trains, through all the stages before it; none if they form a cycle.
    pub fn model_of(&self, stage: &BlockId) -> Option<&BlockId> {
        let mut at = self.blocks.get(stage)?.reference("start")?;
        for _ in 0..=self.blocks.len() {
            if at.kind == BlockKind::Model {
                return Some(at);
            }
            at = self.blocks.get(at)?.reference("start")?;
        }
        None
    }

    /// Sequences and tokens of one step of a stage.
    pub fn batch_of(&self, stage: &BlockId) -> Option<StageBatch> {
        let block = self.blocks.get(stage)?;
        let (sequence, _) = block.quantity("sequence")?;
        let sequences = match block.quantity("global_batch")? {
            (count, Unit::Sequences) => count,
            (tokens, _) if tokens.checked_rem(sequence)? == 0 => tokens / sequence,
            _ => return None,
        };
        Some(StageBatch {
            sequences,
            sequence,
            tokens: sequences.checked_mul(sequence).filter(|&tokens| tokens > 0)?,
        })
    }
}

/// The batch of one optimizer step of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageBatch {
    pub sequences: u64,
    /// Tokens of one sequence.
    pub sequence: u64,
    /// Tokens of all of them.
    pub tokens: u64,
}

impl StageBatch {
    /// Converts a number of steps or tokens to steps; none if it is not a whole number of steps.
    pub fn steps(self, (count, unit): (u64, Unit)) -> Option<u64> {
        match unit {
            Unit::Steps => Some(count),
            Unit::Tokens if count % self.tokens == 0 => Some(count / self.tokens),
            _ => None,
        }
    }
}

/// The name under which an eval reports each corpus: its language if no other corpus of the eval has the same,
/// else the name of the corpus.
pub fn set_names(spec: &Spec, eval: &Block) -> Vec<(String, BlockId)> {
    let corpora: Vec<&BlockId> = eval
        .references("data")
        .into_iter()
        .filter(|id| id.kind == BlockKind::Corpus)
        .collect();
    let language = |id: &BlockId| spec.blocks.get(id).and_then(|block| block.word("language"));
    corpora
        .iter()
        .map(|id| {
            let own = language(id);
            let unique = corpora.iter().filter(|other| language(other) == own).count() == 1;
            let name = own.filter(|_| unique).unwrap_or(&id.name);
            (name.to_owned(), (*id).clone())
        })
        .collect()
}
