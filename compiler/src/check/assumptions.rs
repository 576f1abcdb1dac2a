//! What a spec rests on: every value that is assumed, inferred, published or unknown.

use serde::Serialize;

use crate::spec::{Evidence, Field, Origin, Spec, Value};

/// A value and its evidence, at its place in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Assumption {
    /// Such as `stage.cap.learning_rate.peak`.
    pub path: String,
    pub kind: AssumptionKind,
    /// What the mark says; empty for `unknown`.
    pub text: String,
    pub line: u32,
    pub column: u32,
    pub value: String,
}

/// From the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AssumptionKind {
    Unknown,
    Assumed,
    Inferred,
    Published,
}

/// Every marked or unknown value, in the order of the file.
pub fn assumptions(spec: &Spec) -> Vec<Assumption> {
    let mut found = Vec::new();
    for (id, block) in &spec.blocks {
        for (name, field) in &block.fields {
            let path = if name == "gate" {
                id.to_string()
            } else {
                format!("{id}.{name}")
            };
            collect(&mut found, path, field);
        }
    }
    found.sort_by(|a, b| (a.line, a.column, &a.path).cmp(&(b.line, b.column, &b.path)));
    found
}

fn collect(found: &mut Vec<Assumption>, path: String, field: &Field) {
    let evidence = match (&field.value, &field.evidence) {
        (Value::Unknown, _) => Some((AssumptionKind::Unknown, "")),
        (_, Some(Evidence::Assumed(text))) => Some((AssumptionKind::Assumed, text.as_str())),
        (_, Some(Evidence::Inferred(text))) => Some((AssumptionKind::Inferred, text.as_str())),
        (_, Some(Evidence::Published(text))) => Some((AssumptionKind::Published, text.as_str())),
        (_, None) => None,
    };
    if let Some((kind, text)) = evidence {
        let (line, column) = match field.origin {
            Origin::Default => (0, 0),
            Origin::Written { line, column, .. } | Origin::Profile { line, column, .. } => (line, column),
        };
        let value = field.value.to_string();
        found.push(Assumption {
            path: path.clone(),
            kind,
            text: text.to_owned(),
            line,
            column,
            value,
        });
    }
    match &field.value {
        Value::Call { arguments, .. } => {
            for (name, argument) in arguments {
                collect(found, format!("{path}.{name}"), argument);
            }
        }
        Value::List(elements) => {
            for (index, element) in elements.iter().enumerate() {
                collect(found, format!("{path}.{index}"), element);
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
