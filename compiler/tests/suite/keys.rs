//! Golden keys: when one of these changes, the meaning of a key has changed, and CHANGELOG.md has to say so.

use aurora_compiler::check::check;
use aurora_compiler::graph::{Pins, lower};
use aurora_compiler::hash::hash;

fn keys(name: &str) -> String {
    let path = format!("specs/{name}.aur");
    let spec =
        crate::check_in("", &path, &crate::read(&path)).unwrap_or_else(|found| panic!("{name} has faults: {found:?}"));
    let keyed = hash(lower(&spec, &Pins::new()));
    let lines = keyed
        .graph
        .ids()
        .map(|id| format!("{} {}\n", keyed.key(id), keyed.graph.node(id).name));
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

#[test]
fn fields_are_what_the_runtime_reads() {
    use aurora_compiler::fields::{ExtractFields, FilterFields, OrderFields, TokensFields, TrainFields, WeightsFields};
    use aurora_compiler::graph::Kind;
    let path = format!("{}/../specs/tiny.aur", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("a spec of the repository");
    let spec = check("tiny", &text, None).expect("a sound spec");
    let graph = lower(&spec, &Pins::new());
    fn back<T: serde::de::DeserializeOwned + serde::Serialize>(fields: &serde_json::Value) {
        let read: T = serde_json::from_value(fields.clone()).expect("the runtime reads these fields");
        assert_eq!(serde_json::to_value(&read).expect("plain data"), *fields);
    }
    for id in graph.ids() {
        let node = graph.node(id);
        match node.kind {
            Kind::Extract => back::<ExtractFields>(&node.fields),
            Kind::Filter => back::<FilterFields>(&node.fields),
            Kind::Tokens => back::<TokensFields>(&node.fields),
            Kind::Order => back::<OrderFields>(&node.fields),
            Kind::Weights => back::<WeightsFields>(&node.fields),
            Kind::Train => back::<TrainFields>(&node.fields),
            _ => {}
        }
    }
}
