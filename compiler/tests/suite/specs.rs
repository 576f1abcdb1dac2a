//! The specs of this repository, checked.

use aurora_compiler::check::{AssumptionKind, assumptions, check, set_names};
use aurora_compiler::fields::Exact;
use aurora_compiler::schema::BLOCKS;
use aurora_compiler::spec::{BlockKind, Origin, Spec, Unit, Value};

/// Every spec of the repository.
const SPECS: [&str; 4] = [
    "specs/tiny.aur",
    "specs/demo.aur",
    "specs/aurora-m.aur",
    "specs/smollm2-nordic.aur",
];

fn spec(path: &str, profile: Option<&str>) -> Spec {
    let text = crate::read(path);
    check(path, &text, profile).unwrap_or_else(|errors| panic!("{path}: {errors:#?}"))
}

#[test]
fn specs_are_in_canonical_layout() {
    for path in SPECS {
        let text = crate::read(path);
        assert_eq!(aurora_lang::format(&text).expect("it parses"), text, "{path}");
    }
}

#[test]
fn tiny_resolves() {
    let spec = spec("specs/tiny.aur", None);
    assert_eq!(spec.name, "tiny");
    assert_eq!(spec.warnings, Vec::new());
    let resolved: Vec<String> = spec
        .resolved()
        .into_iter()
        .map(|(path, (value, _))| format!("{path} = {value}"))
        .collect();
    insta::assert_snapshot!(resolved.join("\n"));
}

#[test]
fn every_field_of_a_table_is_present() {
    for path in SPECS {
        let spec = spec(path, None);
        for (id, block) in &spec.blocks {
            let table = BLOCKS.iter().find(|table| table.kind == id.kind).expect("a table");
            for field in table.fields {
                assert!(
                    block.fields.contains_key(field.name),
                    "{path}: {id} lacks {}",
                    field.name
                );
            }
        }
    }
}

#[test]
fn a_profile_is_laid_over() {
    let plain = spec("specs/tiny.aur", None);
    let smoke = spec("specs/tiny.aur", Some("smoke"));
    let cap = |spec: &Spec| {
        spec.block(BlockKind::Stage, "cap")
            .and_then(|block| block.quantity("budget"))
    };
    assert_eq!(cap(&plain), Some((20, Unit::Steps)));
    assert_eq!(cap(&smoke), Some((10, Unit::Steps)));
    let layers = smoke
        .block(BlockKind::Model, "small")
        .and_then(|block| block.field("layers"))
        .expect("layers");
    assert_eq!(layers.value, Value::Integer(1));
    assert!(
        matches!(
            layers.origin,
            Origin::Profile {
                line: 87,
                column: 26,
                ..
            }
        ),
        "{:?}",
        layers.origin
    );
    // What the profile leaves alone is the same.
    let changed: Vec<String> = plain
        .resolved()
        .into_iter()
        .filter(|(path, (value, _))| smoke.resolved()[path].0 != *value)
        .map(|(path, _)| path)
        .collect();
    assert_eq!(changed, ["model.small.layers", "stage.cap.budget"]);
}

#[test]
fn a_profile_reaches_arguments_and_components() {
    let text = crate::read("specs/tiny.aur").replace(
        "stage.cap.budget = 10 steps",
        "stage.cap.learning_rate.peak = 2e-3\n  stage.cat.optimizer.clip = none\n  mixture.mostly_finnish.en.weight = 30%\n  \
         mixture mostly_finnish { fi from [fi] weight 70% }\n  model.small.weights.std = 0.01",
    );
    let spec = check("tiny.aur", &text, Some("smoke")).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let value = |path: &str| spec.resolved()[path].0.clone();
    assert_eq!(
        value("stage.cap.learning_rate.peak"),
        "0.002"
            .parse::<Exact>()
            .map(|value| Value::Decimal(value).to_string())
            .expect("a number")
    );
    assert_eq!(value("stage.cap.learning_rate.floor"), "1e-4");
    assert_eq!(value("stage.cat.optimizer.clip"), "none");
    assert_eq!(value("mixture.mostly_finnish.en.weight"), "30%");
    assert_eq!(value("mixture.mostly_finnish.fi.weight"), "70%");
    assert_eq!(value("model.small.weights.std"), "0.01");
}

#[test]
fn aurora_m_says_where_everything_is_from() {
    let spec = spec("specs/aurora-m.aur", None);
    let list: Vec<String> = assumptions(&spec)
        .iter()
        .map(|found| {
            format!(
                "{}:{} {:?} {} = {} ({})",
                found.line, found.column, found.kind, found.path, found.value, found.text
            )
        })
        .collect();
    insta::assert_snapshot!(list.join("\n"));
    let count = |kind| assumptions(&spec).iter().filter(|found| found.kind == kind).count();
    assert!(count(AssumptionKind::Unknown) > 20);
    assert!(count(AssumptionKind::Published) > 15);
}

