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
    "The source of the files.",
);
const FILES: FieldSchema = field(
    "files",
    Type::List {
        of: &Type::Text(TextKind::Pattern),
        least: 1,
    },
    "Patterns of the files to read: paths inside an archive, or file names.",
)
.or("[\"**\"]");
const EXCLUDE: FieldSchema = field("exclude", PATTERNS, "Patterns of files to exclude.").or("[]");
const MICRO_BATCH: Type = Type::Quantity {
    units: &[Unit::Sequences],
    least: 1,
    most: LARGEST_MICRO_BATCH,
};

/// The arguments of the logical grid.
const GRID: &[FieldSchema] = &[
    field(
        "tensor",
        power_of_two(1024),
        "Logical tensor shards; must divide heads, feed-forward width and vocabulary.",
    )
    .or("1"),
    field(
        "lanes",
        power_of_two(65_536),
        "Logical gradient lanes; the global batch is divided evenly among them.",
    )
    .or("1"),
    field("micro_batch", MICRO_BATCH, "Sequences of one forward pass of a lane.").or("1 sequences"),
];

/// How the order of floating-point sums is fixed.
pub(super) const NUMERICS: &[CallSchema] = &[
    CallSchema {
        name: "invariant",
        meaning: "Bitwise identical under any layout and number of threads: every sum follows a logical grid.",
        first: None,
        arguments: GRID,
    },
    CallSchema {
        name: "portable",
        meaning: "As `invariant`, and bitwise identical on every x86-64 processor: only Aurora's own kernels are used, which is slower.",
        first: None,
        arguments: GRID,
    },
    CallSchema {
        name: "native",
        meaning: "The fastest kernels of the installed libraries; bitwise identical only where these kernels are.",
        first: None,
        arguments: &[
            GRID[0],
            GRID[1],
            field("micro_batch", MICRO_BATCH, "Sequences of one forward pass of a lane.")
                .or("1 sequences")
                .may_be_unknown(),
        ],
    },
];

/// What a step of preparation keeps or drops.
pub(super) const UNITS_OF_TEXT: &[(&str, &str)] = &[
    ("paragraph", "each line of a document"),
    ("document", "a complete document"),
];

/// The steps that prepare the text of a corpus.
pub(super) const STEPS_OF_TEXT: &[CallSchema] = &[
    CallSchema {
        name: "paragraphs",
        meaning: "The steps after this one keep, drop or change each line of a document by itself; lines that stay are joined by LF again.",
        first: None,
        arguments: &[],
    },
    CallSchema {
        name: "reflow",
        meaning: "Lines that are wrapped become one: paragraphs, which empty lines separate, become lines, and each run of white space a space.",
        first: None,
        arguments: &[],
    },
    CallSchema {
        name: "collapse",
        meaning: "Each run of white space becomes one space, and none stays at both ends.",
        first: None,
        arguments: &[],
    },
    CallSchema {
        name: "trim",
        meaning: "Removes white space at both ends.",
        first: None,
        arguments: &[],
    },
    CallSchema {
        name: "minimum",
        meaning: "Drops what is shorter.",
        first: Some(
            &field(
                "characters",
                Type::Quantity {
                    units: &[Unit::Characters],
                    least: 1,
                    most: u32::MAX as u64,
                },
                "The fewest characters (Unicode code points).",
            )
            .or_derived("30; 12 in languages whose script writes a word or a syllable in one character"),
        ),
        arguments: &[],
    },
    CallSchema {
        name: "language",
        meaning: "Drops what is not detected as the corpus' `language`.",
        first: None,
        arguments: &[],
    },
    CallSchema {
        name: "deduplicate",
        meaning: "Drops exact repeats across the corpus; the first one stays.",
        first: None,
        arguments: &[
            field("by", Type::Word(UNITS_OF_TEXT), "What is compared.").or_unset("what the step before works on")
        ],
    },
];

