//! Blocks and their fields.

use super::calls::{
    ATTACKS, COMPONENT, EXTRACTIONS, JUDGES, LEARNING_RATES, NUMERICS, OPTIMIZERS, TOKENIZERS, WARNINGS, WEIGHTS,
};
use super::{BlockSchema, CallSchema, Range, TextKind, Type, between, field, positive, whole};
use crate::spec::{Better, BlockKind, Unit};

const LARGEST: i64 = 1 << 24;
const TOKENS_OR_STEPS: &[Unit] = &[Unit::Tokens, Unit::Steps];
const TEXT: Type = Type::Text(TextKind::Plain);
const WARNING_LIST: Type = Type::List {
    of: &Type::Call(WARNINGS),
    least: 1,
};
const CORPORA: Type = Type::List {
    of: &Type::Reference(&[BlockKind::Corpus]),
    least: 1,
};

/// Every kind of block, in the order in which the reference tells them.
pub const BLOCKS: &[BlockSchema] = &[
    EXPERIMENT, SOURCE, CORPUS, TOKENIZER, MODEL, MIXTURE, STAGE, EVAL, EXPECT, LAYOUT,
];

/// The table of a mixture's lines.
pub fn component() -> &'static CallSchema {
    &COMPONENT
}

const EXPERIMENT: BlockSchema = BlockSchema {
    kind: BlockKind::Experiment,
    meaning: "Names the experiment and fixes what holds for all of it; a file has exactly one.",
    fields: &[
        field("seed", whole(0, i64::MAX), "Seed of every random choice.").or("0"),
        field(
            "numerics",
            Type::Call(NUMERICS),
            "What fixes the order of every floating-point sum.",
        )
        .or("invariant(tensor = 1, lanes = 1, micro_batch = 1 sequences)"),
        field(
            "precision",
            Type::Word(&[
                ("f32", "single precision throughout"),
                (
                    "bf16",
                    "bfloat16 in the layers, single precision in sums, weights and optimizer",
                ),
            ]),
            "Number format of the layers.",
        )
        .or("f32"),
        field(
            "silence",
            WARNING_LIST,
            "Warnings that are not told, each with the reason.",
        )
        .or_unset("all are told")
        .description(),
        field(
            "refuse",
            WARNING_LIST,
            "Warnings that are errors here, each with the reason.",
        )
        .or_unset("warnings are no errors")
        .description(),
    ],
    example: "experiment tiny {\n  seed     = 7\n  numerics = invariant(tensor = 2, lanes = 2, micro_batch = 2 sequences)\n}",
};

const SOURCE: BlockSchema = BlockSchema {
    kind: BlockKind::Source,
    meaning: "Files from somewhere, pinned by content in the lock.",
    fields: &[
        field(
            "from",
            Type::Text(TextKind::Source),
            "Where they are: `pkg:pypi/NAME@VERSION`, `pkg:deb/debian/NAME@VERSION?suite=SUITE`, \
             `pkg:cargo/NAME@VERSION`, `pkg:npm/NAME@VERSION`, `file:PATH` (relative to the spec; a pattern names \
             several), or `hf:ORGANISATION/NAME@REVISION` (a repository of the Hugging Face hub, without its pickles).",
        )
        .may_be_unknown(),
        field("licence", TEXT, "Under which terms they may be used.")
            .or_unset("not stated")
            .description()
            .may_be_unknown(),
    ],
    example: "source sympy {\n  from    = \"pkg:pypi/sympy@1.14.0\"\n  licence = \"BSD-3-Clause\"\n}",
};

