use std::collections::BTreeSet;

use crate::compose::{Bundle, Choice};
use crate::spec::Spec;
use proptest::prelude::*;

use super::flags::{FLAGS, FlagClass, FlagValues};
use super::*;

const STARCODER: &str = include_str!("tests/starcoder.slurm");
const LUMI: &str = include_str!("tests/lumi_test.sh");
const LLAMA: &str = include_str!("tests/llama_core.sh");
const BLEND: &str = include_str!("tests/blend.sh");
/// The scripts whose specs are valid. `BLEND` has a finding of every kind.
const VALID: [(&str, &str); 3] = [
    ("starcoder.slurm", STARCODER),
    ("lumi_test.sh", LUMI),
    ("llama_core.sh", LLAMA),
];

fn checked(imported: &Imported) -> Result<Spec, Vec<String>> {
    let bundle = Bundle::read("imported.aur", &imported.spec, &mut |_| {
        Err("nothing is imported".to_owned())
    });
    bundle.check(&Choice::default()).map_err(|errors| {
        errors
            .iter()
            .map(|error| format!("{}: {}", error.code.as_str(), error.message))
            .collect()
    })
}

fn with_vocabulary(name: &str, script: &str) -> Imported {
    let options = TranslateOptions {
        vocabulary: Some(49_152),
    };
    import(name, script, options).expect("a launch")
}

#[test]
fn scripts_become_specs() {
    for (name, script) in VALID.into_iter().chain([("blend.sh", BLEND)]) {
        let imported = with_vocabulary(name, script);
        insta::with_settings!({ snapshot_suffix => name }, { insta::assert_snapshot!(imported.spec) });
    }
}

#[test]
fn imported_specs_are_valid() {
    for (name, script) in VALID {
        let imported = with_vocabulary(name, script);
        let spec = checked(&imported).unwrap_or_else(|errors| panic!("{name}: {errors:#?}\n{}", imported.spec));
        assert_eq!(spec.name, name.split('.').next().expect("a stem"));
        let formatted = aurora_lang::format::format(&imported.spec).expect("no syntax error");
        assert_eq!(formatted, imported.spec, "{name} is laid out");
    }
}

#[test]
fn starcoder_has_its_published_parameters() {
    let imported = with_vocabulary("starcoder.slurm", STARCODER);
    let spec = checked(&imported).expect("a valid spec");
    let graph = crate::graph::lower(&spec, &crate::graph::Pins::default());
    let fields = graph.ids().find_map(|id| graph.node(id).work.train());
    let model = &fields.expect("a train node").model;
    assert_eq!(model.parameters(), 15_517_456_384);
}

#[test]
fn without_a_vocabulary_only_that_is_missing() {
    let imported = import("starcoder.slurm", STARCODER, TranslateOptions::default()).expect("a launch");
    let errors = checked(&imported).expect_err("a model has a vocabulary");
    assert_eq!(errors, ["E0306: `vocabulary` cannot be `unknown`"]);
}

#[test]
fn the_last_of_two_values_is_used_and_the_first_is_reported() {
    let imported = with_vocabulary("lumi_test.sh", LUMI);
    assert!(imported.spec.contains("every 1000 steps"), "{}", imported.spec);
    let finding = imported
        .findings
        .iter()
        .find(|finding| finding.what == "--save-interval 2500");
    let finding = finding.expect("the first one is reported");
    assert_eq!(finding.kind, FindingKind::Resolved);
    assert!(finding.why.contains("the last one is used"), "{}", finding.why);
}

