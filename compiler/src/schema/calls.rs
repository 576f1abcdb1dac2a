//! Calls and their arguments.

use super::types::{LARGEST_MICRO_BATCH, TEXT};
use super::{CallSchema, FieldSchema, TextKind, Type, between, field, positive, power_of_two, whole};
use crate::spec::{BlockKind, Unit};

const PATTERNS: Type = Type::List {
    of: &Type::Text(TextKind::Pattern),
    least: 0,
};
const STEPS: Type = Type::Quantity {
    units: &[Unit::Steps, Unit::Tokens],
    least: 0,
    most: u64::MAX,
};
const SOURCE: FieldSchema = field(
    "source",
    Type::Reference(&[BlockKind::Source]),
    "The source whose files are read.",
);
const FILES: FieldSchema = field(
    "files",
    Type::List {
        of: &Type::Text(TextKind::Pattern),
        least: 1,
    },
    "Patterns of the files that are read: paths inside an archive, or file names.",
)
.or("[\"**\"]");
const EXCLUDE: FieldSchema = field("exclude", PATTERNS, "Patterns of files that are left out again.").or("[]");
const MICRO_BATCH: Type = Type::Quantity {
    units: &[Unit::Sequences],
    least: 1,
    most: LARGEST_MICRO_BATCH,
};

/// The logical grid.
const GRID: &[FieldSchema] = &[
    field(
        "tensor",
        power_of_two(1024),
        "Logical tensor shards; divides heads, feed-forward and vocabulary.",
    )
    .or("1"),
    field(
        "lanes",
        power_of_two(65_536),
        "Logical gradient lanes; the global batch is split evenly over them.",
    )
    .or("1"),
    field(
        "micro_batch",
        MICRO_BATCH,
        "Sequences that one lane runs in one forward pass.",
    )
    .or("1 sequences"),
];

/// How the order of floating-point sums is fixed.
pub(super) const NUMERICS: &[CallSchema] = &[
    CallSchema {
        name: "invariant",
        meaning: "Same bits under any layout and number of threads: every sum follows a logical grid.",
        first: None,
        arguments: GRID,
    },
    CallSchema {
        name: "portable",
        meaning: "As `invariant`, and the same bits on every x86-64 processor: every kernel is Aurora's own, which is slower.",
        first: None,
        arguments: GRID,
    },
    CallSchema {
        name: "native",
        meaning: "The fastest kernels of the library at hand; the same bits where these give the same.",
        first: None,
        arguments: &[
            GRID[0],
            GRID[1],
            field(
                "micro_batch",
                MICRO_BATCH,
                "Sequences that one lane runs in one forward pass.",
            )
            .or("1 sequences")
            .may_be_unknown(),
        ],
    },
];

/// How documents are read from a source.
pub(super) const EXTRACTIONS: &[CallSchema] = &[
    CallSchema {
        name: "text",
        meaning: "Plain text, one document a file.",
        first: Some(&SOURCE),
        arguments: &[
            FILES,
            EXCLUDE,
            field("by_line", Type::Bool, "Every line is a document of its own.").or("false"),
        ],
    },
    CallSchema {
        name: "html",
        meaning: "Web pages, one document a page, one paragraph a block element.",
        first: Some(&SOURCE),
        arguments: &[
            FILES,
            EXCLUDE,
            field("select", TEXT, "CSS selector of the elements that hold the text.").or("\"body\""),
            field(
                "drop",
                TEXT,
                "CSS selector of elements inside of them that are left out.",
            )
            .or_unset("nothing is left out"),
            field(
                "reference",
                Type::Reference(&[BlockKind::Source]),
                "The same pages in the reference language: a paragraph counts only if it differs from the paragraph \
                 with the same `id` there.",
            )
            .or_unset("every paragraph counts"),
            field("own", TEXT, "The part of a page's path that names its own language.")
                .or_unset("there is no `reference`"),
            field(
                "other",
                TEXT,
                "What stands in its place in the path of the reference page.",
            )
            .or_unset("there is no `reference`"),
        ],
    },
    CallSchema {
        name: "roff",
        meaning: "Manual pages, one document a page, without requests and escapes.",
        first: Some(&SOURCE),
        arguments: &[FILES, EXCLUDE],
    },
    CallSchema {
        name: "mo",
        meaning: "GNU message catalogues: the translations that differ from their originals.",
        first: Some(&SOURCE),
        arguments: &[FILES, EXCLUDE],
    },
    CallSchema {
        name: "code",
        meaning: "Source code, kept byte for byte, one document a file.",
        first: Some(&SOURCE),
        arguments: &[FILES, EXCLUDE],
    },
    CallSchema {
        name: "jsonl",
        meaning: "One JSON object a line, each a document.",
        first: Some(&SOURCE),
        arguments: &[
            FILES,
            EXCLUDE,
            field("field", TEXT, "The member that holds the text.").or("\"text\""),
        ],
    },
    CallSchema {
        name: "json",
        meaning: "One JSON value a file.",
        first: Some(&SOURCE),
        arguments: &[
            FILES,
            EXCLUDE,
            field(
                "field",
                TEXT,
                "Every string under a member of this name, at any depth, is a document.",
            )
            .or_unset("every string of a file is a paragraph of one document"),
        ],
    },
    CallSchema {
        name: "pairs",
        meaning: "Instructions with their answers: each item a document, of whose tokens only the answer's are trained on. Items \
                  are the lines of `.jsonl` and `.txt` and the rows of `.csv`. Special entries of the tokenizer that they spell \
                  are themselves, as in the turns of a conversation.",
        first: Some(&SOURCE),
        arguments: &[
            FILES,
            EXCLUDE,
            field(
                "prompt",
                TEXT,
                "What is read: `{member}` stands for a member of the item, `{{` and `}}` for braces.",
            ),
            field(
                "answer",
                TEXT,
                "What is trained on, behind the prompt; the end of the document belongs to it.",
            ),
            field("only", TEXT, "Items whose member has this text, as `\"MEMBER=TEXT\"`.").or_unset("all items"),
        ],
    },
];

