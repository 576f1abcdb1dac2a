//! `aurora data at`, `data where` and `path`: compared with what the workers of interrupted runs have read.
//!
//! The judge of every expected value is in this file: it reads the token files and the documents itself, and the log of the
//! workers, which has the tokens of every sample.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs::File;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::layouts::signal;
use crate::project::Project;
use crate::slurm::until as eventually;

/// Random numbers: a case is repeated by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_F42D_4C95_7F2D)
            .wrapping_add(0x1405_7B7E_F767_814F);
        (self.0 >> 33) % bound
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// The stages: their samples, steps, and checkpoints.
#[derive(Clone, Copy, Debug)]
struct Shape {
    name: &'static str,
    sequence: u64,
    batch: u64,
    steps: u64,
    every: u64,
}

const CORPORA: [(&str, &[&str]); 3] = [("en", &["english", "more"]), ("fi", &["finnish"]), ("py", &["program"])];

/// The corpora of the components of both stages.
const COMPONENTS: [(&str, &str, &[&str]); 4] = [
    ("cap", "en", &["en"]),
    ("cap", "mixed", &["fi", "py"]),
    ("cat", "all", &["py", "en"]),
    ("cat", "fi", &["fi"]),
];

/// A spec of two stages with random mixtures, ramps, batches, sequences, intervals and caps.
fn spec(random: &mut Random, cap: u64) -> (String, [Shape; 2]) {
    let shapes = ["cap", "cat"].map(|name| Shape {
        name,
        sequence: random.of(&[5, 8, 17, 32]),
        batch: random.of(&[4, 8, 12]),
        steps: 9 + random.below(14),
        every: 2 + random.below(7),
    });
    let mut text = format!(
        "experiment small {{\n  seed = {}\n  numerics = invariant(tensor = 2, lanes = 2, micro_batch = 2 sequences)\n}}\n",
        random.below(1000)
    );
    for source in ["english", "more", "finnish"] {
        let licence = if source == "more" {
            "\n  licence = \"CC0-1.0\""
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "source {source} {{\n  from = \"file:data/{source}.txt\"{licence}\n}}"
        );
    }
    text += "source program { from = \"file:data/program.py\" }\n";
    for (corpus, sources) in CORPORA {
        let read = |source: &&str| match *source {
            "program" => "code(program)".to_owned(),
            source => format!("text({source}, by_line = true)"),
        };
        let from: Vec<String> = sources.iter().map(read).collect();
        let language = if corpus == "py" { "code" } else { corpus };
        let held_out = if corpus == "py" { "" } else { "\n  held_out = 10%" };
        let _ = writeln!(
            text,
            "corpus {corpus} {{\n  language = {language}\n  from = [{}]{held_out}\n}}",
            from.join(", ")
        );
    }
    text += "tokenizer bpe {\n  kind = train_bpe(vocabulary = 400)\n  corpora = [en, fi, py]\n}\n";
    text += "model tiny {\n  architecture = gpt_bigcode\n  layers = 1\n  hidden = 16\n  heads = 2\n  context = 32 tokens\n  \
             vocabulary = 400\n  tokenizer = bpe\n  weights = random(std = 0.02)\n}\n";
    for shape in shapes {
        let (start, end) = (1 + random.below(99), 1 + random.below(99));
        let ramp = random.below(2) == 0;
        let weight = |start: u64, end: u64| match ramp {
            true => format!("ramp(start = {start}%, end = {end}%)"),
            false => format!("{start}%"),
        };
        let _ = writeln!(text, "mixture {} {{", shape.name);
        let weights = [weight(start, end), weight(100 - start, 100 - end)];
        let components = COMPONENTS.iter().filter(|(stage, _, _)| *stage == shape.name);
        for ((_, component, corpora), weight) in components.zip(weights) {
            let corpora = corpora.join(", ");
            let _ = writeln!(text, "  {component} from [{corpora}] weight {weight} max_epochs {cap}");
        }
        let before = if shape.name == "cap" { "tiny" } else { "cap" };
        let _ = writeln!(
            text,
            "}}\nstage {name} {{\n  start = {before}\n  budget = {steps} steps\n  mixture = {name}\n  sequence = {sequence} tokens\n  \
             global_batch = {batch} sequences\n  learning_rate = constant(rate = 1e-3)\n  \
             optimizer = adamw(beta1 = 0.9, beta2 = 0.95, weight_decay = 0.1, clip = 1.0)\n  checkpoint = every {every} steps\n}}",
            name = shape.name,
            steps = shape.steps,
            sequence = shape.sequence,
            batch = shape.batch,
            every = shape.every,
        );
    }
    (text, shapes)
}

