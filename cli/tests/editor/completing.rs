//! Completion at every kind of place, on incomplete texts.

use crate::client::Editor;
use crate::specs::{FILES, SPEC};

/// Replaces a part of the spec by a text with a cursor, and completes there.
fn labels(part: &str, marked: &str) -> Vec<String> {
    assert!(SPEC.contains(part), "{part}");
    Editor::new(&FILES).labels("specs/demo.aur", &SPEC.replacen(part, marked, 1))
}

fn added(marked: &str) -> Vec<String> {
    Editor::new(&FILES).labels("specs/demo.aur", &format!("{SPEC}{marked}"))
}

#[test]
fn blocks_and_statements_on_the_top_level() {
    let found = added("\n|");
    for word in [
        "experiment",
        "stage",
        "expect",
        "import",
        "let",
        "param",
        "profile",
        "sweep",
        "extends",
    ] {
        assert!(found.iter().any(|label| label == word), "{word}: {found:?}");
    }
    // Also while the word is written, and above broken blocks.
    assert!(added("\nsta|").contains(&"stage".to_owned()));
    let inserted = Editor::new(&FILES).completions("specs/demo.aur", &format!("sta|\n{SPEC}"));
    let stage = inserted.iter().find(|(label, _)| label == "stage").expect("a stage");
    assert!(
        stage.1.starts_with("stage ${1:name} {\n  start = $2\n  budget = $3\n"),
        "{stage:?}"
    );
}

#[test]
fn fields_that_a_block_does_not_have() {
    let found = labels("  mixture       = cap\n", "  |\n");
    assert_eq!(found, ["mixture", "optimizer", "optimizer_state"]);
    let found = labels("  mixture       = cap\n", "  mix|\n");
    assert!(
        found.contains(&"mixture".to_owned()) && !found.contains(&"budget".to_owned()),
        "{found:?}"
    );
    // In an unclosed block at the end of the file.
    let found = added("\nlayout here {\n  nodes = 4\n  |");
    assert!(
        found.contains(&"machine".to_owned()) && !found.contains(&"nodes".to_owned()),
        "{found:?}"
    );
    assert!(added("\nexperiment x { se| }").starts_with(&["seed", "numerics", "precision"].map(str::to_owned)));
    let found =
        Editor::new(&FILES).completions("specs/demo.aur", &SPEC.replacen("  mixture       = cap\n", "  |\n", 1));
    assert_eq!(found[0].1, "mixture = $0");
}

#[test]
fn values_by_the_type_of_their_field() {
    assert_eq!(labels("= gpt_bigcode", "= |"), ["gpt_bigcode", "llama", "length"]);
    assert_eq!(
        labels("= cosine(peak = 1e-3, floor = 1e-4, warmup = 8192 tokens)", "= c|"),
        ["constant", "linear", "cosine", "wsd", "piecewise", "length"]
    );
    assert_eq!(
        labels("start         = small", "start         = |"),
        ["first", "second", "small", "length"].map(str::to_owned).to_vec()
    );
    assert_eq!(labels("data = [fi, en]", "data = [fi, |]"), ["en", "fi", "length"]);
    assert!(added("\neval e { at = [|").starts_with(&["start".to_owned(), "end".to_owned(), "every".to_owned()]));
    let found = added("\nmodel m { tied_embeddings = |");
    assert!(found.starts_with(&["true".to_owned(), "false".to_owned()]), "{found:?}");
    // `unknown` where it is allowed; the names of blocks with syntax errors.
    assert!(added("\nlayout here { recompute = |").contains(&"unknown".to_owned()));
    let found = added("\nstage third { = }\nstage fourth { start = |");
    assert!(found.contains(&"third".to_owned()), "{found:?}");
}

#[test]
fn calls_have_their_required_arguments() {
    let found = Editor::new(&FILES).completions(
        "specs/demo.aur",
        &SPEC.replacen("= cosine(peak = 1e-3, floor = 1e-4, warmup = 8192 tokens)", "= |", 1),
    );
    let wsd = found.iter().find(|(label, _)| label == "wsd").expect("wsd");
    assert_eq!(wsd.1, "wsd(peak = $1, decay = $2)");
    assert_eq!(labels("floor = 1e-4, warmup", "|, warmup"), ["floor"]);
    assert_eq!(
        labels("(peak = 1e-3, floor = 1e-4, warmup = 8192 tokens)", "(|)"),
        ["peak", "floor", "warmup"]
    );
    // The first argument has no name.
    let found = added("\ncorpus c { from = [text(|");
    assert!(found.contains(&"by_line".to_owned()), "{found:?}");
    assert!(added("\nsource s { from = \"file:x\" }\ncorpus c { from = [text(|").contains(&"s".to_owned()));
    assert!(added("\ncorpus c { from = [text(x, by_line = |").starts_with(&["true".to_owned(), "false".to_owned()]));
}

