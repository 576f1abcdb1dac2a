//! What changes a key and what does not.

use crate::project::{Project, SPEC};

/// Names of the nodes whose keys differ between two states of a project.
fn changed(project: &Project, edit: impl FnOnce(&Project)) -> Vec<String> {
    let before = project.keys();
    edit(project);
    let after = project.keys();
    after
        .iter()
        .filter(|(name, key)| before.get(*name) != Some(key))
        .map(|(name, _)| name.clone())
        .collect()
}

#[test]
fn comments_order_formatting_and_spelt_out_defaults_change_no_key() {
    let project = Project::new();
    let found = changed(&project, |project| {
        let spec = SPEC
            .replace("  seed     = 7", "      // a comment\n  seed =    7")
            .replace("  layers       = 2\n  hidden       = 32", "  hidden = 32\n  layers = 2")
            .replace("  kind = perplexity", "  kind = perplexity\n  split = held_out")
            .replace(
                "  architecture = gpt_bigcode",
                "  architecture = gpt_bigcode\n  kv_heads = 1\n  activation = gelu",
            )
            .replace("/// A run small enough for a test.", "/// Other words.");
        project.write("specs/small.aur", &spec);
    });
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn blocks_in_another_order_are_the_same_spec() {
    let project = Project::new();
    let found = changed(&project, |project| {
        let (before, rest) = SPEC.split_once("mixture cap {").expect("a mixture");
        let (mixture, after) = rest.split_once("mixture cat {").expect("another");
        project.write(
            "specs/small.aur",
            &format!("{before}mixture cat {{{after}\nmixture cap {{{mixture}"),
        );
    });
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_learning_rate_changes_only_its_own_stage() {
    let project = Project::new();
    let found = changed(&project, |project| project.edit("peak = 1e-3", "peak = 2e-3"));
    assert_eq!(found, ["cat@8", "eval/heldout/cat@8", "report"]);
}

#[test]
fn a_longer_first_stage_shares_its_prefix() {
    let project = Project::new();
    let found = changed(&project, |project| {
        project.edit("budget        = 16 steps", "budget        = 24 steps")
    });
    assert!(
        !found.contains(&"cap@8".to_string()) && !found.contains(&"cap@16".to_string()),
        "{found:?}"
    );
    assert!(
        found.contains(&"cap@24".to_string()) && found.contains(&"cat@8".to_string()),
        "{found:?}"
    );
}

#[test]
fn under_warmup_stable_decay_the_stable_part_is_shared() {
    let project = Project::new();
    let wsd = "wsd(peak = 3e-3, floor = 1e-4, warmup = 4 steps, decay = 4 steps)";
    project.edit("constant(rate = 3e-3, warmup = 4 steps)", wsd);
    let found = changed(&project, |project| {
        project.edit("budget        = 16 steps", "budget        = 24 steps")
    });
    assert!(!found.contains(&"cap@8".to_string()), "{found:?}");
    assert!(
        found.contains(&"cap@16".to_string()),
        "the decay began before step 16: {found:?}"
    );
}

#[test]
fn another_checkpoint_interval_is_the_same_training() {
    let project = Project::new();
    project.edit("[start, every 8 steps, end]", "[start, end]");
    let found = changed(&project, |project| project.edit("every 8 steps", "every 4 steps"));
    assert_eq!(
        found,
        ["cap@12", "cap@4", "report"],
        "only the new checkpoints and the page"
    );
}

#[test]
fn a_byte_of_a_file_changes_exactly_its_descendants() {
    let project = Project::new();
    let found = changed(&project, |project| {
        let text = project.read("data/program.py");
        project.write("data/program.py", &text.replacen("value_3", "value_x", 1));
    });
    let untouched = [
        "source/english",
        "extract/en/english",
        "filter/en",
        "source/finnish",
        "filter/fi",
    ];
    for name in untouched {
        assert!(
            !found.contains(&name.to_string()),
            "{name} does not follow from the program: {found:?}"
        );
    }
    // The tokenizer is trained on the program, and all other nodes depend on the tokenizer.
    for name in [
        "source/program",
        "extract/py/program",
        "filter/py",
        "tokenizer/bpe",
        "tokens/bpe/en",
        "cap@8",
        "cat@8",
    ] {
        assert!(
            found.contains(&name.to_string()),
            "{name} follows from the program: {found:?}"
        );
    }
}

#[test]
fn why_names_the_field_old_and_new() {
    let project = Project::new();
    project.run();
    project.edit("peak = 1e-3", "peak = 2e-3");
    let done = project.aurora(&["why", "specs/small.aur", "cat@8"]);
    done.exits(0);
    done.prints("stage.cat.learning_rate.peak: 1e-3 → 2e-3");
    let done = project.aurora(&["why", "specs/small.aur", "eval/heldout/cat@8"]);
    done.prints("first cause in cat@8: stage.cat.learning_rate.peak: 1e-3 → 2e-3");
    let text = project.read("data/english.txt");
    project.write("data/english.txt", &text.replacen("village", "Village", 1));
    let done = project.aurora(&["why", "specs/small.aur", "source/english"]);
    done.prints("content: ");
    done.prints(" → ");
}

#[test]
fn undoing_an_edit_needs_no_work() {
    let project = Project::new();
    project.run();
    project.edit("peak = 1e-3", "peak = 2e-3");
    project.run();
    project.edit("peak = 2e-3", "peak = 1e-3");
    let done = project.run();
    done.prints("0 built");
}

#[test]
fn unchanged_results_stop_a_change() {
    let project = Project::new();
    project.edit(
        "[text(english, by_line = true)]",
        "[text(english, by_line = true)]\n  prepare  = [minimum(20 characters)]",
    );
    project.run();
    // A sentence too short to be kept: another source and other documents, but the same filtered corpus.
    let text = project.read("data/program.py");
    project.write("data/program.py", &text);
    let text = project.read("data/english.txt");
    project.write("data/english.txt", &format!("{text}Too short.\n"));
    let done = project.run();
    done.prints("reused   tokens/bpe/en");
    done.prints("reused   cap@16");
}
