//! `aurora doctor`: what this machine offers, and the current settings.

use serde_json::json;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::project::Project;
use crate::stdio::{errln, outln};
use crate::worker_launch::{rccl_survey, worker_program};

/// Programs that fetch sources.
const CLIENTS: [(&str, &str); 4] = [
    ("apt-get", "pkg:deb sources"),
    ("python3", "pkg:pypi sources"),
    ("cargo", "pkg:cargo sources"),
    ("npm", "pkg:npm sources"),
];

const KNOWN: [&str; 1] = ["AURORA_CACHE_DIR"];

pub fn run(context: &Context) -> Result<Exit, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let worker = worker_program()?;
    let has_worker = worker.is_file();
    let found: Vec<(&str, &str, bool)> = CLIENTS
        .map(|(program, what)| (program, what, on_path(program)))
        .to_vec();
    let settings: Vec<(String, String)> = std::env::vars()
        .filter(|(name, _)| name.starts_with("AURORA_") || name == "NO_COLOR")
        .collect();
    let strange: Vec<&String> = settings
        .iter()
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("AURORA_") && !KNOWN.contains(&name.as_str()))
        .collect();
    let project = context.project(None)?;
    if context.json {
        output::json(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cores": cores,
            "worker": has_worker,
            "rccl": rccl_survey(),
            "sandbox": sandbox(&project).unwrap_or_else(|missing| missing),
            "clients": found.iter().map(|(program, _, there)| json!({ "program": program, "found": there })).collect::<Vec<_>>(),
            "project": project.root,
            "store": project.store,
            "cache": aurora_runtime::cache_folder(),
            "settings": settings.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect::<Vec<_>>(),
            "unknown_settings": strange,
        }))?;
        return Ok(Exit::Done);
    }
    outln!("aurora    {}", env!("CARGO_PKG_VERSION"))?;
    outln!("cores     {cores}")?;
    outln!(
        "worker    {}",
        if has_worker {
            worker.to_string()
        } else {
            format!("missing ({worker}): training is not built in")
        }
    )?;
    match sandbox(&project) {
        Ok(layers) => outln!("sandbox   {layers}")?,
        Err(missing) => outln!("sandbox   missing: {missing}; `pass_at_k` runs no programs")?,
    }
    for (program, what, there) in found {
        outln!(
            "{program:<9} {}",
            if there {
                "found".to_string()
            } else {
                format!("missing: {what} cannot be fetched")
            }
        )?;
    }
    for (at, line) in rccl_survey().iter().enumerate() {
        outln!("{:<9} {line}", if at == 0 { "devices" } else { "" })?;
    }
    outln!("project   {}", project.root)?;
    outln!("store     {}", project.store)?;
    outln!("cache     {}", aurora_runtime::cache_folder())?;
    for (name, value) in &settings {
        outln!("setting   {name}={value}")?;
    }
    for name in strange {
        errln!("warning: `{name}` is not a setting of Aurora");
    }
    Ok(Exit::Done)
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// The sandbox that programs of a model would run in, or what is missing for it.
fn sandbox(project: &Project) -> Result<String, String> {
    let hidden = [project.store.as_std_path(), project.root.as_std_path()];
    aurora_runtime::judge::protection(&hidden).map_err(|missing| missing.to_string())
}
