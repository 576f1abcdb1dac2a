//! The assumptions of a spec: every value that is assumed, inferred, published or unknown.

use schemars::JsonSchema;
use serde::Serialize;

use crate::spec::{Evidence, Field, Origin, Spec, Value};

/// A value, its evidence, and its position in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Assumption {
    /// Such as `stage.cap.learning_rate.peak`.
    pub path: String,
    pub kind: AssumptionKind,
    /// The text of the mark; empty for `unknown`.
    pub text: String,
    pub file: String,
    pub line: u32,
    pub column: u32,
    pub value: String,
}

/// The kind of evidence, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AssumptionKind {
    Unknown,
    Assumed,
    Inferred,
    Published,
}

/// Every marked or unknown value, in the order of the files.
pub fn assumptions(spec: &Spec) -> Vec<Assumption> {
    let mut found = Vec::new();
    for (id, block) in &spec.blocks {
        for (name, field) in &block.fields {
            let path = if name == "gate" {
                id.to_string()
            } else {
                format!("{id}.{name}")
            };
            collect(spec, &mut found, path, field);
        }
    }
    let order = |file: &str| spec.files.iter().position(|known| known.name == file);
    found.sort_by_cached_key(|found| (order(&found.file), found.line, found.column, found.path.clone()));
    found
}

fn collect(spec: &Spec, found: &mut Vec<Assumption>, path: String, field: &Field) {
    let evidence = match (&field.value, &field.evidence) {
        (Value::Unknown, _) => Some((AssumptionKind::Unknown, "")),
        (_, Some(Evidence::Assumed(text))) => Some((AssumptionKind::Assumed, text.as_str())),
        (_, Some(Evidence::Inferred(text))) => Some((AssumptionKind::Inferred, text.as_str())),
        (_, Some(Evidence::Published(text))) => Some((AssumptionKind::Published, text.as_str())),
        (_, None) => None,
    };
    if let Some((kind, text)) = evidence {
        let (file, line, column) = match field.origin {
            Origin::Default => (spec.file.as_str(), 0, 0),
            Origin::Written { line, column, span } => (spec.file_of(span), line, column),
        };
        let value = field.value.to_string();
        found.push(Assumption {
            path: path.clone(),
            kind,
            text: text.to_owned(),
            file: file.to_owned(),
            line,
            column,
            value,
        });
    }
    match &field.value {
        Value::Call { arguments, .. } => {
            for (name, argument) in arguments {
                collect(spec, found, format!("{path}.{name}"), argument);
            }
        }
        Value::List(elements) => {
            for (index, element) in elements.iter().enumerate() {
                collect(spec, found, format!("{path}.{index}"), element);
            }
        }
        _ => {}
    }
}

impl std::fmt::Display for AssumptionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Assumed => "assumed",
            Self::Inferred => "inferred",
            Self::Published => "published",
        })
    }
}
