//! Files, names and points of a sweep as one spec.

use std::collections::BTreeMap;

use aurora_compiler::compose::{Bundle, Choice};
use aurora_compiler::graph::{Pins, lower};
use aurora_compiler::hash::hash;
use aurora_compiler::spec::{Cause, Spec};
use aurora_lang::diagnostics::render_text;
use proptest::prelude::*;

/// A bundle of files that exist only in this test; the first is the spec.
fn bundle(files: &[(&str, &str)]) -> Bundle {
    let (name, text) = files[0];
    Bundle::read(name, text, &mut |path| {
        let found = files.iter().find(|(name, _)| *name == path);
        found
            .map(|(_, text)| (*text).to_owned())
            .ok_or_else(|| "there is no such file".to_owned())
    })
}

fn checked_spec(bundle: &Bundle, choice: Choice<'_>) -> Spec {
    bundle
        .check(&choice)
        .unwrap_or_else(|errors| panic!("{}", render_text(&errors, bundle.sources().view(), false)))
}

fn spec(files: &[(&str, &str)]) -> Spec {
    checked_spec(&bundle(files), Choice::default())
}

/// Every node with its key.
fn keys(spec: &Spec) -> BTreeMap<String, String> {
    let keyed = hash(lower(spec, &Pins::new()));
    let nodes = keyed.graph.ids();
    nodes
        .map(|id| (keyed.graph.node(id).name().to_owned(), keyed.key(id).to_hex()))
        .collect()
}

fn value(spec: &Spec, path: &str) -> String {
    spec.resolved()[path].0.clone()
}

/// Why a value is what it is, and where it was written.
fn origin(spec: &Spec, path: &str) -> (Cause, Option<String>) {
    let origin = &spec.resolved()[path].1.origin.clone();
    (spec.cause(origin), spec.place(origin))
}

fn tiny() -> String {
    crate::read("specs/tiny.aur")
}

/// The same spec in two files, with some values moved to `let` and `param`.
fn split(text: &str) -> (String, String) {
    let at = text.find("tokenizer bpe").expect("the small spec trains a tokenizer");
    let experiment = text.find("source ").expect("the small spec has sources");
    let library = format!("/// Corpora.\nlet most = 4\n\n{}", &text[experiment..at]);
    let own = format!(
        "{}import \"lib/corpora.aur\" {{ en, fi, most }}\n\nlet length = 32 tokens\nparam peak = 1e-3 in 1e-5 .. 1e-2\n\n{}",
        &text[..experiment],
        text[at..]
            .replace("sequence      = 32 tokens", "sequence = length")
            .replace("peak = 1e-3", "peak = peak")
            .replace("max_epochs 4", "max_epochs most")
    );
    (own, library)
}

#[test]
fn splitting_a_spec_into_files_changes_no_key() {
    let text = tiny();
    let (own, library) = split(&text);
    let files = [("specs/tiny.aur", own.as_str()), ("specs/lib/corpora.aur", &library)];
    assert_eq!(keys(&spec(&files)), keys(&spec(&[("specs/tiny.aur", &text)])));
}