const ENCODING: FieldSchema = field(
    "encoding",
    Type::Text(TextKind::Encoding),
    "The encoding of files without a byte-order mark, by its name in the WHATWG standard, such as `windows-1252`.",
)
.or_unset("UTF-8");
const FIELD: FieldSchema = field(
    "field",
    TEXT,
    "The member or column with the text; `meta.text` is the member `text` of `meta`.",
)
.or_unset("`\"text\"`, unless `text` is given");
const COMPOSED: FieldSchema = field(
    "text",
    TEXT,
    "The text composed of several members, as a template: `\"{title}\\n\\n{body}\"`; `{{` and `}}` are braces.",
)
.or_unset("the text of `field`");
const ID: FieldSchema = field("id", TEXT, "The member or column that identifies a document.")
    .or_unset("a document is identified by its file and line");

/// How documents are read from a source.
pub(super) const EXTRACTIONS: &[CallSchema] = &[
    CallSchema {
        name: "text",
        meaning: "Plain text or Markdown, one document per file, unchanged.",
        first: Some(&SOURCE),
        arguments: &[
            FILES,
            EXCLUDE,
            ENCODING,
            field(
                "by_line",
                Type::Bool,
                "Every line that is not blank is a document. Lines end at LF, CRLF or CR.",
            )
            .or("false"),
            field(
                "by_block",
                Type::Bool,
                "Every block of lines is a document; blank lines separate blocks.",
            )
            .or("false"),
        ],
    },
    CallSchema {
        name: "html",
        meaning: "Web pages, one document per page and one line per block element, with white space collapsed.",
        first: Some(&SOURCE),
        arguments: &[
            FILES,
            EXCLUDE,
            ENCODING,
            field("select", TEXT, "CSS selector of the elements with the text.").or("\"body\""),
            field("drop", TEXT, "CSS selector of elements inside them to exclude.").or_unset("nothing is excluded"),
            field(
                "reference",
                Type::Reference(&[BlockKind::Source]),
                "The same pages in a reference language: a paragraph is kept only if it differs from the paragraph \
                 with the same `id` there.",
            )
            .or_unset("every paragraph is kept"),
            field("own", TEXT, "The part of the path of a page that is its language.")
                .or_unset("there is no `reference`"),
            field(
                "other",
                TEXT,
                "The part that replaces `own` in the path of the reference page.",
            )
            .or_unset("there is no `reference`"),
        ],
    },
    CallSchema {
        name: "roff",
        meaning: "Manual pages, one document per page and one line per paragraph, without requests and escapes.",
        first: Some(&SOURCE),
        arguments: &[FILES, EXCLUDE, ENCODING],
    },
    CallSchema {
        name: "mo",
        meaning: "GNU message catalogues: the translations that differ from their originals, one line each.",
        first: Some(&SOURCE),
        arguments: &[FILES, EXCLUDE],
    },
    CallSchema {
        name: "code",
        meaning: "Source code, one document per file, unchanged.",
        first: Some(&SOURCE),
        arguments: &[FILES, EXCLUDE, ENCODING],
    },
    CallSchema {
        name: "jsonl",
        meaning: "One JSON object per line, each a document with the text of a member, unchanged.",
        first: Some(&SOURCE),
        arguments: &[FILES, EXCLUDE, ENCODING, FIELD, COMPOSED, ID],
    },
    CallSchema {
        name: "json",
        meaning: "JSON files. Each element of a list is a document with the text of a member, unchanged. In a file that is an \
                  object, every string of that member at any depth is one.",
        first: Some(&SOURCE),
        arguments: &[
            FILES,
            EXCLUDE,
            ENCODING,
            field(
                "field",
                TEXT,
                "The member with the text; `meta.text` is the member `text` of `meta`.",
            )
            .or_unset("every string of a file is a line of one document, unless `text` is given"),
            COMPOSED,
            ID,
        ],
    },
    CallSchema {
        name: "csv",
        meaning: "Tables with a first row of names (RFC 4180): each row is a document with the text of a column, unchanged.",
        first: Some(&SOURCE),
        arguments: &[
            FILES,
            EXCLUDE,
            ENCODING,
            FIELD,
            COMPOSED,
            ID,
            field(
                "delimiter",
                Type::Text(TextKind::Delimiter),
                "What separates columns: one character, such as `\";\"` or `\"\\t\"`.",
            )
            .or_unset("the one of comma, semicolon, tab and `|` that the first row has"),
        ],
    },
    CallSchema {
        name: "parquet",
        meaning: "Parquet files: each row is a document with the text of a column, unchanged.",
        first: Some(&SOURCE),
        arguments: &[FILES, EXCLUDE, FIELD, COMPOSED, ID],
    },
    CallSchema {
        name: "arrow",
        meaning: "Arrow IPC files and streams: each row is a document with the text of a column, unchanged.",
        first: Some(&SOURCE),
        arguments: &[FILES, EXCLUDE, FIELD, COMPOSED, ID],
    },
    CallSchema {
        name: "pairs",
        meaning: "Instructions and answers: each item is a document, and only the tokens of its answer are trained on. Items are \
                  the rows of `.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet` and `.arrow`, and the lines of `.txt` as `{prompt}`. \
                  The text of a special entry of the tokenizer is encoded as that entry, as in chat templates.",
        first: Some(&SOURCE),
        arguments: &[
            FILES,
            EXCLUDE,
            ENCODING,
            field(
                "prompt",
                TEXT,
                "The prompt as a template: `{member}` is replaced by a member of the item, `{{` and `}}` by braces.",
            ),
            field(
                "answer",
                TEXT,
                "The answer, which is trained on, as a template. It includes the end of the document.",
            ),
            field(
                "only",
                TEXT,
                "Only the items whose member has this text, as `\"MEMBER=TEXT\"`.",
            )
            .or_unset("all items"),
            ID,
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
                "Number of entries, including special entries and the 256 bytes.",
            )
            .or("8192"),
            field(
                "minimum_frequency",
                whole(1, 1 << 30),
                "Pairs with fewer occurrences are never merged.",
            )
            .or("2"),
            field(
                "special",
                Type::List { of: &TEXT, least: 1 },
                "Entries that are never produced from text; the first one ends a document.",
            )
            .or("[\"<|endoftext|>\"]"),
        ],
    },
    CallSchema {
        name: "load",
        meaning: "A `tokenizer.json` of Hugging Face tokenizers, unchanged, or the tokenizer of a GGUF file.",
        first: Some(&SOURCE),
        arguments: &[
            field(
                "member",
                TEXT,
                "The path of the file in the source; `.gguf` at the end marks a GGUF file.",
            )
            .or("\"tokenizer.json\""),
            field("end_of_document", TEXT, "The entry that ends a document.").or("\"<|endoftext|>\""),
        ],
    },
];

