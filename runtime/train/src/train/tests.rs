//! Complete steps on meshes within one process: the same bits as on one worker.

#[path = "../../../../tests/missing_tools.rs"]
mod missing_tools;
mod trace;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use aurora_compiler::fields::{
    Activation, AdamW, Architecture, Contract, ModelFields, Numerics, OptimizerState, Precision, TrainFields,
};
use aurora_compiler::memory::{Memory, memory};
use aurora_runtime::job::{Layout, Recompute};
use tch::Tensor;

use self::missing_tools::missing_tool;
use super::batch::{MicroBatch, StepBatch};
use super::step::Trainer;
use super::thread_pool::ThreadPool;
use super::train_state::{TrainState, mesh, network};
use crate::model::{ComputeDevice, Network};
use crate::parallel::Peers;
use crate::parallel::transport::channels;

const SEQUENCE: usize = 12;
const MICRO_BATCH: usize = 2;
const MICRO_BATCHES: usize = 8;
const STEPS: usize = 2;

fn model(architecture: Architecture, kv_heads: u32, tied: bool) -> ModelFields {
    let bigcode = architecture == Architecture::GptBigcode;
    ModelFields {
        architecture,
        // Not a multiple of the pipeline ranks.
        layers: 5,
        hidden: 32,
        heads: 4,
        kv_heads,
        feed_forward: 48,
        context: 16,
        vocabulary: 64,
        activation: if bigcode {
            Activation::GeluTanh
        } else {
            Activation::SwiGlu
        },
        norm_epsilon: "1e-5".parse().unwrap(),
        rotary_base: (!bigcode).then(|| "10000".parse().unwrap()),
        tied_embeddings: tied,
    }
}

fn numbers(count: usize, seed: u64, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 16_777_216.0 - 0.5
    };
    (0..count).map(|_| next() * scale).collect()
}

fn optimizer() -> AdamW {
    AdamW {
        beta1: "0.9".parse().unwrap(),
        beta2: "0.95".parse().unwrap(),
        epsilon: "1e-8".parse().unwrap(),
        weight_decay: "0.1".parse().unwrap(),
        clip: Some("1".parse().unwrap()),
    }
}

/// Loss and gradient norm of each step as bits, and all tensors after the last step: weights, then both moments.
type RunResult = (Vec<[u64; 2]>, BTreeMap<String, [Vec<u32>; 3]>);

/// One rank's part of the tensors: offsets and bits.
type TensorPart = Vec<(String, usize, [Vec<u32>; 3])>;

/// One rank before its first step.
fn trainer(model: &ModelFields, network: Network, rank: usize, layout: &Layout, peers: Vec<Peers>) -> Trainer {
    let distributed = layout.distributed_optimizer && layout.data > 1;
    let mut state = TrainState::new(network, model, rank, true, distributed).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = camino::Utf8Path::from_path(folder.path()).unwrap();
    state.load_weights(&files(model, folder)).unwrap();
    Trainer::new(state, peers, &optimizer(), SEQUENCE, MICRO_BATCHES, layout.recompute).unwrap()
}

/// Which targets are trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Targets {
    All,
    /// Two of three.
    Answers,
}