/// Runs the spec with the log of the workers. Ends it by a signal when the log has `until` lines, if it lasts that long.
fn run(project: &Project, until: Option<(usize, &str)>, more: &[&str]) -> (Option<i32>, String) {
    let log = project.path("batches.jsonl");
    let errors = project.path("errors.txt");
    let mut command = project.command(&["run", "specs/small.aur", "--progress", "none"]);
    command.args(more).env("AURORA_TEST_BATCHES", &log);
    command
        .stdout(Stdio::null())
        .stderr(File::create(&errors).expect("a file"));
    let mut child = command.spawn().expect("the binary starts");
    if let Some((lines, how)) = until {
        let logged = || std::fs::read(&log).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count());
        eventually(|| logged() >= lines || child.try_wait().expect("a child").is_some());
        // It may have ended by itself.
        if child.try_wait().expect("a child").is_none() {
            signal(child.id(), how);
        }
    }
    let status = child.wait().expect("the run ends");
    (status.code(), std::fs::read_to_string(errors).expect("text"))
}

/// A corpus, read without Aurora.
struct Corpus {
    ids: Vec<String>,
    /// By document, its first token, and the end of the last.
    starts: Vec<usize>,
    tokens: Vec<i64>,
}

fn paths(project: &Project, node: &str) -> BTreeMap<String, String> {
    let done = project.aurora(&["path", node, "specs/small.aur", "--json"]);
    done.exits(0);
    let document = done.json();
    let files = document["files"].as_array().expect("files");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    files
        .iter()
        .map(|file| (text(&file["name"]), text(&file["path"])))
        .collect()
}

impl Corpus {
    fn read(project: &Project, corpus: &str) -> Self {
        let tokens = paths(project, &format!("tokens/bpe/{corpus}"));
        let idx = std::fs::read(&tokens["tokens.idx"]).expect("an index");
        let word = |at: usize| u64::from_le_bytes(idx[at..at + 8].try_into().expect("8 bytes")) as usize;
        let (count, element) = (word(18), idx[17]);
        assert_eq!(
            (word(26), element),
            (count + 1, 8),
            "one sequence for each document, in two bytes a token"
        );
        let mut starts = vec![0];
        for document in 0..count {
            let at = 34 + 4 * document;
            let length = u32::from_le_bytes(idx[at..at + 4].try_into().expect("4 bytes")) as usize;
            starts.push(starts[document] + length);
        }
        let bin = std::fs::read(&tokens["tokens.bin"]).expect("tokens");
        let tokens = bin
            .chunks(2)
            .map(|pair| i64::from(u16::from_le_bytes([pair[0], pair[1]])))
            .collect();
        let filter = paths(project, &format!("filter/{corpus}"));
        let lines = std::fs::read_to_string(&filter["train.jsonl"]).expect("documents");
        let id = |line: &str| {
            serde_json::from_str::<Value>(line).expect("JSON")["id"]
                .as_str()
                .expect("an id")
                .to_owned()
        };
        let ids: Vec<String> = lines.lines().map(id).collect();
        assert_eq!(ids.len(), count);
        Self { ids, starts, tokens }
    }

    fn document_of(&self, token: usize) -> usize {
        self.starts
            .iter()
            .rposition(|start| *start <= token)
            .expect("the first one starts at 0")
    }
}

