//! Blocks and their fields.

use super::calls::{
    COMPONENT, EXTRACTIONS, LEARNING_RATES, NUMERICS, OPTIMIZERS, STEPS_OF_TEXT, TOKENIZERS, UNITS_OF_TEXT, WARNINGS,
    WEIGHTS,
};
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

/// Every kind of block, in the order of the language reference.
pub const BLOCKS: &[BlockSchema] = &[
    EXPERIMENT, SOURCE, CORPUS, TOKENIZER, MODEL, MIXTURE, STAGE, EVAL, EXPECT, LAYOUT,
];

/// The schema of a component of a mixture.
pub fn component() -> &'static CallSchema {
    &COMPONENT
}

const EXPERIMENT: BlockSchema = BlockSchema {
    kind: BlockKind::Experiment,
    meaning: "The name and the global settings of the experiment; a file has exactly one.",
    fields: &[
        field("seed", whole(0, i64::MAX), "Seed of every random choice.").or("0"),
        field(
            "numerics",
            Type::Call(NUMERICS),
            "How the order of every floating-point sum is fixed.",
        )
        .or("invariant(tensor = 1, lanes = 1, micro_batch = 1 sequences)"),
        field(
            "precision",
            Type::Word(&[
                ("f32", "single precision everywhere"),
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
            "Warnings that are not reported, each with the reason.",
        )
        .or_unset("all are reported")
        .description(),
        field(
            "refuse",
            WARNING_LIST,
            "Warnings that are reported as errors, each with the reason.",
        )
        .or_unset("warnings are not errors")
        .description(),
    ],
    example: "experiment tiny {\n  seed     = 7\n  numerics = invariant(tensor = 2, lanes = 2, micro_batch = 2 sequences)\n}",
};

const SOURCE: BlockSchema = BlockSchema {
    kind: BlockKind::Source,
    meaning: "Files from a package, a repository or a disk; the lock pins their content.",
    fields: &[
        field(
            "from",
            Type::Text(TextKind::Source),
            "The location of the files: `file:PATH` (relative to the project; a folder or a pattern is several files), \
             `file:ROOT:/PATH` (below a folder that the user has bound to the name), `https://HOST/PATH`, \
             `s3://BUCKET/PATH`, `gs://BUCKET/PATH`, `az://CONTAINER/PATH`, `pkg:pypi/NAME@VERSION`, \
             `pkg:deb/debian/NAME@VERSION?suite=SUITE`, `pkg:cargo/NAME@VERSION`, `pkg:npm/NAME@VERSION`, \
             `hf:ORGANISATION/NAME@REVISION` (a model of the Hugging Face hub, without pickle files), or \
             `hf:datasets/ORGANISATION/NAME@REVISION:PATH` (a dataset of the hub).",
        )
        .may_be_unknown(),
        field(
            "at_most",
            Type::Quantity {
                units: &[Unit::Bytes],
                least: 1,
                most: 1 << 50,
            },
            "The most bytes that the files may have, fetched from the hub or unpacked from archives; more is an error.",
        )
        .or_unset("2 TiB from the hub; unpacked 100 times the bytes of the files, at least 1 GiB")
        .placement(),
        field(
            "malformed",
            Type::Percent {
                range: Range {
                    least: "0",
                    includes_least: true,
                    most: Some("100"),
                    includes_most: true,
                },
            },
            "The most rows of an extraction that may be malformed; with more, and with more than 10, it fails.",
        )
        .or_unset("0.1%")
        .placement(),
        field("licence", TEXT, "The licence of the files.")
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
            Type::Language,
            "The language of the text, which is also its name in reports of scores; in gates `-` is written `_`.",
        ),
        field(
            "from",
            Type::List {
                of: &Type::Call(EXTRACTIONS),
                least: 1,
            },
            "How documents are extracted, and from which sources.",
        ),
        field(
            "prepare",
            Type::List {
                of: &Type::Call(STEPS_OF_TEXT),
                least: 0,
            },
            "What is changed and dropped, step by step in this order; without steps every document stays as it is.",
        )
        .or_derived("the steps of `unit`, `minimum` and `language_filter`; without them `[]`"),
        field(
            "language_filter",
            Type::Bool,
            "Drop units that are not detected as `language`: the last step of `prepare`, as `language`.",
        )
        .or_unset("`false`")
        .ignored("an error with `prepare`"),
        field(
            "minimum",
            Type::Quantity {
                units: &[Unit::Characters],
                least: 0,
                most: u64::MAX,
            },
            "Drop units that are shorter: a step of `prepare`, as `minimum(…)`.",
        )
        .or_unset("no minimum")
        .ignored("an error with `prepare`"),
        field(
            "unit",
            Type::Word(UNITS_OF_TEXT),
            "What `minimum` and `language_filter` keep or drop; `paragraph` is the first step of `prepare`, as `paragraphs`.",
        )
        .or_unset("`document`")
        .ignored("an error with `prepare`"),
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
            "Percentage of documents in the held-out split, selected by the hash of their text.",
        )
        .or("0%"),
        field(
            "limit",
            Type::Quantity {
                units: &[Unit::Bytes],
                least: 1,
                most: u64::MAX,
            },
            "Stop after this amount of kept text.",
        )
        .or_unset("no limit"),
    ],
    example: "corpus fi {\n  language = fi\n  from     = [mo(gnucash, files = [\"usr/share/locale/fi/**/*.mo\"]), roff(manpages_fi)]\n  prepare  = [paragraphs, minimum, language, deduplicate]\n  held_out = 5%\n}",
};

