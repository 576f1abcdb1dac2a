//! Layouts: degrees that divide the model and the grid, and workers that fit on the machine.

use aurora_lang::diagnostics::{Code, Diagnostic};

use super::nearest_divisors;
use crate::check::Checker;
use crate::spec::{Block, BlockId, BlockKind, Field, Spec};

impl Checker<'_> {
    pub(super) fn layout(&mut self, block: &Block, spec: &Spec) {
        let number = |name: &str| block.integer(name).and_then(|value| u64::try_from(value).ok());
        let (Some(tensor), Some(pipeline), Some(nodes)) = (number("tensor"), number("pipeline"), number("nodes"))
        else {
            return;
        };
        if block.word("machine") == Some("cpu") {
            for field in ["devices", "transport"] {
                self.no_effect(block, field, "on a layout for CPUs");
            }
        }
        self.layout_stages(block, spec, pipeline);
        let data = self.replicas(block, tensor, pipeline, nodes);
        let numerics = spec.experiment().and_then(|experiment| experiment.field("numerics"));
        let argument = |name: &str| numerics.and_then(|numerics| numerics.argument(name));
        let count = |name: &str| {
            argument(name)
                .and_then(Field::integer)
                .and_then(|value| u64::try_from(value).ok())
        };
        if let Some(grid) = count("tensor")
            && grid % tensor != 0
        {
            let mut diagnostic = Diagnostic::new(
                Code::LAYOUT_TENSOR,
                format!("tensor {tensor} does not divide the {grid} logical tensor shards"),
            )
            .label(block.place("tensor"), leaves(grid, tensor));
            if let Some(span) = argument("tensor")
                .and_then(Field::span)
                .or(numerics.and_then(Field::span))
            {
                diagnostic = diagnostic.label(span, "the logical grid");
            }
            self.error(diagnostic.help(nearest_divisors(tensor, grid)));
        }
        let Some(data) = data else { return };
        if let Some(lanes) = count("lanes")
            && lanes % data != 0
        {
            let mut diagnostic = Diagnostic::new(
                Code::LAYOUT_DATA,
                format!("{data} data-parallel replicas do not divide the {lanes} logical lanes"),
            )
            .label(block.place("data"), leaves(lanes, data));
            if let Some(span) = argument("lanes")
                .and_then(Field::span)
                .or(numerics.and_then(Field::span))
            {
                diagnostic = diagnostic.label(span, "the logical grid");
            }
            self.error(diagnostic.help(nearest_divisors(data, lanes)));
        }
        self.layout_micro_batch(block, argument("micro_batch"));
    }

    fn layout_stages(&mut self, block: &Block, spec: &Spec, pipeline: u64) {
        let mut models: Vec<&BlockId> = spec
            .of_kind(BlockKind::Stage)
            .filter_map(|(id, _)| spec.model_of(id))
            .collect();
        models.sort();
        models.dedup();
        for id in models {
            let Some(model) = spec.blocks.get(id) else { continue };
            if let Some(layers) = model.integer("layers").and_then(|layers| u64::try_from(layers).ok())
                && pipeline > layers
            {
                self.error(
                    Diagnostic::new(
                        Code::LAYOUT_PIPELINE,
                        format!(
                            "pipeline {pipeline} is more than the {layers} layers of model `{}`",
                            id.name
                        ),
                    )
                    .label(block.place("pipeline"), "pipeline ranks without a layer")
                    .label(model.place("layers"), "the layers")
                    .help(format!("write at most {layers}")),
                );
            }
        }
    }

    /// Data-parallel replicas; an error if the workers do not fit on the machine.
    fn replicas(&mut self, block: &Block, tensor: u64, pipeline: u64, nodes: u64) -> Option<u64> {
        let data = block.field("data")?;
        let devices = crate::machine::MachineKind::named(block.word("machine")?).devices;
        let stated = block.integer("devices").and_then(|devices| u64::try_from(devices).ok());
        let per_node = devices.map(|devices| stated.unwrap_or(u64::from(devices.per_node)));
        let replica = tensor.saturating_mul(pipeline);
        let written = data.integer().and_then(|data| u64::try_from(data).ok());
        let Some(per_node) = per_node else {
            return Some(written.unwrap_or(1));
        };
        let devices = nodes.saturating_mul(per_node);
        let arithmetic = format!("{nodes} nodes × {per_node} devices = {devices} devices");
        match written {
            Some(data) if replica.saturating_mul(data) <= devices => Some(data),
            Some(data) => {
                let world = replica.saturating_mul(data);
                let fitting = devices / replica.max(1);
                let diagnostic =
                    Diagnostic::new(Code::WORLD, format!("{world} workers do not fit on {devices} devices"))
                        .label(
                            block.place("data"),
                            format!("tensor {tensor} × pipeline {pipeline} × data {data} = {world}"),
                        )
                        .note(arithmetic);
                let needed = world.div_ceil(per_node);
                self.error(match fitting {
                    0 => diagnostic.help(format!("write `nodes = {needed}`")),
                    _ => diagnostic.help(format!("write `data = {fitting}`, or `nodes = {needed}`")),
                });
                None
            }
            None if devices % replica == 0 && devices >= replica => Some(devices / replica),
            None => {
                let leaves = if devices < replica {
                    "does not fit".to_owned()
                } else {
                    format!("leaves {} unused", devices % replica)
                };
                let nearest = nodes_that_fit(nodes, per_node, replica);
                self.error(
                    Diagnostic::new(
                        Code::WORLD,
                        format!("a replica of {replica} workers does not fill {devices} devices"),
                    )
                    .label(
                        block.place("nodes"),
                        format!("tensor {tensor} × pipeline {pipeline} = {replica} {leaves}"),
                    )
                    .note(arithmetic)
                    .help(nearest),
                );
                None
            }
        }
    }

    fn layout_micro_batch(&mut self, block: &Block, numerics: Option<&Field>) {
        let in_layout = block.quantity("micro_batch").map(|(count, _)| count);
        let in_numerics = numerics.and_then(Field::quantity).map(|(count, _)| count);
        if let (Some(in_layout), Some(in_numerics)) = (in_layout, in_numerics)
            && in_layout != in_numerics
        {
            let mut diagnostic = Diagnostic::new(
                Code::LAYOUT_MICRO_BATCH,
                format!("the layout has micro-batches of {in_layout} sequences, and `numerics` of {in_numerics}"),
            )
            .label(block.place("micro_batch"), format!("{in_layout} sequences"));
            if let Some(span) = numerics.and_then(Field::span) {
                diagnostic = diagnostic.label(span, format!("{in_numerics} sequences"));
            }
            self.error(
                diagnostic
                    .note("the micro-batch decides the order of sums: it belongs to `numerics`")
                    .help(format!(
                        "write `micro_batch = {in_numerics} sequences`, or leave it out"
                    )),
            );
        }
    }
}

/// Why a degree does not divide a number.
fn leaves(number: u64, degree: u64) -> String {
    if degree > number {
        return format!("more than {number}");
    }
    format!("{number} ÷ {degree} leaves {}", number % degree)
}

fn nodes_that_fit(nodes: u64, per_node: u64, replica: u64) -> String {
    let fits = |nodes: &u64| (nodes * per_node).is_multiple_of(replica) && nodes * per_node >= replica;
    let below = (1..nodes).rev().take(1 << 16).find(fits);
    let above = (nodes + 1..nodes + (1 << 16)).find(fits);
    match (below, above) {
        (Some(below), Some(above)) => format!("the nearest that work are {below} and {above} nodes"),
        (Some(only), None) | (None, Some(only)) => format!("the nearest that works is {only} nodes"),
        (None, None) => "change `tensor` or `pipeline`".to_owned(),
    }
}
