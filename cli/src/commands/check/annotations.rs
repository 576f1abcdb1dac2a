//! Diagnostics in the formats of other systems: annotations of a GitHub workflow, SARIF 2.1.0.

use std::collections::BTreeSet;

use aurora_lang::diagnostics::{DiagnosticJson, HelpJson, Severity, explain};
use serde_json::{Value, json};

/// One line that a GitHub workflow shows as an annotation of the file.
pub fn github(diagnostic: &DiagnosticJson) -> String {
    let level = level(diagnostic.severity);
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let place = diagnostic.labels.first().map_or(String::new(), |label| {
        format!(
            ",line={},col={},endLine={},endColumn={}",
            label.start.line, label.start.column, label.end.line, label.end.column
        )
    });
    let helps = diagnostic.helps.iter().map(|help| format!("\nhelp: {}", help.text));
    let message = diagnostic.message.clone() + &helps.collect::<String>();
    format!(
        "::{level} file={}{place},title={}::{}",
        property(&diagnostic.file),
        property(diagnostic.code),
        data(&message)
    )
}

/// A SARIF log with one run.
pub fn sarif(diagnostics: impl Iterator<Item = DiagnosticJson>) -> Value {
    let diagnostics: Vec<DiagnosticJson> = diagnostics.collect();
    let codes: BTreeSet<&str> = diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
    let rules: Vec<Value> = codes
        .into_iter()
        .filter_map(explain)
        .map(|rule| {
            json!({
                "id": rule.code,
                "shortDescription": { "text": rule.title },
                "fullDescription": { "text": rule.text },
            })
        })
        .collect();
    let results: Vec<Value> = diagnostics.iter().map(result).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "aurora",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(diagnostic: &DiagnosticJson) -> Value {
    let place = |file: &str, label: &aurora_lang::diagnostics::LabelJson| {
        json!({
            "physicalLocation": {
                "artifactLocation": { "uri": file },
                "region": {
                    "startLine": label.start.line,
                    "startColumn": label.start.column,
                    "endLine": label.end.line,
                    "endColumn": label.end.column,
                },
            },
            "message": { "text": label.text },
        })
    };
    let places: Vec<Value> = diagnostic
        .labels
        .iter()
        .map(|label| place(label.file.as_deref().unwrap_or(&diagnostic.file), label))
        .collect();
    let (first, others) = places.split_at(places.len().min(1));
    let fixes: Vec<Value> = diagnostic
        .helps
        .iter()
        .filter_map(|help| fix(diagnostic, help))
        .collect();
    json!({
        "ruleId": diagnostic.code,
        "level": level(diagnostic.severity),
        "message": { "text": diagnostic.message },
        "locations": first,
        "relatedLocations": others,
        "fixes": fixes,
    })
}

/// An edit that a diagnostic suggests; `applicability` is whether it is unambiguous.
fn fix(diagnostic: &DiagnosticJson, help: &HelpJson) -> Option<Value> {
    let edit = help.edit.as_ref()?;
    Some(json!({
        "description": { "text": help.text },
        "artifactChanges": [{
            "artifactLocation": { "uri": edit.file.as_deref().unwrap_or(&diagnostic.file) },
            "replacements": [{
                "deletedRegion": {
                    "startLine": edit.start.line,
                    "startColumn": edit.start.column,
                    "endLine": edit.end.line,
                    "endColumn": edit.end.column,
                },
                "insertedContent": { "text": edit.replacement },
            }],
        }],
        "properties": { "applicability": edit.applicability },
    }))
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}