#[test]
fn every_number_of_aurora_m_is_marked_or_unknown() {
    let spec = spec("specs/aurora-m.aur", None);
    for (path, (value, field)) in spec.resolved() {
        let is_number = matches!(
            field.value,
            Value::Integer(_) | Value::Decimal(_) | Value::Percent(_) | Value::Quantity(..) | Value::Every(_)
        );
        assert!(
            !is_number || !field.is_written() || field.evidence.is_some(),
            "{path} = {value} has no evidence"
        );
    }
}

#[test]
fn values_read_back_as_written() {
    for path in SPECS {
        let text = crate::read(path);
        let spec = spec(path, None);
        // Every written scalar in its canonical text: the same spec.
        let mut edits: Vec<(usize, usize, String)> = Vec::new();
        for (value, field) in spec.resolved().into_values() {
            let is_scalar = !matches!(field.value, Value::Call { .. } | Value::List(_) | Value::Gate(_));
            if let (Some(span), true) = (field.span(), is_scalar) {
                edits.push((span.start, span.end, value));
            }
        }
        edits.sort();
        let mut rewritten = text.clone();
        for (start, end, value) in edits.into_iter().rev() {
            rewritten.replace_range(start..end, &value);
        }
        let again = check(path, &rewritten, None).unwrap_or_else(|errors| panic!("{path}: {errors:#?}"));
        let values = |spec: &Spec| -> Vec<(String, String)> {
            spec.resolved()
                .into_iter()
                .map(|(path, (value, _))| (path, value))
                .collect()
        };
        assert_eq!(values(&again), values(&spec), "{path}");
    }
}

#[test]
fn sets_are_named_by_language_where_that_is_unique() {
    let text = crate::read("specs/tiny.aur").replace("data = [en, fi]", "data = [en, fi, fi_web]")
        + "\ncorpus fi_web {\n  language = fi\n  from = [text(finnish)]\n  held_out = 50%\n}\n";
    let text = text.replace(
        "bits_per_byte.fi <= cap.heldout.bits_per_byte.fi ",
        "bits_per_byte.fi_web <= cap.heldout.bits_per_byte.fi ",
    );
    let spec = check("tiny.aur", &text, None).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let eval = spec.block(BlockKind::Eval, "heldout").expect("the eval");
    let names: Vec<String> = set_names(&spec, eval).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["en", "fi", "fi_web"]);
}

#[test]
fn batches_may_be_written_in_tokens() {
    let text = crate::read("specs/tiny.aur").replace("global_batch  = 8 sequences", "global_batch  = 256 tokens");
    let spec = check("tiny.aur", &text, None).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let batch = spec
        .block(BlockKind::Stage, "cap")
        .and_then(|block| block.quantity("global_batch"));
    assert_eq!(batch, Some((8, Unit::Sequences)));
}

#[test]
fn order_comments_and_defaults_change_no_value() {
    let text = crate::read("specs/tiny.aur");
    let parsed = aurora_lang::parse(&text);
    let mut reversed = String::from("// the blocks in reverse order\n");
    for item in parsed.file.items.iter().rev() {
        reversed.push_str(
            &text[item.span.start..item.span.end].replace("machine = cpu", "machine = cpu // same\n  tensor = 1"),
        );
        reversed.push('\n');
    }
    let values = |text: &str| -> Vec<(String, String)> {
        let spec = check("tiny.aur", text, None).unwrap_or_else(|errors| panic!("{errors:#?}"));
        spec.resolved()
            .into_iter()
            .map(|(path, (value, _))| (path, value))
            .collect()
    };
    assert_eq!(values(&reversed), values(&text));
}

#[test]
fn every_default_may_be_spelled_out() {
    for path in SPECS {
        let text = crate::read(path);
        let plain = spec(path, None);
        let mut spelled = text.clone();
        // From the end, so that places before stay what they were.
        let mut items = aurora_lang::parse(&text).file.items;
        items.reverse();
        let mut count = 0;
        for item in items {
            let found = plain
                .blocks
                .iter()
                .find(|(id, _)| id.kind.to_string() == item.keyword.text && id.name == item.name.text);
            let Some((_, block)) = found else { continue };
            for (name, field) in &block.fields {
                if !field.is_written() && field.value != Value::None {
                    spelled.insert_str(item.span.end - 1, &format!(" {name} = {} ", field.value));
                    count += 1;
                }
            }
        }
        assert!(count > 20, "{path}: only {count} defaults");
        let again = check(path, &spelled, None).unwrap_or_else(|errors| panic!("{path}: {errors:#?}"));
        let values = |spec: &Spec| -> Vec<(String, String)> {
            spec.resolved()
                .into_iter()
                .map(|(path, (value, _))| (path, value))
                .collect()
        };
        assert_eq!(values(&again), values(&plain), "{path}");
    }
}
