//! `aurora git`: drivers with which git compares and merges specs and locks by their meaning.
//!
//! `install` sets up the drivers in a repository; git calls the other two with the arguments that gitattributes(5)
//! describes.

use std::process::Command;

use aurora_compiler::compose::{Bundle, Choice};
use aurora_compiler::lock::{self, Lock};
use aurora_lang::merge::{Merged, merge};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use crate::arguments::{MergeDriver, VariantSelection};
use crate::context::Context;
use crate::diff::{between, text};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::project::{Reach, bundle_of, own_program, read_text};
use crate::stdio::{errln, out_text, outln};

/// The driver of each kind of file.
const ATTRIBUTES: [&str; 2] = ["*.aur diff=aurora merge=aurora", "**/lockfiles/*.lock merge=aurora"];

/// Sets up the repository of the current folder; existing settings stay.
pub fn install(context: &Context) -> Result<Exit, Failure> {
    let wrap = |doing: &str, error: git2::Error| Failure::error(format!("cannot {doing}: {}", error.message()));
    let repository = git2::Repository::discover(".").map_err(|error| wrap("find a git repository here", error))?;
    let Some(root) = repository.workdir().and_then(Utf8Path::from_path) else {
        return Err(Failure::error("this git repository has no working tree").help("run it in a clone with files"));
    };
    let path = root.join(".gitattributes");
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|error| Failure::error(format!("cannot read `{path}`: {error}")))?,
    };
    let missing: Vec<&str> = ATTRIBUTES
        .into_iter()
        .filter(|line| text.lines().all(|own| own.trim() != *line))
        .collect();
    if !missing.is_empty() {
        let gap = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        let text = format!("{text}{gap}{}\n", missing.join("\n"));
        aurora_runtime::write_atomically(&path, text.as_bytes())
            .map_err(|error| Failure::error(format!("cannot write `{path}`: {error}")))?;
    }
    // The path of this program: git's environment may find another one, or none.
    let own = own_program()?;
    let own = shlex::try_quote(own.as_str())
        .map_err(|error| Failure::error(error.to_string()))?
        .into_owned();
    let settings = [
        ("merge.aurora.name", "specs and locks by their meaning".to_owned()),
        ("merge.aurora.driver", format!("{own} git merge -- %O %A %B %P")),
        ("diff.aurora.command", format!("{own} git diff --")),
    ];
    let mut config = repository
        .config()
        .and_then(|config| config.open_level(git2::ConfigLevel::Local))
        .map_err(|error| wrap("read the repository's configuration", error))?;
    for (name, value) in &settings {
        config
            .set_str(name, value)
            .map_err(|error| wrap("write the repository's configuration", error))?;
    }
    if context.json {
        output::json(json!({ "attributes": path, "added": missing, "configured": settings.map(|(name, _)| name) }))?;
    } else {
        outln!("{path}: {} of {} lines added", missing.len(), ATTRIBUTES.len())?;
        outln!("commit it: everybody who runs `aurora git install` in a clone of this repository has the drivers")?;
    }
    Ok(Exit::Done)
}

/// Merges the file `ours` in place. Exits with 1 if there are conflicts.
pub fn merge_driver(arguments: &MergeDriver) -> Result<Exit, Failure> {
    let MergeDriver {
        base,
        ours,
        theirs,
        path,
    } = arguments;
    let texts = [read_text(base)?, read_text(ours)?, read_text(theirs)?];
    if path.extension() == Some("lock") {
        return locks(arguments, &texts);
    }
    let [old, our, their] = &texts;
    let merged = match merge(old, our, their) {
        Ok(merged) => merged,
        Err(unreadable) => {
            errln!("{path}: {} is not a valid spec; merged line by line", unreadable.side);
            return merge_lines(arguments);
        }
    };
    write(ours, &merged.text)?;
    if !merged.conflicts.is_empty() {
        print_conflicts(path, &merged);
        return Ok(Exit::Error);
    }
    // Two valid changes can be wrong together, such as two weights of one mixture.
    let is_valid = |text: &str| Ok::<_, Failure>(merged_bundle(path, text)?.check(&Choice::default()).is_ok());
    let joined = merged_bundle(path, &merged.text)?;
    if let Err(found) = joined.check(&Choice::default())
        && is_valid(our)?
        && is_valid(their)?
    {
        output::diagnostics(&found, joined.sources().view());
        errln!("{path}: each side is valid, but the merged spec is not: fix it, then run `git add {path}`");
        return Ok(Exit::Error);
    }
    Ok(Exit::Done)
}

