//! The worker through its standard input and output. This program is its own worker if its first argument is `worker`.

#![allow(clippy::unwrap_used)]

mod device;
#[path = "../double/build.rs"]
mod double;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use aurora_compiler::fields::{AnswerMode, Contract, Numerics, OptimizerState, Precision, SchedulePiece, TaskFields};
use aurora_runtime::job::{
    CheckpointState, DocumentScore, EvalJob, Event, ItemFile, Layout, NodeFiles, Recompute, Scores, StepLogLine,
    TaskPaths, TraceJob, TrainJob, WorkerCommand,
};
use aurora_runtime::trace::TraceEntry;
use aurora_train::worker::Arguments;
use camino::{Utf8Path, Utf8PathBuf};
use libtest_mimic::Trial;
use world::{VOCABULARY, Worker, World};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        return aurora_train::worker::main(&Arguments::default());
    }
    let world = Arc::new(World::new());
    let trial = |name: &str, test: fn(&World)| {
        let world = Arc::clone(&world);
        Trial::test(name, move || {
            test(&world);
            Ok(())
        })
    };
    let trials = vec![
        trial(
            "segments_and_threads_do_not_change_bits",
            segments_and_threads_do_not_change_bits,
        ),
        trial("a_stop_does_not_change_bits", a_stop_does_not_change_bits),
        trial(
            "a_trace_repeats_the_steps_it_records",
            a_trace_repeats_the_steps_it_records,
        ),
        trial("layout_does_not_change_bits", layout_does_not_change_bits),
        trial(
            "scores_do_not_depend_on_threads_or_batches",
            scores_do_not_depend_on_threads_or_batches,
        ),
        trial(
            "answers_do_not_depend_on_threads_or_other_items",
            answers_do_not_depend_on_threads_or_other_items,
        ),
        trial("bf16_resumes_exactly", bf16_resumes_exactly),
        trial("native_learns_too", native_learns_too),
        trial("device_losses_agree_with_the_host", device::losses_agree_with_the_host),
        trial(
            "device_layouts_and_resume_do_not_change_bits",
            device::layouts_and_resume_do_not_change_bits,
        ),
        trial("device_scores_agree_with_the_host", device::scores_agree_with_the_host),
        trial(
            "device_portable_numerics_are_refused",
            device::portable_numerics_are_refused,
        ),
        trial("errors_name_their_cause", errors_name_their_cause),
        trial(
            "the_code_of_the_operating_system_is_reported",
            the_code_of_the_operating_system_is_reported,
        ),
        trial(
            "a_gradient_that_is_not_finite_is_an_error",
            a_gradient_that_is_not_finite_is_an_error,
        ),
        trial("the_end_of_input_ends_the_worker", the_end_of_input_ends_the_worker),
    ];
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), trials).exit_code()
}

fn loss(step: &StepLogLine) -> f64 {
    f64::from_bits(u64::from_str_radix(&step.loss, 16).unwrap())
}