const CORPUS: BlockSchema = BlockSchema {
    kind: BlockKind::Corpus,
    meaning: "Documents in one language, extracted from sources and cleaned.",
    fields: &[
        field(
            "language",
            Type::Word(&[
                ("en", "English"),
                ("fi", "Finnish"),
                ("hi", "Hindi"),
                ("ja", "Japanese"),
                ("vi", "Vietnamese"),
                ("code", "source code"),
                ("other", "anything else; never filtered by language"),
            ]),
            "Language of the text; also the name under which scores are reported.",
        ),
        field(
            "from",
            Type::List {
                of: &Type::Call(EXTRACTIONS),
                least: 1,
            },
            "How documents are read, and from where.",
        ),
        field(
            "language_filter",
            Type::Bool,
            "Drop units that do not look like `language`.",
        )
        .or_derived("`true`; `false` for `code` and `other`")
        .ignored("an error with `code` and `other`"),
        field(
            "minimum",
            Type::Quantity {
                units: &[Unit::Characters],
                least: 0,
            },
            "Shorter units are dropped.",
        )
        .or_derived("30 characters; 12 for `ja`, 0 for `code`"),
        field(
            "unit",
            Type::Word(&[
                (
                    "paragraph",
                    "a document is filtered and deduplicated paragraph by paragraph",
                ),
                ("document", "a document is kept or dropped as a whole"),
            ]),
            "What is kept or dropped.",
        )
        .or_derived("`paragraph`; `document` for `code` and of `pairs`"),
        field(
            "deduplicate",
            Type::Bool,
            "Drop exact repeats of a unit; the first one stays.",
        )
        .or("true"),
        field(
            "held_out",
            Type::Percent {
                range: Range {
                    least: "0",
                    includes_least: true,
                    most: Some("100"),
                    includes_most: false,
                },
            },
            "Share of documents kept out of training, chosen by the hash of their text.",
        )
        .or("0%"),
        field(
            "limit",
            Type::Quantity {
                units: &[Unit::Bytes],
                least: 1,
            },
            "Stop after so much kept text.",
        )
        .or_unset("everything is kept"),
    ],
    example: "corpus fi {\n  language = fi\n  from     = [mo(gnucash, files = [\"usr/share/locale/fi/**/*.mo\"]), roff(manpages_fi)]\n  held_out = 5%\n}",
};

const TOKENIZER: BlockSchema = BlockSchema {
    kind: BlockKind::Tokenizer,
    meaning: "How text becomes tokens.",
    fields: &[
        field("kind", Type::Call(TOKENIZERS), "Trained here, or given."),
        field("corpora", CORPORA, "The corpora it is trained on.")
            .or_unset("it is given, not trained")
            .ignored("an error with `load`"),
    ],
    example: "tokenizer bpe {\n  kind    = train_bpe(vocabulary = 8192)\n  corpora = [en, fi]\n}",
};

const MODEL: BlockSchema = BlockSchema {
    kind: BlockKind::Model,
    meaning: "A network and its first weights.",
    fields: &[
        field(
            "architecture",
            Type::Word(&[
                (
                    "gpt_bigcode",
                    "decoder with learned positions, LayerNorm, GELU, biases and tied embeddings; one key and value head \
                     for all heads, or one for each",
                ),
                (
                    "llama",
                    "decoder with rotary positions, root-mean-square norms, SwiGLU, no biases; heads share keys and \
                     values in groups",
                ),
            ]),
            "Family of the network.",
        ),
        field("layers", whole(1, 10_000), "Transformer layers."),
        field("hidden", whole(1, LARGEST), "Width of the residual stream."),
        field("heads", whole(1, 65_536), "Attention heads; divide `hidden`."),
        field(
            "kv_heads",
            whole(1, 65_536),
            "Heads of keys and values; divide `heads`.",
        )
        .or("1"),
        field("feed_forward", whole(1, LARGEST), "Width inside a feed-forward layer.").or_derived("4 × `hidden`"),
        field(
            "context",
            Type::Quantity {
                units: &[Unit::Tokens],
                least: 1,
            },
            "Positions: the longest sequence.",
        ),
        field(
            "vocabulary",
            whole(1, LARGEST),
            "Rows of the embedding; at least the tokenizer's entries.",
        ),
        field(
            "activation",
            Type::Word(&[
                ("gelu", "with the error function"),
                ("gelu_tanh", "approximated with tanh"),
                ("swiglu", "SiLU of a gate, times a second projection"),
            ]),
            "Non-linearity of the feed-forward layers.",
        )
        .or_derived("`gelu` in gpt_bigcode, `swiglu` in llama"),
        field("norm_epsilon", positive("1"), "Added to the variance in norms.").or("1e-5"),
        field(
            "rotary_base",
            positive("1000000000"),
            "Base of the rotary positions' angles.",
        )
        .or_derived("10000 in llama")
        .ignored("an error in gpt_bigcode, whose positions are learned"),
        field(
            "tied_embeddings",
            Type::Bool,
            "The output layer is the word embedding; always so in gpt_bigcode.",
        )
        .or("true"),
        field(
            "tokenizer",
            Type::Reference(&[BlockKind::Tokenizer]),
            "The tokenizer of everything it reads.",
        ),
        field("weights", Type::Call(WEIGHTS), "The weights before its first stage.").or("random(std = 0.02)"),
    ],
    example: "model small {\n  architecture = gpt_bigcode\n  layers       = 4\n  hidden       = 128\n  heads        = 4\n  context      = 256 tokens\n  vocabulary   = 8192\n  tokenizer    = bpe\n}",
};

