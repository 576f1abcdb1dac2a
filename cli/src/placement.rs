//! Where a run's workers stand: from the spec's layout, the command line, and the launcher's variables.

use std::num::NonZeroU32;
use std::time::Duration;

use aurora_compiler::spec::{Block, BlockKind, Field, Spec, Value};
use aurora_runtime::engine::crew::{Launch, Launching};
use aurora_runtime::job::{Placement, Recompute};
use aurora_runtime::launch::{Launcher as Found, Machine, Tasks, identity, srun_arguments};
use camino::Utf8PathBuf;

use crate::arguments::{Launcher, LayoutArgument, RunArguments};
use crate::failure::Failure;

/// How long workers may take to start, and one may keep another waiting inside of a transfer.
pub const START: Duration = Duration::from_secs(120);
pub const TRANSFER: Duration = Duration::from_secs(1800);

/// Devices of one node of MI250X.
const GCDS: u32 = 8;

/// The layout of a spec, if it has one.
fn layout(spec: &Spec) -> Option<&Block> {
    let mut layouts = spec.blocks.iter().filter(|(id, _)| id.kind == BlockKind::Layout);
    layouts.next().map(|(_, block)| block)
}

fn number(block: &Block, name: &str) -> Option<u32> {
    block.integer(name).and_then(|value| u32::try_from(value).ok())
}

/// What a spec and the command line ask for.
pub fn placement(spec: &Spec, how: &RunArguments) -> Placement {
    let block = layout(spec);
    let of = |name: &str| block.and_then(|block| number(block, name));
    let flag = |name: &str| {
        block
            .and_then(|block| block.field(name))
            .is_some_and(|field| field.value == Value::Bool(true))
    };
    let asked = how.layout.unwrap_or_default();
    let tensor = asked.tensor.or(of("tensor")).unwrap_or(1);
    let pipeline = asked.pipeline.or(of("pipeline")).unwrap_or(1);
    let fill = match block.and_then(|block| block.word("machine")) {
        Some("mi250x") => (of("nodes").unwrap_or(1) * GCDS / (tensor * pipeline).max(1)).max(1),
        _ => 1,
    };
    let data = asked.data.or(of("data")).unwrap_or(fill);
    let recompute = match block.and_then(|block| block.word("recompute")) {
        Some("full") => Recompute::Full,
        Some("selective") => Recompute::Selective,
        _ => Recompute::None,
    };
    let world = tensor.saturating_mul(pipeline).saturating_mul(data).max(1);
    let nodes = of("nodes").unwrap_or(1).max(1);
    // Workers of a node share its cores.
    let threads = how
        .threads
        .or(of("threads"))
        .unwrap_or_else(|| (cores() / world.div_ceil(nodes)).max(1));
    Placement {
        tensor,
        pipeline,
        data,
        threads,
        recompute: asked.recompute.unwrap_or(recompute),
        sequence_parallel: asked.sequence_parallel.unwrap_or_else(|| flag("sequence_parallel")),
        distributed_optimizer: asked
            .distributed_optimizer
            .unwrap_or_else(|| flag("distributed_optimizer")),
    }
}

/// Refuses degrees that do not divide what they split. The spec's own layout has been checked; this is for `--layout`.
pub fn check(spec: &Spec, placement: &Placement) -> Result<(), Failure> {
    let numerics = spec.experiment().and_then(|experiment| experiment.field("numerics"));
    let grid = |name: &str| {
        let argument = numerics
            .and_then(|numerics| numerics.argument(name))
            .and_then(Field::integer);
        argument.and_then(|value| u32::try_from(value).ok())
    };
    for (name, degree, whole, what) in [
        ("tensor", placement.tensor, grid("tensor"), "logical tensor shards"),
        ("data", placement.data, grid("lanes"), "logical lanes"),
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
        return Err(Failure::fault(format!(
            "{name} {degree} does not divide the {whole} {what} of `numerics`"
        ))
        .help(format!("the nearest that work: {nearest}")));
    }
    let models = spec.blocks.iter().filter(|(id, _)| id.kind == BlockKind::Model);
    for (id, model) in models {
        if let Some(layers) = number(model, "layers").filter(|layers| *layers < placement.pipeline) {
            let (stages, name) = (placement.pipeline, &id.name);
            return Err(Failure::fault(format!(
                "{stages} pipeline stages are more than the {layers} layers of `{name}`"
            ))
            .help(format!("write at most `pipeline={layers}`")));
        }
    }
    Ok(())
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1))
}

