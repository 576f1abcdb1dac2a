//! The fields of evals; which kinds have which of them is in `eval_kind`.

use super::calls::{ATTACKS, JUDGES};
use super::eval_kind::EvalKind;
use super::types::{LONGEST_SEQUENCE, TEXT, TOKENS_OR_STEPS};
use super::{BlockSchema, TextKind, Type, between, field, positive, whole};
use crate::spec::{BlockKind, Unit};

pub(super) const EVAL: BlockSchema = BlockSchema {
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
                most: LONGEST_SEQUENCE,
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
                most: LONGEST_SEQUENCE,
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
                most: u64::MAX,
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
                most: u64::MAX,
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

/// The words of the field `kind`, made from [`EvalKind`].
const EVAL_KINDS: &[(&str, &str)] = &{
    let mut words = [("", ""); EvalKind::ALL.len()];
    let mut index = 0;
    while index < words.len() {
        let kind = EvalKind::ALL[index];
        words[index] = (kind.name(), kind.meaning());
        index += 1;
    }
    words
};

const BY: &[(&str, &str)] = &[
    ("category", "the category of each item"),
    ("language", "the language of each item"),
];