fn source_of(id: &str) -> &str {
    id.split('.').next().expect("a name")
}

/// A sample that a worker has trained on.
#[derive(Clone, Debug, PartialEq)]
struct Logged {
    component: String,
    epoch: u64,
    start: usize,
    tokens: Vec<i64>,
}

type Log = BTreeMap<(String, u64, u64), Logged>;

/// The samples by stage, step and place in the batch. Steps that a run repeats have the same samples.
fn log(project: &Project) -> Log {
    let mut all = Log::new();
    for line in project.read("batches.jsonl").lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let number = |name: &str| line[name].as_u64().expect("a number");
        let text = |name: &str| line[name].as_str().expect("text").to_owned();
        let stage = text("node").split('@').next().expect("a stage").to_owned();
        let sample = Logged {
            component: text("component"),
            epoch: number("epoch"),
            start: number("start") as usize,
            tokens: serde_json::from_value(line["tokens"].clone()).expect("tokens"),
        };
        let place = (stage, number("step"), number("sample"));
        let before = all.insert(place.clone(), sample.clone());
        assert!(before.is_none_or(|before| before == sample), "{place:?}");
    }
    all
}

/// A part of a document in a sample.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    corpus: &'static str,
    document: usize,
    /// In the document.
    tokens: (usize, usize),
    /// In the sample.
    place: (usize, usize),
}

struct Judge {
    corpora: BTreeMap<&'static str, Corpus>,
    log: Log,
}

impl Judge {
    /// The documents of a logged sample, token by token.
    fn parts(&self, stage: &str, sample: &Logged) -> Vec<Part> {
        let (_, _, corpora) = COMPONENTS
            .iter()
            .find(|(of, name, _)| *of == stage && *name == sample.component)
            .expect("a component of the stage");
        let mut parts: Vec<Part> = Vec::new();
        for (place, token) in sample.tokens.iter().enumerate() {
            let mut at = sample.start + place;
            let mut corpora = corpora.iter();
            let (name, corpus) = loop {
                let name = *corpora.next().expect("the sample is in the corpora");
                let corpus = &self.corpora[name];
                if at < corpus.tokens.len() {
                    break (name, corpus);
                }
                at -= corpus.tokens.len();
            };
            assert_eq!(corpus.tokens[at], *token, "the workers read the files");
            let document = corpus.document_of(at);
            let within = at - corpus.starts[document];
            match parts.last_mut() {
                Some(last) if last.corpus == name && last.document == document => {
                    (last.tokens.1, last.place.1) = (within + 1, place + 1);
                }
                _ => parts.push(Part {
                    corpus: name,
                    document,
                    tokens: (within, within + 1),
                    place: (place, place + 1),
                }),
            }
        }
        parts
    }

    fn licence(source: &str) -> Value {
        if source == "more" {
            json!("CC0-1.0")
        } else {
            Value::Null
        }
    }

    /// What `data at` must print for a sample, without texts.
    fn expected_at(&self, shape: Shape, step: u64, index: u64) -> Value {
        let sample = &self.log[&(shape.name.to_owned(), step, index)];
        let document = |part: Part| {
            let corpus = &self.corpora[part.corpus];
            let id = &corpus.ids[part.document];
            json!({
                "id": id,
                "number": part.document,
                "corpus": part.corpus,
                "source": source_of(id),
                "licence": Self::licence(source_of(id)),
                "tokens": { "start": part.tokens.0, "end": part.tokens.1 },
                "document_tokens": corpus.starts[part.document + 1] - corpus.starts[part.document],
                "sample_tokens": { "start": part.place.0, "end": part.place.1 },
            })
        };
        json!({
            "format_version": "1.0",
            "stage": shape.name,
            "step": step,
            "sample": index,
            "position": (step - 1) * shape.batch + index,
            "component": sample.component,
            "index": sample.start as u64 / shape.sequence,
            "epoch": sample.epoch + 1,
            "documents": self.parts(shape.name, sample).into_iter().map(document).collect::<Vec<_>>(),
        })
    }

