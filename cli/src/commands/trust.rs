//! `aurora trust`: allows what a spec does outside of Aurora, lists it, or withdraws that.

use aurora_compiler::graph::lower;
use aurora_runtime::pin::from_lock;
use aurora_runtime::trust::{Grants, Request};
use serde_json::json;

use crate::arguments::SpecArgument;
use crate::consent::wanted;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::stdio::outln;

/// What to do with consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Grant,
    List,
    Revoke,
}

impl Change {
    /// By the options `--list` and `--revoke`.
    pub fn of(list: bool, revoke: bool) -> Self {
        match (list, revoke) {
            (true, _) => Self::List,
            (false, true) => Self::Revoke,
            (false, false) => Self::Grant,
        }
    }
}

pub fn run(context: &Context, argument: &SpecArgument, change: Change) -> Result<Exit, Failure> {
    let (project, loaded) = context.open(argument)?;
    let lock = project.lock(&loaded.spec)?;
    let pins = from_lock(&loaded.spec, lock.as_ref());
    let wanted = wanted(&project, &loaded.spec, &lower(&loaded.spec, &pins), &pins)?;
    let grants = Grants::of_user()?;
    for Request { action, .. } in &wanted {
        match change {
            Change::Grant => grants.grant(action)?,
            Change::Revoke => drop(grants.revoke(action)?),
            Change::List => {}
        }
    }
    if context.json {
        let list = wanted.iter().map(|request| {
            json!({ "request": request, "text": request.to_string(), "allowed": grants.has(&request.action) })
        });
        output::json(json!({ "actions": list.collect::<Vec<_>>() }))?;
        return Ok(Exit::Done);
    }
    for request in &wanted {
        let state = if grants.has(&request.action) {
            "allowed"
        } else {
            "not allowed"
        };
        outln!("{state}: {request}\n  digest {}", request.digest)?;
    }
    if wanted.is_empty() {
        outln!("`{}` does nothing outside of Aurora", loaded.spec.name)?;
    }
    Ok(Exit::Done)
}
