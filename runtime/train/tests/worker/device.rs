//! The code for devices on a simulated one: no host access to tensors, the same learning as on the host, the same bits
//! under any layout.

use aurora_compiler::fields::{Activation, AnswerMode, Architecture, Contract, ModelFields, Precision};
use aurora_runtime::job::{
    EvalJob, Event, Join, Layout, Recompute, Scores, StepLogLine, TrainJob, WorkerCommand, WorkerDevice,
};

use crate::world::{Worker, World, model};
use crate::{answers_job, items_file, loss};

/// A small Llama, whose keys and values are stacked with its queries.
fn llama() -> ModelFields {
    ModelFields {
        architecture: Architecture::Llama,
        kv_heads: 2,
        feed_forward: 48,
        activation: Activation::SwiGlu,
        rotary_base: Some("10000".parse().unwrap()),
        tied_embeddings: false,
        ..model()
    }
}

/// A job on a model that starts from the weights in the folder `start`.
fn job(world: &World, model: &ModelFields, name: &str, steps: std::ops::Range<u64>, start: &str) -> TrainJob {
    let mut job = world.job(name, steps, world.after(start));
    job.start.files = world.files(start);
    job.fields.model = model.clone();
    job
}

/// Trains on the workers of a layout; returns the checkpoint without the step log's timings.
fn train(world: &World, job: TrainJob, on: WorkerDevice) -> Vec<(String, Vec<u8>)> {
    let layout = job.layout.clone();
    let mut workers: Vec<Worker> = (0..layout.world()).map(|_| Worker::start_on(on)).collect();
    if layout.world() > 1 {
        let join = |rank: u32, store: Option<String>| {
            WorkerCommand::Join(Join {
                rank,
                layout: layout.clone(),
                host: "127.0.0.1".to_owned(),
                store,
                transfer_timeout: 60,
            })
        };
        workers[0].send(&join(0, None));
        let events = workers[0].until(|event| matches!(event, Event::RendezvousReady { .. }));
        let Some(Event::RendezvousReady { port }) = events.last() else {
            panic!("{events:?}")
        };
        let store = format!("127.0.0.1:{port}");
        for (worker, rank) in workers.iter_mut().zip(0..).skip(1) {
            worker.send(&join(rank, Some(store.clone())));
        }
        for worker in &workers {
            worker.until(|event| matches!(event, Event::Joined));
        }
    }
    let name = job.node.clone();
    for worker in &mut workers {
        worker.send(&WorkerCommand::Train(Box::new(job.clone())));
    }
    for worker in &workers {
        worker.finish(&name);
    }
    world.bytes(&name)
}

fn losses(log: &[StepLogLine]) -> Vec<f64> {
    log.iter().map(loss).collect()
}

/// 20 steps on the host and on the simulated device, for both families, in `f32` and `bf16`.
pub fn losses_agree_with_the_host(world: &World) {
    for (family, model) in [("bigcode", model()), ("llama", llama())] {
        world.weights(&model, &format!("{family} start"));
        for (precision, bound) in [(Precision::F32, 1e-4), (Precision::Bf16, 2e-2)] {
            let run = |place: &str, on: WorkerDevice| {
                let name = format!("{family} {precision:?} {place}");
                let mut job = job(world, &model, &name, 0..20, &format!("{family} start"));
                job.fields.precision = precision;
                train(world, job, on);
                losses(&world.step_log(&name))
            };
            let (host, device) = (run("host", WorkerDevice::Cpu), run("device", WorkerDevice::Simulated));
            assert_eq!((host.len(), device.len()), (20, 20));
            assert!(host[19] < host[0] - 0.3, "it learns");
            for (host, device) in host.iter().zip(&device) {
                assert!(
                    (host / device - 1.0).abs() < bound,
                    "{family} {precision:?}: {host} on the host, {device} on the device"
                );
            }
        }
    }
}

