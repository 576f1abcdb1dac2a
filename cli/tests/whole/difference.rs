//! Pairs of specs: `aurora diff` reports exactly the changed values, and exactly the nodes that depend on them.

use std::collections::{BTreeMap, BTreeSet};

use crate::project::{Project, SPEC};

/// Replacements of text that occurs once in `SPEC`.
type Edits = &'static [(&'static str, &'static str)];

struct Pair {
    edits: Edits,
    /// Paths of the values that differ; one that ends with `*` matches all with this prefix.
    changed: &'static [&'static str],
    /// Nodes whose own fields or inputs differ; their descendants rerun too.
    roots: &'static [&'static str],
}

const fn pair(edits: Edits, changed: &'static [&'static str], roots: &'static [&'static str]) -> Pair {
    Pair { edits, changed, roots }
}

const CAP_OPTIMIZER: &str = "learning_rate = constant(rate = 3e-3, warmup = 4 steps)\n  optimizer     = adamw(beta1 = 0.9, beta2 = 0.95, weight_decay = 0.1, clip = 1.0)";
const CAT_OPTIMIZER: &str =
    "warmup = 2 steps)\n  optimizer     = adamw(beta1 = 0.9, beta2 = 0.95, weight_decay = 0.1, clip = 1.0)";
const GATE: &str = "expect learned { cap.heldout.bits_per_byte.en < tiny.heldout.bits_per_byte.en }";
const MODEL: &[&str] = &["weights/tiny", "cap@*", "cat@*", "eval/*"];

