//! `aurora test`: resolved specs compared with their snapshots.

use aurora_compiler::resolved::resolved;
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use crate::arguments::Selection;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::project::{Project, load, write_file};

/// Lines of a difference that are shown on each side.
const MOST_SHOWN: usize = 20;

/// How a spec stands to its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Same,
    Differs,
    Missing,
    Updated,
}

impl State {
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
        let loaded = load(&spec, &Selection::default(), context.json, context.reach())?;
        let text = resolved(&loaded.spec);
        let path = snapshot(&spec);
        let old = std::fs::read_to_string(&path).ok();
        let state = match &old {
            Some(old) if *old == text => State::Same,
            _ if !update.is_empty() => {
                write_file(&path, &text)?;
                State::Updated
            }
            Some(_) => State::Differs,
            None => State::Missing,
        };
        all_same &= matches!(state, State::Same | State::Updated);
        let name = spec.file_stem().unwrap_or_default().to_owned();
        if !context.json {
            println!("{} {name}", state.name());
            if let (State::Differs, Some(old)) = (state, &old) {
                print_difference(old, &text);
            }
        }
        rows.push(json!({ "spec": spec, "snapshot": path, "state": state.name() }));
    }
    if context.json {
        output::json(json!({ "specs": rows }));
    } else if !all_same {
        println!("`aurora test --update NAME` writes the snapshot of a spec whose change is meant");
    }
    Ok(if all_same { Exit::Done } else { Exit::Error })
}

/// The specs that are meant, by path or by the name of their file.
fn specs(context: &Context, names: &[String]) -> Result<Vec<Utf8PathBuf>, Failure> {
    let is_path = |name: &String| name.ends_with(".aur");
    if !names.is_empty() && names.iter().all(is_path) {
        return Ok(names.iter().map(Utf8PathBuf::from).collect());
    }
    let project = Project::of(Utf8Path::new("."), context.store.as_deref())?;
    let own = camino::absolute_utf8(".")?;
    let folder = project.root.join("specs");
    // Names in messages begin where the command was started.
    let folder = folder
        .strip_prefix(&own)
        .map_or_else(|_| folder.clone(), Utf8Path::to_owned);
    let entries = folder.read_dir_utf8().map_err(|error| {
        Failure::error(format!("cannot read the folder `{folder}`: {error}"))
            .help("start it in the project, or name specs by their paths")
    })?;
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.path().extension() == Some("aur") {
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
                match aurora_compiler::nearest(name, all.iter().filter_map(|path| path.file_stem())) {
                    Some(near) => failure.help(format!("a spec with a similar name exists: `{near}`")),
                    None => failure,
                }
            })
        })
        .collect()
}

/// Beside the spec, in a folder of their own.
fn snapshot(spec: &Utf8Path) -> Utf8PathBuf {
    let folder = spec.parent().unwrap_or(Utf8Path::new("")).join("snapshots");
    folder.join(spec.file_name().unwrap_or_default())
}

/// The lines between what both texts begin and end with.
fn print_difference(old: &str, new: &str) {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let start = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let end = old[start..]
        .iter()
        .rev()
        .zip(new[start..].iter().rev())
        .take_while(|(old, new)| old == new)
        .count();
    println!("  from line {} of the snapshot:", start + 1);
    for (sign, lines) in [("-", &old), ("+", &new)] {
        let changed = &lines[start..lines.len() - end];
        for line in changed.iter().take(MOST_SHOWN) {
            println!("  {sign} {line}");
        }
        if changed.len() > MOST_SHOWN {
            println!("  {sign} … and {} more", changed.len() - MOST_SHOWN);
        }
    }
}
