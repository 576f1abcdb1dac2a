//! Reads values of a block as the types that they must have, and records which values were read.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde::de::DeserializeOwned;

use super::ViewError;
use crate::exact::Exact;
use crate::file_source;
use crate::spec::{BlockId, Field, Spec, Unit, Value};

/// The values of the spec that a view was read from.
#[derive(Clone, Debug, Default)]
pub struct SpecValues {
    /// Paths of values that are `unknown`, in the order of reading; the view holds a placeholder for each.
    pub unknown: Vec<String>,
    /// All values by path, as text.
    pub by_path: Arc<BTreeMap<String, String>>,
}

impl SpecValues {
    /// Adds the values of a view that was read after this one.
    pub fn extend(&mut self, other: &Self) {
        self.unknown.extend(other.unknown.iter().cloned());
        if self.by_path.is_empty() {
            self.by_path = Arc::clone(&other.by_path);
            return;
        }
        let values = other.by_path.iter().map(|(path, value)| (path.clone(), value.clone()));
        Arc::make_mut(&mut self.by_path).extend(values);
    }
}

/// A path of the spec as the name of a source's file: `data/tok.json` is `tok.json` of `file:data/tok.json`.
pub(super) fn own_name(spec: &Spec, source: &BlockId, path: String) -> String {
    let from = spec.blocks.get(source).and_then(|block| block.fields.get("from"));
    match from.map(|from| &from.value) {
        Some(Value::Text(from)) => file_source::own_name(from, &path).unwrap_or(path),
        _ => path,
    }
}

/// As [`own_name`], for several paths or patterns.
pub(super) fn own_names(spec: &Spec, source: &BlockId, paths: Vec<String>) -> Vec<String> {
    paths.into_iter().map(|path| own_name(spec, source, path)).collect()
}

/// Reads one view.
pub(super) struct Reader<'a> {
    spec: &'a Spec,
    pub(super) values: SpecValues,
}

/// A field and its path in the spec.
#[derive(Clone)]
pub(super) struct At<'a> {
    block: BlockId,
    pub(super) path: String,
    pub(super) field: &'a Field,
}

impl At<'_> {
    pub(super) fn is_set(&self) -> bool {
        self.field.value != Value::None
    }

    pub(super) fn error(&self, expected: &'static str) -> ViewError {
        ViewError {
            block: self.block.clone(),
            path: self.path.clone(),
            span: self.field.span(),
            expected,
        }
    }
}

type Read<T> = Result<T, ViewError>;

