//! Running, repeating, gates, and the commands that show a run.

use crate::missing_tools::missing_tool;
use crate::project::{Project, SPEC};

#[test]
fn a_run_ends_with_lock_report_and_an_identical_rerun() {
    let project = Project::new();
    let done = project.run();
    done.prints("gate learned: holds");
    done.prints("repeat: aurora rerun lockfiles/small.lock");
    let again = project.run();
    again.prints("0 built");
    let rerun = project.aurora(&["rerun", "lockfiles/small.lock", "--json", "--progress", "none"]);
    rerun.exits(0);
    let document = rerun.json();
    assert_eq!(document["identical"], true);
    assert_eq!(document["nodes_compared"], project.keys().len());
    let page = project.read(".aurora/runs/latest/report.html");
    for part in ["bits per byte", "Mixture ledger", "<svg", "Lineage", "forgotten"] {
        assert!(page.contains(part), "{part}");
    }
    for fetching in ["src=", "url(", "@import", "<script"] {
        assert!(!page.contains(fetching), "the page fetches nothing: {fetching}");
    }
    assert!(
        page.split("href=\"").skip(1).all(|link| link.starts_with('#')),
        "links stay in the page"
    );
    project.aurora(&["verify"]).exits(0);
    project.aurora(&["status"]).prints("finished");
    project.aurora(&["lock", "specs/small.aur", "--check"]).exits(0);
    project
        .aurora(&["run", "specs/small.aur", "--locked", "--progress", "none"])
        .exits(0);
}

#[test]
fn the_same_bits_everywhere() {
    let first = Project::new();
    first.run();
    for (threads, zone, language) in [("1", "Asia/Tokyo", "fi_FI.UTF-8"), ("2", "America/New_York", "C")] {
        let other = Project::new();
        let mut command = other.command(&["run", "specs/small.aur", "--threads", threads, "--progress", "none"]);
        command
            .env("TZ", zone)
            .env("LC_ALL", language)
            .env("LANG", language)
            .env("USER", "another")
            .env("HOME", other.root());
        command
            .env("OMP_NUM_THREADS", "3")
            .env("MKL_NUM_THREADS", "3")
            .env("ATEN_CPU_CAPABILITY", "default");
        let output = command.output().expect("the binary starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(
            other.read("lockfiles/small.lock"),
            first.read("lockfiles/small.lock"),
            "{threads} threads, {zone}"
        );
    }
}

#[test]
fn a_failed_gate_exits_with_5_and_keeps_everything() {
    let project = Project::new();
    project.edit("<", ">");
    let done = project.aurora(&["run", "specs/small.aur", "--progress", "none"]);
    done.exits(5);
    done.prints("gate learned: FAILS");
    let again = project.aurora(&["run", "specs/small.aur", "--progress", "none"]);
    again.exits(5);
    again.prints("0 built");
}

#[test]
fn unknown_values_keep_a_spec_from_running() {
    let project = Project::new();
    project.edit(
        "weight_decay = 0.1, clip = 1.0)\n  checkpoint",
        "weight_decay = unknown, clip = 1.0)\n  checkpoint",
    );
    project
        .aurora(&["build", "specs/small.aur"])
        .prints("stage.cap.optimizer.weight_decay");
    let done = project.aurora(&["run", "specs/small.aur"]);
    done.exits(1);
    done.prints("stage.cap.optimizer.weight_decay (specs/small.aur:");
}

#[test]
fn a_mixture_may_not_repeat_more_than_max_epochs() {
    let project = Project::new();
    project.edit("en from [en] weight 50%", "en from [en] weight 20%");
    project.edit("py from [py] weight 20%", "py from [py] weight 50% max_epochs 1");
    let done = project.aurora(&["run", "specs/small.aur", "--progress", "none"]);
    done.exits(4);
    done.prints("`max_epochs` allows 1");
    done.prints("component `py`");
}

#[test]
fn diff_names_values_nodes_and_severity() {
    let project = Project::new();
    project.write("specs/other.aur", &SPEC.replace("peak = 1e-3", "peak = 2e-3"));
    let done = project.aurora(&["diff", "specs/small.aur", "specs/other.aur", "--json"]);
    done.exits(1);
    let document = done.json();
    assert_eq!(document["changed"].as_array().map(Vec::len), Some(1));
    assert_eq!(document["changed"][0]["path"], "stage.cat.learning_rate.peak");
    assert_eq!(
        document["nodes"]["rerun"],
        serde_json::json!(["cat@8", "eval/heldout/cat@8", "report"])
    );
    assert_eq!(document["severity"], "trained");
    project.aurora(&["diff", "specs/small.aur", "specs/small.aur"]).exits(0);
}

#[test]
fn every_command_speaks_json() {
    let project = Project::new();
    project.run();
    for arguments in [
        &["check", "specs/small.aur"][..],
        &["fmt", "--check", "specs/small.aur"],
        &["build", "specs/small.aur"],
        &["plan", "specs/small.aur"],
        &["why", "specs/small.aur", "cap@8"],
        &["show", "specs/small.aur"],
        &["lock", "specs/small.aur"],
        &["run", "specs/small.aur"],
        &["verify"],
        &["status"],
        &["report", "specs/small.aur"],
        &["gc", "--dry-run"],
        &["doctor"],
        &["explain", "E0203"],
    ] {
        let mut with_json = arguments.to_vec();
        with_json.push("--json");
        project.aurora(&with_json).json();
    }
    project.aurora(&["no-such-verb"]).exits(2);
    project.aurora(&["why", "specs/small.aur", "cap@9"]).exits(1);
    project.aurora(&["check", "specs/none.aur"]).exits(1);
}