#[rustfmt::skip]
const PAIRS: &[Pair] = &[
    // Comments and order: no node.
    pair(&[("experiment small {", "// a comment\nexperiment small {")], &[], &[]),
    pair(&[("  seed     = 7\n", ""), ("micro_batch = 2 sequences)\n", "micro_batch = 2 sequences)\n  seed = 7\n")], &[], &[]),
    pair(&[("heads        = 4", "heads        = 4\n  kv_heads     = 1")], &[], &[]),
    pair(&[("hidden       = 32", "hidden       = 32 @assumed(\"small\")")], &["model.tiny.hidden"], &[]),
    pair(&[(GATE, "expect learned { cap.heldout.bits_per_byte.en < tiny.heldout.bits_per_byte.en }\nlayout here { machine = cpu }")], &["layout.here.*"], &[]),
    pair(&[("en from [en] weight 50%", "en from [en] weight 50% max_epochs 900")], &["mixture.cap.en.max_epochs"], &[]),
    pair(&[("budget        = 16 steps", "budget        = 4096 tokens")], &["stage.cap.budget"], &[]),
    pair(&[("std = 0.02", "std = 2e-2")], &[], &[]),
    // The experiment.
    pair(&[("seed     = 7", "seed     = 8")], &["experiment.small.seed"], &["weights/tiny", "order/*"]),
    pair(&[("lanes = 2", "lanes = 4")], &["experiment.small.numerics.lanes"], &["cap@*", "cat@*", "eval/*"]),
    pair(&[("tensor = 2", "tensor = 1")], &["experiment.small.numerics.tensor"], &["cap@*", "cat@*", "eval/*"]),
    pair(&[("micro_batch = 2", "micro_batch = 1")], &["experiment.small.numerics.micro_batch"], &["cap@*", "cat@*", "eval/*"]),
    pair(&[("invariant(", "portable(")], &["experiment.small.numerics"], &["cap@*", "cat@*", "eval/*"]),
    pair(&[("seed     = 7", "seed     = 7\n  precision = bf16")], &["experiment.small.precision"], &["cap@*", "cat@*", "eval/*"]),
    pair(&[("experiment small {", "experiment other {")], &["experiment"], &["report"]),
    // Data. A source is identified by its content.
    pair(&[("file:data/english.txt", "file:data/program.py")], &["source.english.from"], &["extract/en/english"]),
    pair(&[("file:data/program.py", "file:data/finnish.txt")], &["source.program.from"], &["extract/py/program"]),
    pair(&[("  held_out = 10%\n}\ncorpus fi", "  held_out = 20%\n}\ncorpus fi")], &["corpus.en.held_out"], &["filter/en"]),
    pair(&[("  held_out = 10%\n}\ncorpus py", "  held_out = 5%\n}\ncorpus py")], &["corpus.fi.held_out"], &["filter/fi"]),
    pair(&[("text(english, by_line = true)", "text(english, by_line = false)")], &["corpus.en.from.0.by_line"], &["extract/en/english"]),
    pair(&[("text(finnish, by_line = true)", "text(finnish)")], &["corpus.fi.from.0.by_line"], &["extract/fi/finnish"]),
    pair(&[("language = code", "language = other")], &["corpus.py.language"], &[]),
    // Tokens.
    pair(&[("vocabulary = 512", "vocabulary = 600"), ("vocabulary   = 512", "vocabulary   = 600")], &["tokenizer.bpe.kind.vocabulary", "model.tiny.vocabulary"], &["tokenizer/bpe", "weights/tiny", "cap@*", "cat@*", "eval/*"]),
    pair(&[("corpora = [en, fi, py]", "corpora = [en, fi]")], &["tokenizer.bpe.corpora"], &["tokenizer/bpe"]),
    // The model.
    pair(&[("layers       = 2", "layers       = 4")], &["model.tiny.layers"], MODEL),
    pair(&[("hidden       = 32", "hidden       = 64")], &["model.tiny.hidden", "model.tiny.feed_forward"], MODEL),
    pair(&[("heads        = 4", "heads        = 2")], &["model.tiny.heads"], MODEL),
    pair(&[("context      = 32 tokens", "context      = 64 tokens")], &["model.tiny.context"], MODEL),
    pair(&[("heads        = 4", "heads        = 4\n  norm_epsilon = 1e-6")], &["model.tiny.norm_epsilon"], MODEL),
    pair(&[("std = 0.02", "std = 0.01")], &["model.tiny.weights.std"], &["weights/tiny"]),
    // Mixtures.
    pair(&[("en from [en] weight 50%", "en from [en] weight 40%"), ("fi from [fi] weight 30%", "fi from [fi] weight 40%")], &["mixture.cap.en.weight", "mixture.cap.fi.weight"], &["order/cap"]),
    pair(&[("en from [en] weight 40%", "en from [en] weight 30%"), ("fi from [fi] weight 60%", "fi from [fi] weight 70%")], &["mixture.cat.en.weight", "mixture.cat.fi.weight"], &["order/cat"]),
    pair(&[("en from [en] weight 50%", "en from [en] weight 70%"), ("  py from [py] weight 20%\n", "")], &["mixture.cap.en.weight", "mixture.cap.py*"], &["order/cap"]),
    pair(&[("en from [en] weight 40%", "en from [en] weight 20%\n  py from [py] weight 20%")], &["mixture.cat.en.weight", "mixture.cat.py*"], &["order/cat"]),
    pair(&[("py from [py] weight 20%", "py from [en] weight 20%")], &["mixture.cap.py.from"], &["order/cap"]),
    // The first stage.
    pair(&[("budget        = 16 steps", "budget        = 24 steps")], &["stage.cap.budget"], &["cap@24", "cat@8"]),
    pair(&[("budget        = 16 steps", "budget        = 8 steps")], &["stage.cap.budget"], &["cat@8", "expect/learned"]),
    pair(&[("  checkpoint    = every 8 steps\n}\nstage cat", "  checkpoint    = every 4 steps\n}\nstage cat")], &["stage.cap.checkpoint"], &["cap@4", "cap@12", "report"]),
    pair(&[("budget        = 16 steps\n  mixture       = cap\n  sequence      = 32 tokens\n  global_batch  = 8 sequences", "budget        = 16 steps\n  mixture       = cap\n  sequence      = 32 tokens\n  global_batch  = 16 sequences")], &["stage.cap.global_batch"], &["cap@*"]),
    pair(&[("mixture       = cap\n  sequence      = 32 tokens", "mixture       = cap\n  sequence      = 16 tokens")], &["stage.cap.sequence"], &["order/cap", "cap@*", "eval/heldout/tiny", "eval/heldout/cap@*"]),
    pair(&[("rate = 3e-3", "rate = 1e-3")], &["stage.cap.learning_rate.rate"], &["cap@*"]),
    pair(&[("warmup = 4 steps", "warmup = 2 steps")], &["stage.cap.learning_rate.warmup"], &["cap@*"]),
    pair(&[("constant(rate = 3e-3, warmup = 4 steps)", "linear(peak = 3e-3, floor = 3e-4, warmup = 4 steps)")], &["stage.cap.learning_rate.*"], &["cap@*"]),
    pair(&[(CAP_OPTIMIZER, "learning_rate = constant(rate = 3e-3, warmup = 4 steps)\n  optimizer     = adamw(beta1 = 0.9, beta2 = 0.99, weight_decay = 0.1, clip = 1.0)")], &["stage.cap.optimizer.beta2"], &["cap@*"]),
    pair(&[(CAP_OPTIMIZER, "learning_rate = constant(rate = 3e-3, warmup = 4 steps)\n  optimizer     = adamw(beta1 = 0.9, beta2 = 0.95, weight_decay = 0.01, clip = 1.0)")], &["stage.cap.optimizer.weight_decay"], &["cap@*"]),
    pair(&[(CAP_OPTIMIZER, "learning_rate = constant(rate = 3e-3, warmup = 4 steps)\n  optimizer     = adamw(beta1 = 0.9, beta2 = 0.95, weight_decay = 0.1, clip = 0.5)")], &["stage.cap.optimizer.clip"], &["cap@*"]),
    // The second.
    pair(&[("budget        = 8 steps", "budget        = 16 steps\n  checkpoint = every 8 steps")], &["stage.cat.budget", "stage.cat.checkpoint"], &["cat@8", "cat@16"]),
    pair(&[("peak = 1e-3", "peak = 2e-3")], &["stage.cat.learning_rate.peak"], &["cat@8"]),
    pair(&[("floor = 1e-4", "floor = 1e-5")], &["stage.cat.learning_rate.floor"], &["cat@8"]),
    pair(&[("warmup = 2 steps", "warmup = 3 steps")], &["stage.cat.learning_rate.warmup"], &["cat@8"]),
    pair(&[(CAT_OPTIMIZER, "warmup = 2 steps)\n  optimizer     = adamw(beta1 = 0.8, beta2 = 0.95, weight_decay = 0.1, clip = 1.0)")], &["stage.cat.optimizer.beta1"], &["cat@8"]),
    pair(&[("start         = cap", "start         = tiny")], &["stage.cat.start", "stage.cat.optimizer_state"], &["cat@8"]),
    pair(&[("budget        = 8 steps\n  mixture       = cat", "budget        = 8 steps\n  mixture       = cap")], &["stage.cat.mixture"], &["cat@8"]),
    pair(&[("start         = cap", "start         = cap\n  optimizer_state = reset")], &["stage.cat.optimizer_state"], &["cat@8"]),
    // Evals and gates.
    pair(&[("data = [en, fi]", "data = [en]")], &["eval.heldout.data"], &["eval/*"]),
    pair(&[("at   = [start, every 8 steps, end]", "at   = [end]")], &["eval.heldout.at"], &["report"]),
    pair(&[("data = [en, fi]", "data = [en, fi]\n  window = 16 tokens")], &["eval.heldout.window"], &["eval/*"]),
    pair(&[("at   = [start, every 8 steps, end]", "at   = [start, end]")], &["eval.heldout.at"], &["report"]),
    pair(&[("data = [en, fi]", "data = [en, fi]\n  stages = [cap]")], &["eval.heldout.stages"], &["report"]),
    pair(&[("eval heldout {", "eval again {\n  kind = perplexity\n  data = [fi]\n  at = [end]\n}\neval heldout {")], &["eval.again.*"], &["eval/again/*", "report"]),
    pair(&[("bits_per_byte.en < tiny", "bits_per_byte.en <= tiny")], &["expect.learned"], &["expect/learned"]),
    pair(&[("tiny.heldout.bits_per_byte.en }", "tiny.heldout.bits_per_byte.en * 1.05 }")], &["expect.learned"], &["expect/learned"]),
    pair(&[("cap.heldout.bits_per_byte.en", "cat.heldout.bits_per_byte.en")], &["expect.learned"], &["expect/learned"]),
    pair(&[("tiny.heldout.bits_per_byte.en }", "tiny.heldout.bits_per_byte.en with 90% confidence }")], &["expect.learned"], &["expect/learned"]),
    pair(&[("cap.heldout.bits_per_byte.en < tiny.heldout.bits_per_byte.en", "trend(cap.heldout.bits_per_byte.en) < 0")], &["expect.learned"], &["expect/learned"]),
    pair(&[("cap.heldout.bits_per_byte.en < tiny.heldout.bits_per_byte.en", "gap(cap.heldout.bits_per_byte.en, cap.heldout.bits_per_byte.fi) < 9")], &["expect.learned"], &["expect/learned"]),
    pair(&[(GATE, "")], &["expect.learned*"], &["report"]),
];

