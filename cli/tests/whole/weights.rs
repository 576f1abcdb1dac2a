//! Exporting and importing weights, and evaluating them.

use crate::project::{Project, SPEC};

/// The files of a folder, by name.
fn bytes(project: &Project, folder: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(project.path(folder)).expect("a folder") {
        let entry = entry.expect("an entry");
        if entry.path().is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            found.push((name, std::fs::read(entry.path()).expect("read")));
        }
    }
    found.sort();
    found
}

/// A spec that starts from the export of another experiment, with two tasks.
fn continued() -> String {
    let spec = SPEC
        .replace("experiment small", "experiment next")
        .replace("kind    = train_bpe(vocabulary = 512)\n  corpora = [en, fi, py]", "kind = load(published, member = \"data/hf/tokenizer.json\")")
        .replace("weights      = random(std = 0.02)", "weights      = safetensors(published)")
        .replace("source english", "source published { from = \"file:data/hf/*\" }\nsource questions { from = \"file:data/items.jsonl\" }\nsource english");
    let (before, _) = spec.split_once("mixture cat").expect("the second mixture");
    let stage = &spec[spec.find("stage cap").expect("a stage")..spec.find("stage cat").expect("another")];
    format!(
        r#"{before}{stage}
eval heldout {{
  kind = perplexity
  data = [en, fi]
}}
eval choice {{
  kind    = multiple_choice
  data    = [questions]
  files   = ["*.jsonl"]
  prompt  = "{{q}}"
  choices = ["{{c}}"]
  answer  = "{{a}}"
  shots   = 1
  by      = category
}}
eval words {{
  kind    = generation
  data    = [questions]
  files   = ["*.jsonl"]
  prompt  = "{{q}}"
  answer  = "{{c.0}}"
  stop    = ["."]
  maximum = 6 tokens
}}
expect chosen {{ cap.choice.accuracy >= tiny.choice.accuracy - 100 pp }}
expect by_category {{ cap.choice.accuracy_norm.en >= 0 }}
"#
    )
}

const ITEMS: &str = r#"{"q": "The people of the village", "c": ["said that", "was not"], "a": 0, "category": "en"}
{"q": "It is known that the river", "c": ["xq zzz", "will be there"], "a": 1, "category": "en"}
{"q": "Kun he olivat nähneet talon", "c": ["joka on", "qqq"], "a": "A", "category": "fi"}
"#;

#[test]
fn an_experiment_starts_from_an_export_with_the_same_bits() {
    let project = Project::new();
    project.run();
    let exported = project.aurora(&["export", "hf", "small/cat", "data/hf"]);
    exported.exits(0);
    exported.prints("parameters of small/cat@8");
    let card = project.read("data/hf/README.md");
    let lock = blake3_of(&project.read("lockfiles/small.lock"));
    for part in [
        "# small/cat@8",
        "Stage `cap`: 16 steps, 4096 tokens of en 50%",
        "Initial weights: random, seed 7",
        &lock,
    ] {
        assert!(card.contains(part), "{part}: {card}");
    }
    // Imported without a spec, and exported again: the same model.
    project
        .aurora(&["import", "hf", "data/hf", "imported"])
        .prints("weights         = safetensors(SOURCE)");
    project.aurora(&["export", "hf", "imported", "again"]).exits(0);
    let without_card = |folder: &str| {
        bytes(&project, folder)
            .into_iter()
            .filter(|(name, _)| name != "README.md")
            .collect::<Vec<_>>()
    };
    assert_eq!(without_card("data/hf"), without_card("again"));
    // An experiment that starts from it has the same scores.
    project.write("data/items.jsonl", ITEMS);
    project.write("specs/next.aur", &continued());
    let done = project.aurora(&["run", "specs/next.aur", "--progress", "plain"]);
    done.exits(0);
    done.prints("gate chosen: holds");
    done.prints("accuracy_norm");
    let score = |checkpoint: &str, eval: &str| {
        let done = project.aurora(&["eval", checkpoint, eval, "--json", "--progress", "none"]);
        done.exits(0);
        done.json()["scores"].clone()
    };
    assert_eq!(
        score("small/cat", "heldout")["sets"]["en"]["tokens"],
        score("next/tiny", "heldout")["sets"]["en"]["tokens"]
    );
    assert_eq!(score("small/cat", "heldout"), score("next/tiny", "heldout"));
    // A checkpoint that the spec does not evaluate; one and four workers give the same answers.
    let one = score("next/cap@8", "choice");
    assert_eq!(one["measures"]["en"]["accuracy"]["items"], 2);
    assert_eq!(one["measures"][""]["accuracy"]["items"], 3);
    let words = score("next/cap@8", "words");
    for layout in ["tensor=2,pipeline=2", "data=2"] {
        let other = Project::new();
        std::fs::create_dir_all(other.path("data/hf")).expect("a folder");
        for (name, bytes) in bytes(&project, "data/hf") {
            std::fs::write(other.path("data/hf").join(name), bytes).expect("written");
        }
        other.write("data/items.jsonl", ITEMS);
        other.write("specs/next.aur", &continued());
        other
            .aurora(&["run", "specs/next.aur", "--layout", layout, "--progress", "none"])
            .exits(0);
        let of = |eval: &str| {
            let done = other.aurora(&[
                "eval",
                "next/cap@8",
                eval,
                "--layout",
                layout,
                "--json",
                "--progress",
                "none",
            ]);
            done.exits(0);
            done.json()["scores"].clone()
        };
        assert_eq!((of("choice"), of("words")), (one.clone(), words.clone()), "{layout}");
        assert_eq!(other.read("lockfiles/next.lock"), project.read("lockfiles/next.lock"));
    }
}

fn blake3_of(text: &str) -> String {
    aurora_runtime::content_of(text.as_bytes())
}

#[test]
fn invalid_checkpoints_are_errors() {
    let project = Project::new();
    let refused = |arguments: &[&str], message: &str| {
        let done = project.aurora(arguments);
        done.exits(1);
        done.prints(message);
    };
    refused(
        &["export", "hf", "small/cat", "out"],
        "`small/cat` is not a checkpoint: ",
    );
    refused(&["import", "hf", "data"], "there is no `config.json` among the files");
    refused(
        &["import", "gguf", "data/english.txt"],
        "`english.txt` is not a GGUF file",
    );
    project.run();
    refused(
        &["export", "hf", "small/dog", "out"],
        "its checkpoints: weights/tiny, cap@8, cap@16, cat@8",
    );
    refused(&["eval", "small/cat", "nothing"], "its evals: heldout");
    refused(&["export", "hf", "small/cat", "data"], "is not empty");
    project.edit(
        "budget        = 8 steps",
        "budget        = 8 steps\n  optimizer_state = reset",
    );
    refused(
        &["export", "hf", "small/cat", "out"],
        "has not been built from the current spec",
    );
}