pub(super) const WEIGHTS: &[CallSchema] = &[
    CallSchema {
        name: "random",
        meaning: "Normal random numbers from the seed of the experiment.",
        first: None,
        arguments: &[field(
            "std",
            positive("1"),
            "Standard deviation; divided by √(2 × layers) for projections into the residual stream.",
        )
        .or("0.02")],
    },
    CallSchema {
        name: "hf",
        meaning: "The weights of a repository of the Hugging Face hub: its safetensors and `config.json`, never pickle files.",
        first: Some(&field(
            "repository",
            Type::Text(TextKind::Repository),
            "The repository.",
        )),
        arguments: &[field("revision", TEXT, "Commit, branch or tag; the lock pins the commit.").may_be_unknown()],
    },
    CallSchema {
        name: "safetensors",
        meaning: "The weights of a source with a model in the Hugging Face format: `config.json`, and safetensors in one file or \
                  in several files with an index.",
        first: Some(&SOURCE),
        arguments: &[],
    },
    CallSchema {
        name: "gguf",
        meaning: "The weights of a GGUF file of a llama model; F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are converted to `f32`.",
        first: Some(&SOURCE),
        arguments: &[field("member", TEXT, "The path of the file in the source.")],
    },
];

pub(super) const LEARNING_RATES: &[CallSchema] = &[
    CallSchema {
        name: "constant",
        meaning: "A constant rate.",
        first: None,
        arguments: &[
            field("rate", positive("10"), "The learning rate.").may_be_unknown(),
            field("warmup", STEPS, "Length of the linear warm-up from zero.")
                .or("0 steps")
                .may_be_unknown(),
        ],
    },
    CallSchema {
        name: "linear",
        meaning: "Linear decay from the peak to the floor at the end of the stage.",
        first: None,
        arguments: DECAY_ARGUMENTS,
    },
    CallSchema {
        name: "cosine",
        meaning: "Cosine decay from the peak to the floor at the end of the stage.",
        first: None,
        arguments: DECAY_ARGUMENTS,
    },
    CallSchema {
        name: "wsd",
        meaning: "Warm-up, stable, decay: a constant peak, then linear decay at the end of the stage.",
        first: None,
        arguments: &[
            PEAK,
            FLOOR,
            WARMUP,
            field("decay", STEPS, "Length of the decay from the peak to the floor.").may_be_unknown(),
        ],
    },
    CallSchema {
        name: "piecewise",
        meaning: "A sequence of pieces. Each starts at the rate at which the previous one ends; after the last one the rate is constant.",
        first: None,
        arguments: &[
            field("start", between("0", "10"), "The rate at the first step."),
            field(
                "pieces",
                Type::List {
                    of: &Type::Call(PIECES),
                    least: 1,
                },
                "The pieces; only the last one may omit its length.",
            ),
        ],
    },
];
/// The names of warnings that a spec can silence or refuse.
pub(super) const WARNINGS: &[CallSchema] = &[CallSchema {
    name: "unused",
    meaning: "A block that nothing refers to (`W0201`).",
    first: Some(&field("reason", TEXT, "The reason.")),
    arguments: &[],
}];
/// Templates that rewrite each prompt.
pub(super) const ATTACKS: &[CallSchema] = &[CallSchema {
    name: "attack",
    meaning: "A template that rewrites each prompt.",
    first: Some(&field("name", TEXT, "The name of the attack in reports of scores.")),
    arguments: &[field(
        "template",
        TEXT,
        "The rewritten prompt; `{prompt}` is replaced by the original prompt.",
    )
    .or("\"{prompt}\"")],
}];

