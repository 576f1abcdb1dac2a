//! `aurora test`: resolved specs compared with their snapshots.

use aurora_compiler::resolved::resolved;
use aurora_runtime::errors::FileError;
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use crate::arguments::VariantSelection;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::project::{Project, absolute, load, write_file};
use crate::stdio::{Printed, outln};

/// Lines of a difference that are printed for each side.
const MOST_SHOWN: usize = 20;

/// How a spec compares with its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SnapshotState {
    Same,
    Differs,
    Missing,
    Updated,
}

impl SnapshotState {
    fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Differs => "differs",
            Self::Missing => "missing",
            Self::Updated => "updated",
        }
    }
}

pub fn run(context: &Context, names: &[String], update: &[String]) -> Result<Exit, Failure> {
    let wanted = if update.is_empty() { names } else { update };
    let mut rows = Vec::new();
    let mut all_same = true;
    for spec in specs(context, wanted)? {
        let loaded = load(&spec, &VariantSelection::default(), context.json, context.reach())?;
        let text = resolved(&loaded.spec);
        let path = snapshot(&spec);
        let old = std::fs::read_to_string(&path).ok();
        let state = match &old {
            Some(old) if *old == text => SnapshotState::Same,
            _ if !update.is_empty() => {
                write_file(&path, &text)?;
                SnapshotState::Updated
            }
            Some(_) => SnapshotState::Differs,
            None => SnapshotState::Missing,
        };
        all_same &= matches!(state, SnapshotState::Same | SnapshotState::Updated);
        let name = spec.file_stem().unwrap_or_default().to_owned();
        if !context.json {
            outln!("{} {name}", state.name())?;
            if let (SnapshotState::Differs, Some(old)) = (state, &old) {
                print_difference(old, &text)?;
            }
        }
        rows.push(json!({ "spec": spec, "snapshot": path, "state": state.name() }));
    }
    if context.json {
        output::json(json!({ "specs": rows }))?;
    } else if !all_same {
        outln!("`aurora test --update NAME` writes the snapshot of a spec with an intended change")?;
    }
    Ok(if all_same { Exit::Done } else { Exit::Error })
}

/// The specs with these names or paths.
fn specs(context: &Context, names: &[String]) -> Result<Vec<Utf8PathBuf>, Failure> {
    let is_path = |name: &String| name.ends_with(".aur");
    if !names.is_empty() && names.iter().all(is_path) {
        return Ok(names.iter().map(Utf8PathBuf::from).collect());
    }
    let project = Project::of(Utf8Path::new("."), context.store.as_deref())?;
    let own = absolute(Utf8Path::new("."))?;
    let folder = project.root.join("specs");
    // Paths in messages are relative to the current folder.
    let folder = folder
        .strip_prefix(&own)
        .map_or_else(|_| folder.clone(), Utf8Path::to_owned);
    let reading = FileError::reading(&folder);
    let entries = folder.read_dir_utf8().map_err(|error| {
        Failure::error(format!("cannot read the folder `{folder}`: {error}"))
            .help("run this command in the project, or name specs by their paths")
    })?;
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry.map_err(reading)?;
        if entry.file_type().map_err(reading)?.is_file() && entry.path().extension() == Some("aur") {
            all.push(entry.path().to_owned());
        }
    }
    all.sort();
    if names.is_empty() {
        return Ok(all);
    }
    names
        .iter()
        .map(|name| {
            if is_path(name) {
                return Ok(Utf8PathBuf::from(name));
            }
            let found = all.iter().find(|path| path.file_stem() == Some(name));
            found.cloned().ok_or_else(|| {
                let failure = Failure::error(format!("there is no spec `{name}` in `{folder}`"));
                match aurora_compiler::names::nearest(name, all.iter().filter_map(|path| path.file_stem())) {
                    Some(near) => failure.help(format!("a spec with a similar name exists: `{near}`")),
                    None => failure,
                }
            })
        })
        .collect()
}

/// The snapshot of a spec, in a folder next to it.
fn snapshot(spec: &Utf8Path) -> Utf8PathBuf {
    let folder = spec.parent().unwrap_or(Utf8Path::new("")).join("snapshots");
    folder.join(spec.file_name().unwrap_or_default())
}

/// Prints the lines between the common beginning and the common end of two texts.
fn print_difference(old: &str, new: &str) -> Printed {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let start = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let end = old[start..]
        .iter()
        .rev()
        .zip(new[start..].iter().rev())
        .take_while(|(old, new)| old == new)
        .count();
    outln!("  from line {} of the snapshot:", start + 1)?;
    for (sign, lines) in [("-", &old), ("+", &new)] {
        let changed = &lines[start..lines.len() - end];
        for line in changed.iter().take(MOST_SHOWN) {
            outln!("  {sign} {line}")?;
        }
        if changed.len() > MOST_SHOWN {
            outln!("  {sign} … and {} more", changed.len() - MOST_SHOWN)?;
        }
    }
    Ok(())
}
