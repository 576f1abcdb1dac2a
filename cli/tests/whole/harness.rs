//! Evals compared with the numbers of lm-evaluation-harness, which `make peers` writes (`tests/peers/harness.json`): the same
//! small project, trained with `portable` numerics, so that every processor gives the same weights.

use serde_json::Value;

use crate::project::Project;

fn samples(project: &Project, eval: &str) -> Vec<Value> {
    let lines = project.read(&format!("out/harness__cap@60/samples_{eval}_aurora.jsonl"));
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a sample"))
        .collect()
}

fn close(own: f64, peer: f64) {
    assert!((own - peer).abs() <= 1e-4 * peer.abs(), "{own} here, {peer} there");
}

#[test]
fn scores_are_those_of_lm_evaluation_harness() {
    let project = Project::new();
    let peers = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers");
    for file in [
        "harness.aur",
        "questions.jsonl",
        "solved.jsonl",
        "text.txt",
        "texts.jsonl",
    ] {
        let text = std::fs::read_to_string(format!("{peers}/harness/{file}")).expect("a file of the project");
        project.write(file, &text);
    }
    let kept = std::fs::read_to_string(format!("{peers}/harness.json")).expect("the harness's numbers");
    let kept: Value = serde_json::from_str(&kept).expect("JSON");
    project.aurora(&["run", "harness.aur", "--progress", "none"]).exits(0);
    project.aurora(&["export", "lm-eval", "harness.aur", "out"]).exits(0);
    let choices = samples(&project, "choice");
    let theirs = kept["choice"].as_array().expect("likelihoods");
    assert_eq!(choices.len(), theirs.len());
    for (own, peer) in choices.iter().zip(theirs) {
        let own: Vec<f64> = own["resps"]
            .as_array()
            .expect("responses")
            .iter()
            .map(|response| response[0][0].as_f64().expect("a number"))
            .collect();
        let peer: Vec<f64> = serde_json::from_value(peer.clone()).expect("numbers");
        assert_eq!(own.len(), peer.len());
        own.into_iter().zip(peer).for_each(|(own, peer)| close(own, peer));
    }
    let words: Vec<String> = samples(&project, "words")
        .iter()
        .map(|own| own["resps"][0][0].as_str().expect("a text").to_owned())
        .collect();
    assert_eq!(serde_json::json!(words), kept["words"]);
    let results: Value = serde_json::from_str(&project.read("out/harness__cap@60/results_aurora.json")).expect("JSON");
    let bits = results["results"]["rolling_en"]["bits_per_byte,none"].as_f64();
    close(
        bits.expect("a number"),
        kept["bits_per_byte"].as_f64().expect("a number"),
    );
}