fn segments_and_threads_do_not_change_bits(world: &World) {
    // One segment, on one thread.
    let mut job = world.job("complete", 0..12, world.start());
    job.layout.threads = 1;
    let complete = world.train(job);
    let step_log = world.step_log("complete");
    assert_eq!(
        step_log.iter().map(|step| step.step).collect::<Vec<_>>(),
        (1..=12).collect::<Vec<_>>()
    );
    assert!(
        loss(&step_log[0]) > 4.0 && loss(&step_log[11]) < loss(&step_log[0]) - 0.3,
        "it learns"
    );
    assert_eq!(
        step_log
            .iter()
            .filter(|step| step.groups.len() == 4)
            .map(|step| step.step)
            .collect::<Vec<_>>(),
        [10]
    );
    // The digests of a step match a checkpoint at that step: of chunks, each one a tensor here.
    world.train(world.job("ten", 0..10, world.start()));
    assert_eq!(world.step_log("ten"), step_log[..10]);
    let bytes = std::fs::read(world.path("ten").join("weights/final_norm.safetensors")).unwrap();
    let numbers = &bytes[8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize..];
    let mut digest = blake3::Hasher::new();
    for tensor in numbers.chunks(numbers.len() / 2) {
        digest.update(blake3::hash(tensor).as_bytes());
    }
    assert_eq!(step_log[9].groups["final_norm"], digest.finalize().to_hex().to_string());
    // Two segments in the queue, the second from memory; an eval in between.
    let mut worker = Worker::start();
    worker.send(&WorkerCommand::Train(Box::new(world.job("first", 0..5, world.start()))));
    worker.send(&WorkerCommand::Eval(Box::new(world.eval(
        "first eval",
        world.after("first"),
        2,
    ))));
    worker.send(&WorkerCommand::Train(Box::new(world.job(
        "second",
        5..12,
        world.after("first"),
    ))));
    let events = worker.finish("second");
    let steps = events.iter().filter_map(|event| {
        if let Event::Step(step) = event {
            Some(step.step)
        } else {
            None
        }
    });
    assert_eq!(steps.collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
    drop(worker);
    // The second segment again, from files, in another process, on four threads.
    let mut job = world.job("second again", 5..12, world.after("first"));
    job.layout.threads = 4;
    assert!(world.train(job) == world.bytes("second"));
    let without_step_log = |files: Vec<(String, Vec<u8>)>| {
        files
            .into_iter()
            .filter(|(name, _)| name != "trail.jsonl")
            .collect::<Vec<_>>()
    };
    assert!(without_step_log(complete) == without_step_log(world.bytes("second")));
    let both: Vec<String> = [world.step_log("first"), world.step_log("second")]
        .concat()
        .into_iter()
        .map(|step| format!("{} {} {} {}", step.step, step.batch, step.loss, step.grad_norm))
        .collect();
    let expected = step_log
        .iter()
        .map(|step| format!("{} {} {} {}", step.step, step.batch, step.loss, step.grad_norm));
    assert_eq!(both, expected.collect::<Vec<_>>());
}

fn a_stop_does_not_change_bits(world: &World) {
    let straight = world.train(world.job("straight", 0..300, world.start()));
    let mut worker = Worker::start();
    let job = |out: &str, start: NodeFiles| TrainJob {
        out: world.out(out),
        ..world.job("stopped", 0..300, start)
    };
    let mut start = world.start();
    let mut stops = 0;
    let mut done = 0;
    loop {
        let out = format!("stopped {stops}");
        worker.send(&WorkerCommand::Train(Box::new(job(&out, start))));
        // Queued after it, and dropped by the stop.
        worker.send(&WorkerCommand::Eval(Box::new(world.eval(
            "skipped",
            world.after("stopped"),
            1,
        ))));
        let reached = done + 30;
        let events = worker.until(|event| match event {
            Event::Step(step) => step.step >= reached,
            Event::Finished { .. } => true,
            Event::Failed(failure) => panic!("{}", failure.cause),
            _ => false,
        });
        if stops == 3 {
            if !matches!(events.last(), Some(Event::Finished { .. })) {
                worker.finish("stopped");
            }
            assert!(world.bytes(&out) == straight);
            return;
        }
        worker.send(&WorkerCommand::Stop);
        let events = worker.until(|event| matches!(event, Event::Stopped { .. } | Event::Idle));
        let Some(Event::Stopped { node, step }) = events.last() else {
            panic!("{events:?}")
        };
        assert_eq!(node, "stopped");
        assert!(*step >= reached && *step < 300);
        let state: CheckpointState =
            serde_json::from_slice(&std::fs::read(world.path(&out).join("state.json")).unwrap()).unwrap();
        assert_eq!(state.step, *step);
        assert_eq!(world.step_log(&out).len() as u64, *step);
        done = *step;
        start = NodeFiles {
            key: "stopped".to_owned(),
            files: world.files(&out),
        };
        stops += 1;
    }
}

fn a_trace_repeats_the_steps_it_records(world: &World) {
    world.train(world.job("to repeat", 0..12, world.start()));
    let job = world.job("traced", 0..12, world.start());
    let mut worker = Worker::start();
    worker.send(&WorkerCommand::Trace(Box::new(TraceJob {
        job,
        after: 8,
        last: 10,
    })));
    worker.finish("traced");
    assert_eq!(
        world.step_log("traced"),
        world.step_log("to repeat")[8..10],
        "with digests of the weights at step 10"
    );
    let text = std::fs::read_to_string(world.path("traced").join("trace-0.jsonl")).unwrap();
    let entries: Vec<TraceEntry> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |step: u64| entries.iter().filter(|entry| entry.name.step == step).count();
    assert_eq!(of(9) + of(10), entries.len(), "two steps are recorded");
    assert!(of(9) == of(10) && of(9) > 100);
    assert!(
        !world.path("traced").join("state.json").exists(),
        "no checkpoint is written"
    );
    assert_eq!(worker.end(), Some(0));
}

fn layout_does_not_change_bits(world: &World) {
    let expected = world.train(world.job("plain", 0..3, world.start()));
    for recompute in [Recompute::Selective, Recompute::Full] {
        let name = format!("{recompute:?}");
        let mut job = world.job(&name, 0..3, world.start());
        job.layout = Layout::one(3, recompute);
        assert!(world.train(job) == expected, "{name}");
    }
}

fn scores_do_not_depend_on_threads_or_batches(world: &World) {
    let mut worker = Worker::start();
    let mut score = |name: &str, job: EvalJob| -> Scores {
        worker.send(&WorkerCommand::Eval(Box::new(job)));
        worker.finish(name);
        serde_json::from_slice(&std::fs::read(world.path(name).join("scores.json")).unwrap()).unwrap()
    };
    let one = score("eval 1", world.eval("eval 1", world.start(), 1));
    let three = score("eval 3", world.eval("eval 3", world.start(), 3));
    assert_eq!(one, three);
    assert_eq!(one.sets["one"].documents, 60);
    assert_eq!(one.sets["two"].documents, 120);
    assert_eq!(
        one.sets["one"].tokens,
        (0..60).map(|document| 3 + (document * 7) % 41).sum::<u64>()
    );
    // Scores of untrained weights: every token is about equally likely.
    assert!((one.sets["one"].perplexity / f64::from(VOCABULARY) - 1.0).abs() < 0.2);
    let set = &one.sets["two"];
    assert_eq!(
        set.bits_per_byte,
        set.negative_log_likelihood / (std::f64::consts::LN_2 * 5000.0)
    );
    // Scores of each document with its name; the same for any number of threads.
    assert_eq!(world.bytes("eval 1"), world.bytes("eval 3"));
    let items = std::fs::read_to_string(world.path("eval 1").join("items.jsonl")).unwrap();
    let items: Vec<DocumentScore> = items.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let own: Vec<&DocumentScore> = items.iter().filter(|item| item.set == "two").collect();
    assert_eq!((items.len(), own.len()), (180, 120));
    assert_eq!(
        (own[61].document.as_str(), own[61].tokens, own[61].bytes),
        ("61 c#1", 10, 2)
    );
    assert_eq!(own.iter().map(|item| item.tokens).sum::<u64>(), set.tokens);
    let sum: f64 = own.iter().map(|item| item.negative_log_likelihood).sum();
    assert!((sum / set.negative_log_likelihood - 1.0).abs() < 1e-12);
    // A set alone, so that its windows are in other batches, has the same bits.
    let mut job = world.eval("eval alone", world.start(), 2);
    job.fields.sets.remove(0);
    job.sets.remove(0);
    assert_eq!(score("eval alone", job).sets["two"], one.sets["two"]);
}

/// A tokenizer with one token per character.
fn letters() -> String {
    let alphabet = ('a'..='z').chain(['Ġ', 'Ċ', ':', '.']);
    let mut vocabulary: BTreeMap<String, u32> = alphabet.map(String::from).zip(1..).collect();
    vocabulary.insert("<end>".to_owned(), 0);
    let byte_level = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [{"id": 0, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": []},
    })
    .to_string()
}

/// A file of items with a question, three choices and the number of the right one.
fn items_file(world: &World, name: &str, count: usize) -> Utf8PathBuf {
    let words = ["one", "two", "three", "four", "five", "six", "seven"];
    let item = |number: usize| {
        let (word, other) = (words[number % 7], words[(number * 3 + 1) % 7]);
        let line = serde_json::json!({"q": word.repeat(1 + number % 3), "c": [word, other, "x"], "a": number % 3});
        line.to_string() + "\n"
    };
    let path = world.path(name);
    std::fs::write(&path, (0..count).map(item).collect::<String>()).unwrap();
    path
}

/// An eval that answers the items of a file.
fn answers_job(world: &World, name: &str, threads: u32, file: &Utf8Path, asks: &AnswerMode) -> EvalJob {
    let tokenizer = world.path(&format!("{name} tokenizer.json"));
    std::fs::write(&tokenizer, letters()).unwrap();
    let mut job = world.eval(name, world.start(), threads);
    job.fields.sets.clear();
    job.sets.clear();
    job.fields.window = job.fields.model.context;
    let answer = if matches!(asks, AnswerMode::Choices(_)) {
        "{a}"
    } else {
        "{q}"
    };
    job.fields.task = Some(TaskFields {
        files: vec!["*.jsonl".to_owned()],
        shot_files: Vec::new(),
        prompt: "q: {q}\na:".to_owned(),
        limit: None,
        attacks: Vec::new(),
        chat: None,
        answer: Some(answer.to_owned()),
        shots: 0,
        separator: "\n".to_owned(),
        delimiter: " ".to_owned(),
        by: Vec::new(),
        seed: 5,
        asks: asks.clone(),
    });
    job.task = Some(TaskPaths {
        files: vec![ItemFile {
            prefix: String::new(),
            name: "x.jsonl".to_owned(),
            path: file.to_owned(),
        }],
        tokenizer,
        end_of_document: 0,
    });
    job
}

fn answers_do_not_depend_on_threads_or_other_items(world: &World) {
    let many = items_file(world, "many.jsonl", 40);
    let few = items_file(world, "few.jsonl", 3);
    let mut worker = Worker::start();
    let mut answer = |name: &str, threads: u32, file: &Utf8Path, asks: &AnswerMode| {
        let job = answers_job(world, name, threads, file, asks);
        worker.send(&WorkerCommand::Eval(Box::new(job)));
        worker.finish(name);
        let read = |file: &str| std::fs::read_to_string(world.path(name).join(file)).unwrap();
        (read("scores.json"), read("items.jsonl"))
    };
    let text = |temperature: Option<&str>| AnswerMode::Text {
        stop: vec![".".to_owned()],
        maximum: 6,
        temperature: temperature.map(|temperature| temperature.parse().unwrap()),
        top_p: temperature.map(|_| "0.9".parse().unwrap()),
        samples: 1,
    };
    let kinds = [
        AnswerMode::Choices(vec!["{c}".to_owned()]),
        text(None),
        text(Some("1.5")),
    ];
    for (number, asks) in kinds.iter().enumerate() {
        let one = answer(&format!("answers {number} 1"), 1, &many, asks);
        let three = answer(&format!("answers {number} 3"), 3, &many, asks);
        assert_eq!(one, three);
        assert_eq!(one.1.lines().count(), 40);
        let alone = answer(&format!("answers {number} few"), 2, &few, asks);
        let first: Vec<&str> = one.1.lines().take(3).collect();
        assert_eq!(
            alone.1.lines().collect::<Vec<_>>(),
            first,
            "three items alone have the same answers"
        );
    }
    let texts = |number: usize| {
        let lines = std::fs::read_to_string(world.path(&format!("answers {number} 1")).join("items.jsonl")).unwrap();
        let text = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].to_string();
        lines.lines().map(text).collect::<BTreeSet<_>>()
    };
    assert!(texts(2).len() > 20, "drawn texts differ: {:?}", texts(2));
}

