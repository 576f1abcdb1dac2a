//! Where and how wide the run was: degrees, devices, replicas.

use super::{Block, DEFAULT, Read, Translation};
use crate::megatron::findings::Kind;
use crate::megatron::slurm::{Asked, number};

/// Devices of one node, as Aurora knows the machine.
const MI250X_DEVICES: u64 = 8;

impl Translation<'_> {
    pub(super) fn layout(&mut self) -> String {
        let tensor = self.or("--tensor-model-parallel-size", Self::whole, 1);
        let pipeline = self.or("--pipeline-model-parallel-size", Self::whole, 1);
        let nodes = self.nodes();
        let devices = self.devices();
        let micro_batch = self.micro_batch();
        let data = self.replicas(&tensor, &pipeline, &nodes, &devices);
        self.facts.tensor = self.power_of_two("--tensor-model-parallel-size", tensor.value.unwrap_or(1));
        self.facts.micro_batch = micro_batch.value;
        let lanes = data.value.unwrap_or(1);
        self.facts.replicas = lanes;
        self.facts.lanes = match lanes.is_power_of_two() {
            true => lanes,
            // The largest power of two that divides it splits the batch as evenly.
            false => 1 << lanes.trailing_zeros(),
        };
        if self.facts.lanes != lanes {
            let why = format!(
                "the logical grid has powers of two: {} replicas instead of {lanes}",
                self.facts.lanes
            );
            self.tell(Kind::ChangesPlacement, 0, "data-parallel replicas", why);
        }
        let mut block = Block::new("layout cluster");
        self.machine(&mut block, &devices);
        block.read(
            "nodes",
            &nodes
                .clone()
                .unwrap_or(Read::new(1, "the script does not say how many")),
        );
        let tensor_degree = Read {
            value: Some(self.facts.tensor),
            ..tensor
        };
        block.read("tensor", &tensor_degree);
        block.read("pipeline", &pipeline);
        block.field("data", self.facts.lanes, &data.origin);
        if micro_batch.value.is_some() {
            block.shown("micro_batch", &micro_batch, |size| format!("{size} sequences"));
        }
        self.recompute(&mut block);
        if let Some(origin) = self.switch("--sequence-parallel") {
            match self.facts.tensor {
                1 => self.tell_of(Kind::NoEffect, "--sequence-parallel", "nothing is split: tensor 1"),
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
        self.tell_of(
            Kind::ChangesPlacement,
            name,
            format!("the logical grid has powers of two: {lower} instead of {degree}"),
        );
        lower
    }

    fn asked(&self, asked: &Asked) -> String {
        format!("{}:{} {}", self.file, asked.line, asked.option)
    }

    /// A number that the launcher is told.
    fn launcher(&mut self, name: &str) -> Option<Read<u64>> {
        let word = self.launch.launcher.get(name)?.clone();
        let origin = format!("{}:{} --{name}", self.file, word.line);
        if let Some(why) = word.unknown {
            self.tell(Kind::OnlyARunKnows, word.line, format!("--{name} {}", word.text), why);
            return None;
        }
        word.text.parse().ok().map(|value| Read::new(value, origin))
    }

    fn nodes(&mut self) -> Option<Read<u64>> {
        let batch = self.batch;
        if let Some(asked) = &batch.nodes
            && let Some(nodes) = number(&batch.nodes)
        {
            return Some(Read::new(nodes, self.asked(asked)));
        }
        self.launcher("nnodes")
    }

    fn devices(&mut self) -> Option<Read<u64>> {
        if let Some(count) = self.launcher("nproc_per_node") {
            return Some(count);
        }
        let batch = self.batch;
        for asked in [&batch.devices, &batch.tasks_per_node] {
            if let (Some(count), Some(asked)) = (number(asked), asked) {
                return Some(Read::new(count, self.asked(asked)));
            }
        }
        None
    }

    fn micro_batch(&mut self) -> Read<u64> {
        self.needed("--micro-batch-size")
    }

    fn machine(&mut self, block: &mut Block, devices: &Option<Read<u64>>) {
        let batch = self.batch;
        let kind = batch.devices.as_ref().filter(|asked| asked.value.contains("mi250"));
        match kind {
            Some(asked) => {
                let origin = self.asked(asked);
                block.field("machine", "mi250x", &origin);
                let count = devices.as_ref().and_then(|devices| devices.value);
                if let Some(count) = count.filter(|count| *count != MI250X_DEVICES) {
                    let why =
                        format!("a node has {MI250X_DEVICES} devices, and the script starts {count} workers on it");
                    self.tell(Kind::ChangesPlacement, asked.line, asked.option.clone(), why);
                }
            }
            None => {
                let (line, what) = match &batch.devices {
                    Some(asked) => (asked.line, format!("{} {}", asked.option, asked.value)),
                    None => (0, "the machine".to_owned()),
                };
                let why = "Aurora describes MI250X nodes and CPUs; the layout says CPUs";
                self.tell(Kind::ChangesPlacement, line, what, why);
            }
        }
    }

    fn replicas(
        &mut self,
        tensor: &Read<u64>,
        pipeline: &Read<u64>,
        nodes: &Option<Read<u64>>,
        devices: &Option<Read<u64>>,
    ) -> Read<u64> {
        let context = self.or("--context-parallel-size", Self::whole, 1);
        let value = |read: &Option<Read<u64>>| read.as_ref().and_then(|read| read.value);
        let (Some(nodes), Some(devices)) = (value(nodes), value(devices)) else {
            self.tell(
                Kind::OnlyARunKnows,
                0,
                "data-parallel replicas",
                "how many devices there are is not in the script",
            );
            return Read::new(1, "how many devices there are is not in the script");
        };
        let degrees = [tensor.value, pipeline.value, context.value].map(|degree| degree.unwrap_or(1).max(1));
        let replica = degrees
            .iter()
            .fold(1_u64, |product, degree| product.saturating_mul(*degree));
        let world = nodes.saturating_mul(devices);
        let arithmetic = format!("{nodes} nodes × {devices} ÷ {replica} workers of a replica");
        if world == 0 || !world.is_multiple_of(replica) {
            self.tell(
                Kind::OnlyARunKnows,
                0,
                "data-parallel replicas",
                format!("{arithmetic} is no whole number"),
            );
            return Read::new(1, arithmetic);
        }
        Read::new(world / replica, arithmetic)
    }

    fn recompute(&mut self, block: &mut Block) {
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
                self.tell_of(Kind::NotUnderstood, "--recompute-granularity", why);
            }
        }
    }
}
