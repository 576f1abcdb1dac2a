//! Translates the parallelism of the run to a layout: degrees, devices, replicas.

use super::{DEFAULT, TranslatedBlock, Translation, WithOrigin};
use crate::machine::MachineKind;
use crate::megatron::findings::FindingKind;
use crate::megatron::slurm::{SbatchOption, number};

/// The machine with the devices that an option of Slurm names (`gpu:mi250:8`), and its devices per node.
fn device_kind(option: &str) -> Option<(&'static str, u64)> {
    let names = [
        ("mi250", "mi250x"),
        ("mi300", "mi300x"),
        ("a100", "a100"),
        ("h100", "h100"),
    ];
    let (_, machine) = names.into_iter().find(|(part, _)| option.contains(part))?;
    let devices = MachineKind::named(machine).devices?;
    Some((machine, u64::from(devices.per_node)))
}

impl Translation<'_> {
    pub(super) fn layout(&mut self) -> String {
        let tensor = self.or("--tensor-model-parallel-size", Self::integer, 1);
        let pipeline = self.or("--pipeline-model-parallel-size", Self::integer, 1);
        let nodes = self.nodes();
        let devices = self.devices();
        let micro_batch = self.micro_batch();
        let data = self.replicas(&tensor, &pipeline, &nodes, &devices);
        self.shared.tensor = self.power_of_two("--tensor-model-parallel-size", tensor.value.unwrap_or(1));
        self.shared.micro_batch = micro_batch.value;
        let lanes = data.value.unwrap_or(1);
        self.shared.replicas = lanes;
        self.shared.lanes = match lanes.is_power_of_two() {
            true => lanes,
            // The largest power of two that divides it also divides the batch.
            false => 1 << lanes.trailing_zeros(),
        };
        if self.shared.lanes != lanes {
            let why = format!(
                "the logical grid has a power of two of lanes: {} instead of {lanes}",
                self.shared.lanes
            );
            self.report(FindingKind::ChangesPlacement, 0, "data-parallel replicas", why);
        }
        let mut block = TranslatedBlock::new("layout cluster");
        self.machine(&mut block, &devices);
        block.read(
            "nodes",
            &nodes
                .clone()
                .unwrap_or(WithOrigin::new(1, "the script does not contain the number of nodes")),
        );
        let tensor_degree = WithOrigin {
            value: Some(self.shared.tensor),
            ..tensor
        };
        block.read("tensor", &tensor_degree);
        block.read("pipeline", &pipeline);
        block.field("data", self.shared.lanes, &data.origin);
        if micro_batch.value.is_some() {
            block.shown("micro_batch", &micro_batch, |size| format!("{size} sequences"));
        }
        self.recompute(&mut block);
        if let Some(origin) = self.switch("--sequence-parallel") {
            match self.shared.tensor {
                1 => self.report_flag(FindingKind::NoEffect, "--sequence-parallel", "tensor parallelism is 1"),
                _ => block.field("sequence_parallel", true, &origin),
            }
        }
        if let Some(origin) = self.switch("--use-distributed-optimizer") {
            block.field("distributed_optimizer", true, &origin);
        }
        block.done()
    }

    fn power_of_two(&mut self, name: &str, degree: u64) -> u64 {
        if degree.is_power_of_two() {
            return degree;
        }
        let lower = 1 << degree.checked_ilog2().unwrap_or(0);
        self.report_flag(
            FindingKind::ChangesPlacement,
            name,
            format!("the logical grid has a power of two of shards: {lower} instead of {degree}"),
        );
        lower
    }

    fn option(&self, option: &SbatchOption) -> String {
        format!("{}:{} {}", self.file, option.line, option.option)
    }

    /// A numeric option of the launcher.
    fn launcher(&mut self, name: &str) -> Option<WithOrigin<u64>> {
        let word = self.launch.launcher.get(name)?.clone();
        let origin = format!("{}:{} --{name}", self.file, word.line);
        if let Some(why) = word.unknown {
            self.report(FindingKind::Unknown, word.line, format!("--{name} {}", word.text), why);
            return None;
        }
        word.text.parse().ok().map(|value| WithOrigin::new(value, origin))
    }

    fn nodes(&mut self) -> Option<WithOrigin<u64>> {
        let batch = self.batch;
        if let Some(option) = &batch.nodes
            && let Some(nodes) = number(&batch.nodes)
        {
            return Some(WithOrigin::new(nodes, self.option(option)));
        }
        self.launcher("nnodes")
    }

    fn devices(&mut self) -> Option<WithOrigin<u64>> {
        if let Some(count) = self.launcher("nproc_per_node") {
            return Some(count);
        }
        let batch = self.batch;
        for option in [&batch.devices, &batch.tasks_per_node] {
            if let (Some(count), Some(option)) = (number(option), option) {
                return Some(WithOrigin::new(count, self.option(option)));
            }
        }
        None
    }

    fn micro_batch(&mut self) -> WithOrigin<u64> {
        self.required("--micro-batch-size")
    }

    fn machine(&mut self, block: &mut TranslatedBlock, devices: &Option<WithOrigin<u64>>) {
        let batch = self.batch;
        let named = batch.devices.as_ref();
        match named.and_then(|option| Some((option, device_kind(&option.value)?))) {
            Some((option, (machine, per_node))) => {
                let origin = self.option(option);
                block.field("machine", machine, &origin);
                let count = devices.as_ref().and_then(|devices| devices.value);
                if let Some(count) = count.filter(|count| *count != per_node) {
                    let why = format!("a node has {per_node} devices, but the script starts {count} workers per node");
                    self.report(FindingKind::ChangesPlacement, option.line, option.option.clone(), why);
                }
            }
            None => {
                let (line, what) = match &batch.devices {
                    Some(option) => (option.line, format!("{} {}", option.option, option.value)),
                    None => (0, "the machine".to_owned()),
                };
                let why = "the script names no MI250X, MI300X, A100 or H100; the layout has CPUs";
                self.report(FindingKind::ChangesPlacement, line, what, why);
            }
        }
    }

    fn replicas(
        &mut self,
        tensor: &WithOrigin<u64>,
        pipeline: &WithOrigin<u64>,
        nodes: &Option<WithOrigin<u64>>,
        devices: &Option<WithOrigin<u64>>,
    ) -> WithOrigin<u64> {
        let context = self.or("--context-parallel-size", Self::integer, 1);
        let value = |read: &Option<WithOrigin<u64>>| read.as_ref().and_then(|read| read.value);
        let (Some(nodes), Some(devices)) = (value(nodes), value(devices)) else {
            self.report(
                FindingKind::Unknown,
                0,
                "data-parallel replicas",
                "the script does not contain the number of devices",
            );
            return WithOrigin::new(1, "the script does not contain the number of devices");
        };
        let degrees = [tensor.value, pipeline.value, context.value].map(|degree| degree.unwrap_or(1).max(1));
        let replica = degrees
            .iter()
            .fold(1_u64, |product, degree| product.saturating_mul(*degree));
        let world = nodes.saturating_mul(devices);
        let arithmetic = format!("{nodes} nodes × {devices} ÷ {replica} workers per replica");
        if world == 0 || !world.is_multiple_of(replica) {
            self.report(
                FindingKind::Unknown,
                0,
                "data-parallel replicas",
                format!("{arithmetic} is not a whole number"),
            );
            return WithOrigin::new(1, arithmetic);
        }
        WithOrigin::new(world / replica, arithmetic)
    }

    fn recompute(&mut self, block: &mut TranslatedBlock) {
        if let Some(origin) = self.switch("--recompute-activations") {
            return block.field("recompute", "selective", &origin);
        }
        let Some(granularity) = self.text("--recompute-granularity") else {
            return block.field("recompute", "none", DEFAULT);
        };
        match granularity.value.as_deref() {
            Some("full" | "selective") | None => block.read("recompute", &granularity),
            Some(other) => {
                let why = format!("`{other}` is neither `full` nor `selective`");
                self.report_flag(FindingKind::NotUnderstood, "--recompute-granularity", why);
            }
        }
    }
}