fn bf16_resumes_exactly(world: &World) {
    let job = |name: &str, steps: std::ops::Range<u64>, start: NodeFiles| {
        let mut job = world.job(name, steps, start);
        job.fields.precision = Precision::Bf16;
        job
    };
    let complete = world.train(job("bf16 complete", 0..6, world.start()));
    let step_log = world.step_log("bf16 complete");
    assert!(loss(&step_log[5]) < loss(&step_log[0]));
    world.train(job("bf16 first", 0..3, world.start()));
    let mut second = job("bf16 second", 3..6, world.after("bf16 first"));
    second.layout.threads = 1;
    let second = world.train(second);
    let weights = |files: Vec<(String, Vec<u8>)>| {
        files
            .into_iter()
            .filter(|(name, _)| name != "trail.jsonl")
            .collect::<Vec<_>>()
    };
    assert!(weights(second) == weights(complete));
}

fn native_learns_too(world: &World) {
    let mut job = world.job("native", 0..6, world.start());
    job.fields.numerics = Numerics {
        contract: Contract::Native,
        tensor: 2,
        lanes: 4,
        micro_batch: 2,
    };
    world.train(job);
    world.train(world.job("invariant", 0..6, world.start()));
    for (native, invariant) in world.step_log("native").iter().zip(world.step_log("invariant")) {
        assert!((loss(native) - loss(&invariant)).abs() < 1e-5 * loss(&invariant));
        assert_eq!(native.batch, invariant.batch);
    }
}

