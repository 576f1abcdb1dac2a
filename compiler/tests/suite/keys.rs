//! Golden keys: if one changes, the meaning of keys has changed, and CHANGELOG.md must document it.

use aurora_compiler::graph::{Pins, Work, lower};
use aurora_compiler::hash::hash;

fn keys(name: &str) -> String {
    let path = format!("specs/{name}.aur");
    let spec =
        crate::check_in("", &path, &crate::read(&path)).unwrap_or_else(|found| panic!("{name} has errors: {found:?}"));
    let keyed = hash(lower(&spec, &Pins::new()));
    let lines = keyed
        .graph
        .ids()
        .map(|id| format!("{} {}\n", keyed.key(id), keyed.graph.node(id).name()));
    lines.collect()
}

#[test]
fn tiny() {
    insta::assert_snapshot!(keys("tiny"));
}

#[test]
fn aurora_m() {
    insta::assert_snapshot!(keys("aurora-m"));
}

/// What a judge's program needs is part of its key only where it is given; how long it may take never is.
#[test]
fn what_a_judge_needs_changes_its_key() {
    let judge = |more: &str| {
        let spec = crate::read("specs/tiny.aur");
        let eval = format!(
            "eval carp {{ kind = plug_in  data = [english]  better = higher  judge = command(english, run = [\"sh\"]{more}) }}"
        );
        let spec = crate::check_in("", "specs/tiny.aur", &format!("{spec}\n{eval}\n"));
        let spec = spec.unwrap_or_else(|found| panic!("{found:?}"));
        let keyed = hash(lower(&spec, &Pins::new()));
        let node = keyed
            .graph
            .ids()
            .find(|id| matches!(keyed.graph.node(*id).work, Work::Judge(_)));
        let node = node.expect("a judge");
        (keyed.key(node), format!("{:?}", keyed.preimage(node)))
    };
    let (plain, text) = judge("");
    assert!(!text.contains("needs"), "{text}");
    assert_eq!(judge(", timeout = 5 s").0, plain);
    assert_ne!(judge(", needs = [network]").0, plain);
}