const MIXTURE: BlockSchema = BlockSchema {
    kind: BlockKind::Mixture,
    meaning: "What a stage reads, and in which shares. Each line is a component: a name, `from` and a list of corpora, \
              `weight` and a share (or tokens, or a `ramp`), and `max_epochs` and a number if its tokens may not be seen more often.",
    fields: &[],
    example: "mixture cap {\n  en from [en]         weight 70%\n  fi from [fi, fi_web] weight 30% max_epochs 4\n}",
};

const STAGE: BlockSchema = BlockSchema {
    kind: BlockKind::Stage,
    meaning: "Training on one mixture, from given weights, for a given number of tokens.",
    fields: &[
        field(
            "start",
            Type::Reference(&[BlockKind::Model, BlockKind::Stage]),
            "The weights it starts from.",
        ),
        field(
            "budget",
            Type::Quantity {
                units: TOKENS_OR_STEPS,
                least: 1,
            },
            "How long it trains: a whole number of global batches.",
        ),
        field("mixture", Type::Reference(&[BlockKind::Mixture]), "What it reads."),
        field(
            "sequence",
            Type::Quantity {
                units: &[Unit::Tokens],
                least: 1,
            },
            "Tokens of one sequence.",
        ),
        field(
            "global_batch",
            Type::Quantity {
                units: &[Unit::Sequences, Unit::Tokens],
                least: 1,
            },
            "Sequences of one optimizer step.",
        ),
        field(
            "learning_rate",
            Type::Call(LEARNING_RATES),
            "The learning rate over the stage's steps.",
        ),
        field("optimizer", Type::Call(OPTIMIZERS), "How a gradient becomes an update.").or("adamw()"),
        field(
            "optimizer_state",
            Type::Word(&[
                ("keep", "go on with the moments of the stage before"),
                ("reset", "start from zero moments"),
            ]),
            "The optimizer's moments at the start.",
        )
        .or_derived("`keep` when it starts from a stage, `reset` when it starts from a model"),
        field(
            "checkpoint",
            Type::Every(TOKENS_OR_STEPS),
            "How often a checkpoint is kept.",
        )
        .or_unset("only at the end")
        .may_be_unknown(),
    ],
    example: "stage cap {\n  start         = small\n  budget        = 2000 steps\n  mixture       = cap\n  sequence      = 256 tokens\n  global_batch  = 64 sequences\n  learning_rate = cosine(peak = 1e-3, floor = 1e-4, warmup = 100 steps)\n}",
};

