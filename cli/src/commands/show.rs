//! `aurora show`: the resolved spec, value by value.

use aurora_compiler::spec::{Cause, Evidence};
use serde_json::json;

use crate::arguments::SpecArgument;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::stdio::out_text;

pub fn run(context: &Context, argument: &SpecArgument, path: Option<&str>, origins: bool) -> Result<Exit, Failure> {
    let (_, loaded) = context.open(argument)?;
    let resolved = loaded.spec.resolved();
    let under = |candidate: &str| {
        path.is_none_or(|path| {
            candidate
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    let mut values = Vec::new();
    let mut rows = Vec::new();
    for (path, (text, field)) in resolved.iter().filter(|(path, _)| under(path)) {
        let cause = loaded.spec.cause(&field.origin);
        let origin = match (loaded.spec.place(&field.origin), &cause) {
            (None, cause) => cause.to_string(),
            (Some(place), Cause::Spec) => place,
            (Some(place), cause) => format!("{place} ({cause})"),
        };
        let evidence = field.evidence.as_ref().map(|evidence| match evidence {
            Evidence::Published(text) => format!("published: {text}"),
            Evidence::Inferred(text) => format!("inferred: {text}"),
            Evidence::Assumed(text) => format!("assumed: {text}"),
        });
        values
            .push(json!({ "path": path, "value": text, "origin": origin, "cause": cause, "evidence": field.evidence }));
        let mut row = vec![format!("{path} = {text}")];
        if origins {
            row.push(origin);
            row.extend(evidence);
        }
        rows.push(row);
    }
    if values.is_empty() {
        let path = path.unwrap_or_default();
        let failure = Failure::error(format!("there is no value at `{path}`"));
        return Err(
            match aurora_compiler::names::nearest(path, resolved.keys().map(String::as_str)) {
                Some(near) => failure.help(format!("a path with a similar name exists: `{near}`")),
                None => failure.help("`aurora show SPEC` lists all paths"),
            },
        );
    }
    if context.json {
        output::json(json!({ "experiment": loaded.spec.name, "values": values }))?;
    } else {
        out_text(&output::table(&rows))?;
    }
    Ok(Exit::Done)
}

/// Prints the complete spec as one file.
pub fn resolved(context: &Context, argument: &SpecArgument) -> Result<Exit, Failure> {
    let (_, loaded) = context.open(argument)?;
    let text = aurora_compiler::resolved::resolved(&loaded.spec);
    if context.json {
        output::json(json!({ "experiment": loaded.spec.name, "resolved": text }))?;
    } else {
        out_text(&text)?;
    }
    Ok(Exit::Done)
}