/// Loss and gradient norm of a step.
fn step(trainer: &mut Trainer, pool: &ThreadPool, step: usize, targets: Targets) -> [u64; 2] {
    let network = &trainer.state.network;
    let (vocabulary, replica) = (network.parameters.shape.vocabulary, trainer.peers().unwrap().at().data);
    let micro_batch = |index: usize| {
        let token = |i: usize| ((step * 7919 + index * 104_729 + i * i * 31 + i * 17) % vocabulary) as i64;
        let ids: Vec<i64> = (0..MICRO_BATCH * SEQUENCE).map(token).collect();
        let is_trained = |i: usize| targets == Targets::All || !(i + index).is_multiple_of(3);
        let target = |i: usize| if is_trained(i) { token(i) } else { -1 };
        let targets: Vec<i64> = (1..=MICRO_BATCH * SEQUENCE).map(target).collect();
        Trainer::reads(network, replica, index).then(|| MicroBatch {
            ids_t: Tensor::from_slice(&ids),
            targets_t: Tensor::from_slice(&targets),
        })
    };
    let mut batch = StepBatch {
        micro_batches: (0..MICRO_BATCHES).map(micro_batch).collect(),
        samples: Vec::new(),
        targets: match targets {
            Targets::All => MICRO_BATCHES * MICRO_BATCH * SEQUENCE,
            Targets::Answers => MICRO_BATCHES * MICRO_BATCH * SEQUENCE / 3 * 2,
        } as u64,
        digest: None,
    };
    let outcome = trainer
        .step(
            pool,
            &mut batch,
            &optimizer(),
            1e-2,
            &AtomicBool::new(false),
            |what, value| panic!("the {what} is {value}"),
        )
        .unwrap();
    [outcome.loss.to_bits(), outcome.grad_norm.to_bits()]
}

/// One rank after its last step, with the metrics of each.
fn trained(
    model: &ModelFields,
    numerics: &Numerics,
    precision: Precision,
    layout: &Layout,
    peers: Vec<Peers>,
    targets: Targets,
) -> (Vec<[u64; 2]>, Trainer) {
    let _guard = tch::no_grad_guard();
    let me = mesh(layout).rank(peers[0].at());
    let network = network(model, numerics, precision, layout, me, ComputeDevice::Cpu).unwrap();
    let pool = ThreadPool::new(layout.threads as usize).unwrap();
    let mut trainer = trainer(model, network, me, layout, peers);
    let figures = (0..STEPS).map(|at| step(&mut trainer, &pool, at, targets)).collect();
    (figures, trainer)
}

fn rank(
    model: &ModelFields,
    numerics: &Numerics,
    precision: Precision,
    layout: &Layout,
    peers: Vec<Peers>,
    targets: Targets,
) -> (Vec<[u64; 2]>, TensorPart) {
    let (figures, trainer) = trained(model, numerics, precision, layout, peers, targets);
    let state = &trainer.state;
    let [first, second] = &state.moments;
    let buffers = [&state.master, first, second].map(|tensor| Vec::<f32>::try_from(tensor).unwrap());
    let mut own = Vec::new();
    for chunk in &state.reported {
        let part = &state.network.parameters.parts[chunk.part];
        let places = [
            state.in_master(&chunk.range),
            state.kept.local(&chunk.range),
            state.kept.local(&chunk.range),
        ];
        for (at, range) in part.tensor_ranges(chunk.shard, chunk.of_shard.clone()) {
            let bits = |which: usize| {
                let start = places[which].start + range.start - chunk.of_shard.start;
                buffers[which][start..start + range.len()]
                    .iter()
                    .map(|n| n.to_bits())
                    .collect()
            };
            own.push((part.tensor.clone(), at, [bits(0), bits(1), bits(2)]));
        }
    }
    (figures, own)
}

fn files(model: &ModelFields, folder: &camino::Utf8Path) -> aurora_runtime::job::Files {
    std::fs::create_dir(folder.join("weights")).unwrap();
    let mut files = aurora_runtime::job::Files::new();
    let mut seed = 0;
    for group in aurora_runtime::checkpoint::groups(model) {
        let values: Vec<Vec<f32>> = group
            .tensors
            .iter()
            .map(|tensor| {
                seed += 1;
                let mut values = numbers(tensor.count(), seed, 0.3);
                if tensor.name.contains("norm") || tensor.name.contains("ln_") {
                    values.iter_mut().for_each(|value| *value += 1.0);
                }
                values
            })
            .collect();
        let path = folder.join(group.weights());
        aurora_runtime::checkpoint::write(&path, &group.tensors, values.iter().map(Vec::as_slice)).unwrap();
        files.insert(group.weights(), path);
    }
    files
}

