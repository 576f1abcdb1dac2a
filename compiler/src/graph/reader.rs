//! Reads the fields of a checked spec for one node, and remembers where they came from and which nobody knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Node, NodeOrigin, Work};
use crate::fields::Exact;
use crate::spec::{BlockId, Field, Spec, Unit, Value};

/// Reads the fields of one node, and remembers which of them came from where and which nobody knows. A clone is for another
/// node with the same fields.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    spec: &'a Spec,
    unknown: Vec<String>,
    values: Arc<BTreeMap<String, String>>,
}

/// A field and its path in the spec.
#[derive(Clone)]
pub(super) struct At<'a> {
    pub(super) path: String,
    pub(super) field: &'a Field,
}

impl<'a> Reader<'a> {
    pub(super) fn new(spec: &'a Spec) -> Self {
        Self {
            spec,
            unknown: Vec::new(),
            values: Arc::default(),
        }
    }

    pub(super) fn at(&self, block: &BlockId, name: &str) -> At<'a> {
        let field = self.spec.blocks.get(block).and_then(|found| found.fields.get(name));
        let field = field.unwrap_or_else(|| unreachable!("check fills in every field of a block: {block}.{name}"));
        At {
            path: format!("{block}.{name}"),
            field,
        }
    }

    pub(super) fn argument(&self, at: &At<'a>, name: &str) -> At<'a> {
        let Value::Call { arguments, .. } = &at.field.value else {
            unreachable!("check found a call at {}", at.path);
        };
        let field = arguments
            .get(name)
            .unwrap_or_else(|| unreachable!("check fills in {name} at {}", at.path));
        At {
            path: format!("{}.{name}", at.path),
            field,
        }
    }

    pub(super) fn elements(&self, at: &At<'a>) -> Vec<At<'a>> {
        match &at.field.value {
            Value::List(fields) => fields
                .iter()
                .enumerate()
                .map(|(index, field)| At {
                    path: format!("{}.{index}", at.path),
                    field,
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    fn note(&mut self, at: &At<'a>) {
        Arc::make_mut(&mut self.values).insert(at.path.clone(), at.field.value.to_string());
    }

    /// Notes the value, or that nobody knows it.
    pub(super) fn value(&mut self, at: &At<'a>) -> Option<&'a Value> {
        self.note(at);
        if at.field.value == Value::Unknown {
            self.unknown.push(at.path.clone());
            return None;
        }
        Some(&at.field.value)
    }

    pub(super) fn whole(&mut self, at: &At<'a>) -> u64 {
        match self.value(at) {
            None => 0,
            Some(Value::Integer(value)) => u64::try_from(*value).unwrap_or(0),
            Some(Value::Quantity(value, _)) => *value,
            Some(other) => unreachable!("check found a whole number at {}, not {other}", at.path),
        }
    }

    pub(super) fn count(&mut self, at: &At<'a>) -> u32 {
        u32::try_from(self.whole(at)).unwrap_or_else(|_| unreachable!("check bounds {}", at.path))
    }

    pub(super) fn exact(&mut self, at: &At<'a>) -> Exact {
        match self.value(at) {
            None => Exact::new(rust_decimal::Decimal::ZERO),
            Some(Value::Decimal(value)) => *value,
            Some(Value::Integer(value)) => Exact::new((*value).into()),
            Some(Value::Percent(value)) => Exact::new(value.decimal() / rust_decimal::Decimal::ONE_HUNDRED),
            Some(other) => unreachable!("check found a number at {}, not {other}", at.path),
        }
    }

    pub(super) fn flag(&mut self, at: &At<'a>) -> bool {
        matches!(self.value(at), Some(Value::Bool(true)))
    }

    pub(super) fn text(&mut self, at: &At<'a>) -> String {
        match self.value(at) {
            Some(Value::Text(text) | Value::Word(text)) => text.clone(),
            _ => String::new(),
        }
    }

    pub(super) fn optional_text(&mut self, at: &At<'a>) -> Option<String> {
        (at.field.value != Value::None).then(|| self.text(at))
    }

    pub(super) fn texts(&mut self, at: &At<'a>) -> Vec<String> {
        self.note(at);
        self.elements(at).iter().map(|element| self.text(element)).collect()
    }

    pub(super) fn reference(&mut self, at: &At<'a>) -> Option<BlockId> {
        match self.value(at) {
            Some(Value::Reference(id)) => Some(id.clone()),
            _ => None,
        }
    }

    pub(super) fn call_name(&self, at: &At<'a>) -> &'a str {
        match &at.field.value {
            Value::Call { name, .. } => name,
            _ => "",
        }
    }

    /// A word of a closed set, read as the enum that spells it.
    pub(super) fn word<T: serde::de::DeserializeOwned>(&mut self, at: &At<'a>, placeholder: T) -> T {
        match self.value(at) {
            Some(Value::Word(word)) => serde_json::from_value(serde_json::Value::String(word.clone()))
                .unwrap_or_else(|_| unreachable!("the table of {} lists {word}", at.path)),
            _ => placeholder,
        }
    }

    pub(super) fn steps(&mut self, at: &At<'a>, tokens_per_step: u64) -> u64 {
        steps_of(self.value(at), tokens_per_step)
    }

    pub(super) fn node(self, origin: NodeOrigin, work: Work) -> Node {
        Node {
            name: origin.to_string(),
            origin,
            work,
            unknown: self.unknown,
            spec_values: self.values,
        }
    }
}

pub(super) fn steps_of(value: Option<&Value>, tokens_per_step: u64) -> u64 {
    match value {
        Some(Value::Quantity(count, Unit::Steps)) => *count,
        Some(Value::Quantity(count, Unit::Tokens)) => count.checked_div(tokens_per_step).unwrap_or(0),
        Some(Value::Every(inner)) => steps_of(Some(inner), tokens_per_step),
        Some(Value::Integer(count)) => u64::try_from(*count).unwrap_or(0),
        _ => 0,
    }
}
