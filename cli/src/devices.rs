//! The devices of a run's workers on this machine: whether there are enough of the layout's kind, before any work starts.

use aurora_compiler::machine::DeviceKind;
use aurora_compiler::spec::Spec;
use aurora_runtime::engine::workers::WorkerProgram;
use aurora_runtime::job::{Layout, WorkerDevice};
use aurora_runtime::launch::{LocalDevice, local_devices};
use aurora_runtime::libtorch::{Devices, LibtorchError, Search};
use camino::Utf8Path;

use crate::arguments::{LauncherArgument, LayoutArgument};
use crate::device_test::{DeviceTest, test_device};
use crate::failure::Failure;
use crate::layout::{devices, portable};
use crate::libtorch::chosen_program;
use crate::stdio::errln;

/// For tests of the code for devices: this number of devices, which are simulated on the processor.
pub const TEST_DEVICES: &str = "AURORA_TEST_DEVICES";

/// What a run on CPUs is started with instead.
const ON_CPUS: &str = "choose a profile with a layout for CPUs, or `--layout machine=cpu,…`";

/// Fails if results of the spec cannot be computed on devices.
pub fn refuse_portable(spec: &Spec, kind: DeviceKind) -> Result<(), Failure> {
    if portable(spec) {
        let text = format!("`portable` numerics are for CPUs, and the layout is for {}", kind.title);
        return Err(Failure::error(text).help(format!("write `numerics = invariant(…)`, or {ON_CPUS}")));
    }
    Ok(())
}

/// Where the workers of a spec would compute on this machine.
pub fn expected_device(spec: &Spec) -> WorkerDevice {
    match devices(spec, LayoutArgument::default()) {
        None => WorkerDevice::Cpu,
        Some(_) if std::env::var(TEST_DEVICES).is_ok() => WorkerDevice::Simulated,
        Some(_) => WorkerDevice::Gpu,
    }
}

/// Where the workers compute, for a layout with devices of this kind, which workers may share if `is_shared`. Devices of
/// other machines are checked by the workers that start there.
pub fn worker_device(
    kind: DeviceKind,
    is_shared: bool,
    layout: &Layout,
    launcher: LauncherArgument,
    program: &Result<WorkerProgram, LibtorchError>,
) -> Result<WorkerDevice, Failure> {
    let simulated = simulated_count()?;
    let found = match simulated {
        Some(count) => vec![simulated_device(kind.driver_name); count],
        None => local_devices(Utf8Path::new("/"), &|name| std::env::var(name).ok()),
    };
    if launcher == LauncherArgument::Local {
        let wanted = if is_shared { 1 } else { layout.world() as usize };
        refuse_missing(kind, wanted, &found)?;
    }
    if simulated.is_some() {
        return Ok(WorkerDevice::Simulated);
    }
    match program {
        Ok(program) if program.devices == Devices::Cpu => Err(Failure::error(format!(
            "the layout is for {}, and libtorch {} in `{}` computes on CPUs only",
            kind.title, program.libtorch, program.libraries
        ))
        .help("set AURORA_LIBTORCH to a libtorch for CUDA or ROCm; `aurora doctor` lists those of this machine")),
        // Without a libtorch the start of the workers fails, and says where it was looked for.
        _ if is_shared => Ok(WorkerDevice::SharedGpu),
        _ => Ok(WorkerDevice::Gpu),
    }
}

/// The number of simulated devices, if a test asks for them.
fn simulated_count() -> Result<Option<usize>, Failure> {
    match std::env::var(TEST_DEVICES) {
        Err(_) => Ok(None),
        Ok(text) => Ok(Some(text.parse::<usize>().map_err(|_| {
            Failure::error(format!("`{TEST_DEVICES}` is `{text}`"))
                .help("write a number of simulated devices, or unset it")
        })?)),
    }
}

fn simulated_device(name: &str) -> LocalDevice {
    LocalDevice {
        name: format!("simulated {name}"),
        memory: None,
    }
}

/// The devices of this machine, and the worker's test of each if a libtorch can use them.
pub fn tested_devices(search: &Search) -> Result<Vec<(LocalDevice, Option<DeviceTest>)>, Failure> {
    let simulated = simulated_count()?;
    let found = match simulated {
        Some(count) => vec![simulated_device("device"); count],
        None => local_devices(Utf8Path::new("/"), &|name| std::env::var(name).ok()),
    };
    let program = chosen_program(search).ok();
    let program = program.filter(|program| simulated.is_some() || program.devices != Devices::Cpu);
    let test = |(index, device)| {
        let test = program.as_ref().map(|program| test_device(program, index));
        (device, test)
    };
    Ok(found.into_iter().enumerate().map(test).collect())
}

/// Fails if this machine has too few devices of a kind; says how many stay idle.
fn refuse_missing(kind: DeviceKind, wanted: usize, found: &[LocalDevice]) -> Result<(), Failure> {
    let fitting = found
        .iter()
        .filter(|device| device.name.contains(kind.driver_name))
        .count();
    if fitting >= wanted {
        if fitting > wanted {
            errln!(
                "note: {} of this machine's {fitting} devices have no worker",
                fitting - wanted
            );
        }
        return Ok(());
    }
    let mut names: Vec<&str> = found.iter().map(|device| device.name.as_str()).collect();
    names.dedup();
    let here = match found.len() {
        0 => "none".to_owned(),
        count => format!("{count} ({})", names.join(", ")),
    };
    let text = format!(
        "the layout needs {wanted} devices of the kind {}, and this machine has {here}",
        kind.title
    );
    let help = if fitting > 0 {
        format!("write a layout of at most {fitting} workers, or {ON_CPUS}")
    } else {
        ON_CPUS.to_owned()
    };
    Err(Failure::error(text).help(help))
}
