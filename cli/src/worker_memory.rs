//! Memory of the workers: what `plan` states, and what a run on devices is checked against before any work starts.

use aurora_compiler::hash::Keyed;
use aurora_compiler::json_output::{RankMemory, WorkerMemory};
use aurora_compiler::layout::{Layout, Recompute};
use aurora_compiler::memory::by_pipeline_rank;
use aurora_compiler::spec::Spec;

use crate::arguments::{LayoutArgument, RunArguments};
use crate::failure::Failure;
use crate::layout::{LayoutRequest, devices, layout, layout_block, number};

/// What each worker needs under the spec's layout, at the node that needs most. `None` if the spec has no layout or does
/// not train.
pub fn worker_memory(spec: &Spec, keyed: &Keyed) -> Option<WorkerMemory> {
    // The same on every machine: one thread, unless the layout sets `threads`.
    let threads = number(layout_block(spec)?, "threads").unwrap_or(1);
    let request = LayoutRequest {
        threads: Some(threads),
        ..LayoutRequest::default()
    };
    let device_memory = devices(spec, LayoutArgument::default()).map(|devices| devices.memory);
    largest(keyed, &layout(spec, request), device_memory)
}

/// The memory of the node that needs most; ties go to the first one.
fn largest(keyed: &Keyed, layout: &Layout, device_memory: Option<u64>) -> Option<WorkerMemory> {
    let of = |id| {
        let node = keyed.graph.node(id);
        let mut fields = node.work.train()?.clone();
        let micro_batch = &mut fields.numerics.micro_batch;
        let micro_batch_unknown = *micro_batch == 0;
        *micro_batch = (*micro_batch).max(1);
        let ranks = by_pipeline_rank(&fields, layout).into_iter();
        Some(WorkerMemory {
            node: node.name().to_owned(),
            layout: layout.clone(),
            micro_batch_unknown,
            device_memory,
            ranks: ranks
                .map(|(pp_rank, bytes)| RankMemory {
                    pp_rank,
                    bytes,
                    total: bytes.total(),
                })
                .collect(),
        })
    };
    let nodes: Vec<_> = keyed.graph.ids().filter_map(of).collect();
    nodes.into_iter().rev().max_by_key(WorkerMemory::most)
}

/// Fails if training does not fit into the memory of the layout's devices; says which change fits.
pub fn refuse_too_large(spec: &Spec, keyed: &Keyed, options: &RunArguments, layout: &Layout) -> Result<(), Failure> {
    let Some(device) = devices(spec, options.layout.unwrap_or_default()) else {
        return Ok(());
    };
    // A device computes with one thread.
    let layout = Layout {
        threads: 1,
        ..layout.clone()
    };
    let Some(memory) = largest(keyed, &layout, Some(device.memory)) else {
        return Ok(());
    };
    if memory.most() <= device.memory {
        return Ok(());
    }
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    let text = format!(
        "`{}` needs {} of memory on a device, and the layout's {} has {}",
        memory.node,
        gib(memory.most()),
        device.title,
        gib(device.memory)
    );
    let train = keyed.graph.ids().find_map(|id| keyed.graph.node(id).work.train());
    let divides = |layout: &Layout| {
        train.is_some_and(|fields| {
            fields.numerics.tensor.is_multiple_of(layout.tensor) && layout.pipeline <= fields.model.layers
        })
    };
    let fits = |(name, layout): (String, Layout)| {
        if !divides(&layout) {
            return None;
        }
        let most = largest(keyed, &layout, Some(device.memory))?.most();
        (most <= device.memory).then(|| format!("with {name} it needs {}, which fits", gib(most)))
    };
    let help = changes(&layout).into_iter().find_map(fits);
    let help = help.unwrap_or_else(|| {
        "no recomputation or division over up to 64 workers fits: use a smaller micro-batch".to_owned()
    });
    Err(Failure::error(text).help(help))
}

/// Layouts that need less memory, in the order of their cost, with their names.
fn changes(layout: &Layout) -> Vec<(String, Layout)> {
    let mut changes = Vec::new();
    if layout.data > 1 && !layout.distributed_optimizer {
        let distributed_optimizer = true;
        let changed = Layout {
            distributed_optimizer,
            ..layout.clone()
        };
        changes.push(("`distributed_optimizer = true`".to_owned(), changed));
    }
    let degrees = [1, 2, 4, 8].into_iter().flat_map(|more| {
        let tensor = layout.tensor * more;
        let pipeline = layout.pipeline * more;
        [(tensor, layout.pipeline), (layout.tensor, pipeline), (tensor, pipeline)]
    });
    for (tensor, pipeline) in degrees {
        for recompute in [Recompute::None, Recompute::Selective, Recompute::Full] {
            let name = format!(
                "`tensor = {tensor}`, `pipeline = {pipeline}` and `recompute = {}`",
                recompute.word()
            );
            let changed = Layout {
                tensor,
                pipeline,
                recompute,
                ..layout.clone()
            };
            if changed != *layout {
                changes.push((name, changed));
            }
        }
    }
    changes
}