    /// The uses of the documents of a corpus that `wanted` selects, in a component of a stage.
    fn uses(&self, shape: Shape, component: &str, corpus: &str, wanted: &dyn Fn(usize) -> bool) -> Vec<Value> {
        let mut uses = Vec::new();
        for ((stage, step, index), sample) in &self.log {
            if stage != shape.name || sample.component != component {
                continue;
            }
            let parts = self.parts(stage, sample);
            if parts.iter().any(|part| part.corpus == corpus && wanted(part.document)) {
                let position = (step - 1) * shape.batch + index;
                uses.push(json!({ "step": step, "sample": index, "epoch": sample.epoch + 1, "position": position }));
            }
        }
        uses
    }
}

/// The checkpoints that contain step `step` of a stage.
fn checkpoints(shapes: &[Shape; 2], stage: &str, step: u64) -> Vec<String> {
    let mut found = Vec::new();
    for shape in shapes {
        let mut steps: Vec<u64> = (1..=shape.steps / shape.every).map(|n| n * shape.every).collect();
        if !shape.steps.is_multiple_of(shape.every) {
            steps.push(shape.steps);
        }
        if shape.name == stage {
            steps.retain(|at| *at >= step);
        } else if stage == "cat" {
            steps.clear();
        }
        found.extend(steps.iter().map(|at| format!("{}@{at}", shape.name)));
    }
    found
}

fn lines(project: &Project, arguments: &[&str]) -> Vec<Value> {
    let done = project.aurora(&[&["data"], arguments, &["--json"]].concat());
    done.exits(0);
    done.out()
        .lines()
        .map(|line| serde_json::from_str(line).expect("one object per line"))
        .collect()
}

/// The text of tokens, by the vocabulary alone: GPT-2's characters for bytes.
fn decode(tokenizer: &Value, tokens: &[i64]) -> String {
    let is_itself = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..256).filter(|byte| !is_itself(byte)).zip(256..);
    let bytes: BTreeMap<char, u8> = (0..256u32)
        .filter(is_itself)
        .map(|byte| (byte, byte))
        .chain(others)
        .map(|(byte, character)| (char::from_u32(character).expect("a character"), byte as u8))
        .collect();
    let vocabulary = tokenizer["model"]["vocab"].as_object().expect("a vocabulary");
    let entries: BTreeMap<i64, &str> = vocabulary
        .iter()
        .map(|(text, id)| (id.as_i64().expect("an id"), text.as_str()))
        .collect();
    let all: Vec<u8> = tokens
        .iter()
        .flat_map(|id| entries[id].chars().map(|character| bytes[&character]))
        .collect();
    String::from_utf8_lossy(&all).into_owned()
}