/// What a judge's program may need.
const NEEDS: &[(&str, &str)] = &[(
    "network",
    "connections to other machines and to servers of this machine",
)];

/// What scores a response.
pub(super) const JUDGES: &[CallSchema] = &[
    CallSchema {
        name: "refusals",
        meaning: "Rules that detect refusals in English, Finnish, Hindi, Japanese and Vietnamese. As a judge of attacks they count \
                  every response as unsafe that is neither a refusal nor empty.",
        first: None,
        arguments: &[
            field(
                "labelled",
                Type::Reference(&[BlockKind::Source]),
                "Responses with human labels: the precision and recall of the rules on them are reported with the scores.",
            )
            .or_unset("precision and recall are not reported"),
            field("files", PATTERNS, "Patterns of the files with labelled responses.").or("[\"**/*.csv\"]"),
            field("prompt", TEXT, "The member with the prompt.").or("\"prompt\""),
            field("response", TEXT, "The member with the response.").or("\"response\""),
            field("label", TEXT, "The member that is true, or 1, for a refusal.").or("\"refusal\""),
        ],
    },
    CallSchema {
        name: "command",
        meaning: "A program that reads one line of JSON per answer (`item`, `prompt`, `response`, `sets`) and writes one line with a \
                  number `score` for each, in the same order. It runs in a sandbox, once the user has allowed it (`aurora trust`). Its \
                  output is stored: a rerun does not call the judge.",
        first: Some(&field(
            "source",
            Type::Reference(&[BlockKind::Source]),
            "The files of the program; it runs in a folder with copies of them.",
        )),
        arguments: &[
            field(
                "run",
                Type::List { of: &TEXT, least: 1 },
                "The program and its arguments. The program is one of this machine, by its name (`python3`) or path.",
            ),
            field(
                "needs",
                Type::List {
                    of: &Type::Word(NEEDS),
                    least: 1,
                },
                "What the program may do beyond reading its files and computing.",
            )
            .or_unset("nothing"),
            field(
                "timeout",
                Type::Quantity {
                    units: &[Unit::Seconds],
                    least: 1,
                    most: u64::MAX,
                },
                "Time that the program may take, without waiting for a processor; then it is ended, and the run fails.",
            )
            .or("3600 s")
            .placement(),
        ],
    },
    CallSchema {
        name: "endpoint",
        meaning: "A model with an OpenAI-compatible API, at temperature 0. It is asked once the user has allowed it (`aurora trust`). \
                  Its output is stored: a rerun does not call the judge.",
        first: Some(&field(
            "url",
            Type::Text(TextKind::Server),
            "The base URL of the API, without `/chat/completions`.",
        )),
        arguments: &[
            field("model", TEXT, "The name of the model in the API."),
            field(
                "question",
                TEXT,
                "The question to the judge; `{prompt}` and `{response}` are replaced by the prompt and its response.",
            ),
            field(
                "yes",
                TEXT,
                "A reply that starts with this word scores 1, any other 0.",
            )
            .or("\"yes\""),
            field(
                "secret",
                TEXT,
                "The environment variable with the API key, which is sent over `https:` or to this machine only.",
            )
            .or_unset("no key is sent")
            .placement(),
        ],
    },
];