#[test]
fn every_value_has_an_origin() {
    let (own, library) = split(&tiny());
    let own = own + "\nsweep rates { stage.cap.optimizer.clip = [0.5, 2.0] }\n";
    let files = [("specs/tiny.aur", own.as_str()), ("specs/lib/corpora.aur", &library)];
    let mut bundle = bundle(&files);
    bundle.set("peak=2e-3");
    bundle.set("stage.cat.learning_rate.rate = 3e-4");
    let choice = Choice {
        profile: Some("smoke"),
        point: Some("clip_0_5"),
    };
    let spec = checked_spec(&bundle, choice);
    assert_eq!(spec.name, "tiny_clip_0_5");
    assert_eq!(spec.settings, ["peak=2e-3", "stage.cat.learning_rate.rate = 3e-4"]);
    let place = |file: &str, line: &str, word: &str| {
        let text = files.iter().find(|(name, _)| *name == file).expect("a file").1;
        let (at, found) = text
            .lines()
            .enumerate()
            .find(|(_, found)| found.contains(line))
            .expect("a line");
        Some(format!("{file}:{}:{}", at + 1, found.find(word).expect("a word") + 1))
    };
    let own = "specs/tiny.aur";
    assert_eq!(
        origin(&spec, "stage.cap.learning_rate.peak"),
        (Cause::Set, Some("--set:1:6".to_owned()))
    );
    assert_eq!(
        origin(&spec, "stage.cat.learning_rate.rate"),
        (Cause::Set, Some("--set:1:32".to_owned()))
    );
    assert_eq!(value(&spec, "stage.cat.learning_rate.rate"), "3e-4");
    assert_eq!(value(&spec, "stage.cap.learning_rate.peak"), "2e-3");
    let found = [
        (
            "stage.cap.sequence",
            Cause::Let("length".to_owned()),
            place(own, "let length", "32 tokens"),
        ),
        (
            "stage.cap.budget",
            Cause::Profile("smoke".to_owned()),
            place(own, "stage.cap.budget =", "10 steps"),
        ),
        (
            "stage.cap.optimizer.clip",
            Cause::Sweep("rates".to_owned()),
            place(own, "sweep rates", "0.5"),
        ),
        (
            "stage.cap.mixture",
            Cause::Spec,
            place(own, "mixture       = mostly_english", "mostly_english"),
        ),
        (
            "corpus.fi.language",
            Cause::Import,
            place("specs/lib/corpora.aur", "language = fi", "fi"),
        ),
        ("stage.cap.optimizer.epsilon", Cause::Default, None),
    ];
    for (path, cause, place) in found {
        assert_eq!(origin(&spec, path), (cause, place), "{path}");
    }
    let epochs = origin(&spec, "mixture.mostly_english.fi.max_epochs");
    assert_eq!(
        epochs,
        (
            Cause::Let("most".to_owned()),
            place("specs/lib/corpora.aur", "let most", "4")
        )
    );
}

#[test]
fn a_parameter_has_its_default_until_it_is_set() {
    let (own, library) = split(&tiny());
    let own = own.replace("profile smoke {", "profile smoke {\n  peak = 5e-3");
    let mut bundle = bundle(&[("specs/tiny.aur", own.as_str()), ("specs/lib/corpora.aur", &library)]);
    let peak = |bundle: &Bundle, profile| {
        value(
            &checked_spec(bundle, Choice { profile, point: None }),
            "stage.cap.learning_rate.peak",
        )
    };
    assert_eq!(peak(&bundle, None), "1e-3");
    assert_eq!(peak(&bundle, Some("smoke")), "5e-3");
    bundle.set("peak=1e-4");
    assert_eq!(peak(&bundle, Some("smoke")), "1e-4");
}

#[test]
fn invalid_settings_are_explained() {
    let (own, library) = split(&tiny());
    let files = [("specs/tiny.aur", own.as_str()), ("specs/lib/corpora.aur", &library)];
    let mut drawn = String::new();
    for settings in [
        &["peek=1e-4"][..],
        &["peak=1"],
        &["peak=32 tokens"],
        &["stage.cap.bugdet=10 steps"],
        &["stage.kap.budget=10 steps"],
        &["stag.cap.budget=10 steps"],
        &["stage.cap.learning_rate.paek=1e-3"],
        &["stage.cap.budget=10 bytes"],
        &["stage.cap.budget"],
        &["peak=1e-4", "peak=1e-3"],
        &["mixture.mostly_english.fi.wieght=30%"],
    ] {
        let mut bundle = bundle(&files);
        settings.iter().for_each(|setting| bundle.set(setting));
        let errors = bundle
            .check(&Choice::default())
            .expect_err("a setting that cannot be made");
        drawn.push_str(&render_text(&errors, bundle.sources().view(), false));
    }
    let point = Choice {
        profile: None,
        point: Some("peak_1e_9"),
    };
    let own = own.clone() + "\nsweep peaks { peak = [1e-3, 1e-4] }\n";
    let bundle = bundle(&[("specs/tiny.aur", own.as_str()), ("specs/lib/corpora.aur", &library)]);
    let errors = bundle.check(&point).expect_err("no such point");
    drawn.push_str(&render_text(&errors, bundle.sources().view(), false));
    insta::assert_snapshot!(drawn);
}