fn case(seed: u64) {
    let mut random = Random(seed);
    let project = Project::new();
    let more =
        (0..60).map(|n| format!("It is said that house number {n} of the village was not there when they came.\n"));
    project.write("data/more.txt", &more.collect::<String>());
    // Few documents, so that there are several epochs.
    for text in ["data/english.txt", "data/finnish.txt"] {
        let all = project.read(text);
        let some = all.lines().take(40).map(|line| format!("{line}\n"));
        project.write(text, &some.collect::<String>());
    }
    // The smallest cap that the stages keep to: the first runs with a smaller one are refused before a step.
    let mut cap = 1;
    let shapes = loop {
        let (text, shapes) = spec(&mut Random(seed), cap);
        project.write("specs/small.aur", &text);
        let total: u64 = shapes.iter().map(|shape| shape.steps * shape.batch).sum();
        let until = random.below(total) as usize + 1;
        let (code, errors) = run(&project, Some((until, "-TERM")), &[]);
        if errors.contains("`max_epochs` allows") {
            assert!(!project.path("batches.jsonl").exists(), "no step before the refusal");
            cap *= 2;
            continue;
        }
        assert!(matches!(code, Some(0 | 75)), "{errors}");
        break shapes;
    };
    println!("seed {seed}: cap {cap}, {shapes:?}");
    for how in ["-KILL", "-TERM"] {
        let done = project.read("batches.jsonl").lines().count();
        run(&project, Some((done + 1 + random.below(90) as usize, how)), &[]);
    }
    let layout = random.of(&["data=2", "tensor=2", "tensor=1"]);
    let (code, errors) = run(&project, None, &["--layout", layout]);
    assert_eq!(code, Some(0), "{errors}");

    let judge = Judge {
        corpora: CORPORA
            .map(|(corpus, _)| (corpus, Corpus::read(&project, corpus)))
            .into(),
        log: log(&project),
    };
    assert_eq!(
        judge.log.len() as u64,
        shapes.iter().map(|shape| shape.steps * shape.batch).sum::<u64>()
    );
    let lock = "lockfiles/small.lock";
    for shape in shapes {
        for step in 1..=shape.steps {
            let found = lines(
                &project,
                &["at", lock, "--stage", shape.name, "--step", &step.to_string()],
            );
            let expected: Vec<Value> = (0..shape.batch)
                .map(|index| judge.expected_at(shape, step, index))
                .collect();
            assert_eq!(found, expected, "seed {seed}, {shape:?}, step {step}");
        }
        texts(&project, &judge, shape, random.below(shape.batch));
    }
    // A run and the spec give the same as the lock.
    let run = std::fs::read_link(project.path(".aurora/runs/latest")).expect("a run");
    let of_lock = lines(&project, &["at", lock, "--stage", "cat", "--step", "2"]);
    for name in [run.to_str().expect("an id"), "specs/small.aur"] {
        assert_eq!(lines(&project, &["at", name, "--stage", "cat", "--step", "2"]), of_lock);
    }
    for (corpus, sources) in CORPORA {
        let ids = judge.corpora[corpus].ids.clone();
        for _ in 0..3 {
            let number = random.below(ids.len() as u64) as usize;
            located(
                &project,
                &judge,
                &shapes,
                corpus,
                "--document",
                &ids[number],
                &|document| document == number,
            );
        }
        for source in sources {
            located(&project, &judge, &shapes, corpus, "--source", source, &|document| {
                source_of(&ids[document]) == *source
            });
        }
    }
}

/// The text of a sample is that of the tokens that the workers read.
fn texts(project: &Project, judge: &Judge, shape: Shape, index: u64) {
    let file = &paths(project, "tokenizer/bpe")["tokenizer.json"];
    let tokenizer: Value = serde_json::from_str(&std::fs::read_to_string(file).expect("text")).expect("JSON");
    let sample = &judge.log[&(shape.name.to_owned(), shape.steps, index)];
    let (step, number) = (shape.steps.to_string(), index.to_string());
    let arguments = [
        "at",
        "lockfiles/small.lock",
        "--stage",
        shape.name,
        "--step",
        &step,
        "--sample",
        &number,
    ];
    let found = lines(project, &arguments);
    assert_eq!(found.len(), 1);
    let documents = found[0]["documents"].as_array().expect("documents");
    let parts = judge.parts(shape.name, sample);
    assert_eq!(documents.len(), parts.len());
    for (document, part) in documents.iter().zip(parts) {
        let text = decode(&tokenizer, &sample.tokens[part.place.0..part.place.1]);
        assert_eq!(document["text"], json!(text));
    }
}

