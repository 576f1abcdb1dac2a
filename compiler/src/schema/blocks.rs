//! Blocks and their fields.

use super::calls::{COMPONENT, EXTRACTIONS, LEARNING_RATES, NUMERICS, OPTIMIZERS, TOKENIZERS, WARNINGS, WEIGHTS};
use super::evals::EVAL;
use super::types::{LARGEST_MICRO_BATCH, LONGEST_SEQUENCE, TEXT, TOKENS_OR_STEPS};
use super::{BlockSchema, CallSchema, Range, TextKind, Type, field, positive, whole};
use crate::spec::{BlockKind, Unit};

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
                most: u64::MAX,
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
                most: u64::MAX,
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
        field("hidden", whole(1, 1 << 20), "Width of the residual stream."),
        field("heads", whole(1, 65_536), "Attention heads; divide `hidden`."),
        field(
            "kv_heads",
            whole(1, 65_536),
            "Heads of keys and values; divide `heads`.",
        )
        .or("1"),
        field("feed_forward", whole(1, 1 << 22), "Width inside a feed-forward layer.").or_derived("4 × `hidden`"),
        field(
            "context",
            Type::Quantity {
                units: &[Unit::Tokens],
                least: 1,
                most: LONGEST_SEQUENCE,
            },
            "Positions: the longest sequence.",
        ),
        field(
            "vocabulary",
            whole(1, 1 << 24),
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
                most: u64::MAX,
            },
            "How long it trains: a whole number of global batches.",
        ),
        field("mixture", Type::Reference(&[BlockKind::Mixture]), "What it reads."),
        field(
            "sequence",
            Type::Quantity {
                units: &[Unit::Tokens],
                least: 1,
                most: LONGEST_SEQUENCE,
            },
            "Tokens of one sequence.",
        ),
        field(
            "global_batch",
            Type::Quantity {
                units: &[Unit::Sequences, Unit::Tokens],
                least: 1,
                most: u64::MAX,
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
                most: LARGEST_MICRO_BATCH,
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
