//! Parameters, sweep points and diagnostics: separate locks, reruns with the same selection, machine-readable formats.

use serde_json::Value;

use crate::project::Project;

const SWEEP: &str = "\nsweep rates { stage.cap.learning_rate.rate = [1e-3, 2e-3] }\n";

/// The schema that `aurora schema` prints for a document.
fn schema(project: &Project, of: &str) -> jsonschema::Validator {
    let done = project.aurora(&["schema", of]);
    done.exits(0);
    let schema: Value = serde_json::from_str(&done.out()).expect("a JSON document");
    jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("the schema of {of}: {error}"))
}

fn assert_valid(validator: &jsonschema::Validator, value: &Value, what: &str) {
    let errors: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}\n{value:#}");
}

#[test]
fn settings_have_a_separate_lock_and_a_rerun_applies_them() {
    let project = Project::new();
    let lock = "lockfiles/small.stage_cap_budget_8_steps.lock";
    let done = project.aurora(&[
        "run",
        "specs/small.aur",
        "--set",
        "stage.cap.budget=8 steps",
        "--progress",
        "none",
    ]);
    done.exits(0);
    let text = project.read(lock);
    assert!(text.contains("set = [\"stage.cap.budget=8 steps\"]"), "{text}");
    project.aurora(&["rerun", lock, "--progress", "none"]).exits(0);
    // The spec without the setting has a separate lock too.
    project.run().exits(0);
    assert!(!project.read("lockfiles/small.lock").contains("set ="));
    assert_eq!(project.read(lock), text, "the other lock stays the same");
}

#[test]
fn a_sweep_point_is_an_experiment_that_shares_nodes() {
    let project = Project::new();
    let spec = project.read("specs/small.aur") + SWEEP;
    project.write("specs/small.aur", &spec);
    let run = |point: &str| {
        let done = project.aurora(&["run", "specs/small.aur", "--point", point, "--progress", "none"]);
        done.exits(0);
    };
    run("rate_1e_3");
    let plan = project
        .aurora(&["plan", "specs/small.aur", "--point", "rate_2e_3", "--json"])
        .json();
    let state = |name: &str| {
        let nodes = plan["nodes"].as_array().expect("nodes");
        let found = nodes.iter().find(|node| node["name"] == name);
        found.unwrap_or_else(|| panic!("no node {name}"))["state"].clone()
    };
    assert_eq!(state("order/cap"), "cached");
    assert_eq!(state("weights/tiny"), "cached");
    assert_ne!(state("cap@8"), "cached");
    let lock = "lockfiles/small_rate_1e_3.lock";
    assert!(project.read(lock).contains("point = \"rate_1e_3\""));
    project.aurora(&["rerun", lock, "--progress", "none"]).exits(0);
    let swept = project.aurora(&["sweep", "specs/small.aur", "--json"]).json();
    assert_eq!(swept["points"].as_array().map(Vec::len), Some(2));
    let [total, distinct] = ["total", "distinct"].map(|name| swept["nodes"][name].as_u64().expect("a count"));
    assert!(distinct < total, "points share work: {distinct} of {total}");
}

#[test]
fn imports_stay_in_the_project() {
    let project = Project::new();
    project.write(
        "specs/reach.aur",
        "import \"../../outside.aur\"\n\nexperiment reach { seed = 1 }\n",
    );
    let done = project.aurora(&["check", "specs/reach.aur"]);
    done.exits(1);
    assert!(done.err().contains("E0220"), "{}", done.err());
    assert!(done.err().contains("outside the project"), "{}", done.err());
}

#[test]
fn diagnostics_have_machine_formats_and_fixes() {
    let project = Project::new();
    let sound = project.read("specs/small.aur");
    let broken = sound
        .replace("global_batch", "glboal_batch")
        .replacen("16 steps", "16 step", 1);
    project.write("specs/small.aur", &broken);
    let github = project.aurora(&["check", "specs/small.aur", "--format", "github"]);
    github.exits(1);
    let first = github.out().lines().next().expect("a line").to_owned();
    assert!(first.starts_with("::error file=specs/small.aur,line="), "{first}");
    assert!(first.contains("title=E0"), "{first}");
    let sarif = project.aurora(&["check", "specs/small.aur", "--format", "sarif"]);
    sarif.exits(1);
    let sarif: Value = serde_json::from_str(&sarif.out()).expect("a JSON document");
    assert_eq!(sarif["version"], "2.1.0");
    let results = sarif["runs"][0]["results"].as_array().expect("results");
    assert_eq!(results.len(), 3);
    assert_eq!(
        results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"],
        "specs/small.aur"
    );
    let fixed = project.aurora(&["check", "specs/small.aur", "--fix"]);
    fixed.exits(0);
    assert!(
        fixed.err().contains("`glboal_batch` → `global_batch`"),
        "{}",
        fixed.err()
    );
    assert_eq!(project.read("specs/small.aur"), sound);
}