fn errors_name_their_cause(world: &World) {
    let mut worker = Worker::start();
    let mut fail = |change: &dyn Fn(&mut TrainJob)| {
        let mut job = world.job("wrong", 0..3, world.start());
        change(&mut job);
        worker.send(&WorkerCommand::Train(Box::new(job)));
        worker.failure()
    };
    let text = fail(&|job| job.fields.global_batch = 13);
    assert_eq!(
        text,
        "invalid job: a global batch of 13 is not a multiple of micro-batches of 2"
    );
    let text = fail(&|job| {
        job.fields.numerics = Numerics {
            contract: Contract::Invariant,
            tensor: 8,
            lanes: 1,
            micro_batch: 2,
        }
    });
    assert_eq!(
        text,
        "cannot compute: heads 4 does not divide by 8 logical tensor shards"
    );
    let text = fail(&|job| job.layout.tensor = 2);
    assert_eq!(
        text,
        "invalid job: it needs several workers, and this one has joined none"
    );
    let text = fail(&|job| job.optimizer_state = OptimizerState::Keep);
    assert_eq!(
        text,
        "cannot use the checkpoint: the checkpoint does not have a file `optimizer/embeddings.safetensors`"
    );
    let text = fail(&|job| {
        job.start.files.remove("weights/layer.001.safetensors");
    });
    assert_eq!(
        text,
        "cannot use the checkpoint: the checkpoint does not have a file `weights/layer.001.safetensors`"
    );
    let damaged = world.path("damaged");
    std::fs::write(&damaged, b"not a checkpoint").unwrap();
    let text = fail(&|job| {
        job.start
            .files
            .insert("weights/final_norm.safetensors".to_owned(), damaged.clone());
    });
    assert!(text.contains("safetensors file"), "{text}");
    let text = fail(&|job| job.tokens[0][0].bin = world.path("nowhere.bin"));
    assert!(
        text.starts_with("cannot read tokens of `x`") && text.contains("nowhere.bin"),
        "{text}"
    );
    let text = fail(&|job| {
        job.fields.sequence = 32;
        job.order.sequence = 32;
    });
    assert_eq!(
        text,
        "cannot compute: a sequence of 32 tokens exceeds the context of 16"
    );
    worker
        .commands
        .as_mut()
        .unwrap()
        .write_all(b"{\"command\":\"dance\"}\n")
        .unwrap();
    assert!(worker.failure().starts_with("malformed command: "));
    // It still works.
    worker.send(&WorkerCommand::Train(Box::new(world.job("right", 0..2, world.start()))));
    worker.finish("right");
}