impl<'a> Reader<'a> {
    pub(super) fn spec(&self) -> &'a Spec {
        self.spec
    }

    pub(super) fn new(spec: &'a Spec) -> Self {
        Self {
            spec,
            values: SpecValues::default(),
        }
    }

    pub(super) fn at(&self, block: &BlockId, name: &str) -> Read<At<'a>> {
        let field = self.spec.blocks.get(block).and_then(|found| found.fields.get(name));
        let path = format!("{block}.{name}");
        match field {
            Some(field) => Ok(At {
                block: block.clone(),
                path,
                field,
            }),
            None => Err(ViewError {
                block: block.clone(),
                path,
                span: None,
                expected: "a value",
            }),
        }
    }

    pub(super) fn argument(&self, at: &At<'a>, name: &str) -> Read<At<'a>> {
        let field = at.field.argument(name);
        let field = field.ok_or_else(|| at.error("a call with all its arguments"))?;
        Ok(At {
            block: at.block.clone(),
            path: format!("{}.{name}", at.path),
            field,
        })
    }

    /// The elements of a list; none of anything else.
    pub(super) fn elements(&self, at: &At<'a>) -> Vec<At<'a>> {
        let elements = at.field.elements().iter().enumerate();
        elements
            .map(|(index, field)| At {
                block: at.block.clone(),
                path: format!("{}.{index}", at.path),
                field,
            })
            .collect()
    }

    fn note(&mut self, at: &At<'a>) {
        Arc::make_mut(&mut self.values.by_path).insert(at.path.clone(), at.field.value.to_string());
    }

    /// The value, or none if it is `unknown`.
    pub(super) fn value(&mut self, at: &At<'a>) -> Option<&'a Value> {
        self.note(at);
        if at.field.value == Value::Unknown {
            self.values.unknown.push(at.path.clone());
            return None;
        }
        Some(&at.field.value)
    }

    /// Reads a value with `read`; the placeholder if it is `unknown`.
    fn typed<T>(
        &mut self,
        at: &At<'a>,
        placeholder: T,
        expected: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Read<T> {
        match self.value(at) {
            None => Ok(placeholder),
            Some(value) => read(value).ok_or_else(|| at.error(expected)),
        }
    }

    pub(super) fn whole(&mut self, at: &At<'a>) -> Read<u64> {
        self.typed(at, 0, "a whole number", |value| match value {
            Value::Integer(value) => u64::try_from(*value).ok(),
            Value::Quantity(value, _) => Some(*value),
            _ => None,
        })
    }

    pub(super) fn count(&mut self, at: &At<'a>) -> Read<u32> {
        let whole = self.whole(at)?;
        u32::try_from(whole).map_err(|_| at.error("a whole number of at most 32 bits"))
    }

    pub(super) fn exact(&mut self, at: &At<'a>) -> Read<Exact> {
        self.typed(at, Exact::new(Decimal::ZERO), "a number", |value| match value {
            Value::Decimal(value) => Some(*value),
            Value::Integer(value) => Some(Exact::new((*value).into())),
            Value::Percent(value) => Some(value.hundredth()),
            _ => None,
        })
    }

    pub(super) fn flag(&mut self, at: &At<'a>) -> Read<bool> {
        self.typed(at, false, "`true` or `false`", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    pub(super) fn text(&mut self, at: &At<'a>) -> Read<String> {
        self.typed(at, String::new(), "a text", |value| match value {
            Value::Text(text) | Value::Word(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// Reads a value that may be unset with `read`. An unset value is not recorded.
    pub(super) fn optional<T>(
        &mut self,
        at: &At<'a>,
        read: impl FnOnce(&mut Self, &At<'a>) -> Read<T>,
    ) -> Read<Option<T>> {
        at.is_set().then(|| read(self, at)).transpose()
    }

    pub(super) fn texts(&mut self, at: &At<'a>) -> Read<Vec<String>> {
        self.note(at);
        self.elements(at).iter().map(|element| self.text(element)).collect()
    }

    pub(super) fn reference(&mut self, at: &At<'a>) -> Read<BlockId> {
        let error = || at.error("the name of a block");
        match self.value(at) {
            Some(Value::Reference(id)) => Ok(id.clone()),
            _ => Err(error()),
        }
    }

    pub(super) fn references(&mut self, at: &At<'a>) -> Read<Vec<BlockId>> {
        self.elements(at)
            .iter()
            .map(|element| self.reference(element))
            .collect()
    }

    /// The name of a call; none of anything else, `unknown` included.
    pub(super) fn call_name(&self, at: &At<'a>) -> Option<&'a str> {
        match &at.field.value {
            Value::Call { name, .. } => Some(name),
            _ => None,
        }
    }

    /// A word of a closed set, read as the enum that spells it.
    pub(super) fn word<T: DeserializeOwned>(&mut self, at: &At<'a>, placeholder: T) -> Read<T> {
        self.typed(at, placeholder, "one of the words of its table", |value| match value {
            Value::Word(word) => serde_json::from_value(serde_json::Value::String(word.clone())).ok(),
            _ => None,
        })
    }

    /// A number of steps, or of tokens that are read as steps.
    pub(super) fn steps(&mut self, at: &At<'a>, tokens_per_step: u64) -> Read<u64> {
        self.typed(at, 0, "a number of steps or tokens", |value| {
            steps_of(value, tokens_per_step)
        })
    }
}

/// The steps of a number of steps or tokens, or of an interval of them.
pub(super) fn steps_of(value: &Value, tokens_per_step: u64) -> Option<u64> {
    match value {
        Value::Quantity(count, Unit::Steps) => Some(*count),
        // Where the batch is `unknown`, so is the number of steps.
        Value::Quantity(count, Unit::Tokens) => Some(count.checked_div(tokens_per_step).unwrap_or_default()),
        Value::Every(inner) => steps_of(inner, tokens_per_step),
        Value::Integer(0) | Value::None => Some(0),
        _ => None,
    }
}