/// `data where` of a document or a source gives the uses in the log.
fn located(
    project: &Project,
    judge: &Judge,
    shapes: &[Shape; 2],
    corpus: &str,
    kind: &str,
    name: &str,
    wanted: &dyn Fn(usize) -> bool,
) {
    let found = lines(project, &["where", "lockfiles/small.lock", kind, name, "--steps"]);
    let mut seen = BTreeSet::new();
    for line in &found {
        let (stage, component) = (
            line["stage"].as_str().expect("a stage"),
            line["component"].as_str().expect("one"),
        );
        let shape = *shapes.iter().find(|shape| shape.name == stage).expect("a stage");
        assert_eq!(line["corpus"], json!(corpus));
        let uses = judge.uses(shape, component, corpus, wanted);
        let steps: BTreeSet<u64> = uses.iter().map(|at| at["step"].as_u64().expect("a step")).collect();
        let place = format!("{kind} {name} in {component} of {shape:?}");
        if kind == "--document" {
            assert_eq!(line["uses"], json!(uses), "{place}");
        } else {
            assert_eq!(line["all_steps"], json!(steps), "{place}");
        }
        let ranges = line["steps"].as_array().expect("ranges").iter();
        let number = |range: &Value, end: &str| range[end].as_u64().expect("a step");
        let spelled: Vec<u64> = ranges
            .flat_map(|range| number(range, "first")..=number(range, "last"))
            .collect();
        assert_eq!(spelled, steps.iter().copied().collect::<Vec<_>>(), "{place}");
        let epochs = uses.iter().map(|at| at["epoch"].as_u64().expect("an epoch"));
        let epochs = epochs.clone().min().zip(epochs.max());
        let epochs = epochs.map(|(first, last)| json!({ "first": first, "last": last }));
        assert_eq!(line["epochs"], epochs.unwrap_or(Value::Null), "{place}");
        let expected = steps
            .first()
            .map(|step| checkpoints(shapes, stage, *step))
            .unwrap_or_default();
        assert_eq!(line["checkpoints"], json!(expected), "{place}");
        seen.insert((stage.to_owned(), component.to_owned()));
    }
    let with_corpus = COMPONENTS.iter().filter(|(_, _, corpora)| corpora.contains(&corpus));
    let expected = with_corpus.map(|(stage, component, _)| ((*stage).to_owned(), (*component).to_owned()));
    assert_eq!(seen, expected.collect());
    assert_eq!(seen.len(), found.len());
}

#[test]
fn at_and_where_agree_with_what_the_workers_read() {
    for seed in 1..=3 {
        case(seed);
    }
}

#[test]
fn errors_name_what_exists() {
    let project = Project::new();
    let at = |more: &[&str]| project.aurora(&[&["data", "at", "specs/small.aur"], more].concat());
    let not_built = at(&["--stage", "cap", "--step", "1"]);
    not_built.exits(1);
    not_built.prints("`order/cap` of `small` has not been built from the current spec");
    not_built.prints("= help: aurora run specs/small.aur");
    project.aurora(&["path", "filter/en"]).prints("has no lock");
    project.run();

    let refused = |more: &[&str], message: &str, help: &str| {
        let done = at(more);
        done.exits(1);
        done.prints(message);
        done.prints(help);
    };
    let stages = "`cap` (steps 1 to 16), `cat` (steps 1 to 8)";
    refused(
        &["--step", "3"],
        "`small` has 2 stages",
        &format!("name one with `--stage`: {stages}"),
    );
    refused(
        &["--step", "3", "--stage", "x"],
        "does not train a stage `x`",
        &format!("its stages: {stages}"),
    );
    for step in ["0", "17"] {
        refused(
            &["--step", step, "--stage", "cap"],
            &format!("stage `cap` does not have step {step}"),
            stages,
        );
    }
    refused(
        &["--step", "3", "--stage", "cap", "--sample", "8"],
        "a step of stage `cap` does not have sample 8",
        "its samples are 0 to 7",
    );
    at(&["--step", "16", "--stage", "cap"]).exits(0);

    let whereabouts = |more: &[&str], message: &str, help: &str| {
        let done = project.aurora(&[&["data", "where", "specs/small.aur"], more].concat());
        done.exits(1);
        done.prints(message);
        done.prints(help);
    };
    whereabouts(
        &["--document", "nothing"],
        "no stage of `small` trains on a document with the id `nothing`",
        "searched are the training documents of en, fi, py",
    );
    whereabouts(&["--source", "englihs"], "from a source `englihs`", "`english`");
    whereabouts(
        &["--source", "english", "--corpus", "xx"],
        "trains on a corpus `xx`",
        "the corpora that are trained on: en, fi, py",
    );
    whereabouts(
        &["--source", "english", "--corpus", "fi"],
        "of corpus `fi` from a source `english`",
        "en, fi, py",
    );
    whereabouts(
        &["--source", "english", "--stage", "x"],
        "does not train a stage `x`",
        stages,
    );
    let neither = project.aurora(&["data", "where", "specs/small.aur"]);
    neither.exits(2);
    project
        .aurora(&["data", "at", "ffff", "--step", "1"])
        .prints("is neither a file nor a run of this project");
    project
        .aurora(&["data", "at", "x.lock", "--step", "1"])
        .prints("there is no lock `x.lock`");

    // A lock whose spec has changed cannot be asked.
    project.edit("fi from [fi] weight 30%", "fi from [fi] weight 25%");
    project.edit("py from [py] weight 20%", "py from [py] weight 25%");
    let changed = project.aurora(&["data", "at", "lockfiles/small.lock", "--stage", "cap", "--step", "1"]);
    changed.exits(1);
    changed.prints("has changed since the lock was written");
    changed.prints("name the spec instead");
}