/// Runs every rank on a thread and returns the results.
fn on_ranks<T: Send>(layout: &Layout, rank: impl Fn(Vec<Peers>) -> T + Sync) -> Vec<T> {
    let (mesh, threads) = (mesh(layout), layout.threads as usize);
    let mut by_rank: Vec<Vec<Peers>> = (0..mesh.world()).map(|_| Vec::new()).collect();
    for _ in 0..threads {
        for (rank, end) in channels(mesh.world(), Duration::from_secs(60)).into_iter().enumerate() {
            by_rank[rank].push(Peers::new(mesh, Box::new(end)));
        }
    }
    let rank = &rank;
    thread::scope(|scope| {
        let ranks: Vec<_> = by_rank
            .into_iter()
            .map(|peers| scope.spawn(move || rank(peers)))
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn run(model: &ModelFields, numerics: &Numerics, precision: Precision, layout: &Layout) -> RunResult {
    run_on(model, numerics, precision, layout, Targets::All)
}

fn run_on(
    model: &ModelFields,
    numerics: &Numerics,
    precision: Precision,
    layout: &Layout,
    targets: Targets,
) -> RunResult {
    let results = on_ranks(layout, |peers| rank(model, numerics, precision, layout, peers, targets));
    for (figures, _) in &results {
        assert_eq!(figures, &results[0].0, "all ranks have the same metrics");
    }
    let mut tensors: BTreeMap<String, [Vec<u32>; 3]> = BTreeMap::new();
    for tensor in aurora_runtime::checkpoint::groups(model)
        .iter()
        .flat_map(|group| &group.tensors)
    {
        let empty = || vec![u32::MAX; tensor.count()];
        tensors.insert(tensor.name.clone(), [empty(), empty(), empty()]);
    }
    for (name, at, bits) in results.iter().flat_map(|(_, own)| own) {
        let tensor = tensors.get_mut(name).unwrap();
        for (into, bits) in tensor.iter_mut().zip(bits) {
            let into = &mut into[*at..at + bits.len()];
            assert!(into.iter().all(|bits| *bits == u32::MAX), "{name} is reported once");
            into.copy_from_slice(bits);
        }
    }
    (results.into_iter().next().unwrap().0, tensors)
}

fn invariant(tensor: u32, lanes: u32) -> Numerics {
    Numerics {
        contract: Contract::Invariant,
        tensor,
        lanes,
        micro_batch: MICRO_BATCH as u32,
    }
}

fn layout(tensor: u32, pipeline: u32, data: u32) -> Layout {
    Layout {
        tensor,
        pipeline,
        data,
        ..Layout::one(1, Recompute::None)
    }
}

#[test]
fn every_layout_gives_the_bits_of_one_worker() {
    let models = [
        ("bigcode", model(Architecture::GptBigcode, 1, true)),
        (
            "bigcode, one key head per head",
            model(Architecture::GptBigcode, 4, true),
        ),
        ("llama, shared key heads", model(Architecture::Llama, 2, false)),
        ("llama, own key heads, tied", model(Architecture::Llama, 4, true)),
    ];
    let layouts = [
        layout(2, 1, 1),
        layout(4, 1, 1),
        layout(1, 2, 1),
        layout(1, 4, 1),
        layout(1, 1, 2),
        layout(1, 1, 4),
        layout(2, 2, 2),
        Layout {
            sequence_parallel: true,
            ..layout(2, 1, 1)
        },
        Layout {
            sequence_parallel: true,
            ..layout(4, 2, 1)
        },
        Layout {
            distributed_optimizer: true,
            ..layout(1, 1, 2)
        },
        Layout {
            distributed_optimizer: true,
            sequence_parallel: true,
            recompute: Recompute::Full,
            ..layout(2, 2, 2)
        },
        Layout {
            recompute: Recompute::Selective,
            ..layout(1, 2, 1)
        },
        Layout {
            threads: 2,
            ..layout(1, 1, 1)
        },
        Layout {
            threads: 2,
            ..layout(2, 2, 1)
        },
        Layout {
            threads: 2,
            ..layout(1, 1, 2)
        },
    ];
    for (name, model) in &models {
        for precision in [Precision::F32, Precision::Bf16] {
            let expected = run(model, &invariant(4, 4), precision, &layout(1, 1, 1));
            for layout in &layouts {
                let found = run(model, &invariant(4, 4), precision, layout);
                assert_eq!(found.0, expected.0, "{name}, {precision:?}, {layout:?}: loss and norm");
                for (tensor, bits) in &expected.1 {
                    assert!(found.1[tensor] == *bits, "{name}, {precision:?}, {layout:?}: {tensor}");
                }
            }
        }
    }
}

/// Training on answers only is equal for every layout, and differs from training on everything.
#[test]
fn every_layout_masks_prompts_equally() {
    for model in [
        model(Architecture::GptBigcode, 1, true),
        model(Architecture::Llama, 2, false),
    ] {
        let on = |layout: &Layout, targets: Targets| run_on(&model, &invariant(4, 4), Precision::F32, layout, targets);
        let expected = on(&layout(1, 1, 1), Targets::Answers);
        for layout in [layout(2, 1, 1), layout(1, 2, 1), layout(1, 1, 4), layout(2, 2, 2)] {
            assert!(on(&layout, Targets::Answers) == expected, "{layout:?}");
        }
        assert!(on(&layout(1, 1, 1), Targets::All) != expected);
    }
}

/// Unequal grids: fewer key heads than shards, one lane, shards without a partner.
#[test]
fn other_grids_are_bitwise_equal_too() {
    for (tensor, lanes) in [(1, 1), (2, 1), (1, 8), (4, 2)] {
        for model in [
            model(Architecture::GptBigcode, 1, true),
            model(Architecture::Llama, 1, false),
        ] {
            let numerics = invariant(tensor, lanes);
            let expected = run(&model, &numerics, Precision::F32, &layout(1, 1, 1));
            let found = run(&model, &numerics, Precision::F32, &layout(tensor, 2, lanes.min(2)));
            assert!(
                found == expected,
                "{tensor} shards, {lanes} lanes, {:?}",
                model.architecture
            );
        }
    }
}

/// The allocated buffers after some steps against the formula that `aurora plan` shows.
#[test]
fn memory_matches_the_plan() {
    let layouts = [
        Layout {
            threads: 2,
            ..layout(1, 1, 1)
        },
        layout(2, 1, 1),
        layout(1, 2, 1),
        layout(1, 3, 1),
        layout(1, 1, 2),
        Layout {
            sequence_parallel: true,
            recompute: Recompute::Selective,
            ..layout(4, 2, 1)
        },
        Layout {
            distributed_optimizer: true,
            ..layout(1, 1, 2)
        },
        Layout {
            distributed_optimizer: true,
            sequence_parallel: true,
            recompute: Recompute::Full,
            ..layout(2, 2, 2)
        },
    ];
    for (architecture, kv_heads, tied) in [
        (Architecture::GptBigcode, 1, true),
        (Architecture::GptBigcode, 4, true),
        (Architecture::Llama, 2, false),
        (Architecture::Llama, 4, true),
    ] {
        // Large enough for parts of several chunks, which replicas divide.
        let model = ModelFields {
            layers: 6,
            hidden: 128,
            feed_forward: 1024,
            vocabulary: 2048,
            ..model(architecture, kv_heads, tied)
        };
        for (precision, layout) in [Precision::F32, Precision::Bf16]
            .into_iter()
            .flat_map(|p| layouts.iter().map(move |l| (p, l)))
        {
            let numerics = invariant(4, 4);
            let fields = TrainFields {
                model: model.clone(),
                numerics: numerics.clone(),
                precision,
                optimizer: optimizer(),
                optimizer_state: OptimizerState::Reset,
                schedule: Vec::new(),
                last_step: STEPS as u64,
                global_batch: (MICRO_BATCH * MICRO_BATCHES) as u32,
                sequence: SEQUENCE as u32,
            };
            let by_rank = on_ranks(layout, |peers| {
                let pp_rank = peers[0].at().pipeline as u32;
                (
                    pp_rank,
                    trained(&model, &numerics, precision, layout, peers, Targets::All)
                        .1
                        .held(),
                )
            });
            for (pp_rank, held) in by_rank {
                let planned = memory(&fields, layout, pp_rank);
                let figures = |m: &Memory| {
                    [
                        m.weights,
                        m.gradients,
                        m.optimizer,
                        m.activations,
                        m.scratch,
                        m.transfers,
                        m.total(),
                    ]
                };
                for (of_plan, of_rank) in figures(&planned).into_iter().zip(figures(&held)) {
                    assert!(
                        of_plan.abs_diff(of_rank) * 10 <= of_rank,
                        "{architecture:?}, {kv_heads} key heads, {precision:?}, {layout:?}, pipeline rank {pp_rank}: \
                         {of_plan} planned, {of_rank} held\n{planned:?}\n{held:?}"
                    );
                }
            }
        }
    }
}

/// BLAKE3 of losses, norms and all tensors.
fn digest(outcome: &RunResult) -> String {
    let mut hasher = blake3::Hasher::new();
    for figure in outcome.0.iter().flatten() {
        hasher.update(&figure.to_le_bytes());
    }
    for (name, bits) in &outcome.1 {
        hasher.update(name.as_bytes());
        for bits in bits.iter().flatten() {
            hasher.update(&bits.to_le_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// The same on every processor. A changed digest means that `portable` numerics changed: then the version of `train`
/// nodes must be raised, and CHANGELOG must say so.
#[test]
fn portable_runs_have_these_bits() {
    let portable = Numerics {
        contract: Contract::Portable,
        tensor: 4,
        lanes: 4,
        micro_batch: MICRO_BATCH as u32,
    };
    let models = [
        (model(Architecture::GptBigcode, 1, true), Precision::F32, "bigcode f32"),
        (
            model(Architecture::GptBigcode, 4, true),
            Precision::Bf16,
            "bigcode bf16",
        ),
        (model(Architecture::Llama, 2, false), Precision::F32, "llama f32"),
        (model(Architecture::Llama, 4, true), Precision::Bf16, "llama bf16"),
    ];
    let digests: Vec<String> = models
        .iter()
        .map(|(model, precision, name)| {
            let one = run(model, &portable, *precision, &layout(1, 1, 1));
            let mesh = run(model, &portable, *precision, &layout(2, 2, 2));
            assert!(one == mesh, "{name}: on a mesh");
            format!("{name} {}", digest(&one))
        })
        .collect();
    insta::assert_snapshot!(digests.join("\n"));
}

/// The golden runs with other processors' instruction sets, under QEMU if it is installed.
#[test]
fn portable_runs_have_these_bits_on_other_processors() {
    use std::process::Command;
    let program = std::env::current_exe().unwrap();
    for processor in ["Haswell", "EPYC"] {
        let mut command = Command::new("qemu-x86_64");
        command.args(["-cpu", processor]).arg(&program);
        command.args(["--exact", "train::tests::portable_runs_have_these_bits"]);
        let Ok(output) = command.output() else {
            missing_tool(
                "qemu-x86_64 (package qemu-user)",
                "portable numerics on other processors",
            );
            return;
        };
        let output_text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{processor}: {output_text}");
        assert!(output_text.contains("1 passed"), "{processor}: {output_text}");
    }
}