const EVAL: BlockSchema = BlockSchema {
    kind: BlockKind::Eval,
    meaning: "A measurement of checkpoints.",
    fields: &[
        field("kind", Type::Word(EVAL_KINDS), "What is measured."),
        field(
            "data",
            Type::List {
                of: &Type::Reference(&[BlockKind::Corpus, BlockKind::Source]),
                least: 1,
            },
            "Corpora for `perplexity`, sources of problems or prompts for the other kinds.",
        ),
        field(
            "at",
            Type::List {
                of: &Type::OneOf(&[
                    Type::Word(&[
                        ("start", "before the stage's first step"),
                        ("end", "after its last step"),
                    ]),
                    Type::Every(TOKENS_OR_STEPS),
                ]),
                least: 1,
            },
            "Which checkpoints of a stage are measured.",
        )
        .or("[start, end]"),
        field(
            "stages",
            Type::List {
                of: &Type::Reference(&[BlockKind::Stage]),
                least: 1,
            },
            "The stages measured.",
        )
        .or_derived("all stages"),
        field(
            "split",
            Type::Word(&[
                ("held_out", "the documents kept out of training"),
                ("all", "every document of a corpus that no stage trains on"),
            ]),
            "Which documents of the corpora are read.",
        )
        .or_derived("`held_out`")
        .ignored("an error with any kind but `perplexity`"),
        field(
            "window",
            Type::Quantity {
                units: &[Unit::Tokens],
                least: 1,
            },
            "Tokens of one window.",
        )
        .or_unset("the stage's `sequence`")
        .ignored("an error with any kind but `perplexity`"),
        field(
            "k",
            Type::List {
                of: &whole(1, 10_000),
                least: 1,
            },
            "The k of each pass@k.",
        )
        .or_unset("not a `pass_at_k`")
        .ignored("an error with any kind but `pass_at_k`"),
        field("samples", whole(1, 100_000), "Completions drawn for each problem.")
            .or_unset("not a `pass_at_k`")
            .ignored("an error with any kind but `pass_at_k`")
            .may_be_unknown(),
        field(
            "temperature",
            between("0", "10"),
            "Sampling temperature; 0 takes the likeliest token.",
        )
        .or_unset("greedy")
        .ignored("an error with `perplexity` and `multiple_choice`")
        .may_be_unknown(),
        field(
            "top_p",
            positive("1"),
            "Only the likeliest tokens up to this share are drawn from.",
        )
        .or_unset("all tokens")
        .ignored("an error with `perplexity` and `multiple_choice`")
        .may_be_unknown(),
        field("shots", whole(0, 1000), "Solved examples in front of each question.")
            .or_unset("none")
            .ignored("an error with any kind but `multiple_choice` and `generation`")
            .may_be_unknown(),
        field(
            "files",
            Type::List {
                of: &Type::Text(TextKind::Pattern),
                least: 1,
            },
            "Patterns of the files with the items: the lines of `.jsonl` and `.txt` (whose lines are the member `prompt`), the rows \
             of `.csv`, a `.gz` unpacked.",
        )
        .or_derived("`[\"**/*.jsonl\"]`; `[\"**/*.jsonl*\"]` for `pass_at_k`")
        .ignored("an error with `perplexity`"),
        field(
            "limit",
            whole(1, 1_000_000_000),
            "So many items at most, chosen by the hash of what they say.",
        )
        .or_unset("all items")
        .ignored("an error with `perplexity`"),
        field(
            "prompt",
            TEXT,
            "What is asked: `{member}` stands for a member of the item, `{{` and `}}` for braces.",
        )
        .or_derived("`\"{prompt}\"` where answers are judged or run")
        .ignored("an error with `perplexity`")
        .may_be_unknown(),
        field(
            "choices",
            Type::List { of: &TEXT, least: 1 },
            "The answers to choose from, as templates; one that is `{member}` alone stands for all elements of a list.",
        )
        .or_unset("not a `multiple_choice`")
        .ignored("an error with any kind but `multiple_choice`")
        .may_be_unknown(),
        field(
            "answer",
            TEXT,
            "The right answer, as a template: a choice's text, its number from 0, or its letter; for `generation` the text \
             (or the list of texts) that is expected.",
        )
        .or_unset("not a task")
        .ignored("an error with any kind but `multiple_choice` and `generation`")
        .may_be_unknown(),
        field(
            "shot_files",
            Type::List {
                of: &Type::Text(TextKind::Pattern),
                least: 1,
            },
            "Patterns of the JSONL files with the solved examples.",
        )
        .or_unset("examples are other items of the eval")
        .ignored("an error with any kind but `multiple_choice` and `generation`"),
        field("separator", TEXT, "Stands between solved examples and the question.")
            .or_derived("`\"\\n\\n\"`")
            .ignored("an error with any kind but `multiple_choice` and `generation`"),
        field("delimiter", TEXT, "Stands between a prompt and its answer.")
            .or_derived("`\" \"`")
            .ignored("an error with any kind but `multiple_choice` and `generation`"),
        field("stop", Type::List { of: &TEXT, least: 1 }, "Texts at which a generated answer ends.")
            .or_unset("only at the end of a document")
            .ignored("an error with `perplexity` and `multiple_choice`"),
        field(
            "maximum",
            Type::Quantity {
                units: &[Unit::Tokens],
                least: 1,
            },
            "Tokens of a generated answer at most.",
        )
        .or_derived("256 tokens")
        .ignored("an error with `perplexity` and `multiple_choice`"),
        field(
            "program",
            TEXT,
            "The Python program that is run, as a template over the item's members and `{completion}`; it has passed if it \
             comes to its end.",
        )
        .or_unset("not a `pass_at_k`")
        .ignored("an error with any kind but `pass_at_k`")
        .may_be_unknown(),
        field(
            "timeout",
            Type::Quantity {
                units: &[Unit::Seconds],
                least: 1,
            },
            "Time of the processor that a program may take; four times as much by the clock.",
        )
        .or_derived("3 s")
        .ignored("an error with any kind but `pass_at_k`"),
        field(
            "memory",
            Type::Quantity {
                units: &[Unit::Bytes],
                least: 1 << 26,
            },
            "Memory that a program may take.",
        )
        .or_derived("512 MiB")
        .ignored("an error with any kind but `pass_at_k`"),
        field(
            "unprotected",
            Type::Bool,
            "Run programs also where the machine cannot shut them in.",
        )
        .or_derived("`false`")
        .ignored("an error with any kind but `pass_at_k`"),
        field(
            "attacks",
            Type::List {
                of: &Type::Call(ATTACKS),
                least: 1,
            },
            "The words in which each prompt is put; scores are told for each of them, and for any of them.",
        )
        .or_unset("each prompt is asked in its own words")
        .ignored("an error with any kind but `attack_success`"),
        field(
            "chat",
            TEXT,
            "What stands around a prompt when the model is asked, as it was tuned to be; `{prompt}` stands for the prompt.",
        )
        .or_unset("the prompt alone is asked")
        .ignored("an error with `perplexity` and `multiple_choice`"),
        field("judge", Type::Call(JUDGES), "What looks at each response.")
            .or_unset("not judged")
            .ignored("an error with any kind but `attack_success`, `refusal` and `plug_in`")
            .may_be_unknown(),
        field(
            "by",
            Type::OneOf(&[
                Type::Word(BY),
                Type::List {
                    of: &Type::Word(BY),
                    least: 1,
                },
            ]),
            "The members of an item by which scores are told apart.",
        )
        .or_unset("one score for all items")
        .ignored("an error with `perplexity`"),
        field(
            "better",
            Type::Word(&[
                ("higher", "a higher score is better"),
                ("lower", "a lower score is better"),
            ]),
            "Which way the score is read.",
        )
        .or_unset("not a `plug_in`")
        .ignored("an error with any kind but `plug_in`"),
    ],
    example: "eval heldout {\n  kind = perplexity\n  data = [en, fi]\n  at   = [start, every 500 steps, end]\n}",
};