#[test]
fn an_experiment_extends_another() {
    let base = tiny();
    let variant = "experiment larger { precision = bf16 }\n\nextends \"tiny.aur\" {\n  stage.cap.budget = 40 steps\n  model \
                   small { layers = 4 }\n}\n\neval again {\n  kind = perplexity\n  data = [en]\n  at   = [end]\n}\n";
    let extended = spec(&[("specs/larger.aur", variant), ("specs/tiny.aur", &base)]);
    assert_eq!(extended.name, "larger");
    let seed = |spec: &Spec, name: &str| value(spec, &format!("experiment.{name}.seed"));
    let plain = spec(&[("specs/tiny.aur", &base)]);
    assert_eq!(seed(&extended, "larger"), seed(&plain, "tiny"));
    // The same spec, written by hand.
    let by_hand = base
        .replace("experiment tiny {", "experiment larger {\n  precision = bf16")
        .replacen("budget        = 20 steps", "budget = 40 steps", 1)
        .replacen("layers       = 2", "layers = 4", 1)
        + "\neval again {\n  kind = perplexity\n  data = [en]\n  at   = [end]\n}\n";
    assert_eq!(keys(&extended), keys(&spec(&[("specs/larger.aur", &by_hand)])));
    let cause = origin(&extended, "stage.cap.budget").0;
    assert_eq!(cause, Cause::Extends("tiny.aur".to_owned()));
    // With a second level of `extends`, the outermost change wins.
    let third = "experiment largest {}\n\nextends \"larger.aur\" { stage.cap.budget = 60 steps }\n";
    let third = spec(&[
        ("specs/largest.aur", third),
        ("specs/larger.aur", variant),
        ("specs/tiny.aur", &base),
    ]);
    assert_eq!(value(&third, "stage.cap.budget"), "60 steps");
    assert_eq!(value(&third, "model.small.layers"), "4");
    assert_eq!(value(&third, "experiment.largest.precision"), "bf16");
}

#[test]
fn unused_imports_are_left_out() {
    let own = tiny() + "\nimport \"lib/more.aur\"\n";
    let library = "source unused { from = \"file:data/x.txt\" }\n";
    let spec = spec(&[("specs/tiny.aur", &own), ("specs/lib/more.aur", library)]);
    assert!(spec.blocks.keys().all(|id| id.name != "unused"));
    assert_eq!(spec.warnings, Vec::new());
}

#[test]
fn points_are_a_product_of_paths_and_zips() {
    let own = tiny()
        + "\nsweep grid {\n  experiment.tiny.seed = [1, 2]\n  zip lengths {\n    stage.cap.budget = [10 steps, 20 steps]\n    \
           stage.cat.budget = [20 steps, 10 steps]\n  }\n}\n";
    let bundle = bundle(&[("tiny.aur", &own)]);
    let points: Vec<String> = bundle.points().into_iter().map(|point| point.name).collect();
    assert_eq!(
        points,
        [
            "seed_1_cap_budget_10_steps",
            "seed_1_cap_budget_20_steps",
            "seed_2_cap_budget_10_steps",
            "seed_2_cap_budget_20_steps",
        ]
    );
    let point = checked_spec(
        &bundle,
        Choice {
            profile: None,
            point: Some(&points[1]),
        },
    );
    assert_eq!(point.name, format!("tiny_{}", points[1]));
    assert_eq!(value(&point, &format!("experiment.{}.seed", point.name)), "1");
    assert_eq!(value(&point, "stage.cap.budget"), "20 steps");
    assert_eq!(value(&point, "stage.cat.budget"), "10 steps");
}

/// A path of the small spec, its text there, and other valid values.
const PATHS: [(&str, &str, [&str; 3]); 6] = [
    ("experiment.tiny.seed", "seed     = 7", ["8", "9", "10"]),
    ("stage.cap.learning_rate.peak", "peak = 1e-3", ["2e-3", "3e-3", "4e-3"]),
    (
        "tokenizer.bpe.kind.vocabulary",
        "train_bpe(vocabulary = 512)",
        ["300", "400", "500"],
    ),
    ("model.small.layers", "layers       = 2", ["1", "3", "4"]),
    (
        "stage.cat.learning_rate.rate",
        "constant(rate = 1e-4)",
        ["2e-4", "5e-5", "1e-5"],
    ),
    ("mixture.mostly_english.fi.max_epochs", "max_epochs 4", ["1", "2", "8"]),
];

