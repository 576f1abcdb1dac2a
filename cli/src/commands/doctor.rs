//! `aurora doctor`: what this machine offers, and the current settings.

use aurora_runtime::launch::LocalDevice;
use aurora_runtime::libtorch::{Candidate, Devices, Search, VARIABLE, Version};
use serde_json::{Value, json};

use crate::context::Context;
use crate::device_test::DeviceTest;
use crate::devices::{TEST_DEVICES, tested_devices};
use crate::failure::{Exit, Failure};
use crate::libtorch::search;
use crate::output;
use crate::project::Project;
use crate::stdio::{errln, outln};
use crate::worker_launch::rccl_survey;

/// Programs that fetch sources.
const CLIENTS: [(&str, &str); 4] = [
    ("apt-get", "pkg:deb sources"),
    ("python3", "pkg:pypi sources"),
    ("cargo", "pkg:cargo sources"),
    ("npm", "pkg:npm sources"),
];

const KNOWN: [&str; 3] = ["AURORA_CACHE_DIR", VARIABLE, TEST_DEVICES];

pub fn run(context: &Context) -> Result<Exit, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let libtorch = search(None)?;
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
    let devices = tested_devices(&libtorch)?;
    if context.json {
        output::json(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cores": cores,
            "worker": !libtorch.workers.is_empty(),
            "libtorch": libtorch_json(&libtorch),
            "devices": devices.iter().map(|(device, test)| {
                let memory = test.as_ref().and_then(|test| test.memory).or(device.memory);
                json!({ "name": device.name, "memory": memory, "test": test })
            }).collect::<Vec<_>>(),
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
    libtorch_text(&libtorch)?;
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
    devices_text(&devices)?;
    for (at, line) in rccl_survey().iter().enumerate() {
        outln!("{:<9} {line}", if at == 0 { "rccl" } else { "" })?;
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

/// The devices, and what the worker found on each.
fn devices_text(devices: &[(LocalDevice, Option<DeviceTest>)]) -> Result<(), Failure> {
    if devices.is_empty() {
        outln!("devices   none")?;
    }
    for (at, (device, test)) in devices.iter().enumerate() {
        let label = if at == 0 { "devices" } else { "" };
        let memory = test.as_ref().and_then(|test| test.memory).or(device.memory);
        let memory = memory.map_or_else(String::new, |bytes| format!(", {} bytes", output::grouped(bytes)));
        outln!("{label:<9} {at}: {}{memory}", device.name)?;
        let Some(test) = test else { continue };
        if let Some(described) = &test.device {
            outln!("             {described}")?;
        }
        match &test.error {
            None => outln!("             {} comparisons of kernels agree", test.comparisons)?,
            Some(error) => outln!("             it cannot be used: {error}")?,
        }
    }
    Ok(())
}

/// The worker programs, every place where a libtorch was looked for, and the choice.
fn libtorch_text(search: &Search) -> Result<(), Failure> {
    let choice = search.choice();
    for (at, worker) in search.workers.iter().enumerate() {
        let label = if at == 0 { "worker" } else { "" };
        outln!("{label:<9} {}, for libtorch {}", worker.path, worker.series)?;
    }
    if search.workers.is_empty() {
        outln!("worker    missing: training is not built in")?;
    }
    for (at, candidate) in search.candidates.iter().enumerate() {
        let label = if at == 0 { "libtorch" } else { "" };
        let chosen = choice.as_ref().is_ok_and(|(chosen, _)| *chosen == candidate);
        outln!("{label:<9} {candidate}{}", if chosen { ": used" } else { "" })?;
    }
    if let Err(error) = choice
        && !search.workers.is_empty()
    {
        outln!("          none is used: {}", error.help())?;
    }
    Ok(())
}

fn libtorch_json(search: &Search) -> Value {
    let choice = search.choice();
    let candidate = |candidate: &Candidate| {
        json!({
            "origin": candidate.origin.to_string(),
            "folder": candidate.folder,
            "version": candidate.version.as_ref().map(Version::to_string),
            "devices": candidate.devices.map(Devices::name),
            "worker": candidate.worker.as_ref().ok().map(|worker| &worker.path),
            "reason": candidate.worker.as_ref().err(),
            "used": choice.as_ref().is_ok_and(|(chosen, _)| *chosen == candidate),
        })
    };
    json!({
        "workers": search.workers.iter().map(|worker| json!({ "path": worker.path, "version": worker.series })).collect::<Vec<_>>(),
        "candidates": search.candidates.iter().map(candidate).collect::<Vec<_>>(),
        "error": choice.as_ref().err().map(ToString::to_string),
    })
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