/// The same checkpoint under six layouts, and through an interruption.
pub fn layouts_and_resume_do_not_change_bits(world: &World) {
    for (family, model) in [("bigcode", model()), ("llama", llama())] {
        let start = format!("{family} start of layouts");
        world.weights(&model, &start);
        let of = |name: &str, steps: std::ops::Range<u64>, from: &str| {
            let mut job = job(world, &model, &format!("{family} {name}"), steps, from);
            job.layout = Layout::one(1, Recompute::None);
            job
        };
        let expected = train(world, of("one", 0..6, &start), WorkerDevice::Simulated);
        let plain = Layout::one(1, Recompute::None);
        let layouts = [
            Layout {
                tensor: 2,
                ..plain.clone()
            },
            Layout {
                tensor: 2,
                sequence_parallel: true,
                ..plain.clone()
            },
            Layout {
                pipeline: 2,
                recompute: Recompute::Full,
                ..plain.clone()
            },
            Layout {
                data: 2,
                distributed_optimizer: true,
                ..plain.clone()
            },
            Layout {
                tensor: 2,
                pipeline: 2,
                recompute: Recompute::Selective,
                ..plain.clone()
            },
        ];
        for (number, layout) in layouts.into_iter().enumerate() {
            let mut job = of(&format!("layout {number}"), 0..6, &start);
            job.layout = layout.clone();
            assert!(
                train(world, job, WorkerDevice::Simulated) == expected,
                "{family}: {layout:?}"
            );
        }
        train(world, of("first", 0..3, &start), WorkerDevice::Simulated);
        let second = train(
            world,
            of("second", 3..6, &format!("{family} first")),
            WorkerDevice::Simulated,
        );
        let files = |all: &[(String, Vec<u8>)]| -> Vec<(String, Vec<u8>)> {
            all.iter().filter(|(name, _)| name != "trail.jsonl").cloned().collect()
        };
        assert!(files(&second) == files(&expected), "{family}: resumed");
    }
}

/// Perplexity, likelihoods of choices and generated texts.
pub fn scores_agree_with_the_host(world: &World) {
    let score = |name: &str, on: WorkerDevice, job: EvalJob| -> (Scores, String) {
        let mut worker = Worker::start_on(on);
        worker.send(&WorkerCommand::Eval(Box::new(job)));
        worker.finish(name);
        let read = |file: &str| std::fs::read_to_string(world.path(name).join(file)).unwrap();
        (serde_json::from_str(&read("scores.json")).unwrap(), read("items.jsonl"))
    };
    let eval = |name: &str| world.eval(name, world.start(), 1);
    let (host, _) = score("scores on the host", WorkerDevice::Cpu, eval("scores on the host"));
    let (device, _) = score(
        "scores on a device",
        WorkerDevice::Simulated,
        eval("scores on a device"),
    );
    for (set, host) in &host.sets {
        let device = &device.sets[set];
        assert_eq!((host.tokens, host.documents), (device.tokens, device.documents));
        assert!((host.negative_log_likelihood / device.negative_log_likelihood - 1.0).abs() < 1e-5);
    }
    let text = AnswerMode::Text {
        stop: vec![".".to_owned()],
        maximum: 6,
        temperature: None,
        top_p: None,
        samples: 1,
    };
    let items = items_file(world, "device.jsonl", 12);
    for (number, asks) in [AnswerMode::Choices(vec!["{c}".to_owned()]), text]
        .into_iter()
        .enumerate()
    {
        let run = |place: &str, on: WorkerDevice| {
            let name = format!("answers {number} {place}");
            score(&name, on, answers_job(world, &name, 1, &items, &asks))
        };
        let (host, device) = (
            run("on the host", WorkerDevice::Cpu),
            run("on a device", WorkerDevice::Simulated),
        );
        assert_eq!(host.1.lines().count(), device.1.lines().count());
        assert_eq!(
            host.0.measures.keys().collect::<Vec<_>>(),
            device.0.measures.keys().collect::<Vec<_>>()
        );
        if number == 1 {
            assert_eq!(host.1, device.1, "greedy texts");
        }
    }
}

/// Portable numerics exist for CPUs only.
pub fn portable_numerics_are_refused(world: &World) {
    let mut worker = Worker::start_on(WorkerDevice::Simulated);
    let mut job = world.job("portable on a device", 0..1, world.start());
    job.fields.numerics.contract = Contract::Portable;
    worker.send(&WorkerCommand::Train(Box::new(job)));
    let cause = worker.failure();
    assert!(cause.contains("`portable` numerics are for CPUs"), "{cause}");
}
