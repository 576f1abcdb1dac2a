//! The layout of a run's workers: from the spec's layout, the command line, and Slurm's allocation.

use std::num::NonZeroU32;

use aurora_compiler::machine::{DeviceKind, MachineKind};
use aurora_compiler::spec::{Block, BlockKind, Field, Spec, Value};
use aurora_runtime::job::{Layout, Recompute};
use aurora_runtime::launch::{Machine, Tasks};

use crate::arguments::{LauncherArgument, LayoutArgument, RunArguments};
use crate::failure::Failure;

/// The layout of a spec, if it has one.
pub fn layout_block(spec: &Spec) -> Option<&Block> {
    let mut layouts = spec.blocks.iter().filter(|(id, _)| id.kind == BlockKind::Layout);
    layouts.next().map(|(_, block)| block)
}

pub fn number(block: &Block, name: &str) -> Option<u32> {
    block.integer(name).and_then(|value| u32::try_from(value).ok())
}

/// What the command line and Slurm request in addition to the spec's layout.
#[derive(Clone, Copy, Debug, Default)]
pub struct LayoutRequest {
    pub overrides: LayoutArgument,
    /// Threads of each worker, instead of the layout's.
    pub threads: Option<u32>,
    /// Threads of each worker if neither the command line nor the layout sets them: the launcher's cores per task.
    pub cpus_per_task: Option<u32>,
    /// Nodes that the workers are spread over, instead of the layout's.
    pub nodes: Option<u32>,
}

impl LayoutRequest {
    /// The request of the command line, and of Slurm's allocation if `srun` starts the workers.
    pub fn by(options: &RunArguments) -> Self {
        let of = |name: &str| std::env::var(name).ok()?.parse().ok().filter(|number| *number > 0);
        let slurm = |name: &str| {
            if options.launcher == LauncherArgument::Srun {
                of(name)
            } else {
                None
            }
        };
        Self {
            overrides: options.layout.unwrap_or_default(),
            threads: options.threads,
            cpus_per_task: slurm("SLURM_CPUS_PER_TASK"),
            nodes: slurm("SLURM_JOB_NUM_NODES"),
        }
    }
}

/// Nodes that the workers are spread over.
pub fn nodes(spec: &Spec, request: LayoutRequest) -> u32 {
    request
        .nodes
        .or(layout_block(spec).and_then(|block| number(block, "nodes")))
        .unwrap_or(1)
        .max(1)
}

/// Whether results use only Aurora's own kernels.
pub fn portable(spec: &Spec) -> bool {
    spec.experiment().and_then(|block| block.word("numerics")) == Some("portable")
}

/// The devices that the layout is for, with their number per node; none if it is for CPUs.
pub fn devices(spec: &Spec, changed: LayoutArgument) -> Option<DeviceKind> {
    let block = layout_block(spec)?;
    let kind = MachineKind::named(block.word("machine")?).devices?;
    let per_node = number(block, "devices").unwrap_or(kind.per_node);
    (!changed.cpu).then_some(DeviceKind { per_node, ..kind })
}

/// Whether the workers of a node may share its devices.
pub fn shares_devices(spec: &Spec) -> bool {
    layout_block(spec).and_then(|block| block.word("transport")) == Some("gloo")
}

