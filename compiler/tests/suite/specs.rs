//! Checks of the specs in this repository.

use aurora_compiler::check::{AssumptionKind, assumptions, check};
use aurora_compiler::compose::{Bundle, Choice};
use aurora_compiler::exact::Exact;
use aurora_compiler::graph::{Pins, lower};
use aurora_compiler::hash::{encoded, hash};
use aurora_compiler::resolved::resolved;
use aurora_compiler::schema::BLOCKS;
use aurora_compiler::spec::set_names;
use aurora_compiler::spec::{BlockKind, Cause, Origin, Spec, Unit, Value};
use aurora_lang::diagnostics::render_text;

/// Every spec of the repository.
const SPECS: [&str; 14] = [
    "specs/aurora-m.aur",
    "specs/aurora-m-instruct.aur",
    "specs/demo.aur",
    "specs/poro-34b.aur",
    "specs/replay.aur",
    "specs/sc2-ablation.aur",
    "specs/smollm2-nordic.aur",
    "specs/smollm2-safety.aur",
    "specs/starcoder.aur",
    "specs/starcoder-family.aur",
    "specs/starcoderbase.aur",
    "specs/starcoderplus.aur",
    "specs/tiny.aur",
    "specs/tinyllama.aur",
];

/// Libraries that they import.
const LIBRARIES: [&str; 8] = [
    "specs/lib/aurora-m-data.aur",
    "specs/lib/aurora-m-evals.aur",
    "specs/lib/code-data.aur",
    "specs/lib/code-evals.aur",
    "specs/lib/debian.aur",
    "specs/lib/safety-evals.aur",
    "specs/lib/starcoder.aur",
    "specs/lib/web-data.aur",
];

fn bundle(path: &str) -> Bundle {
    crate::bundle_in("", path, &crate::read(path))
}

fn spec(path: &str, profile: Option<&str>) -> Spec {
    let bundle = bundle(path);
    let choice = Choice { profile, point: None };
    bundle
        .check(&choice)
        .unwrap_or_else(|errors| panic!("{}", render_text(&errors, bundle.sources().view(), false)))
}

/// The spec of a text that replaces the file.
fn again(path: &str, text: &str) -> Spec {
    crate::check_in("", path, text).unwrap_or_else(|errors| panic!("{path}: {errors:#?}"))
}