#[test]
fn two_processes_on_one_store_share_the_work() {
    let project = Project::new();
    let mut first = project.start();
    let second = project.run();
    assert!(first.wait().expect("the first run").success());
    second.prints("gate learned: holds");
    project.aurora(&["verify"]).exits(0);
    let rerun = project.aurora(&["rerun", "lockfiles/small.lock", "--progress", "none"]);
    rerun.prints("rerun: identical");
}

#[test]
fn gc_deletes_only_unreferenced_objects() {
    let project = Project::new();
    project.run();
    let all = project.objects().len();
    project.edit("peak = 1e-3", "peak = 2e-3");
    project.run();
    assert!(project.objects().len() > all);
    project.aurora(&["gc"]).exits(0);
    project.aurora(&["verify"]).exits(0);
    project.run().prints("0 built");
    project.edit("peak = 2e-3", "peak = 1e-3");
    project.run().prints("cat@8");
}

#[test]
fn a_browser_shows_the_report() {
    let Ok(found) = std::process::Command::new("chromium").arg("--version").output() else {
        return missing_tool("chromium", "the report in a browser");
    };
    assert!(found.status.success());
    let project = Project::new();
    project.run();
    let page = format!("file://{}", project.path(".aurora/runs/latest/report.html").display());
    let profile = format!("--user-data-dir={}", project.path("browser").display());
    let shown = std::process::Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--dump-dom",
            &profile,
            &page,
        ])
        .output()
        .expect("chromium starts");
    let dom = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(dom.matches("<svg").count(), 3, "loss, scores, lineage");
    for part in ["<title>small · Aurora report</title>", "gate", "bits per byte", "cat@8"] {
        assert!(dom.contains(part), "{part} is not on the page");
    }
}

#[test]
fn a_closed_output_pipe_ends_a_command_silently() {
    let project = Project::new();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = project.command(&["build", "specs/small.aur"]);
    let output = command.stdout(writer).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// A stage and an eval with two names are built once.
#[test]
fn nodes_with_one_key_are_built_once() {
    let project = Project::new();
    let start = SPEC.find("stage cap").expect("a stage");
    let stage = &SPEC[start..SPEC.find("stage cat").expect("another")];
    let copies = stage.replace("stage cap", "stage copy") + "eval again {\n  kind = perplexity\n  data = [en, fi]\n}\n";
    project.edit("expect learned", &format!("{copies}\nexpect learned"));
    project.run();
    let results = project.results();
    let digest = |name: &str| {
        let line = results.lines().find(|line| line.starts_with(&format!("\"{name}\"")));
        line.unwrap_or_else(|| panic!("{name} is not in {results}"))
            .split(" = ")
            .nth(1)
    };
    assert_eq!(digest("cap@16"), digest("copy@16"));
    assert_eq!(digest("eval/heldout/cap@16"), digest("eval/again/copy@16"));
    project
        .aurora(&["rerun", "lockfiles/small.lock", "--progress", "none"])
        .exits(0);
}

#[test]
fn gates_and_the_report_have_significance() {
    let project = Project::new();
    project.edit(
        "expect learned { cap.heldout.bits_per_byte.en < tiny.heldout.bits_per_byte.en }",
        "expect learned { trend(cap.heldout.bits_per_byte.en) < 0 with 99% confidence }\n\
         expect kept { forgetting(cat.heldout.bits_per_byte.en) <= 0.5 }\n\
         expect even { gap(cat.heldout.bits_per_byte.en, cat.heldout.bits_per_byte.fi) > 5 with 90% confidence }",
    );
    let done = project.aurora(&["run", "specs/small.aur", "--json", "--progress", "none"]);
    done.exits(5);
    let document = done.json();
    let gates = document["gates"].as_array().expect("gates");
    let gate = |name: &str| gates.iter().find(|gate| gate["name"] == name).expect("a gate");
    assert_eq!(gate("learned")["verdict"], "holds clearly");
    assert_eq!(
        (&gate("learned")["asked"], &gate("learned")["level"]),
        (&true.into(), &0.99.into())
    );
    assert!(
        gate("learned")["interval"]["high"]
            .as_f64()
            .is_some_and(|high| high < 0.0)
    );
    assert_eq!(
        (&gate("kept")["holds"], &gate("kept")["asked"]),
        (&true.into(), &false.into())
    );
    assert_eq!(gate("even")["verdict"], "fails clearly");
    // Every score has an interval, every stage has tests.
    let points = document["evals"][0]["points"].as_array().expect("points");
    assert!(
        points
            .iter()
            .all(|point| point["intervals"]["fi"]["bits_per_byte"]["low"].is_number())
    );
    let noise = &document["noise"];
    let changes = noise["changes"].as_array().expect("changes");
    assert_eq!(changes.len(), 2 * 2 * 2, "stages, sets, metrics");
    for row in changes {
        let (p, corrected) = (
            row["p"].as_f64().expect("a p"),
            row["corrected"].as_f64().expect("another"),
        );
        assert!(
            p <= corrected && row["interval"]["low"].as_f64() <= row["difference"].as_f64(),
            "{row}"
        );
    }
    assert_eq!(noise["gates"].as_object().map(serde_json::Map::len), Some(2));
    assert_eq!(noise["forgotten"].as_array().map(Vec::len), Some(4));
    assert_eq!(noise["transfers"].as_array().map(Vec::len), Some(4));
    let page = project.read(".aurora/runs/latest/report.html");
    for part in [
        "Before and after",
        "corrected p",
        "Backward transfer",
        "holds clearly",
        "FAILS clearly",
    ] {
        assert!(page.contains(part), "{part}");
    }
}