#[test]
fn units_after_a_number_and_marks_of_evidence() {
    let found = labels("= 240 steps", "= 240 |");
    assert!(
        found.starts_with(&["tokens".to_owned(), "steps".to_owned(), "@published".to_owned()]),
        "{found:?}"
    );
    assert!(labels("= 240 steps", "= 240 st|").contains(&"steps".to_owned()));
    assert_eq!(
        labels("@assumed(\"often enough\")", "@|"),
        ["@published", "@inferred", "@assumed"]
    );
    let found = Editor::new(&FILES).completions(
        "specs/demo.aur",
        &SPEC.replacen("@assumed(\"often enough\")", "@as|", 1),
    );
    assert_eq!(found[2].1, "assumed(\"${1:why}\")$0");
    assert!(added("\nexpect e { first.held_out.perplexity.en < 2 |").contains(&"pp".to_owned()));
}

#[test]
fn components_of_a_mixture() {
    assert_eq!(labels("  fi from [fi] weight 25%\n", "  |\n"), ["component"]);
    assert_eq!(labels("fi from [fi] weight 25%", "fi |"), ["from"]);
    assert_eq!(labels("fi from [fi] weight 25%", "fi from [|"), ["en", "fi", "length"]);
    assert_eq!(
        labels("fi from [fi] weight 25%", "fi from [fi] |"),
        ["@published", "@inferred", "@assumed", "weight", "max_epochs"]
    );
    assert_eq!(
        labels("fi from [fi] weight 25%", "fi from [fi] weight 25% |"),
        ["@published", "@inferred", "@assumed", "max_epochs"]
    );
}

#[test]
fn paths_of_profiles_and_sweeps() {
    assert!(added("\nprofile p {\n  |").starts_with(&["experiment".to_owned(), "source".to_owned()]));
    assert!(added("\nprofile p {\n  |").contains(&"length".to_owned()));
    assert_eq!(added("\nprofile p { stage.|"), ["first", "second"]);
    assert!(added("\nprofile p { stage.first.|").contains(&"global_batch".to_owned()));
    let found = added("\nprofile p { stage.first.learning_rate.|");
    assert!(
        found.contains(&"peak".to_owned()) && found.contains(&"decay".to_owned()),
        "{found:?}"
    );
    assert_eq!(
        added("\nprofile p { mixture.cap.|"),
        ["en", "fi"]
            .iter()
            .rev()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    );
    assert_eq!(
        added("\nprofile p { mixture.cap.fi.|"),
        ["from", "weight", "max_epochs"]
    );
    assert_eq!(
        added("\nprofile p { stage.first.start = |"),
        ["first", "second", "small", "length"]
    );
    assert!(added("\nprofile p { stage first {\n  |").contains(&"budget".to_owned()));
    assert!(added("\nsweep s {\n  |").contains(&"zip".to_owned()));
    assert_eq!(
        added("\nsweep s { stage.second.start = [|"),
        ["first", "second", "small", "length"]
    );
}

#[test]
fn metrics_of_gates() {
    assert_eq!(
        added("\nexpect e { |"),
        [
            "first",
            "second",
            "small",
            "length",
            "trend",
            "forgetting",
            "mean",
            "worst",
            "gap"
        ]
    );
    assert_eq!(added("\nexpect e { trend(second.|"), ["held_out"]);
    assert_eq!(
        added("\nexpect e { gap(second.held_out.perplexity.en, first.|"),
        ["held_out"]
    );
    assert!(added("\nexpect e { second.held_out.perplexity.en < 2 with |").is_empty());
    assert_eq!(added("\nexpect e { second.|"), ["held_out"]);
    assert_eq!(added("\nexpect e { second.held_out.|"), ["perplexity", "bits_per_byte"]);
    assert_eq!(added("\nexpect e { second.held_out.perplexity.|"), ["en", "fi"]);
    assert_eq!(
        added("\nexpect e { second.held_out.perplexity.fi < 2 * first.|"),
        ["held_out"]
    );
}

#[test]
fn files_and_names_of_imports() {
    assert_eq!(
        labels("import \"lib/data.aur\" { fi, en }", "import \"|\""),
        ["lib/data.aur"]
    );
    assert_eq!(
        labels("import \"lib/data.aur\" { fi, en }", "import \"lib/da|"),
        ["lib/data.aur"]
    );
    assert_eq!(labels("{ fi, en }", "{ fi, | }"), ["en", "held", "news"]);
}

#[test]
fn nothing_in_comments_and_texts() {
    assert!(added("\n// sta|").is_empty());
    assert!(added("\nsource s { from = \"fi|\" }").is_empty());
}

#[test]
fn a_client_without_snippets_gets_none() {
    let mut editor = Editor::with(&FILES, serde_json::json!({}));
    let found = editor.completions("specs/demo.aur", &format!("{SPEC}\nmixture m {{\n  |"));
    assert_eq!(found[0].1, "name from [corpus] weight 10%");
}