#[test]
fn every_flag_has_one_class_and_is_in_the_result() {
    let names: BTreeSet<&str> = FLAGS.iter().map(|flag| flag.name).collect();
    assert_eq!(names.len(), FLAGS.len(), "a flag is in the table once");
    for flag in FLAGS {
        // The flag, at the end of a script with all required flags.
        let value = match (flag.takes, flag.name) {
            (FlagValues::Nothing, _) => "",
            (_, "--position-embedding-type") => " rope",
            (_, "--lr-decay-style") => " WSD",
            (_, "--lr-wsd-decay-style") => " linear --lr-decay-style WSD",
            (_, "--lr-wsd-decay-iters" | "--lr-wsd-decay-samples") => " 100 --lr-decay-style WSD",
            (_, "--rotary-base" | "--rotary-theta") => {
                " 100 --position-embedding-type rope --swiglu --normalization RMSNorm --disable-bias-linear"
            }
            (_, "--num-query-groups") => " 16 --group-query-attention",
            (_, "--optimizer") => " adam",
            (_, "--normalization") => " RMSNorm",
            (_, "--attention-head-type") => " multiquery",
            (_, "--recompute-granularity") => " full",
            (_, "--lr-warmup-init") => " 1e-7 --lr-warmup-iters 10",
            (_, "--split") => " 90,10,0 --data-path /data/x",
            (_, "--eval-interval") => " 4 --save-interval 4 --data-path /data/x",
            (_, "--make-vocab-size-divisible-by") => " 1000",
            _ => " 16",
        };
        let most = "--num-layers 4 --hidden-size 64 --num-attention-heads 16 --max-position-embeddings 128 --seq-length 128 \
                    --micro-batch-size 16 --lr 1e-3 --vocab-size 500";
        let horizon = if flag.name.ends_with("-samples") {
            "--train-samples 16000"
        } else {
            "--train-iters 1000"
        };
        let script = format!(
            "torchrun --nproc_per_node 16 --nnodes 1 pretrain_gpt.py {most} {horizon} {}{value}",
            flag.name
        );
        let imported = import("script.sh", &script, TranslateOptions::default()).expect("a launch");
        let findings: Vec<&Finding> = imported
            .findings
            .iter()
            .filter(|finding| finding.line > 0 && finding.what.split(' ').next() == Some(flag.name))
            .collect();
        let origin = format!("script.sh:1 {}", flag.name);
        let body = imported
            .spec
            .lines()
            .take_while(|line| !FindingKind::ALL.iter().any(|kind| line.contains(kind.heading())));
        let stated = body.into_iter().any(|line| line.contains(&origin));
        match flag.class {
            FlagClass::Translated => assert!(
                stated || !findings.is_empty(),
                "{} leaves no trace:\n{}",
                flag.name,
                imported.spec
            ),
            FlagClass::NoEffect(_) => assert!(
                findings.iter().all(|finding| finding.kind == FindingKind::NoEffect),
                "{}",
                flag.name
            ),
            FlagClass::ChangesResult { .. } => {
                assert!(
                    findings
                        .iter()
                        .all(|finding| finding.kind == FindingKind::ChangesResult),
                    "{}",
                    flag.name
                );
            }
            FlagClass::Placement(_) => {
                assert!(
                    findings
                        .iter()
                        .all(|finding| finding.kind == FindingKind::ChangesPlacement),
                    "{}",
                    flag.name
                );
            }
        }
        if flag.class != FlagClass::Translated {
            assert!(!stated && findings.len() == 1, "{}: {findings:?}", flag.name);
        }
    }
}

/// The flags that both lines' launch scripts are made of.
const USED: &str = "num-layers hidden-size num-attention-heads ffn-hidden-size attention-head-type group-query-attention \
    num-query-groups kv-channels max-position-embeddings position-embedding-type rotary-base rotary-percent use-rope-scaling \
    rope-scaling-factor layernorm-epsilon normalization norm-epsilon swiglu openai-gelu disable-bias-linear \
    untie-embeddings-and-output-weights attention-dropout hidden-dropout init-method-std tokenizer-type tokenizer-file \
    tokenizer-model make-vocab-size-divisible-by tensor-model-parallel-size pipeline-model-parallel-size sequence-parallel \
    use-distributed-optimizer num-layers-per-virtual-pipeline-stage num-virtual-stages-per-pipeline-rank \
    context-parallel-size overlap-grad-reduce overlap-param-gather micro-batch-size global-batch-size seq-length \
    rampup-batch-size step-batch-size-schedule train-iters train-samples lr min-lr lr-decay-style lr-decay-iters \
    lr-warmup-iters lr-wsd-decay-style lr-wsd-decay-iters lr-warmup-init optimizer adam-beta1 adam-beta2 adam-eps \
    weight-decay clip-grad bf16 use-flash-attn attention-backend grad-reduce-in-bf16 recompute-granularity recompute-method \
    recompute-num-layers data-path split train-weighted-split-paths-path valid-weighted-split-paths-path train-data-path \
    valid-data-path test-data-path per-split-data-args-path fim-rate fim-spm-rate fim-split-sample fragment-fim-rate fim-data \
    fim-prefix-token reset-attention-mask reset-position-ids eod-mask-loss dataloader-inter-document-masking load finetune \
    no-load-optim no-load-rng override-opt_param-scheduler pretrained-checkpoint save save-interval ckpt-format async-save \
    most-recent-k save-retain-interval eval-interval eval-iters valid-num-workers full-validation multiple-validation-sets \
    seed deterministic-mode tensorboard-dir log-interval structured-logs structured-logs-dir wandb-entity-name \
    wandb-project-name wandb-project wandb-exp-name log-throughput exit-duration-in-mins exit-signal-handler exit-signal \
    phase-transition-iterations calculate-per-token-loss";

