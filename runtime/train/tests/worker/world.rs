//! A worker under test, and its environment: token files, a model, folders for results.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};

use aurora_compiler::fields::{
    Activation, AdamW, Architecture, Contract, EvalFields, EvalSet, ModelFields, Numerics, OptimizerState,
    OrderComponent, OrderFields, Precision, SchedulePiece, TrainFields, WeightsFields, WeightsHow,
};
use aurora_runtime::data::tokens::TokenWriter;
use aurora_runtime::job::{
    EvalJob, EvalSetPaths, Event, Files, JobFailure, Layout, NodeFiles, Recompute, Start, StepLogLine, TokenPaths,
    TrainJob, WorkerCommand, WorkerDevice,
};
use camino::{Utf8Path, Utf8PathBuf};

use crate::double;

/// The folder of the double of a device's driver, which runs the kernels on the processor.
fn kernels() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        double::build(folder.path());
        folder
    };
    FOLDER.get_or_init(make).path()
}

/// A running worker.
pub struct Worker {
    pub child: Child,
    pub commands: Option<ChildStdin>,
    events: Receiver<Event>,
}

impl Worker {
    pub fn start() -> Self {
        Self::start_on(WorkerDevice::Cpu)
    }

    pub fn start_on(device: WorkerDevice) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        // Settings that the worker must override.
        command
            .arg("worker")
            .env("OMP_NUM_THREADS", "2")
            .env_remove("MKL_NUM_THREADS");
        if device == WorkerDevice::Simulated {
            let folder = kernels();
            command
                .env("AURORA_TEST_KERNELS", folder)
                .env("AURORA_CACHE_DIR", folder.join("cache"));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event: Event = serde_json::from_str(&line).unwrap();
                // Heartbeats come at any time.
                if !matches!(event, Event::Heartbeat) {
                    let _ = sender.send(event);
                }
            }
        });
        let mut worker = Self {
            commands: child.stdin.take(),
            child,
            events,
        };
        let local_rank = Some(0);
        worker.send(&WorkerCommand::Start(Start { device, local_rank }));
        assert!(matches!(worker.next(), Event::Ready { .. }));
        worker
    }

    pub fn send(&mut self, command: &WorkerCommand) {
        let mut line = serde_json::to_string(command).unwrap();
        line.push('\n');
        self.commands.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    pub fn next(&self) -> Event {
        self.events.recv().expect("the worker has ended")
    }

    /// Events up to the first that `last` accepts.
    pub fn until(&self, last: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            events.push(self.next());
            if last(&events[events.len() - 1]) {
                return events;
            }
        }
    }

    pub fn finish(&self, node: &str) -> Vec<Event> {
        self.until(|event| match event {
            Event::Finished { node: finished } => finished == node,
            Event::Failed(failure) => panic!("{} failed: {}", failure.node, failure.cause),
            _ => false,
        })
    }

    /// The cause of the next failure, as text.
    pub fn failure(&self) -> String {
        self.job_failure().cause
    }

    pub fn job_failure(&self) -> JobFailure {
        let events = self.until(|event| matches!(event, Event::Failed(_) | Event::Finished { .. }));
        match events.last() {
            Some(Event::Failed(failure)) => failure.clone(),
            other => panic!("{other:?} instead of a failure"),
        }
    }

    pub fn end(mut self) -> Option<i32> {
        self.commands = None;
        self.child.wait().unwrap().code()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.child.wait();
    }
}

/// Token files and initial weights in a temporary folder.
pub struct World {
    folder: tempfile::TempDir,
}

pub const VOCABULARY: u32 = 64;

pub fn model() -> ModelFields {
    ModelFields {
        architecture: Architecture::GptBigcode,
        layers: 2,
        hidden: 32,
        heads: 4,
        kv_heads: 1,
        feed_forward: 64,
        context: 16,
        vocabulary: VOCABULARY,
        activation: Activation::GeluTanh,
        norm_epsilon: "1e-5".parse().unwrap(),
        rotary_base: None,
        tied_embeddings: true,
    }
}