#[test]
fn unsafe_fixes_need_an_option() {
    let project = Project::new();
    let sound = project.read("specs/small.aur");
    // A missing unit, and a field similar to an existing one: both fixes are ambiguous.
    let broken = sound
        .replacen("budget        = 16 steps", "budget        = 16", 1)
        .replacen("  layers       = 2\n", "  layers       = 2\n  layer        = 3\n", 1);
    project.write("specs/small.aur", &broken);
    let fixed = project.aurora(&["check", "specs/small.aur", "--fix"]);
    fixed.exits(1);
    assert_eq!(project.read("specs/small.aur"), broken, "nothing is edited");
    for unapplied in ["`16` → `16 tokens`", "`layer` → `layers`"] {
        fixed.prints(&format!(
            "{unapplied}  (not applied: may change the meaning; `--unsafe-fixes` applies it)"
        ));
    }
    let json = project.aurora(&["check", "specs/small.aur", "--json"]).json();
    let found = json["files"][0]["diagnostics"].as_array().expect("diagnostics").clone();
    let edits: Vec<&Value> = found
        .iter()
        .flat_map(|diagnostic| diagnostic["helps"].as_array().expect("helps"))
        .filter_map(|help| help.get("edit"))
        .collect();
    assert_eq!(edits.len(), 2);
    assert!(edits.iter().all(|edit| edit["applicability"] == "unsafe"), "{edits:#?}");
    let sarif = project.aurora(&["check", "specs/small.aur", "--format", "sarif"]).out();
    let sarif: Value = serde_json::from_str(&sarif).expect("a JSON document");
    let fix = &sarif["runs"][0]["results"][0]["fixes"][0];
    assert_eq!(fix["properties"]["applicability"], "unsafe");
    assert_eq!(fix["artifactChanges"][0]["artifactLocation"]["uri"], "specs/small.aur");
    let fixed = project.aurora(&["check", "specs/small.aur", "--fix", "--unsafe-fixes"]);
    fixed.exits(1);
    fixed.prints("`layers` is set twice");
    assert!(project.read("specs/small.aur").contains("budget        = 16 tokens"));
    project.aurora(&["check", "specs/small.aur", "--unsafe-fixes"]).exits(2);
}

#[test]
fn documents_follow_their_schemas() {
    let project = Project::new();
    let [graph, plan, diagnostics] = ["graph", "plan", "diagnostics"].map(|of| schema(&project, of));
    let spec = "specs/small.aur";
    assert_valid(
        &plan,
        &project.aurora(&["plan", spec, "--json"]).json(),
        "a plan before the run",
    );
    project.run().exits(0);
    project.edit("rate = 3e-3", "rate = 1e-3");
    assert_valid(&graph, &project.aurora(&["build", spec, "--json"]).json(), "a graph");
    let changed = project.aurora(&["plan", spec, "--json"]).json();
    assert!(
        changed["nodes"]
            .as_array()
            .is_some_and(|nodes| nodes.iter().any(|node| node["changes"].is_array()))
    );
    assert_valid(&plan, &changed, "a plan after a change");
    assert_valid(
        &diagnostics,
        &project.aurora(&["check", spec, "--json"]).json(),
        "a spec without errors",
    );
    project.write(spec, &project.read(spec).replace("global_batch", "glboal_batch"));
    assert_valid(
        &diagnostics,
        &project.aurora(&["check", spec, "--json"]).json(),
        "a spec with errors",
    );
    let lock: toml::Value = toml::from_str(&project.read("lockfiles/small.lock")).expect("TOML");
    let lock = serde_json::to_value(lock).expect("plain data");
    assert_valid(&schema(&project, "lock"), &lock, "a lock");
    let record = std::fs::read_to_string(project.path(".aurora/runs/latest/run.json")).expect("a record");
    let record: Value = serde_json::from_str(&record).expect("a JSON document");
    assert_valid(&schema(&project, "record"), &record, "the record of a run");
    // The schemas refuse other documents.
    assert!(!graph.is_valid(&serde_json::json!({ "format_version": "1.0" })));
    assert!(!plan.is_valid(&lock));
}