const TOKENIZER: BlockSchema = BlockSchema {
    kind: BlockKind::Tokenizer,
    meaning: "How text is converted to tokens.",
    fields: &[
        field(
            "kind",
            Type::Call(TOKENIZERS),
            "Trained by Aurora, or loaded from a source.",
        ),
        field("corpora", CORPORA, "The corpora it is trained on.")
            .or_unset("the tokenizer is loaded, not trained")
            .ignored("an error with `load`"),
    ],
    example: "tokenizer bpe {\n  kind    = train_bpe(vocabulary = 8192)\n  corpora = [en, fi]\n}",
};

const MODEL: BlockSchema = BlockSchema {
    kind: BlockKind::Model,
    meaning: "A network and its initial weights.",
    fields: &[
        field(
            "architecture",
            Type::Word(&[
                (
                    "gpt_bigcode",
                    "decoder with learned positions, LayerNorm, GELU, biases and tied embeddings; one key-value head for \
                     all heads, or one for each head",
                ),
                (
                    "llama",
                    "decoder with rotary positions, RMSNorm, SwiGLU, no biases, and grouped-query attention",
                ),
            ]),
            "The architecture of the network.",
        ),
        field("layers", whole(1, 10_000), "Transformer layers."),
        field("hidden", whole(1, 1 << 20), "Width of the residual stream."),
        field("heads", whole(1, 65_536), "Attention heads; must divide `hidden`."),
        field("kv_heads", whole(1, 65_536), "Key-value heads; must divide `heads`.").or("1"),
        field(
            "feed_forward",
            whole(1, 1 << 22),
            "Hidden width of a feed-forward layer.",
        )
        .or_derived("4 × `hidden`"),
        field(
            "context",
            Type::Quantity {
                units: &[Unit::Tokens],
                least: 1,
                most: LONGEST_SEQUENCE,
            },
            "The maximum sequence length.",
        ),
        field(
            "vocabulary",
            whole(1, 1 << 24),
            "Rows of the embedding; at least the number of entries of the tokenizer.",
        ),
        field(
            "activation",
            Type::Word(&[
                ("gelu", "GELU with the error function"),
                ("gelu_tanh", "GELU approximated with tanh"),
                ("swiglu", "SiLU of a gate projection, times a second projection"),
            ]),
            "Non-linearity of the feed-forward layers.",
        )
        .or_derived("`gelu` in gpt_bigcode, `swiglu` in llama"),
        field(
            "norm_epsilon",
            positive("1"),
            "Added to the variance in normalization layers.",
        )
        .or("1e-5"),
        field(
            "rotary_base",
            positive("1000000000"),
            "Base of the angles of rotary positions.",
        )
        .or_derived("10000 in llama")
        .ignored("an error in gpt_bigcode, which has learned positions"),
        field(
            "tied_embeddings",
            Type::Bool,
            "Use the word embedding as the output layer; always `true` in gpt_bigcode.",
        )
        .or("true"),
        field(
            "tokenizer",
            Type::Reference(&[BlockKind::Tokenizer]),
            "The tokenizer of its training and evaluation data.",
        ),
        field("weights", Type::Call(WEIGHTS), "The initial weights.").or("random(std = 0.02)"),
    ],
    example: "model small {\n  architecture = gpt_bigcode\n  layers       = 4\n  hidden       = 128\n  heads        = 4\n  context      = 256 tokens\n  vocabulary   = 8192\n  tokenizer    = bpe\n}",
};

const MIXTURE: BlockSchema = BlockSchema {
    kind: BlockKind::Mixture,
    meaning: "The data of a stage. Each line is a component: a name, `from` with a list of corpora, `weight` with a percentage \
              (or tokens, or a `ramp`), and optionally `max_epochs` with the maximum number of epochs over its tokens.",
    fields: &[],
    example: "mixture cap {\n  en from [en]         weight 70%\n  fi from [fi, fi_web] weight 30% max_epochs 4\n}",
};