/// How the workers are started.
pub fn launching(
    spec: &Spec,
    how: &RunArguments,
    placement: &Placement,
    program: Utf8PathBuf,
    logs: Option<Utf8PathBuf>,
) -> Result<Launching, Failure> {
    let block = layout(spec);
    let devices = block.and_then(|block| block.word("machine")) == Some("mi250x");
    if devices && how.layout.is_none_or(|asked| !asked.cpu) {
        let missing = crate::commands::doctor::rccl().join("; ");
        let text = format!("the layout is for MI250X, and this version trains on CPUs (found here: {missing})");
        return Err(Failure::fault(text).help("choose a profile with a layout for CPUs, or `--layout machine=cpu,…`"));
    }
    let launch = match how.launcher {
        Launcher::Local => Launch::Local,
        Launcher::Srun => {
            let nodes = block.and_then(|block| number(block, "nodes")).unwrap_or(1).max(1);
            let world = placement.world();
            if !world.is_multiple_of(nodes) {
                return Err(
                    Failure::fault(format!("{world} workers do not spread evenly over {nodes} nodes"))
                        .help("change `nodes` of the layout, or its degrees"),
                );
            }
            let count = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
            let tasks = Tasks::new(
                Machine::Plain {
                    cpus_per_task: count(placement.threads),
                },
                count(nodes),
                count(world / nodes),
            )
            .map_err(|error| Failure::fault(error.to_string()))?;
            Launch::Srun(srun_arguments(&tasks, &[]))
        }
        Launcher::Torchrun => {
            let found = identity(&|name| std::env::var(name).ok())
                .map_err(|error| Failure::fault(error.to_string()).help(error.help()))?;
            let Some(me) = found.filter(|me| me.launcher == Found::Torchrun) else {
                return Err(Failure::fault("torchrun's variables are not set")
                    .help("start it as `torchrun --no-python … aurora run … --launcher torchrun`"));
            };
            if me.world != placement.world() as usize {
                let (started, asked) = (me.world, placement.world());
                return Err(Failure::fault(format!(
                    "torchrun has started {started} processes, and the layout has {asked} workers"
                ))
                .help("let `--nproc-per-node` × `--nnodes` be the product of the degrees"));
            }
            let host = me.rendezvous.hosts.first().cloned().unwrap_or_default();
            Launch::Torchrun {
                host,
                port: me.rendezvous.port + 1,
                token: me.run,
            }
        }
    };
    Ok(Launching {
        launch,
        program,
        logs,
        silence: Duration::from_secs_f64(how.silence),
        start: START,
        transfer: TRANSFER,
    })
}

/// Under torchrun, every process but the first becomes a worker of the first: then this does not return.
pub fn join_if_not_first(how: &RunArguments, program: &Utf8PathBuf) -> Result<(), Failure> {
    use std::os::unix::process::CommandExt;
    if how.launcher != Launcher::Torchrun {
        return Ok(());
    }
    let found = identity(&|name| std::env::var(name).ok())
        .map_err(|error| Failure::fault(error.to_string()).help(error.help()))?;
    let Some(me) = found.filter(|me| me.launcher == Found::Torchrun && me.rank > 0) else {
        return Ok(());
    };
    let error = std::process::Command::new(program)
        .arg(format!("--join=:{}", me.rendezvous.port + 1))
        .exec();
    Err(Failure::fault(format!("cannot start `{program}`: {error}")))
}

impl std::str::FromStr for LayoutArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut layout = Self::default();
        for word in text.split(',').map(str::trim) {
            let (name, value) = word.split_once('=').unwrap_or((word, "true"));
            let degree = || match value.parse() {
                Ok(degree @ 1..) => Ok(Some(degree)),
                _ => Err(format!("`{name}` is a number from 1 on, not `{value}`")),
            };
            let flag = || match value {
                "true" => Ok(Some(true)),
                "false" => Ok(Some(false)),
                _ => Err(format!("`{name}` is true or false, not `{value}`")),
            };
            match name {
                "tensor" => layout.tensor = degree()?,
                "pipeline" => layout.pipeline = degree()?,
                "data" => layout.data = degree()?,
                "sequence_parallel" => layout.sequence_parallel = flag()?,
                "distributed_optimizer" => layout.distributed_optimizer = flag()?,
                "recompute" => {
                    layout.recompute = Some(match value {
                        "none" => Recompute::None,
                        "selective" => Recompute::Selective,
                        "full" => Recompute::Full,
                        _ => return Err(format!("`recompute` is none, selective or full, not `{value}`")),
                    });
                }
                "machine" if value == "cpu" => layout.cpu = true,
                _ => {
                    return Err(format!(
                        "a layout has tensor, pipeline, data, recompute, sequence_parallel, distributed_optimizer and \
                         machine=cpu, not `{word}`"
                    ));
                }
            }
        }
        Ok(layout)
    }
}