pub(super) const TOKENIZERS: &[CallSchema] = &[
    CallSchema {
        name: "train_bpe",
        meaning: "Byte-level byte-pair encoding, trained on the training split of `corpora`.",
        first: None,
        arguments: &[
            field(
                "vocabulary",
                whole(257, 1 << 24),
                "Entries, special ones and the 256 bytes included.",
            )
            .or("8192"),
            field(
                "minimum_frequency",
                whole(1, 1 << 30),
                "Pairs that occur more rarely are never joined.",
            )
            .or("2"),
            field(
                "special",
                Type::List { of: &TEXT, least: 1 },
                "Entries that no text produces; the first one ends a document.",
            )
            .or("[\"<|endoftext|>\"]"),
        ],
    },
    CallSchema {
        name: "load",
        meaning: "A `tokenizer.json` of Hugging Face's tokenizers, as it is; or the tokenizer inside of a GGUF file.",
        first: Some(&SOURCE),
        arguments: &[
            field(
                "member",
                TEXT,
                "Its path inside the source; a name that ends with `.gguf` is that of a GGUF file.",
            )
            .or("\"tokenizer.json\""),
            field("end_of_document", TEXT, "The entry that ends a document.").or("\"<|endoftext|>\""),
        ],
    },
];

pub(super) const WEIGHTS: &[CallSchema] = &[
    CallSchema {
        name: "random",
        meaning: "Normal random numbers from the experiment's seed.",
        first: None,
        arguments: &[field(
            "std",
            positive("1"),
            "Standard deviation; projections into the residual stream get it divided by √(2 × layers).",
        )
        .or("0.02")],
    },
    CallSchema {
        name: "hf",
        meaning: "The weights of a repository on the Hugging Face hub: its safetensors and `config.json`, never a pickle.",
        first: Some(&field(
            "repository",
            Type::Text(TextKind::Repository),
            "The repository.",
        )),
        arguments: &[field(
            "revision",
            TEXT,
            "Commit, branch or tag of the repository; the lock pins the commit.",
        )
        .may_be_unknown()],
    },
    CallSchema {
        name: "safetensors",
        meaning: "The weights of a source that holds a model in Hugging Face's layout: `config.json`, and safetensors in one \
                  file or in several with their index.",
        first: Some(&SOURCE),
        arguments: &[],
    },
    CallSchema {
        name: "gguf",
        meaning: "The weights of a GGUF file of a llama model; F32, F16, BF16, Q8_0, Q4_0 and Q4_1 become `f32`.",
        first: Some(&SOURCE),
        arguments: &[field("member", TEXT, "Its path inside the source.")],
    },
];