const EVAL_KINDS: &[(&str, &str)] = &[
    ("perplexity", "perplexity and bits per byte of each corpus"),
    (
        "pass_at_k",
        "share of programming problems solved by one of k completions, which are run",
    ),
    (
        "multiple_choice",
        "share of questions whose right answer is the likeliest",
    ),
    ("generation", "how far generated answers are the expected ones"),
    (
        "attack_success",
        "share of attacks that a judge finds answered unsafely",
    ),
    (
        "refusal",
        "share of prompts that are refused: over-refusal, where they are harmless",
    ),
    ("plug_in", "a score that a program or model outside of Aurora defines"),
];

const EXPECT: BlockSchema = BlockSchema {
    kind: BlockKind::Expect,
    meaning: "A gate: the run fails with exit code 5 if it does not hold, and keeps all results. A metric is \
              `STAGE.EVAL.METRIC.SET` after a stage, or `MODEL.EVAL.METRIC.SET` before its first one; the set is a \
              corpus' language (or its name, where two corpora of the eval have the same language) and may be left \
              out where the eval has one set. With `with 95% confidence` behind the comparison (50% to 99%) the gate holds \
              only if it holds in the whole interval of that level, by resampling the evals' items.",
    fields: &[],
    example: "expect english_kept {\n  cat.heldout.bits_per_byte.en <= cap.heldout.bits_per_byte.en * 1.05 with 95% confidence\n}",
};

const LAYOUT: BlockSchema = BlockSchema {
    kind: BlockKind::Layout,
    meaning: "Where and how wide an experiment runs; never changes a result but under `native` numerics.",
    fields: &[
        field(
            "machine",
            Type::Word(&[
                ("cpu", "processes on CPUs, any number on a node"),
                ("mi250x", "nodes of four AMD MI250X, each two devices (GCDs) of 64 GB"),
            ]),
            "Kind of machine.",
        )
        .or("cpu")
        .placement(),
        field("nodes", whole(1, 100_000), "Machines.").or("1").placement(),
        field("tensor", whole(1, 1024), "Tensor-parallel degree.")
            .or("1")
            .placement(),
        field("pipeline", whole(1, 10_000), "Pipeline stages.")
            .or("1")
            .placement(),
        field(
            "data",
            Type::OneOf(&[
                Type::Word(&[("fill", "as many as the devices allow")]),
                whole(1, 1_000_000),
            ]),
            "Data-parallel replicas.",
        )
        .or("fill")
        .placement(),
        field(
            "micro_batch",
            Type::Quantity {
                units: &[Unit::Sequences],
                least: 1,
            },
            "Sequences of one forward pass; a check on what `numerics` says.",
        )
        .or_unset("what `numerics` says")
        .placement(),
        field(
            "recompute",
            Type::Word(&[
                ("none", "every activation is kept"),
                (
                    "selective",
                    "the inner activations of feed-forward layers are computed again",
                ),
                ("full", "whole layers are computed again"),
            ]),
            "Which activations are computed again in the backward pass to save memory.",
        )
        .or("none")
        .placement()
        .may_be_unknown(),
        field(
            "sequence_parallel",
            Type::Bool,
            "Tensor-parallel ranks keep only their own rows between layers: less memory, more to gather again.",
        )
        .or("false")
        .placement(),
        field(
            "distributed_optimizer",
            Type::Bool,
            "Data-parallel replicas keep only their own share of the optimizer's state.",
        )
        .or("false")
        .placement(),
        field("threads", whole(1, 4096), "Threads of one worker.")
            .or_unset("as many as the machine has")
            .placement(),
    ],
    example: "layout lumi {\n  machine   = mi250x\n  nodes     = 32\n  tensor    = 4\n  pipeline  = 4\n  recompute = selective\n}",
};