/// The layout that a spec and a request give.
pub fn layout(spec: &Spec, request: LayoutRequest) -> Layout {
    let block = layout_block(spec);
    let of = |name: &str| block.and_then(|block| number(block, name));
    let flag = |name: &str| {
        block
            .and_then(|block| block.field(name))
            .is_some_and(|field| field.value == Value::Bool(true))
    };
    let (overrides, nodes) = (request.overrides, nodes(spec, request));
    let tensor = overrides.tensor.or(of("tensor")).unwrap_or(1);
    let pipeline = overrides.pipeline.or(of("pipeline")).unwrap_or(1);
    // `data = fill` counts the devices of the spec's machine even if the run is on CPUs: the lanes are the same.
    let devices = devices(spec, LayoutArgument::default());
    let fill = devices.map_or(1, |devices| {
        let all = nodes.saturating_mul(devices.per_node);
        (all / tensor.saturating_mul(pipeline).max(1)).max(1)
    });
    let data = overrides.data.or(of("data")).unwrap_or(fill);
    let recompute = block.and_then(|block| block.word("recompute"));
    let recompute = recompute.and_then(Recompute::from_word).unwrap_or(Recompute::None);
    let world = tensor.saturating_mul(pipeline).saturating_mul(data).max(1);
    // The workers of a node divide its cores.
    let threads = request
        .threads
        .or(of("threads"))
        .or(request.cpus_per_task)
        .unwrap_or_else(|| (cores() / world.div_ceil(nodes)).max(1));
    Layout {
        tensor,
        pipeline,
        data,
        threads,
        recompute: overrides.recompute.unwrap_or(recompute),
        sequence_parallel: overrides.sequence_parallel.unwrap_or_else(|| flag("sequence_parallel")),
        distributed_optimizer: overrides
            .distributed_optimizer
            .unwrap_or_else(|| flag("distributed_optimizer")),
    }
}

/// Fails if a degree does not divide what it splits. `check` has checked the spec's own layout; this is for `--layout`.
pub fn check(spec: &Spec, layout: &Layout) -> Result<(), Failure> {
    let numerics = spec.experiment().and_then(|experiment| experiment.field("numerics"));
    let grid = |name: &str| {
        let argument = numerics
            .and_then(|numerics| numerics.argument(name))
            .and_then(Field::integer);
        argument.and_then(|value| u32::try_from(value).ok())
    };
    for (name, degree, whole, what) in [
        ("tensor", layout.tensor, grid("tensor"), "logical tensor shards"),
        ("data", layout.data, grid("lanes"), "logical lanes"),
    ] {
        let Some(whole) = whole.filter(|whole| whole % degree != 0) else {
            continue;
        };
        let below = (1..=degree.min(whole))
            .rev()
            .find(|nearest| whole % nearest == 0)
            .unwrap_or(1);
        let above = (degree..=whole).find(|nearest| whole % nearest == 0);
        let nearest = match above {
            Some(above) if above != below => format!("{below} and {above}"),
            _ => below.to_string(),
        };
        return Err(Failure::error(format!(
            "{name} {degree} does not divide the {whole} {what} of `numerics`"
        ))
        .help(format!("the nearest valid degrees: {nearest}")));
    }
    let models = spec.blocks.iter().filter(|(id, _)| id.kind == BlockKind::Model);
    for (id, model) in models {
        if let Some(layers) = number(model, "layers").filter(|layers| *layers < layout.pipeline) {
            let (degree, name) = (layout.pipeline, &id.name);
            return Err(Failure::error(format!(
                "{degree} pipeline ranks are more than the {layers} layers of `{name}`"
            ))
            .help(format!("write at most `pipeline={layers}`")));
        }
    }
    Ok(())
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1))
}

/// Spreads workers over nodes.
pub fn tasks(machine: Machine, layout: &Layout, nodes: u32) -> Result<Tasks, Failure> {
    let world = layout.world();
    if !world.is_multiple_of(nodes) {
        return Err(
            Failure::error(format!("{world} workers cannot be spread evenly over {nodes} nodes"))
                .help("change `nodes` of the layout, or its degrees"),
        );
    }
    Tasks::new(machine, count(nodes), count(world / nodes)).map_err(|error| Failure::error(error.to_string()))
}

pub fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

/// A layout in the format of `--layout`.
pub fn as_argument(layout: &Layout, cpu: bool) -> String {
    let mut words = vec![
        format!("tensor={}", layout.tensor),
        format!("pipeline={}", layout.pipeline),
        format!("data={}", layout.data),
        format!("recompute={}", layout.recompute.word()),
        format!("sequence_parallel={}", layout.sequence_parallel),
        format!("distributed_optimizer={}", layout.distributed_optimizer),
    ];
    if cpu {
        words.push("machine=cpu".to_owned());
    }
    words.join(",")
}