pub(super) const LEARNING_RATES: &[CallSchema] = &[
    CallSchema {
        name: "constant",
        meaning: "One rate for the whole stage.",
        first: None,
        arguments: &[
            field("rate", positive("10"), "The rate.").may_be_unknown(),
            field("warmup", STEPS, "A straight line from zero at the start.")
                .or("0 steps")
                .may_be_unknown(),
        ],
    },
    CallSchema {
        name: "linear",
        meaning: "A straight line from the peak down to the floor at the end of the stage.",
        first: None,
        arguments: FALLING,
    },
    CallSchema {
        name: "cosine",
        meaning: "Half a cosine from the peak down to the floor at the end of the stage.",
        first: None,
        arguments: FALLING,
    },
    CallSchema {
        name: "wsd",
        meaning: "Warm-up, stable, decay: the peak all along, then a straight line down at the end of the stage.",
        first: None,
        arguments: &[
            PEAK,
            FLOOR,
            WARMUP,
            field("decay", STEPS, "Length of the last part, from the peak to the floor.").may_be_unknown(),
        ],
    },
    CallSchema {
        name: "piecewise",
        meaning: "Pieces one after the other, each from the rate at which the one before it ended; the last rate stays.",
        first: None,
        arguments: &[
            field("start", between("0", "10"), "The rate at the first step."),
            field(
                "pieces",
                Type::List {
                    of: &Type::Call(PIECES),
                    least: 1,
                },
                "What follows; only the last one may leave its length out.",
            ),
        ],
    },
];
/// Warnings, by the names under which a spec silences or refuses them.
pub(super) const WARNINGS: &[CallSchema] = &[CallSchema {
    name: "unused",
    meaning: "A block that nothing refers to (`W0201`).",
    first: Some(&field("reason", TEXT, "Why it is meant so.")),
    arguments: &[],
}];
/// Words in which a prompt is put.
pub(super) const ATTACKS: &[CallSchema] = &[CallSchema {
    name: "attack",
    meaning: "A prompt in other words.",
    first: Some(&field("name", TEXT, "The name under which its scores are told.")),
    arguments: &[field(
        "template",
        TEXT,
        "What is asked; `{prompt}` stands for the prompt in its own words.",
    )
    .or("\"{prompt}\"")],
}];

/// What looks at a response.
pub(super) const JUDGES: &[CallSchema] = &[
    CallSchema {
        name: "refusals",
        meaning: "Rules that find refusals, in English, Finnish, Hindi, Japanese and Vietnamese. As a judge of attacks they \
                  take every response that is none, and is not empty, for unsafe.",
        first: None,
        arguments: &[
            field(
                "labelled",
                Type::Reference(&[BlockKind::Source]),
                "Responses that people have labelled: the rules' precision and recall on them stand beside the scores.",
            )
            .or_unset("the rules are taken as they are"),
            field("files", PATTERNS, "Patterns of the files with them.").or("[\"**/*.csv\"]"),
            field("prompt", TEXT, "The member that holds a prompt.").or("\"prompt\""),
            field("response", TEXT, "The member that holds a response.").or("\"response\""),
            field("label", TEXT, "The member that is true, or 1, for a refusal.").or("\"refusal\""),
        ],
    },
    CallSchema {
        name: "command",
        meaning: "A program that reads a line of JSON an answer (`item`, `prompt`, `response`, `sets`) and writes one with a \
                  number `score` for each, in the same order. Its answers are kept: a rerun asks no judge.",
        first: Some(&field(
            "source",
            Type::Reference(&[BlockKind::Source]),
            "The files of the program, in whose folder it is run.",
        )),
        arguments: &[field(
            "run",
            Type::List { of: &TEXT, least: 1 },
            "The program and its arguments.",
        )],
    },
    CallSchema {
        name: "endpoint",
        meaning: "A model behind an OpenAI-compatible interface, at temperature 0. Its answers are kept: a rerun asks no judge.",
        first: Some(&field(
            "url",
            TEXT,
            "The interface's address, without `/chat/completions`.",
        )),
        arguments: &[
            field("model", TEXT, "The model's name there."),
            field(
                "question",
                TEXT,
                "What it is asked; `{prompt}` and `{response}` stand for an answer and what it answers.",
            ),
            field(
                "yes",
                TEXT,
                "A reply that begins with this word counts 1, another one 0.",
            )
            .or("\"yes\""),
            field(
                "secret",
                TEXT,
                "The environment variable that holds the key of the interface.",
            )
            .or_unset("no key is sent")
            .placement(),
        ],
    },
];

