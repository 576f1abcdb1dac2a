//! `aurora diff`: two specs, from files or git revisions.

use aurora_compiler::check::check;
use aurora_compiler::diff::{Diff, Severity, diff};
use aurora_compiler::spec::Spec;
use aurora_lang::diagnostics::Source;
use aurora_runtime::pin;
use camino::{Utf8Path, Utf8PathBuf};

use super::{Context, pin_failure};
use crate::failure::{Exit, Failure};
use crate::output::{self, grouped};
use crate::project::read_text;

pub fn run(context: &Context, old: &str, new: &str, profile: Option<&str>) -> Result<Exit, Failure> {
    let (old_spec, old_path) = side(context, old, profile)?;
    let (new_spec, new_path) = side(context, new, profile)?;
    let path = if new_path.exists() { &new_path } else { &old_path };
    let found = between(context, &old_spec, &new_spec, path)?;
    if context.json {
        let mut value = serde_json::to_value(&found).map_err(|error| Failure::fault(error.to_string()))?;
        // Names alone under `nodes`, as every other list of nodes; the reasons stand beside them.
        let names: Vec<&str> = found.nodes.rerun.iter().map(|rerun| rerun.name.as_str()).collect();
        value["reasons"] = value["nodes"]["rerun"].clone();
        value["nodes"]["rerun"] = serde_json::json!(names);
        output::json(value);
    } else {
        print(&found);
    }
    Ok(if found.severity == Severity::None {
        Exit::Done
    } else {
        Exit::Fault
    })
}

/// What differs between two specs of the project that `path` is in.
pub fn between(context: &Context, old: &Spec, new: &Spec, path: &Utf8Path) -> Result<Diff, Failure> {
    let project = context.project(Some(path))?;
    // Both sides see the same contents, so that only what the specs say differs.
    let lock = project.lock(new).ok().flatten();
    let mut pins = pin::from_lock(new, lock.as_ref());
    for spec in [old, new] {
        match pin::local(spec, &project.root) {
            Ok(local) => pins.extend(local),
            // A file that is gone is simply not pinned on either side.
            Err(pin::PinError::Local { .. }) => {}
            Err(error) => return Err(pin_failure(error)),
        }
    }
    Ok(diff(old, new, &pins))
}

pub fn print(found: &Diff) {
    let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "(not set)".to_string());
    for value in &found.changed {
        println!(
            "{}: {} → {}  ({})",
            value.path,
            show(&value.old),
            show(&value.new),
            value.origin
        );
    }
    for rerun in &found.nodes.rerun {
        println!("reruns  {}: {}", rerun.name, rerun.reason);
    }
    for name in &found.nodes.removed {
        println!("gone    {name}");
    }
    match found.severity {
        Severity::None => println!("nothing differs"),
        Severity::Same => println!("same bits: no node reruns"),
        Severity::Measured | Severity::Trained => println!(
            "{} nodes rerun, {} are reused; to train: {} tokens, {:.3e} FLOP",
            found.nodes.rerun.len(),
            found.nodes.reused.len(),
            grouped(found.cost.tokens),
            found.cost.flops
        ),
    }
}

/// Reads and checks one side; the path is the spec's place in the working tree.
fn side(context: &Context, name: &str, profile: Option<&str>) -> Result<(Spec, Utf8PathBuf), Failure> {
    let (text, path) = if Utf8Path::new(name).exists() {
        (read_text(Utf8Path::new(name))?, Utf8PathBuf::from(name))
    } else if let Some((revision, path)) = name.split_once(':') {
        at_revision(revision, path)?
    } else {
        return Err(Failure::fault(format!("there is no file `{name}`")).help("name a file, or REV:path"));
    };
    match check(name, &text, profile) {
        Ok(spec) => Ok((spec, path)),
        Err(found) => Err(output::refused(&found, Source::new(name, &text), context.json)),
    }
}

fn at_revision(revision: &str, path: &str) -> Result<(String, Utf8PathBuf), Failure> {
    let wrap = |doing: &str, error: git2::Error| Failure::fault(format!("cannot {doing}: {}", error.message()));
    let repository = git2::Repository::discover(".").map_err(|error| wrap("find a git repository here", error))?;
    let object = repository
        .revparse_single(&format!("{revision}:{path}"))
        .map_err(|error| wrap(&format!("find `{path}` in revision `{revision}`"), error))?;
    let blob = object
        .peel_to_blob()
        .map_err(|error| wrap(&format!("read `{path}` as a file"), error))?;
    let text = std::str::from_utf8(blob.content())
        .map_err(|_| Failure::fault(format!("`{path}` in `{revision}` is not UTF-8 text")))?;
    let root = repository
        .workdir()
        .and_then(|root| Utf8Path::from_path(root))
        .unwrap_or(Utf8Path::new("."));
    Ok((text.to_string(), root.join(path)))
}
