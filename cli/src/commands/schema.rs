//! `aurora schema`: the JSON Schema of a document that Aurora writes.

use aurora_compiler::json_output::{Diagnostics, GraphDocument, PlanDocument};
use aurora_compiler::lock::Lock;
use aurora_runtime::record::RunFacts;
use schemars::{Schema, schema_for};
use serde_json::{Value, json};

use crate::arguments::SchemaDocument;
use crate::failure::{Exit, Failure};
use crate::stdio::out_json;

pub fn run(of: SchemaDocument) -> Result<Exit, Failure> {
    let schema = match of {
        SchemaDocument::Lock => schema_for!(Lock),
        SchemaDocument::Record => schema_for!(RunFacts),
        SchemaDocument::Graph => printed(schema_for!(GraphDocument)),
        SchemaDocument::Diagnostics => printed(schema_for!(Diagnostics)),
        SchemaDocument::Plan => printed(schema_for!(PlanDocument)),
    };
    let text = serde_json::to_string_pretty(&schema).map_err(|error| Failure::error(error.to_string()))?;
    out_json(&text)?;
    Ok(Exit::Done)
}

/// A printed document starts with the version of the format, and has no other members than those of its schema.
fn printed(mut schema: Schema) -> Schema {
    let object = schema.ensure_object();
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.insert(
            "format_version".to_string(),
            json!({ "type": "string", "pattern": "^1\\." }),
        );
    }
    object.insert("additionalProperties".to_owned(), json!(false));
    if let Some(Value::Array(required)) = object.get_mut("required") {
        required.insert(0, json!("format_version"));
    }
    schema
}