/// The engine needs the code for its advice: of a full disk, say. The checkpoint is written by another thread than the
/// one that trains, and both report it.
fn the_code_of_the_operating_system_is_reported(world: &World) {
    let mut worker = Worker::start();
    let mut fail = |change: &dyn Fn(&mut TrainJob)| {
        let mut job = world.job("unwritable", 0..3, world.start());
        change(&mut job);
        worker.send(&WorkerCommand::Train(Box::new(job)));
        worker.job_failure().os_error
    };
    assert_eq!(
        fail(&|job| job.out = "/dev/full/checkpoint".into()),
        Some(libc::ENOTDIR)
    );
    let missing = |job: &mut TrainJob| job.tokens[0][0].bin = "/nowhere/tokens.bin".into();
    assert_eq!(fail(&missing), Some(libc::ENOENT));
    assert_eq!(fail(&|job| job.fields.global_batch = 13), None);
}

fn a_gradient_that_is_not_finite_is_an_error(world: &World) {
    let mut worker = Worker::start();
    let mut job = world.job("diverges", 0..50, world.start());
    job.fields.schedule = vec![SchedulePiece::Constant {
        from: 0,
        rate: "1e25".parse().unwrap(),
    }];
    worker.send(&WorkerCommand::Train(Box::new(job)));
    let text = worker.failure();
    assert!(
        text.contains("of step 2 is") && text.contains("(the batch holds `x` × "),
        "{text}"
    );
}

fn the_end_of_input_ends_the_worker(world: &World) {
    assert_eq!(Worker::start().end(), Some(0));
    let mut worker = Worker::start();
    worker.send(&WorkerCommand::Train(Box::new(world.job(
        "endless",
        0..1_000_000,
        world.start(),
    ))));
    worker.until(|event| matches!(event, Event::Step(_)));
    assert_eq!(worker.end(), Some(0));
    let mut worker = Worker::start();
    worker.send(&WorkerCommand::Stop);
    assert!(matches!(worker.next(), Event::Idle));
    assert_eq!(worker.end(), Some(0));
}