const STAGE: BlockSchema = BlockSchema {
    kind: BlockKind::Stage,
    meaning: "A training stage: one mixture, initial weights, and a budget of tokens.",
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
            "The length of the stage: a whole number of global batches.",
        ),
        field(
            "mixture",
            Type::Reference(&[BlockKind::Mixture]),
            "The data that it trains on.",
        ),
        field(
            "sequence",
            Type::Quantity {
                units: &[Unit::Tokens],
                least: 1,
                most: LONGEST_SEQUENCE,
            },
            "Tokens per sequence.",
        ),
        field(
            "global_batch",
            Type::Quantity {
                units: &[Unit::Sequences, Unit::Tokens],
                least: 1,
                most: u64::MAX,
            },
            "Sequences per optimizer step.",
        ),
        field(
            "learning_rate",
            Type::Call(LEARNING_RATES),
            "The learning-rate schedule of the stage.",
        ),
        field("optimizer", Type::Call(OPTIMIZERS), "The optimizer.").or("adamw()"),
        field(
            "optimizer_state",
            Type::Word(&[
                ("keep", "continue with the moments of the previous stage"),
                ("reset", "start from zero moments"),
            ]),
            "The optimizer state at the start.",
        )
        .or_derived("`keep` if it starts from a stage, `reset` if it starts from a model"),
        field(
            "checkpoint",
            Type::Every(TOKENS_OR_STEPS),
            "The interval of checkpoints.",
        )
        .or_unset("only at the end")
        .may_be_unknown(),
    ],
    example: "stage cap {\n  start         = small\n  budget        = 2000 steps\n  mixture       = cap\n  sequence      = 256 tokens\n  global_batch  = 64 sequences\n  learning_rate = cosine(peak = 1e-3, floor = 1e-4, warmup = 100 steps)\n}",
};

const EXPECT: BlockSchema = BlockSchema {
    kind: BlockKind::Expect,
    meaning: "A gate. If it fails, the run keeps all results and ends with exit code 5. A metric is \
              `STAGE.EVAL.METRIC.SET` after a stage, or `MODEL.EVAL.METRIC.SET` before the first stage. The set is the \
              language of a corpus (or its name, if two corpora of the eval have the same language); it may be omitted if \
              the eval has one set. With `with 95% confidence` after the comparison (50% to 99%) the gate passes only if it \
              holds in the complete confidence interval, which is computed by resampling the items of the evals.",
    fields: &[],
    example: "expect english_kept {\n  cat.heldout.bits_per_byte.en <= cap.heldout.bits_per_byte.en * 1.05 with 95% confidence\n}",
};

const LAYOUT: BlockSchema = BlockSchema {
    kind: BlockKind::Layout,
    meaning: "The machine and the parallelism of a run. It never changes a result, except under `native` numerics.",
    fields: &[
        field(
            "machine",
            Type::Word(&[
                ("cpu", "processes on CPUs, any number per node"),
                (
                    "mi250x",
                    "nodes with four AMD MI250X, each with two devices (GCDs) of 64 GB",
                ),
                ("mi300x", "nodes with eight AMD MI300X of 192 GB"),
                ("a100", "nodes with eight NVIDIA A100 of 80 GB"),
                ("h100", "nodes with eight NVIDIA H100 of 80 GB"),
                ("h200", "nodes with eight NVIDIA H200 of 141 GB"),
            ]),
            "The kind of machine.",
        )
        .or("cpu")
        .placement(),
        field("nodes", whole(1, 100_000), "Number of nodes.")
            .or("1")
            .placement(),
        field(
            "devices",
            whole(1, 1024),
            "Devices of a node: one for each worker, unless `transport = gloo` lets workers share them.",
        )
        .ignored("an error with `cpu`")
        .or_unset("the number of the machine: 8")
        .placement(),
        field(
            "transport",
            Type::Word(&[
                (
                    "auto",
                    "what fits the devices; at present always `gloo`, with a device for each worker",
                ),
                (
                    "gloo",
                    "through the memory of the hosts; workers of a node may share its devices",
                ),
            ]),
            "How workers on devices exchange tensors.",
        )
        .ignored("an error with `cpu`")
        .or_unset("as `auto`")
        .placement(),
        field("tensor", whole(1, 1024), "Tensor-parallel degree.")
            .or("1")
            .placement(),
        field("pipeline", whole(1, 10_000), "Pipeline-parallel degree.")
            .or("1")
            .placement(),
        field(
            "data",
            Type::OneOf(&[
                Type::Word(&[("fill", "all devices that tensor and pipeline parallelism leave")]),
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
            "Sequences per forward pass; must equal the micro-batch of `numerics`.",
        )
        .or_unset("the micro-batch of `numerics`")
        .placement(),
        field(
            "recompute",
            Type::Word(&[
                ("none", "all activations are kept"),
                (
                    "selective",
                    "the inner activations of feed-forward layers are recomputed",
                ),
                ("full", "complete layers are recomputed"),
            ]),
            "Activations that the backward pass recomputes, to save memory.",
        )
        .or("none")
        .placement()
        .may_be_unknown(),
        field(
            "sequence_parallel",
            Type::Bool,
            "Tensor-parallel ranks keep only their own rows between layers: less memory, more all-gathers.",
        )
        .or("false")
        .placement(),
        field(
            "distributed_optimizer",
            Type::Bool,
            "Data-parallel replicas keep only their own part of the optimizer state.",
        )
        .or("false")
        .placement(),
        field("threads", whole(1, 4096), "Threads per worker.")
            .or_unset("all cores of the machine")
            .placement(),
    ],
    example: "layout lumi {\n  machine   = mi250x\n  nodes     = 32\n  tensor    = 4\n  pipeline  = 4\n  recompute = selective\n}",
};