#[test]
fn specs_are_in_canonical_layout() {
    for path in SPECS.iter().chain(&LIBRARIES) {
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
fn a_profile_is_applied() {
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
            Origin::Written {
                line: 87,
                column: 26,
                ..
            }
        ),
        "{:?}",
        layers.origin
    );
    assert_eq!(smoke.cause(&layers.origin), Cause::Profile("smoke".to_owned()));
    // Everything else is the same.
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
fn every_value_of_aurora_m_has_an_origin() {
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

/// Aurora's own experiments, which reproduce no published one.
const OURS: [&str; 4] = [
    "specs/tiny.aur",
    "specs/demo.aur",
    "specs/smollm2-nordic.aur",
    "specs/smollm2-safety.aur",
];

#[test]
fn every_number_of_a_real_experiment_is_marked_or_unknown() {
    for file in SPECS.iter().filter(|file| !OURS.contains(file)) {
        let bundle = bundle(file);
        let points = bundle.points();
        let points = points.iter().map(|point| Some(point.name.as_str())).chain([None]);
        for point in points {
            let spec = bundle
                .check(&Choice { profile: None, point })
                .unwrap_or_else(|errors| panic!("{}", render_text(&errors, bundle.sources().view(), false)));
            for (path, (value, field)) in spec.resolved() {
                let is_number = matches!(
                    field.value,
                    Value::Integer(_) | Value::Decimal(_) | Value::Percent(_) | Value::Quantity(..) | Value::Every(_)
                );
                // A single corpus has a weight of 100%, and `held_out` of the small library belongs to the demo.
                let is_plain = value == "100%" || path.starts_with("corpus.") && *file == "specs/replay.aur";
                assert!(
                    !is_number || !field.is_written() || field.evidence.is_some() || is_plain,
                    "{file}: {path} = {value} has no evidence"
                );
            }
        }
    }
}

#[test]
fn experiments_are_within_two_screens() {
    for path in SPECS.iter().filter(|path| !OURS.contains(path)) {
        let lines = crate::read(path).lines().count();
        assert!(lines <= 120, "{path} has {lines} lines");
    }
}

#[test]
fn a_resolved_spec_is_a_spec_with_the_same_keys() {
    for path in SPECS {
        let bundle = bundle(path);
        let points = bundle.points();
        let points = points.iter().map(|point| Some(point.name.as_str())).chain([None]);
        for point in points {
            let spec = bundle
                .check(&Choice { profile: None, point })
                .unwrap_or_else(|errors| panic!("{path}: {errors:#?}"));
            let text = resolved(&spec);
            assert_eq!(
                aurora_lang::format(&text).as_ref(),
                Ok(&text),
                "{path} is in canonical layout"
            );
            let again =
                check("resolved.aur", &text, None).unwrap_or_else(|errors| panic!("{path}: {errors:#?}\n{text}"));
            let keys = |spec: &Spec| {
                let keyed = hash(lower(spec, &Pins::new()));
                let all: Vec<_> = keyed
                    .graph
                    .ids()
                    .map(|id| (keyed.graph.node(id).name().to_owned(), keyed.key(id)))
                    .collect();
                all
            };
            assert_eq!(keys(&again), keys(&spec), "{path}");
            let marks = |spec: &Spec| {
                assumptions(spec)
                    .into_iter()
                    .map(|found| (found.path, found.text))
                    .collect::<std::collections::BTreeSet<_>>()
            };
            assert_eq!(marks(&again), marks(&spec), "{path}");
        }
    }
}

#[test]
fn snapshots_are_up_to_date() {
    for path in SPECS {
        let snapshot = path.replace("specs/", "specs/snapshots/");
        let text = resolved(&spec(path, None));
        assert!(
            crate::read(&snapshot) == text,
            "{snapshot} is out of date with {path}; `aurora test --update NAME` writes it"
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
            // Values of other files, and values behind names, are written elsewhere.
            let is_here = spec.cause(&field.origin) == Cause::Spec;
            if let (Some(span), true) = (field.span(), is_scalar && is_here) {
                edits.push((span.start, span.end, value));
            }
        }
        edits.sort();
        let mut rewritten = text.clone();
        for (start, end, value) in edits.into_iter().rev() {
            rewritten.replace_range(start..end, &value);
        }
        let again = again(path, &rewritten);
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
    let parsed = aurora_lang::parse(&text, None);
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
fn every_default_can_be_written() {
    let mut total = 0;
    for path in SPECS {
        let text = crate::read(path);
        let plain = spec(path, None);
        let mut spelled = text.clone();
        // From the end, so that earlier positions stay valid.
        let mut items = aurora_lang::parse(&text, None).file.items;
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
        total += count;
        let again = again(path, &spelled);
        let values = |spec: &Spec| -> Vec<(String, String)> {
            spec.resolved()
                .into_iter()
                .map(|(path, (value, _))| (path, value))
                .collect()
        };
        assert_eq!(values(&again), values(&plain), "{path}");
    }
    assert!(total > 100, "only {total} defaults");
}

#[test]
fn a_piecewise_schedule_spells_out_another_one() {
    let text = crate::read("specs/tiny.aur");
    let pieces =
        "piecewise(start = 0, pieces = [line(to = 1e-3, over = 2 steps), hold(over = 3584 tokens), line(to = 1e-4)])";
    let again = text.replace(
        "wsd(peak = 1e-3, floor = 1e-4, warmup = 2 steps, decay = 4 steps)",
        pieces,
    );
    assert_ne!(again, text);
    let schedules = |text: &str| {
        let spec = check("tiny.aur", text, None).unwrap_or_else(|errors| panic!("{errors:#?}"));
        let graph = lower(&spec, &Pins::new());
        let nodes = ["cap@10", "cap@20"].map(|name| encoded(&graph.node(graph.find(name).expect("a checkpoint")).work));
        nodes.map(|fields| fields["schedule"].clone())
    };
    assert_eq!(schedules(&again), schedules(&text));
}

#[test]
fn a_warning_is_silenced_with_a_reason() {
    let spare = crate::read("specs/tiny.aur") + "\nsource spare { from = \"file:data/spare.txt\" }\n";
    let warnings = |text: &str| check("tiny.aur", text, None).map(|spec| spec.warnings.len());
    assert_eq!(warnings(&spare), Ok(1));
    let silenced = spare.replace("seed     = 7", "seed = 7\n  silence = [unused(\"kept for later\")]");
    assert_eq!(warnings(&silenced), Ok(0));
    let keys = |text: &str| {
        let spec = check("tiny.aur", text, None).unwrap_or_else(|errors| panic!("{errors:#?}"));
        let keyed = hash(lower(&spec, &Pins::new()));
        keyed.graph.ids().map(|id| keyed.key(id)).collect::<Vec<_>>()
    };
    assert_eq!(keys(&silenced), keys(&spare), "a silenced warning is not part of a key");
}

#[test]
fn functions_of_checkpoints_read_every_measured_checkpoint() {
    let text = crate::read("specs/tiny.aur")
        + "\nexpect falls { trend(cap.heldout.bits_per_byte.fi) < 0 with 90% confidence }\n\
           expect kept { forgetting(cat.heldout.bits_per_byte.en) <= worst(0.1 * cap.heldout.perplexity.en, cap.heldout.perplexity.fi) }\n";
    let errors = check("tiny.aur", &text, None).expect_err("a product is better in no direction");
    assert_eq!(errors.len(), 1);
    let text = text.replace("worst(0.1 * ", "worst(");
    let spec = check("tiny.aur", &text, None).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let graph = lower(&spec, &Pins::new());
    let node = |name: &str| {
        let id = graph.find(name).expect("a gate");
        let inputs: Vec<String> = graph
            .inputs(id)
            .map(|input| graph.node(input.node).name().to_owned())
            .collect();
        (encoded(&graph.node(id).work), inputs)
    };
    let metric = |input: usize, metric: &str, set: &str| serde_json::json!({"metric": {"input": input, "metric": metric, "set": set}});
    let (fields, inputs) = node("expect/falls");
    assert_eq!(
        inputs,
        ["eval/heldout/small", "eval/heldout/cap@10", "eval/heldout/cap@20"]
    );
    let point = |tokens: u64, input: usize| serde_json::json!([tokens, metric(input, "bits_per_byte", "fi")]);
    assert_eq!(
        fields["left"]["trend"],
        serde_json::json!([point(0, 0), point(2560, 1), point(5120, 2)])
    );
    assert_eq!(fields["confidence"], "0.9");
    let (fields, inputs) = node("expect/kept");
    let last = "eval/heldout/cat@10";
    assert_eq!(
        inputs,
        ["eval/heldout/small", "eval/heldout/cap@10", "eval/heldout/cap@20", last]
    );
    let forgetting = &fields["left"]["forgetting"];
    let of = |input| metric(input, "bits_per_byte", "en");
    assert_eq!(forgetting["earlier"], serde_json::json!([of(0), of(1), of(2)]));
    assert_eq!((&forgetting["last"], &forgetting["better"]), (&of(3), &"lower".into()));
    let worst =
        serde_json::json!({"better": "lower", "of": [metric(2, "perplexity", "en"), metric(2, "perplexity", "fi")]});
    assert_eq!(fields["right"]["worst"], worst);
}

#[test]
fn points_are_only_compared_with_differences_of_fractions() {
    let errors = |gate: &str| {
        let text = crate::read("specs/aurora-m.aur") + &format!("\nexpect extra {{ {gate} }}\n");
        let checked = crate::check_in("specs", "aurora-m.aur", &text);
        checked
            .err()
            .unwrap_or_default()
            .iter()
            .map(|error| error.code)
            .collect::<Vec<_>>()
    };
    for valid in [
        "forgetting(cat.humaneval.pass@1) <= 2 pp",
        "gap(cat.redteam.attack_success_rate.en, cat.redteam.attack_success_rate.fi) <= 5 pp",
        "cap.humaneval.pass@1 - cat.humaneval.pass@1 <= 2 pp",
        "2 pp >= mean(forgetting(cat.humaneval.pass@1), forgetting(cat.mbpp.pass@1))",
    ] {
        assert_eq!(errors(valid), [], "{valid}");
    }
    for invalid in [
        "cat.humaneval.pass@1 >= 2 pp",
        "cap.humaneval.pass@1 + cat.humaneval.pass@1 <= 2 pp",
        "trend(cap.heldout.bits_per_byte.fi) < 2 pp",
        "mean(forgetting(cat.humaneval.pass@1), cat.mbpp.pass@1) <= 2 pp",
    ] {
        assert_eq!(errors(invalid), [aurora_lang::diagnostics::Code::BAD_GATE], "{invalid}");
    }
}

/// Weights in tokens become fractions of their sum. An order node has a ramp's end weights and the stage's samples.
#[test]
fn weights_are_fractions_tokens_or_ramps() {
    let text = crate::read("specs/tiny.aur");
    let order = |en: &str, fi: &str| {
        let text = text
            .replacen("en from [en] weight 80%", &format!("en from [en] weight {en}"), 1)
            .replacen("fi from [fi] weight 20%", &format!("fi from [fi] weight {fi}"), 1);
        let spec = check("tiny", &text, None).unwrap_or_else(|found| panic!("{en}, {fi}: {found:?}"));
        let keyed = hash(lower(&spec, &Pins::new()));
        let id = keyed.graph.find("order/cap").expect("the order of a stage");
        (keyed.key(id), encoded(&keyed.graph.node(id).work))
    };
    let (fractions, plain) = order("80%", "20%");
    assert!(plain.get("samples").is_none(), "{plain}");
    assert_eq!(order("4000 tokens", "1000 tokens").0, fractions, "the same fractions");
    assert_eq!(
        order("ramp(start = 80%, end = 80%)", "20%").0,
        fractions,
        "nothing changes"
    );
    let (_, thirds) = order("2B tokens", "1B tokens");
    assert_eq!(thirds["components"][0]["weight_ppm"], 666_667);
    assert_eq!(thirds["components"][1]["weight_ppm"], 333_333);
    let (_, ramp) = order("ramp(start = 80%, end = 20%)", "ramp(start = 20%, end = 80%)");
    assert_eq!(ramp["components"][0]["until_ppm"], 200_000);
    assert_eq!(ramp["samples"], 160, "20 steps of 8 sequences");
}
