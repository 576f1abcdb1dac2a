//! Golden keys: if one changes, the meaning of keys has changed, and CHANGELOG.md must document it.

use aurora_compiler::graph::{Pins, lower};
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