/// The roots and their descendants.
fn descendants(project: &Project, roots: &[&str]) -> BTreeSet<String> {
    let is_root = |name: &str| {
        roots.iter().any(|root| match root.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => name == *root,
        })
    };
    let nodes = project.nodes();
    for root in roots {
        assert!(nodes.keys().any(|name| is_root(name)), "{root} is a node");
    }
    let inputs: BTreeMap<&str, Vec<&str>> = nodes
        .iter()
        .map(|(name, node)| {
            let inputs = node["inputs"].as_array().expect("inputs");
            (
                name.as_str(),
                inputs.iter().filter_map(|input| input.as_str()).collect(),
            )
        })
        .collect();
    let mut found: BTreeSet<String> = BTreeSet::new();
    // Until nothing is added: the longest path in the graph is short.
    loop {
        let before = found.len();
        for (name, inputs) in &inputs {
            if is_root(name) || inputs.iter().any(|input| found.contains(*input)) {
                found.insert((*name).to_owned());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

fn strings(value: &serde_json::Value) -> BTreeSet<String> {
    let list = value.as_array().expect("a list");
    list.iter().filter_map(|item| Some(item.as_str()?.to_owned())).collect()
}

#[test]
fn diff_reports_exactly_what_an_edit_changes() {
    assert!(PAIRS.len() >= 60);
    let project = Project::new();
    project.write("specs/before.aur", SPEC);
    let before: BTreeSet<String> = project.nodes().into_keys().collect();
    let mut wrong = Vec::new();
    for Pair { edits, changed, roots } in PAIRS {
        project.write("specs/small.aur", SPEC);
        for (old, new) in *edits {
            project.edit(old, new);
        }
        let done = project.aurora(&["diff", "specs/before.aur", "specs/small.aur", "--json"]);
        let nothing = changed.is_empty() && roots.is_empty();
        if done.0.status.code() != Some(i32::from(!nothing)) {
            wrong.push(format!("{edits:?}: {} {}", done.out(), done.err()));
            continue;
        }
        let found = done.json();
        if found["changed"].is_null() {
            wrong.push(format!("{edits:?}: {found}"));
            continue;
        }
        let paths: BTreeSet<String> = found["changed"]
            .as_array()
            .expect("changes")
            .iter()
            .filter_map(|value| Some(value["path"].as_str()?.to_owned()))
            .collect();
        let matches = |path: &str, pattern: &str| match pattern.strip_suffix('*') {
            Some(begin) => path.starts_with(begin),
            None => path == pattern,
        };
        let all_named = changed
            .iter()
            .all(|pattern| paths.iter().any(|path| matches(path, pattern)));
        let no_other = paths
            .iter()
            .all(|path| changed.iter().any(|pattern| matches(path, pattern)));
        if !all_named || !no_other {
            wrong.push(format!("{edits:?}: expected {changed:?}, found {paths:?}"));
        }
        let expected = descendants(&project, roots);
        let after: BTreeSet<String> = project.nodes().into_keys().collect();
        let nodes = &found["nodes"];
        for (what, expected, found) in [
            ("rerun", &expected, strings(&nodes["rerun"])),
            (
                "reused",
                &after.difference(&expected).cloned().collect(),
                strings(&nodes["reused"]),
            ),
            (
                "removed",
                &before.difference(&after).cloned().collect(),
                strings(&nodes["removed"]),
            ),
        ] {
            if *expected != found {
                let missing: Vec<_> = expected.difference(&found).collect();
                let more: Vec<_> = found.difference(expected).collect();
                wrong.push(format!("{edits:?}: {what} lacks {missing:?} and has {more:?}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        PAIRS.len(),
        wrong.join("\n")
    );
}

#[test]
fn nodes_that_the_plan_calls_unchanged_are_not_executed() {
    let project = Project::new();
    project.run();
    for Pair { edits, .. } in PAIRS.iter().step_by(6) {
        project.write("specs/small.aur", SPEC);
        for (old, new) in *edits {
            project.edit(old, new);
        }
        let nodes = project.nodes();
        let planned: BTreeSet<String> = nodes
            .iter()
            .filter(|(_, node)| node["state"] != "cached")
            .map(|(name, _)| name.clone())
            .collect();
        let done = project.aurora(&["run", "specs/small.aur", "--progress", "none", "--json"]);
        let document = done.json();
        let executed: BTreeSet<String> = strings(&document["built"])
            .union(&strings(&document["reused"]))
            .cloned()
            .collect();
        assert_eq!(executed, planned, "{edits:?}");
    }
}

#[test]
fn locks_and_runs_are_compared() {
    let project = Project::new();
    project.run();
    let status = project.aurora(&["status", "--json"]).json();
    let first = status["runs"][0]["run"]["id"].as_str().expect("a run").to_owned();
    project
        .aurora(&["diff", &first, "lockfiles/small.lock"])
        .prints("no difference");
    project
        .aurora(&["diff", &first, "specs/small.aur"])
        .prints("no difference");
    project.edit("peak = 1e-3", "peak = 2e-3");
    let done = project.aurora(&["diff", &first, "specs/small.aur"]);
    done.exits(1);
    done.prints("reruns  cat@8: its key differs");
    project.run();
    let done = project.aurora(&["diff", &first, "lockfiles/small.lock"]);
    done.exits(1);
    // The store has the fields of both.
    done.prints("reruns  cat@8: stage.cat.learning_rate.peak: 1e-3 → 2e-3");
    let old = project.read("lockfiles/small.lock");
    let text = project.read("data/english.txt");
    project.write("data/english.txt", &format!("One more line.\n{text}"));
    project.aurora(&["lock", "specs/small.aur"]).exits(0);
    project.write("before.lock", &old);
    let done = project.aurora(&["diff", "before.lock", "lockfiles/small.lock"]);
    done.prints("source.english: ");
    done.prints("reruns  source/english");
    project
        .aurora(&["diff", "nothing", "specs/small.aur"])
        .prints("neither a file nor a run");
}

#[test]
fn a_review_reads_markdown() {
    let project = Project::new();
    project.write("specs/before.aur", SPEC);
    project.edit("peak = 1e-3", "peak = 2e-3 @assumed(\"a | guess\")");
    project.edit(
        "budget        = 8 steps",
        "budget        = 16 steps\n  checkpoint = every 8 steps",
    );
    let done = project.aurora(&["diff", "specs/before.aur", "specs/small.aur", "--format", "markdown"]);
    done.exits(1);
    done.prints("| `stage.cat.budget` | `8 steps` | `16 steps` |");
    done.prints("| `stage.cat.learning_rate.peak` | – | assumed: a \\| guess |");
    done.prints("<details><summary>nodes that rerun: ");
    done.prints("to train: 4,096 tokens");
    let shared = project.aurora(&["diff", "specs/before.aur", "specs/before.aur", "--format", "markdown"]);
    shared.exits(0);
    shared.prints("**no difference**");
}
