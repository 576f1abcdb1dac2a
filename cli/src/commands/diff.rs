//! `aurora diff`: two specs, from files or git revisions.

use aurora_compiler::compose::Bundle;
use aurora_compiler::diff::{Severity, diff};
use aurora_compiler::spec::Spec;
use aurora_runtime::pin;
use camino::{Utf8Path, Utf8PathBuf};

use super::{Context, pin_failure};
use crate::failure::{Exit, Failure};
use crate::output::{self, grouped};
use crate::project::{Chosen, bundle};

pub fn run(context: &Context, old: &str, new: &str, chosen: &Chosen) -> Result<Exit, Failure> {
    let (old_spec, old_path) = side(context, old, chosen)?;
    let (new_spec, new_path) = side(context, new, chosen)?;
    let project = context.project(Some(if new_path.exists() { &new_path } else { &old_path }))?;
    // Both sides see the same contents, so that only what the specs say differs.
    let lock = project.lock(&new_spec).ok().flatten();
    let mut pins = pin::from_lock(&new_spec, lock.as_ref());
    for spec in [&old_spec, &new_spec] {
        match pin::local(spec, &project.root) {
            Ok(local) => pins.extend(local),
            // A file that is gone is simply not pinned on either side.
            Err(pin::PinError::Local { .. }) => {}
            Err(error) => return Err(pin_failure(error)),
        }
    }
    let found = diff(&old_spec, &new_spec, &pins);
    if context.json {
        let mut value = serde_json::to_value(&found).map_err(|error| Failure::fault(error.to_string()))?;
        // Names alone under `nodes`, as every other list of nodes; the reasons stand beside them.
        let names: Vec<&str> = found.nodes.rerun.iter().map(|rerun| rerun.name.as_str()).collect();
        value["reasons"] = value["nodes"]["rerun"].clone();
        value["nodes"]["rerun"] = serde_json::json!(names);
        output::json(value);
    } else {
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
    Ok(if found.severity == Severity::None {
        Exit::Done
    } else {
        Exit::Fault
    })
}

/// Reads and checks one side; the path is the spec's place in the working tree.
fn side(context: &Context, name: &str, chosen: &Chosen) -> Result<(Spec, Utf8PathBuf), Failure> {
    let (bundle, path) = if Utf8Path::new(name).exists() {
        (bundle(Utf8Path::new(name), &chosen.set)?, Utf8PathBuf::from(name))
    } else if let Some((revision, path)) = name.split_once(':') {
        let (text, place) = at_revision(revision, path)?;
        // What it imports is read from the same revision; names of files begin as the spec's does.
        let mut bundle = Bundle::read(name, &text, &mut |file| {
            let file = file.split_once(':').map_or(file, |(_, file)| file);
            at_revision(revision, file)
                .map(|(text, _)| text)
                .map_err(|failure| failure.message)
        });
        chosen.set.iter().for_each(|setting| bundle.set(setting));
        (bundle, place)
    } else {
        return Err(Failure::fault(format!("there is no file `{name}`")).help("name a file, or REV:path"));
    };
    match bundle.check(&chosen.choice()) {
        Ok(spec) => Ok((spec, path)),
        Err(found) => Err(output::refused(&found, bundle.sources().view(), context.json)),
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