fn print_conflicts(path: &Utf8Path, merged: &Merged) {
    for conflict in &merged.conflicts {
        let first_line = |value: &Option<String>| {
            value.as_ref().map_or("removed".to_owned(), |text| {
                text.lines().next().unwrap_or("removed").trim().to_owned()
            })
        };
        errln!("{path}: both sides changed {}", conflict.path);
        if let Some(base) = &conflict.base {
            errln!("  base    {}", first_line(&Some(base.clone())));
        }
        errln!("  ours    {}", first_line(&conflict.ours));
        errln!("  theirs  {}", first_line(&conflict.theirs));
    }
    errln!("  = help: resolve the conflict markers in {path}, then run `git add {path}`");
}

fn locks(arguments: &MergeDriver, texts: &[String; 3]) -> Result<Exit, Failure> {
    let MergeDriver { ours, path, .. } = arguments;
    let [old, our, their] = texts;
    // Git gives an empty base if both sides created the file.
    let base = if old.trim().is_empty() {
        Ok(None)
    } else {
        Lock::parse(old).map(Some)
    };
    let (base, our, their) = match (base, Lock::parse(our), Lock::parse(their)) {
        (Ok(base), Ok(our), Ok(their)) => (base, our, their),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
            errln!("{path}: {error}; merged line by line");
            return merge_lines(arguments);
        }
    };
    let (joined, conflicts) = lock::merge(base.as_ref(), &our, &their);
    write(ours, &joined.to_text())?;
    for lock::LockConflict { what, ours, theirs } in &conflicts {
        errln!("{path}: both sides changed {what}\n  ours    {ours}\n  theirs  {theirs}");
    }
    if !conflicts.is_empty() {
        errln!("  = help: run `aurora lock {}`, then `git add {path}`", joined.spec);
        return Ok(Exit::Error);
    }
    if joined != our && joined != their {
        errln!("{path}: merged; run `aurora lock {}` to update it", joined.spec);
    }
    Ok(Exit::Done)
}

fn write(path: &Utf8Path, text: &str) -> Result<(), Failure> {
    // A temporary file of git, which git reads when this program ends.
    std::fs::write(path, text).map_err(|error| Failure::error(format!("cannot write `{path}`: {error}")))
}

/// Merges line by line, as git merges files without a driver.
fn merge_lines(MergeDriver { base, ours, theirs, .. }: &MergeDriver) -> Result<Exit, Failure> {
    let labels = ["-L", "ours", "-L", "base", "-L", "theirs"];
    let status = Command::new("git")
        .args(["merge-file"].iter().chain(&labels))
        .args([ours, base, theirs])
        .status()
        .map_err(|error| Failure::error(format!("cannot run `git merge-file`: {error}")))?;
    Ok(if status.success() { Exit::Done } else { Exit::Error })
}

/// Prints the difference between two versions of a spec. Exits with 0: git treats other exit codes as failures.
pub fn diff_driver(context: &Context, arguments: &[Utf8PathBuf]) -> Result<Exit, Failure> {
    let [path, old, _, _, new, ..] = arguments else {
        return Err(Failure::error(
            "the diff driver needs the seven arguments that git passes",
        ));
    };
    outln!("spec {path}")?;
    let side = |file: &Utf8PathBuf| {
        if file == "/dev/null" {
            Ok(String::new())
        } else {
            read_text(file)
        }
    };
    let (old, new) = (side(old)?, side(new)?);
    let checked = |text: &str| Ok::<_, Failure>(merged_bundle(path, text)?.check(&Choice::default()));
    match (checked(&old)?, checked(&new)?) {
        (Ok(old), Ok(new)) => out_text(&text(&between(context, &old, &new, path)?))?,
        // A missing spec, or one with errors, is compared line by line.
        _ => {
            let wrap = |error: git2::Error| Failure::error(error.message().to_owned());
            let mut patch =
                git2::Patch::from_buffers(old.as_bytes(), Some(path.as_std_path()), new.as_bytes(), None, None)
                    .map_err(wrap)?;
            let text = patch.to_buf().map_err(wrap)?;
            out_text(text.as_str().unwrap_or_default())?;
        }
    }
    Ok(Exit::Done)
}

/// A spec's text with its local imports.
fn merged_bundle(path: &Utf8Path, text: &str) -> Result<Bundle, Failure> {
    Ok(bundle_of(path, text, &VariantSelection::default(), Reach::store(None))?.0)
}