impl World {
    pub fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
            let TokenPaths { bin, idx, .. } = world.tokens(name);
            let mut writer = TokenWriter::create(&bin, &idx, VOCABULARY).unwrap();
            // Texts with a pattern that can be learned.
            for document in 0..60u32 {
                let length = 3 + (document * 7) % 41;
                let token = |i: u32| 1 + (document * 5 + i * (3 + at as u32)) % (VOCABULARY - 1);
                writer
                    .push(&(0..length).map(token).chain([0]).collect::<Vec<_>>())
                    .unwrap();
            }
            writer.finish().unwrap();
            let line = |document: usize| {
                format!(
                    "{{\"id\":\"{name}#{document}\",\"text\":\"{}\"}}\n",
                    "x".repeat(document + 1)
                )
            };
            std::fs::write(world.documents(name), (0..60).map(line).collect::<String>()).unwrap();
        }
        world.weights(&model(), "start");
        world
    }

    /// Random weights of a model in a new folder.
    pub fn weights(&self, model: &ModelFields, folder: &str) {
        let how = WeightsHow::Random {
            seed: 5,
            std: "0.05".parse().unwrap(),
        };
        let model = model.clone();
        let fields = WeightsFields { model, how };
        aurora_runtime::weights::weights(&fields, None, &self.path(folder), &|_| {}).unwrap();
    }

    pub fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.folder.path()).unwrap().join(name)
    }

    pub fn tokens(&self, name: &str) -> TokenPaths {
        TokenPaths {
            bin: self.path(&format!("{name}.bin")),
            idx: self.path(&format!("{name}.idx")),
            mask: None,
        }
    }

    pub fn documents(&self, name: &str) -> Utf8PathBuf {
        self.path(&format!("{name}.jsonl"))
    }

    /// The files below a folder, by name.
    pub fn files(&self, name: &str) -> Files {
        let root = self.path(name);
        let mut files = Files::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir_utf8().unwrap() {
                let path = entry.unwrap().into_path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.insert(path.strip_prefix(&root).unwrap().to_string(), path);
                }
            }
        }
        files
    }

    /// The bytes of all files below a folder.
    pub fn bytes(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        self.files(name)
            .into_iter()
            .map(|(name, path)| (name, std::fs::read(path).unwrap()))
            .collect()
    }

    pub fn out(&self, name: &str) -> Utf8PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub fn start(&self) -> NodeFiles {
        NodeFiles {
            key: "start".to_owned(),
            files: self.files("start"),
        }
    }

    /// The output of node `name` as an input; without files if there are none yet.
    pub fn after(&self, name: &str) -> NodeFiles {
        let files = if self.path(name).join("state.json").exists() {
            self.files(name)
        } else {
            Files::new()
        };
        NodeFiles {
            key: name.to_owned(),
            files,
        }
    }

    pub fn job(&self, name: &str, steps: std::ops::Range<u64>, start: NodeFiles) -> TrainJob {
        let optimizer_state = if steps.start == 0 {
            OptimizerState::Reset
        } else {
            OptimizerState::Keep
        };
        TrainJob {
            node: name.to_owned(),
            key: name.to_owned(),
            fields: TrainFields {
                model: model(),
                numerics: Numerics {
                    contract: Contract::Invariant,
                    tensor: 2,
                    lanes: 4,
                    micro_batch: 2,
                },
                precision: Precision::F32,
                optimizer: AdamW {
                    beta1: "0.9".parse().unwrap(),
                    beta2: "0.95".parse().unwrap(),
                    epsilon: "1e-8".parse().unwrap(),
                    weight_decay: "0.1".parse().unwrap(),
                    clip: Some("1".parse().unwrap()),
                },
                optimizer_state: OptimizerState::Reset,
                schedule: vec![SchedulePiece::Constant {
                    from: 0,
                    rate: "3e-3".parse().unwrap(),
                }],
                last_step: steps.end,
                global_batch: 12,
                sequence: 16,
            },
            first_step: steps.start,
            optimizer_state,
            start,
            order: OrderFields {
                seed: 3,
                sequence: 16,
                components: [("x", 700_000), ("y", 300_000)]
                    .map(|(name, weight_ppm)| OrderComponent {
                        name: name.to_owned(),
                        weight_ppm,
                        until_ppm: None,
                    })
                    .to_vec(),
                samples: None,
            },
            tokens: vec![vec![self.tokens("a")], vec![self.tokens("b"), self.tokens("c")]],
            layout: Layout::one(2, Recompute::None),
            out: self.out(name),
        }
    }

    pub fn eval(&self, name: &str, checkpoint: NodeFiles, threads: u32) -> EvalJob {
        let set = |files: &[&str]| EvalSetPaths {
            files: files.iter().map(|name| self.tokens(name)).collect(),
            documents: files.iter().map(|name| self.documents(name)).collect(),
            bytes: 5000,
            end_of_document: 0,
        };
        EvalJob {
            node: name.to_owned(),
            key: name.to_owned(),
            fields: EvalFields {
                model: model(),
                numerics: Numerics {
                    contract: Contract::Invariant,
                    tensor: 2,
                    lanes: 4,
                    micro_batch: 2,
                },
                precision: Precision::F32,
                window: 16,
                sets: ["one", "two"].map(|name| EvalSet { name: name.to_owned() }).to_vec(),
                task: None,
            },
            checkpoint,
            sets: vec![set(&["a"]), set(&["b", "c"])],
            task: None,
            layout: Layout::one(threads, Recompute::None),
            out: self.out(name),
        }
    }

    pub fn train(&self, job: TrainJob) -> Vec<(String, Vec<u8>)> {
        let mut worker = Worker::start();
        let name = job.node.clone();
        worker.send(&WorkerCommand::Train(Box::new(job)));
        worker.finish(&name);
        self.bytes(&name)
    }

    pub fn step_log(&self, name: &str) -> Vec<StepLogLine> {
        let text = std::fs::read_to_string(self.path(name).join("trail.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
