//! Branches of real git repositories, merged by Aurora's drivers.

use std::process::{Command, Output};

use crate::project::Project;

/// A project in a repository with the drivers.
struct Repository {
    project: Project,
}

impl Repository {
    fn new() -> Self {
        let repository = Self {
            project: Project::new(),
        };
        repository.git(&["init", "--quiet", "--initial-branch", "main"]);
        repository.project.write(".gitignore", ".aurora/\n");
        repository.project.aurora(&["git", "install"]).exits(0);
        repository.project.aurora(&["fmt", "specs/small.aur"]).exits(0);
        repository.commit("base");
        repository
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut git = Command::new("git");
        git.args([
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@example.org",
            "-c",
            "commit.gpgsign=false",
        ]);
        git.args(arguments).current_dir(self.project.root());
        git.output().expect("git starts")
    }

    #[track_caller]
    fn git(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    fn commit(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
    }

    /// Makes a branch `theirs` and a change on main, and merges them.
    fn merge(&self, ours: &dyn Fn(&Project), theirs: &dyn Fn(&Project)) -> Output {
        self.git(&["switch", "--quiet", "--create", "theirs"]);
        theirs(&self.project);
        self.commit("theirs");
        self.git(&["switch", "--quiet", "main"]);
        ours(&self.project);
        self.commit("ours");
        self.run(&["merge", "--no-edit", "theirs"])
    }
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Replacements of text that occurs once in the spec.
type Edits = &'static [(&'static str, &'static str)];

enum Ends {
    /// Merged; these lines are in the spec.
    With(&'static [&'static str]),
    /// Both sides changed these.
    Conflict(&'static [&'static str]),
    /// Merged to a spec with errors, which is reported.
    Wrong(&'static str),
}
use Ends::{Conflict, With, Wrong};

fn edit(project: &Project, edits: Edits) {
    for (old, new) in edits {
        project.edit(old, new);
    }
}

/// The changes of both sides to `SPEC`, and the result.
const CASES: &[(&str, Edits, Edits, Ends)] = &[
    (
        "two stages",
        &[("budget        = 16 steps", "budget        = 24 steps")],
        &[("peak = 1e-3", "peak = 2e-3")],
        With(&["budget        = 24 steps", "peak = 2e-3"]),
    ),
    (
        "neighbouring fields of one stage",
        &[("budget        = 16 steps", "budget        = 24 steps")],
        &[("start         = tiny", "start         = tiny // the first")],
        With(&["budget        = 24 steps", "start         = tiny // the first"]),
    ),
    (
        "one field, two values",
        &[("budget        = 16 steps", "budget        = 24 steps")],
        &[("budget        = 16 steps", "budget        = 32 steps")],
        Conflict(&["stage.cap.budget"]),
    ),
    (
        "one field, one value",
        &[("budget        = 16 steps", "budget        = 24 steps")],
        &[
            ("budget        = 16 steps", "budget        = 24 steps"),
            ("seed     = 7", "seed     = 8"),
        ],
        With(&["budget        = 24 steps", "seed     = 8"]),
    ),
    (
        "a gate and an eval at the end of the file",
        &[(
            "tiny.heldout.bits_per_byte.en }",
            "tiny.heldout.bits_per_byte.en }\n\nexpect more { cap.heldout.bits_per_byte.fi < tiny.heldout.bits_per_byte.fi }",
        )],
        &[(
            "expect learned",
            "eval again {\n  kind = perplexity\n  data = [en]\n  at   = [end]\n}\n\nexpect learned",
        )],
        With(&["expect more", "eval again {"]),
    ),
    (
        "the same block, added twice",
        &[(
            "expect learned",
            "eval again {\n  kind = perplexity\n  data = [en]\n  at   = [end]\n}\n\nexpect learned",
        )],
        &[
            (
                "expect learned",
                "eval again {\n  kind = perplexity\n  data = [en]\n  at   = [end]\n}\n\nexpect learned",
            ),
            ("layers       = 2", "layers       = 4"),
        ],
        With(&["eval again {", "layers       = 4"]),
    ),
    (
        "a block of one name with two contents",
        &[(
            "expect learned",
            "eval again {\n  kind = perplexity\n  data = [en]\n  at   = [end]\n}\n\nexpect learned",
        )],
        &[(
            "expect learned",
            "eval again {\n  kind = perplexity\n  data = [fi]\n  at   = [end]\n}\n\nexpect learned",
        )],
        Conflict(&["eval.again.data"]),
    ),
    (
        "a block removed, another changed",
        &[(
            "expect learned { cap.heldout.bits_per_byte.en < tiny.heldout.bits_per_byte.en }",
            "",
        )],
        &[("layers       = 2", "layers       = 4")],
        With(&["layers       = 4"]),
    ),
    (
        "a block removed here and changed there",
        &[(
            "expect learned { cap.heldout.bits_per_byte.en < tiny.heldout.bits_per_byte.en }",
            "",
        )],
        &[("cap.heldout.bits_per_byte.en <", "cat.heldout.bits_per_byte.en <")],
        Conflict(&["expect.learned"]),
    ),
    (
        "a field removed here and changed there",
        &[("  held_out = 10%\n}\n\ncorpus fi", "}\n\ncorpus fi")],
        &[("  held_out = 10%\n}\n\ncorpus fi", "  held_out = 20%\n}\n\ncorpus fi")],
        Conflict(&["corpus.en.held_out"]),
    ),
    (
        "a comment on one field, a value of the next",
        &[("  hidden       = 32", "  // narrow\n  hidden       = 32")],
        &[("layers       = 2", "layers       = 4")],
        With(&["// narrow", "layers       = 4"]),
    ),
    (
        "two comments on one field",
        &[("  hidden       = 32", "  // narrow\n  hidden       = 32")],
        &[("  hidden       = 32", "  // slim\n  hidden       = 32")],
        Conflict(&["model.tiny.hidden"]),
    ),
    (
        "layout here, a value there",
        &[("layers       = 2", "layers=2")],
        &[("layers       = 2", "layers       = 4")],
        With(&["layers       = 4"]),
    ),
    (
        "blocks in another order here, a value there",
        &[
            ("source program { from = \"file:data/program.py\" }\n", ""),
            (
                "source english",
                "source program { from = \"file:data/program.py\" }\nsource english",
            ),
        ],
        &[("layers       = 2", "layers       = 4")],
        With(&["layers       = 4", "source program"]),
    ),
    (
        "weights that are valid alone and wrong together",
        &[
            ("en from [en] weight 50%", "en from [en] weight 60%"),
            ("fi from [fi] weight 30%", "fi from [fi] weight 20%"),
        ],
        &[
            ("fi from [fi] weight 30%", "fi from [fi] weight 20%"),
            ("py from [py] weight 20%", "py from [py] weight 30%"),
        ],
        Wrong("110%"),
    ),
    (
        "a corpus removed here and used there",
        &[
            ("corpus py {\n  language = code\n  from     = [code(program)]\n}\n", ""),
            ("corpora = [en, fi, py]", "corpora = [en, fi]"),
            ("en from [en] weight 50%", "en from [en] weight 70%"),
            ("  py from [py] weight 20%\n", ""),
        ],
        &[(
            "en from [en] weight 40%",
            "en from [en] weight 30%\n  py from [py] weight 10%",
        )],
        Wrong("`py`"),
    ),
    (
        "a profile here, what it changes there",
        &[(
            "expect learned",
            "profile long { stage.cap.budget = 64 steps }\n\nexpect learned",
        )],
        &[("budget        = 16 steps", "budget        = 24 steps")],
        With(&["profile long", "budget        = 24 steps"]),
    ),
    (
        "fields added by both at one place",
        &[(
            "  checkpoint    = every 8 steps\n}\n\nstage cat",
            "  checkpoint    = every 8 steps\n  optimizer_state = reset\n}\n\nstage cat",
        )],
        &[(
            "  tokenizer    = bpe\n",
            "  tokenizer    = bpe\n  norm_epsilon = 1e-6\n",
        )],
        With(&["optimizer_state = reset", "norm_epsilon = 1e-6"]),
    ),
    (
        "a spec that cannot be read there",
        &[("seed     = 7", "seed     = 8")],
        &[("expect learned { cap", "expect learned cap")],
        With(&["seed     = 8", "expect learned cap"]),
    ),
    (
        "a model renamed here and changed there",
        &[
            ("model tiny {", "model base {"),
            ("start         = tiny", "start         = base"),
            ("< tiny.heldout", "< base.heldout"),
        ],
        &[("layers       = 2", "layers       = 4")],
        Conflict(&["model.tiny"]),
    ),
];

#[test]
fn specs_are_merged_by_their_meaning() {
    assert!(CASES.len() >= 20);
    for (name, ours, theirs, ends) in CASES {
        let repository = Repository::new();
        let output = repository.merge(&|project| edit(project, ours), &|project| edit(project, theirs));
        let (all, spec) = (text(&output), repository.project.read("specs/small.aur"));
        let status = repository.git(&["status", "--porcelain"]);
        match ends {
            With(lines) => {
                assert!(output.status.success(), "{name}: {all}");
                for line in *lines {
                    // The formatter may have changed the alignment.
                    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
                    assert!(words(&spec).contains(&words(line)), "{name}: {line}\n{spec}");
                }
                assert!(!spec.contains("<<<<<<<"), "{name}: {spec}");
            }
            Conflict(paths) => {
                assert!(!output.status.success(), "{name}: {all}");
                for path in *paths {
                    assert!(all.contains(&format!("both sides changed {path}\n")), "{name}: {all}");
                }
                assert_eq!(spec.matches("<<<<<<<").count(), paths.len(), "{name}: {spec}");
                assert!(status.contains("UU specs/small.aur"), "{name}: {status}");
            }
            Wrong(text) => {
                assert!(!output.status.success(), "{name}: {all}");
                assert!(
                    all.contains("each side is valid, but the merged spec is not"),
                    "{name}: {all}"
                );
                assert!(all.contains(text), "{name}: {all}");
                assert!(!spec.contains("<<<<<<<"), "{name}: {spec}");
                assert!(status.contains("UU specs/small.aur"), "{name}: {status}");
            }
        }
    }
}

/// Changes the content of a source, and updates the lock.
fn moved(project: &Project, file: &str, words: &str) {
    let text = project.read(file);
    project.write(file, &format!("{words}\n{text}"));
    project.aurora(&["lock", "specs/small.aur"]).exits(0);
}

#[test]
fn merged_locks_keep_common_pins() {
    let repository = Repository::new();
    repository.project.run();
    repository.commit("lock");
    let output = repository.merge(
        &|project| moved(project, "data/english.txt", "One more line about the river."),
        &|project| moved(project, "data/finnish.txt", "Yksi rivi lisää joesta."),
    );
    assert!(output.status.success(), "{}", text(&output));
    let merged = repository.project.read("lockfiles/small.lock");
    repository.project.aurora(&["lock", "specs/small.aur"]).exits(0);
    let fresh = repository.project.read("lockfiles/small.lock");
    for source in ["english", "finnish", "program"] {
        let pin = |text: &str| {
            let (_, rest) = text.split_once(&format!("[source.{source}]")).expect("the source");
            rest.split("\n[").next().expect("its lines").to_owned()
        };
        assert_eq!(pin(&merged), pin(&fresh), "{source}");
    }
    repository.project.run();
}

#[test]
fn a_pin_that_both_sides_changed_is_reported_and_pinned_again() {
    let repository = Repository::new();
    repository.project.aurora(&["lock", "specs/small.aur"]).exits(0);
    repository.commit("lock");
    let output = repository.merge(
        &|project| moved(project, "data/english.txt", "One more line about the river."),
        &|project| moved(project, "data/english.txt", "Another line about the house."),
    );
    let all = text(&output);
    assert!(!output.status.success(), "{all}");
    assert!(all.contains("both sides changed the pin of source `english`"), "{all}");
    assert!(all.contains("help: run `aurora lock specs/small.aur`"), "{all}");
    repository.git(&["checkout", "--quiet", "--ours", "data/english.txt"]);
    repository.project.aurora(&["lock", "specs/small.aur"]).exits(0);
    repository
        .project
        .aurora(&["lock", "specs/small.aur", "--check"])
        .exits(0);
    repository.commit("merged");
}

#[test]
fn git_shows_what_differs() {
    let repository = Repository::new();
    repository.project.edit("peak = 1e-3", "peak = 2e-3");
    let shown = repository.git(&["diff"]);
    assert!(shown.contains("stage.cat.learning_rate.peak: 1e-3 → 2e-3"), "{shown}");
    assert!(shown.contains("reruns  cat@8: "), "{shown}");
    assert!(!shown.contains("reruns  cap@"), "{shown}");
    repository.project.write("specs/small.aur", "experiment broken {");
    let shown = repository.git(&["diff"]);
    assert!(shown.contains("+experiment broken {"), "{shown}");
}

/// The shell script of one step of a workflow: the lines indented deeper than its `run: |`.
fn step(workflow: &str, name: &str) -> String {
    let (_, rest) = workflow.split_once(&format!("- name: {name}\n")).expect("the step");
    let (_, script) = rest.split_once("run: |\n").expect("its shell");
    let lines = script.lines().take_while(|line| line.starts_with("          "));
    lines
        .map(|line| line.trim_start_matches("          ").to_owned() + "\n")
        .collect()
}

#[test]
fn the_workflow_comments_what_a_branch_changes() {
    let repository = Repository::new();
    let project = &repository.project;
    let spec = project.read("specs/small.aur");
    project.write("specs/same.aur", &spec.replace("experiment small", "experiment same"));
    repository.commit("two specs");
    let base = repository.git(&["rev-parse", "HEAD"]).trim().to_owned();
    project.edit("peak = 1e-3", "peak = 2e-3");
    project.write("specs/new.aur", &spec.replace("experiment small", "experiment new"));
    project.write(
        "specs/broken.aur",
        &spec
            .replace("experiment small", "experiment broken")
            .replace("layers", "layer"),
    );
    repository.commit("change");
    let done = project.aurora(&["export", "github", "--install", "echo \"it's here\""]);
    done.exits(0);
    let workflow = done.out();
    assert!(workflow.contains(r#"run: "echo \"it's here\"""#), "{workflow}");
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_aurora"));
    let path = std::env::var("PATH").expect("a search path");
    let path = format!("{}:{path}", binary.parent().expect("its folder").display());
    let output = Command::new("bash")
        .args(["-e", "-o", "pipefail", "-c", &step(&workflow, "Compare")])
        .current_dir(project.root())
        .env("PATH", path)
        .env("BASE", base)
        .env("GITHUB_STEP_SUMMARY", project.path("summary.md"))
        .output()
        .expect("bash starts");
    assert!(output.status.success(), "{}", text(&output));
    let comment = project.read("comment.md");
    for part in [
        "| `stage.cat.learning_rate.peak` | `1e-3` | `2e-3` |",
        "### `specs/new.aur` is new",
        "### `specs/broken.aur` is new",
        "error[E0203]",
    ] {
        assert!(comment.contains(part), "{part}\n{comment}");
    }
    assert!(
        !comment.contains("same.aur"),
        "an unchanged spec is not listed:\n{comment}"
    );
    assert_eq!(project.read("summary.md"), comment);
}

#[test]
fn files_whose_names_begin_with_a_dash_are_compared_and_merged() {
    let repository = Repository::new();
    let spec = repository.project.read("specs/small.aur");
    repository.project.write("-x.aur", &spec);
    repository.commit("a dash");
    repository
        .project
        .write("-x.aur", &spec.replace("seed     = 7", "seed     = 8"));
    let shown = repository.git(&["diff"]);
    assert!(shown.contains("experiment.small.seed"), "{shown}");
    repository.git(&["checkout", "--quiet", "--", "-x.aur"]);
    let change = |old: &'static str, new: &'static str| {
        move |project: &Project| project.write("-x.aur", &project.read("-x.aur").replace(old, new))
    };
    let merged = repository.merge(
        &change("seed     = 7", "seed     = 8"),
        &change("budget        = 8 steps", "budget        = 16 steps"),
    );
    assert!(merged.status.success(), "{}", text(&merged));
}
