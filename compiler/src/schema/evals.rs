//! The fields of evals. `eval_kind` lists the fields of each kind.

use super::calls::{ATTACKS, JUDGES};
use super::eval_kind::EvalKind;
use super::types::{LONGEST_SEQUENCE, TEXT, TOKENS_OR_STEPS};
use super::{BlockSchema, TextKind, Type, between, field, positive, whole};
use crate::spec::{BlockKind, Unit};

pub(super) const EVAL: BlockSchema = BlockSchema {
    kind: BlockKind::Eval,
    meaning: "An evaluation of checkpoints.",
    fields: &[
        field("kind", Type::Word(EVAL_KINDS), "The kind of evaluation."),
        field(
            "data",
            Type::List {
                of: &Type::Reference(&[BlockKind::Corpus, BlockKind::Source]),
                least: 1,
            },
            "Corpora for `perplexity`; sources of problems or prompts for other kinds.",
        ),
        field(
            "at",
            Type::List {
                of: &Type::OneOf(&[
                    Type::Word(&[
                        ("start", "before the first step of the stage"),
                        ("end", "after the last step of the stage"),
                    ]),
                    Type::Every(TOKENS_OR_STEPS),
                ]),
                least: 1,
            },
            "The checkpoints of a stage to evaluate.",
        )
        .or("[start, end]"),
        field(
            "stages",
            Type::List {
                of: &Type::Reference(&[BlockKind::Stage]),
                least: 1,
            },
            "The stages to evaluate.",
        )
        .or_derived("all stages"),
        field(
            "split",
            Type::Word(&[
                ("held_out", "the held-out documents"),
                ("all", "every document of a corpus that no stage trains on"),
            ]),
            "The documents of the corpora to read.",
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
            "Tokens per window.",
        )
        .or_unset("the stage's `sequence`")
        .ignored("an error with any kind but `perplexity`"),
        field(
            "k",
            Type::List {
                of: &whole(1, 10_000),
                least: 1,
            },
            "Each k of pass@k.",
        )
        .or_unset("required for `pass_at_k`")
        .ignored("an error with any kind but `pass_at_k`"),
        field("samples", whole(1, 100_000), "Completions sampled per problem.")
            .or_unset("required for `pass_at_k`")
            .ignored("an error with any kind but `pass_at_k`")
            .may_be_unknown(),
        field(
            "temperature",
            between("0", "10"),
            "Sampling temperature; 0 selects the most likely token.",
        )
        .or_unset("greedy")
        .ignored("an error with `perplexity` and `multiple_choice`")
        .may_be_unknown(),
        field(
            "top_p",
            positive("1"),
            "Sample only from the most likely tokens with this total probability.",
        )
        .or_unset("all tokens")
        .ignored("an error with `perplexity` and `multiple_choice`")
        .may_be_unknown(),
        field("shots", whole(0, 1000), "Number of solved examples before each question.")
            .or_unset("none")
            .ignored("an error with any kind but `multiple_choice` and `generation`")
            .may_be_unknown(),
        field(
            "files",
            Type::List {
                of: &Type::Text(TextKind::Pattern),
                least: 1,
            },
            "Patterns of the files with the items: the lines of `.jsonl` and `.txt` (where a line is the member `prompt`), the objects \
             of `.json` and the rows of `.csv` and `.tsv`, each also compressed.",
        )
        .or_derived("`[\"**/*.jsonl\"]`; `[\"**/*.jsonl*\"]` for `pass_at_k`")
        .ignored("an error with `perplexity`"),
        field(
            "limit",
            whole(1, 1_000_000_000),
            "Maximum number of items, selected by the hash of their content.",
        )
        .or_unset("all items")
        .ignored("an error with `perplexity`"),
        field(
            "prompt",
            TEXT,
            "The prompt as a template: `{member}` is replaced by a member of the item, `{{` and `}}` by braces.",
        )
        .or_derived("`\"{prompt}\"` for kinds that judge or run answers")
        .ignored("an error with `perplexity`")
        .may_be_unknown(),
        field(
            "choices",
            Type::List { of: &TEXT, least: 1 },
            "The choices as templates; `{member}` alone expands to all elements of a list.",
        )
        .or_unset("required for `multiple_choice`")
        .ignored("an error with any kind but `multiple_choice`")
        .may_be_unknown(),
        field(
            "answer",
            TEXT,
            "The correct answer as a template: the text of a choice, its number from 0, or its letter; for `generation` the \
             expected text or list of texts.",
        )
        .or_unset("required for `multiple_choice` and `generation`")
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
        .or_unset("the examples are other items of the eval")
        .ignored("an error with any kind but `multiple_choice` and `generation`"),
        field("separator", TEXT, "Separates the solved examples and the question.")
            .or_derived("`\"\\n\\n\"`")
            .ignored("an error with any kind but `multiple_choice` and `generation`"),
        field("delimiter", TEXT, "Separates a prompt and its answer.")
            .or_derived("`\" \"`")
            .ignored("an error with any kind but `multiple_choice` and `generation`"),
        field("stop", Type::List { of: &TEXT, least: 1 }, "Texts that end a generated answer.")
            .or_unset("only at the end of a document")
            .ignored("an error with `perplexity` and `multiple_choice`"),
        field(
            "maximum",
            Type::Quantity {
                units: &[Unit::Tokens],
                least: 1,
                most: LONGEST_SEQUENCE,
            },
            "Maximum tokens of a generated answer.",
        )
        .or_derived("256 tokens")
        .ignored("an error with `perplexity` and `multiple_choice`"),
        field(
            "program",
            TEXT,
            "The Python program to run, as a template with the members of the item and `{completion}`; a completion passes if \
             the program ends without an error.",
        )
        .or_unset("required for `pass_at_k`")
        .ignored("an error with any kind but `pass_at_k`")
        .may_be_unknown(),
        field(
            "timeout",
            Type::Quantity {
                units: &[Unit::Seconds],
                least: 1,
                most: u64::MAX,
            },
            "CPU-time limit of a program. It may take four times this from start to end, without the time in which it waits for a \
             processor.",
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
            "Memory limit of a program.",
        )
        .or_derived("512 MiB")
        .ignored("an error with any kind but `pass_at_k`"),
        field(
            "unprotected",
            Type::Bool,
            "Run programs even if the machine does not support the sandbox.",
        )
        .or_derived("`false`")
        .ignored("an error with any kind but `pass_at_k`"),
        field(
            "attacks",
            Type::List {
                of: &Type::Call(ATTACKS),
                least: 1,
            },
            "Templates that rewrite each prompt; scores are reported for each attack, and for the worst attack of each prompt.",
        )
        .or_unset("the prompts are not rewritten")
        .ignored("an error with any kind but `attack_success`"),
        field(
            "chat",
            TEXT,
            "The chat template that the model was tuned with; `{prompt}` is replaced by the prompt.",
        )
        .or_unset("only the prompt")
        .ignored("an error with `perplexity` and `multiple_choice`"),
        field("judge", Type::Call(JUDGES), "The judge that scores each response.")
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
            "The members of an item by which scores are reported separately.",
        )
        .or_unset("one score for all items")
        .ignored("an error with `perplexity`"),
        field(
            "better",
            Type::Word(&[
                ("higher", "a higher score is better"),
                ("lower", "a lower score is better"),
            ]),
            "Whether a higher or a lower score is better.",
        )
        .or_unset("required for `plug_in`")
        .ignored("an error with any kind but `plug_in`"),
    ],
    example: "eval heldout {\n  kind = perplexity\n  data = [en, fi]\n  at   = [start, every 500 steps, end]\n}",
};

/// The words of the field `kind`, from [`EvalKind`].
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