/// The text of the small spec with one value changed by hand.
fn by_hand(text: &str, path: &str, written: &str, new: &str) -> String {
    assert!(text.contains(written), "{path}: `{written}` is not in the small spec");
    let old = written
        .rsplit(['=', ' '])
        .find(|part| !part.trim().is_empty())
        .expect("a value");
    let at = text.find(written).expect("checked above");
    let own = match written.rfind("= ") {
        Some(equals) => &written[equals + 2..],
        None => old,
    };
    let own = own.trim_end_matches(')');
    let start = at + written.rfind(own).expect("the value is in the text");
    let mut text = text.to_owned();
    text.replace_range(start..start + own.len(), new);
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every node of a point has the same key as in a spec with the point's values written by hand.
    #[test]
    fn points_equal_specs_written_by_hand(
        chosen in proptest::sample::subsequence((0..PATHS.len()).collect::<Vec<_>>(), 1..=4),
        zipped in any::<bool>(),
        count in 1..=2_usize,
    ) {
        let text = tiny();
        let lists: Vec<String> = chosen
            .iter()
            .map(|&at| format!("{} = [{}]", PATHS[at].0, PATHS[at].2[..count].join(", ")))
            .collect();
        let body = if zipped { format!("zip all {{\n{}\n}}", lists.join("\n")) } else { lists.join("\n") };
        let swept = format!("{text}\nsweep all {{\n{body}\n}}\n");
        let bundle = bundle(&[("tiny.aur", &swept)]);
        let points = bundle.points();
        let expected = if zipped { count } else { count.pow(chosen.len() as u32) };
        prop_assert_eq!(points.len(), expected);
        let base = keys(&spec(&[("tiny.aur", &text)]));
        for (index, point) in points.iter().enumerate() {
            let checked = checked_spec(&bundle, Choice { profile: None, point: Some(&point.name) });
            let mut hand = text.clone();
            let mut rest = index;
            for &at in chosen.iter().rev() {
                let (path, written, values) = PATHS[at];
                let value = if zipped { index } else { rest % count };
                rest /= count;
                hand = by_hand(&hand, path, written, values[value]);
            }
            let hand = hand.replace("experiment tiny {", &format!("experiment tiny_{} {{", point.name));
            let hand = spec(&[("tiny.aur", &hand)]);
            prop_assert_eq!(keys(&checked), keys(&hand), "{}", point.name);
            // Nodes that the point does not change have the keys of the base.
            prop_assert_eq!(&keys(&checked)["source/english"], &base["source/english"]);
        }
    }
}

#[test]
fn points_keyed_together_have_the_same_keys_as_alone() {
    let text = tiny();
    let sweeps = [
        "stage.cap.learning_rate.floor = [1e-5, 2e-5]\n  stage.cat.optimizer.clip = [0.5, none]",
        "mixture.mostly_english.fi.from = [[fi], [fi, en]]",
        "zip weights {\n    mixture.mostly_english.en.weight = [70%, 60%]\n    mixture.mostly_english.fi.weight = [30%, 40%]\n  }",
        "model.small.layers = [1, 2]\n  experiment.tiny.seed = [1, 2]",
        "stage.cap.learning_rate = [constant(rate = 1e-3), cosine(peak = 1e-3, floor = 1e-4, warmup = 1 steps)]",
        "stage.cap.budget = [10 steps, 30 steps]",
    ];
    for sweep in sweeps {
        let swept = format!("{text}\nsweep all {{\n  {sweep}\n}}\n");
        let bundle = bundle(&[("tiny.aur", &swept)]);
        let together = bundle
            .sweep_keys(None, &Pins::new())
            .unwrap_or_else(|errors| panic!("{errors:#?}"));
        assert_eq!(together.len(), bundle.points().len());
        for found in together {
            let point = Some(found.point.name.as_str());
            let alone = hash(lower(
                &checked_spec(&bundle, Choice { profile: None, point }),
                &Pins::new(),
            ));
            let alone: Vec<_> = alone.graph.ids().map(|id| alone.key(id)).collect();
            assert_eq!(found.keys, alone, "{sweep}: {}", found.experiment);
        }
    }
}