#[test]
fn the_flags_of_both_lines_are_known() {
    let missing: Vec<&str> = USED
        .split_whitespace()
        .filter(|name| flags::flag(&format!("--{name}")).is_none())
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_script_that_does_not_train_a_gpt_is_refused() {
    let refused = |script: &str| {
        import("x.sh", script, TranslateOptions::default())
            .expect_err("no launch")
            .to_string()
    };
    assert_eq!(
        refused("echo pretrain_gpt.py --num-layers 4"),
        "no command of the script runs `pretrain_gpt.py` with its flags"
    );
    assert_eq!(
        refused("X=1\ntorchrun pretrain_bert.py --num-layers 4"),
        "line 2 runs `pretrain_bert.py`, which does not train a GPT"
    );
    assert!(refused(&" ".repeat(2 << 20)).contains("the limit is"));
}

#[test]
fn texts_that_grow_and_functions_that_call_themselves_end() {
    let doubling = format!("A=aaaaaaaa\n{}pretrain_gpt.py --num-layers $A\n", "A=$A$A\n".repeat(60));
    let calling = "f() { f; f; }\nf\npretrain_gpt.py --num-layers 2\n".to_owned();
    let deep = format!("pretrain_gpt.py --num-layers {}2\n", "${A:-".repeat(5000));
    let bars = format!(
        "{}true\npretrain_gpt.py --num-layers 2",
        "[[ -z \"\" ]] && ".repeat(5000)
    );
    let not = format!("[[ {} -z x ]] && pretrain_gpt.py --num-layers 2", "! ".repeat(20_000));
    for script in [
        doubling,
        calling,
        deep,
        bars,
        not,
        "(".repeat(50_000),
        "{ ".repeat(50_000),
    ] {
        let _ = import("x.sh", &script, TranslateOptions::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever is cut out of a script, put twice, or put in its place, there is an answer.
    #[test]
    fn any_script_has_an_answer(
        which in 0..3_usize,
        cuts in prop::collection::vec((0..4000_usize, 0..60_usize, "[-a-z0-9$(){}\\[\\]\"'`\\\\;&|<> \n=#@:]{0,12}"), 0..6),
    ) {
        let mut script: Vec<char> = [STARCODER, LUMI, LLAMA][which].chars().collect();
        for (at, length, text) in cuts {
            let at = at.min(script.len());
            let end = (at + length).min(script.len());
            script.splice(at..end, text.chars());
        }
        let script: String = script.into_iter().collect();
        if let Ok(imported) = import("any.sh", &script, TranslateOptions::default()) {
            let again = aurora_lang::format::format(&imported.spec);
            prop_assert_eq!(again.as_deref(), Ok(imported.spec.as_str()), "a spec without syntax errors");
        }
    }

    #[test]
    fn any_text_has_an_answer(script in "\\PC{0,200}") {
        let _ = import("any.sh", &script, TranslateOptions::default());
        let script = format!("torchrun pretrain_gpt.py --num-layers {script}");
        let _ = import("any.sh", &script, TranslateOptions::default());
    }
}