/// Pieces of a learning rate.
pub(super) const PIECES: &[CallSchema] = &[
    CallSchema {
        name: "line",
        meaning: "A straight line to another rate.",
        first: None,
        arguments: &[PIECE_END, PIECE_LENGTH],
    },
    CallSchema {
        name: "half_cosine",
        meaning: "Half a cosine to another rate.",
        first: None,
        arguments: &[PIECE_END, PIECE_LENGTH],
    },
    CallSchema {
        name: "hold",
        meaning: "The same rate for a while.",
        first: None,
        arguments: &[PIECE_LENGTH],
    },
];
const PIECE_END: FieldSchema = field("to", between("0", "10"), "The rate at its end.");
const PIECE_LENGTH: FieldSchema = field("over", STEPS, "How long it takes.").or_unset("to the end of the stage");

const PEAK: FieldSchema = field("peak", positive("10"), "The highest rate.").may_be_unknown();
const FLOOR: FieldSchema = field("floor", between("0", "10"), "The rate at the end.")
    .or("0")
    .may_be_unknown();
const WARMUP: FieldSchema = field("warmup", STEPS, "A straight line from zero to the peak at the start.")
    .or("0 steps")
    .may_be_unknown();
const FALLING: &[FieldSchema] = &[PEAK, FLOOR, WARMUP];

/// A share that stays below one.
const BETA: Type = Type::Decimal {
    range: super::Range {
        least: "0",
        includes_least: true,
        most: Some("1"),
        includes_most: false,
    },
};

pub(super) const OPTIMIZERS: &[CallSchema] = &[CallSchema {
    name: "adamw",
    meaning: "Adam with decoupled weight decay.",
    first: None,
    arguments: &[
        field("beta1", BETA, "Decay of the first moment.")
            .or("0.9")
            .may_be_unknown(),
        field("beta2", BETA, "Decay of the second moment.")
            .or("0.95")
            .may_be_unknown(),
        field("epsilon", positive("1"), "Added to the root of the second moment.")
            .or("1e-8")
            .may_be_unknown(),
        field(
            "weight_decay",
            between("0", "1"),
            "Share of a weight taken off per unit of learning rate.",
        )
        .or("0.1")
        .may_be_unknown(),
        field(
            "clip",
            Type::OneOf(&[positive("1000000"), Type::Nothing]),
            "Bound of the global gradient norm, or `none`.",
        )
        .or("1.0")
        .may_be_unknown(),
    ],
}];

/// A weight that changes over a stage.
pub(super) const RAMPS: &[CallSchema] = &[CallSchema {
    name: "ramp",
    meaning: "A straight line from one share at the first sample of the stage to another at its last; the shares of a mixture sum \
              to 100% at both.",
    first: None,
    arguments: &[
        field("start", SHARE, "The share at the beginning of the stage.").may_be_unknown(),
        field("end", SHARE, "The share at its end.").may_be_unknown(),
    ],
}];
const SHARE: Type = Type::Percent {
    range: super::Range {
        least: "0",
        includes_least: true,
        most: Some("100"),
        includes_most: true,
    },
};

/// What a line of a mixture lowers to.
pub(super) const COMPONENT: CallSchema = CallSchema {
    name: "component",
    meaning: "One component of a mixture: `NAME from [CORPORA] weight SHARE max_epochs N`.",
    first: None,
    arguments: &[
        field(
            "from",
            Type::List {
                of: &Type::Reference(&[BlockKind::Corpus]),
                least: 1,
            },
            "The corpora it draws from.",
        ),
        field(
            "weight",
            Type::OneOf(&[
                Type::Percent {
                    range: super::Range {
                        least: "0",
                        includes_least: false,
                        most: Some("100"),
                        includes_most: true,
                    },
                },
                Type::Quantity {
                    units: &[Unit::Tokens],
                    least: 1,
                    most: u64::MAX,
                },
                Type::Call(RAMPS),
            ]),
            "Share of the stage's tokens; the weights of a mixture sum to exactly 100%. Or, for all of its components, tokens: \
             each has its share of their sum, to parts of a million.",
        )
        .may_be_unknown(),
        field(
            "max_epochs",
            positive("1000000"),
            "How often its tokens may be seen at most.",
        )
        .or_unset("as often as the weight asks for")
        .may_be_unknown(),
    ],
};

/// Every table of calls.
pub(super) const ALL: &[&[CallSchema]] = &[
    NUMERICS,
    EXTRACTIONS,
    TOKENIZERS,
    WEIGHTS,
    LEARNING_RATES,
    PIECES,
    OPTIMIZERS,
    RAMPS,
    WARNINGS,
    ATTACKS,
    JUDGES,
];