/// The pieces of a `piecewise` learning rate.
pub(super) const PIECES: &[CallSchema] = &[
    CallSchema {
        name: "line",
        meaning: "Linear change to another rate.",
        first: None,
        arguments: &[PIECE_END, PIECE_LENGTH],
    },
    CallSchema {
        name: "half_cosine",
        meaning: "Half a cosine period to another rate.",
        first: None,
        arguments: &[PIECE_END, PIECE_LENGTH],
    },
    CallSchema {
        name: "hold",
        meaning: "A constant rate.",
        first: None,
        arguments: &[PIECE_LENGTH],
    },
];
const PIECE_END: FieldSchema = field("to", between("0", "10"), "The rate at the end of the piece.");
const PIECE_LENGTH: FieldSchema = field("over", STEPS, "The length of the piece.").or_unset("to the end of the stage");

const PEAK: FieldSchema = field("peak", positive("10"), "The highest rate.").may_be_unknown();
const FLOOR: FieldSchema = field("floor", between("0", "10"), "The rate at the end.")
    .or("0")
    .may_be_unknown();
const WARMUP: FieldSchema = field("warmup", STEPS, "Length of the linear warm-up from zero to the peak.")
    .or("0 steps")
    .may_be_unknown();
const DECAY_ARGUMENTS: &[FieldSchema] = &[PEAK, FLOOR, WARMUP];

/// A fraction below one.
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
        field(
            "epsilon",
            positive("1"),
            "Added to the square root of the second moment.",
        )
        .or("1e-8")
        .may_be_unknown(),
        field(
            "weight_decay",
            between("0", "1"),
            "Fraction of a weight that is subtracted per unit of learning rate.",
        )
        .or("0.1")
        .may_be_unknown(),
        field(
            "clip",
            Type::OneOf(&[positive("1000000"), Type::Nothing]),
            "Maximum global gradient norm, or `none`.",
        )
        .or("1.0")
        .may_be_unknown(),
    ],
}];

/// A mixture weight that changes over a stage.
pub(super) const RAMPS: &[CallSchema] = &[CallSchema {
    name: "ramp",
    meaning: "Linear change from one weight at the first sample of the stage to another at the last; the weights of a mixture sum \
              to 100% at both.",
    first: None,
    arguments: &[
        field("start", WEIGHT, "The weight at the start of the stage.").may_be_unknown(),
        field("end", WEIGHT, "The weight at the end of the stage.").may_be_unknown(),
    ],
}];
const WEIGHT: Type = Type::Percent {
    range: super::Range {
        least: "0",
        includes_least: true,
        most: Some("100"),
        includes_most: true,
    },
};

/// A component of a mixture.
pub(super) const COMPONENT: CallSchema = CallSchema {
    name: "component",
    meaning: "One component of a mixture: `NAME from [CORPORA] weight PERCENTAGE max_epochs N`.",
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
            "Percentage of the tokens of the stage; the weights of a mixture sum to exactly 100%. Or, for all components, tokens: \
             the weight is then the fraction of their sum, in parts per million.",
        )
        .may_be_unknown(),
        field(
            "max_epochs",
            positive("1000000"),
            "Maximum number of epochs over its tokens.",
        )
        .or_unset("no limit")
        .may_be_unknown(),
    ],
};

/// Every list of calls.
pub(super) const ALL: &[&[CallSchema]] = &[
    NUMERICS,
    EXTRACTIONS,
    STEPS_OF_TEXT,
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