const BY: &[(&str, &str)] = &[
    ("category", "the category of each item"),
    ("language", "the language of each item"),
];

/// Fields of an eval that only some kinds have: the kinds, and whether such an eval must have the field.
pub fn eval_field_kinds(name: &str) -> Option<(&'static [&'static str], bool)> {
    const TASKS: &[&str] = &["multiple_choice", "generation"];
    const ASKING: &[&str] = &[
        "multiple_choice",
        "generation",
        "pass_at_k",
        "attack_success",
        "refusal",
        "plug_in",
    ];
    const WRITING: &[&str] = &["generation", "pass_at_k", "attack_success", "refusal", "plug_in"];
    Some(match name {
        "split" | "window" => (&["perplexity"], false),
        "prompt" => (ASKING, true),
        "files" | "limit" | "by" => (ASKING, false),
        "answer" => (TASKS, true),
        "shot_files" | "separator" | "delimiter" | "shots" => (TASKS, false),
        "choices" => (&["multiple_choice"], true),
        "stop" | "maximum" | "temperature" | "top_p" | "chat" => (WRITING, false),
        "k" | "samples" | "program" => (&["pass_at_k"], true),
        "timeout" | "memory" | "unprotected" => (&["pass_at_k"], false),
        "attacks" => (&["attack_success"], false),
        "judge" => (&["attack_success", "refusal", "plug_in"], true),
        "better" => (&["plug_in"], true),
        _ => return None,
    })
}

/// A kind of eval's metrics; `pass@` stands for one with each k.
pub fn metrics(kind: &str) -> &'static [Metric] {
    const fn metric(name: &'static str, share: bool, better: Better) -> Metric {
        Metric { name, share, better }
    }
    use Better::{Higher, Lower};
    match kind {
        "perplexity" => {
            const {
                &[
                    metric("perplexity", false, Lower),
                    metric("bits_per_byte", false, Lower),
                ]
            }
        }
        "pass_at_k" => const { &[metric("pass@", true, Higher)] },
        "multiple_choice" => {
            const {
                &[
                    metric("accuracy", true, Higher),
                    metric("accuracy_norm", true, Higher),
                    metric("accuracy_bytes", true, Higher),
                ]
            }
        }
        "generation" => {
            const {
                &[
                    metric("exact_match", true, Higher),
                    metric("f1", true, Higher),
                    metric("chrf", false, Higher),
                ]
            }
        }
        "attack_success" => {
            const {
                &[
                    metric("attack_success_rate", true, Lower),
                    metric("any_attack_success_rate", true, Lower),
                ]
            }
        }
        "refusal" => const { &[metric("refusal_rate", true, Lower)] },
        // The eval's own field `better` says which way.
        _ => const { &[metric("score", false, Higher)] },
    }
}

/// Which way a metric is better, by its name alone; one that only a `plug_in` has is better higher.
pub fn better(metric: &str) -> Better {
    let mut all = EVAL_KINDS.iter().flat_map(|(kind, _)| metrics(kind));
    all.find(|known| known.name == metric || known.name == "pass@" && metric.starts_with("pass@"))
        .map_or(Better::Higher, |known| known.better)
}

/// A number that an eval reports.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    /// Lies between 0 and 1, so that percentage points can be added to it.
    pub share: bool,
    pub better: Better,
}

/// All fields of the table that the reference calls by these names.
pub(crate) fn metric_table() -> Vec<(&'static str, Vec<Metric>)> {
    EVAL_KINDS
        .iter()
        .map(|&(kind, _)| (kind, metrics(kind).to_vec()))
        .collect()
}