#[test]
fn the_files_of_a_result_are_printed() {
    let project = Project::new();
    project.run();
    let done = project.aurora(&["path", "tokens/bpe/en"]);
    done.exits(0);
    let out = done.out();
    let listed: Vec<&str> = out.lines().collect();
    assert_eq!(listed.len(), 4, "{out}");
    assert!(listed.iter().all(|path| std::path::Path::new(path).is_file()), "{out}");
    for arguments in [
        &["path", "small/tokens/bpe/en", "--file", "tokens.bin"][..],
        &["path", "tokens/bpe/en", "lockfiles/small.lock", "--file", "tokens.bin"],
    ] {
        let done = project.aurora(arguments);
        done.exits(0);
        let path = paths(&project, "tokens/bpe/en")["tokens.bin"].clone();
        assert_eq!(done.out().trim_end(), path);
    }
    assert!(
        paths(&project, "cap@16").contains_key("state.json"),
        "a result of one numerics class"
    );
    let refused = |arguments: &[&str], message: &str, help: &str| {
        let done = project.aurora(&[&["path"], arguments].concat());
        done.exits(1);
        done.prints(message);
        done.prints(help);
    };
    refused(
        &["tokens/bpe/em"],
        "there is no node `tokens/bpe/em`",
        "`tokens/bpe/en`",
    );
    refused(
        &["tokens/bpe/en", "--file", "x"],
        "the result of `tokens/bpe/en` has no file `x`",
        "its files: documents.idx, meta.json, tokens.bin, tokens.idx",
    );
    project.write("lockfiles/other.lock", &project.read("lockfiles/small.lock"));
    refused(
        &["filter/en"],
        "several locks: other.lock, small.lock",
        "name the spec or the lock after the node",
    );
    project.edit("seed     = 7", "seed     = 8");
    refused(
        &["order/cap", "specs/small.aur"],
        "`order/cap` of `small` has not been built",
        "aurora run specs/small.aur",
    );
}

/// `order.json` is what the book says.
#[test]
fn the_file_of_an_order_names_its_components() {
    let project = Project::new();
    project.run();
    let file = &paths(&project, "order/cap")["order.json"];
    let order: Value = serde_json::from_str(&std::fs::read_to_string(file).expect("text")).expect("JSON");
    assert_eq!(order["sequence"], 32);
    let components = order["components"].as_array().expect("components");
    let names: Vec<&str> = components
        .iter()
        .map(|component| component["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, ["en", "fi", "py"]);
    for (component, corpus) in components.iter().zip(names) {
        let read = Corpus::read(&project, corpus);
        let samples = (read.tokens.len() - 1) / 32;
        assert_eq!(
            *component,
            json!({
                "name": corpus,
                "documents": read.ids.len(),
                "tokens": read.tokens.len(),
                "samples": samples,
                "unread_tokens": read.tokens.len() - (samples * 32 + 1),
            })
        );
    }
}
