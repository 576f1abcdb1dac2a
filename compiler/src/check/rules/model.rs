//! Models and tokenizers: shapes that fit together.

use aurora_lang::diagnostics::{Code, Diagnostic};

use super::nearest_divisors;
use crate::check::Checker;
use crate::spec::{Block, BlockId, Field, Spec, Value};

impl Checker<'_> {
    pub(super) fn model(&mut self, block: &Block, spec: &Spec) {
        let number = |name: &str| block.integer(name).and_then(|value| u64::try_from(value).ok());
        if let (Some(hidden), Some(heads)) = (number("hidden"), number("heads"))
            && hidden % heads != 0
        {
            self.error(
                Diagnostic::new(
                    Code::HEADS,
                    format!("hidden {hidden} is not divisible by heads {heads}"),
                )
                .label(
                    block.place("heads"),
                    format!("{hidden} ÷ {heads} leaves {}", hidden % heads),
                )
                .label(block.place("hidden"), "the width that is divided")
                .help(nearest_divisors(heads, hidden)),
            );
        }
        if let (Some(heads), Some(kv_heads)) = (number("heads"), number("kv_heads"))
            && heads % kv_heads != 0
        {
            self.error(
                Diagnostic::new(
                    Code::KV_HEADS,
                    format!("heads {heads} is not divisible by kv_heads {kv_heads}"),
                )
                .label(
                    block.place("kv_heads"),
                    format!("{heads} ÷ {kv_heads} leaves {}", heads % kv_heads),
                )
                .label(block.place("heads"), "the heads that share them")
                .help(nearest_divisors(kv_heads, heads)),
            );
        }
        self.family(block);
        self.grid(block, spec);
        let tokenizer = block.reference("tokenizer").and_then(|id| spec.blocks.get(id));
        let entries = tokenizer.and_then(|tokenizer| tokenizer.field("kind")?.argument("vocabulary"));
        if let (Some(vocabulary), Some(entries_field)) = (number("vocabulary"), entries)
            && let Some(entries) = entries_field.integer().and_then(|entries| u64::try_from(entries).ok())
            && entries > vocabulary
        {
            let mut diagnostic = Diagnostic::new(
                Code::VOCABULARY_TOO_SMALL,
                format!("the tokenizer has {entries} entries, and the model {vocabulary} rows for them"),
            )
            .label(block.place("vocabulary"), format!("{} too few", entries - vocabulary));
            if let Some(span) = entries_field
                .span()
                .or(tokenizer.map(|tokenizer| tokenizer.place("kind")))
            {
                diagnostic = diagnostic.label(span, "the tokenizer's entries");
            }
            self.error(diagnostic.help(format!("write `vocabulary = {entries}`, or train a smaller tokenizer")));
        }
    }

    /// Fields that only one architecture has.
    fn family(&mut self, block: &Block) {
        let Some(family @ ("gpt_bigcode" | "llama")) = block.word("architecture") else {
            return;
        };
        let gated = block.word("activation") == Some("swiglu");
        if block.word("activation").is_some() && gated != (family == "llama") {
            let fitting = if family == "llama" {
                "`swiglu`"
            } else {
                "`gelu` or `gelu_tanh`"
            };
            self.error(
                Diagnostic::new(
                    Code::FAMILY,
                    format!("{family} has no `{}`", block.word("activation").unwrap_or_default()),
                )
                .label(block.place("activation"), "of another family")
                .label(block.place("architecture"), "the family")
                .help(format!("write {fitting}, or leave it out")),
            );
        }
        let number = |name: &str| block.integer(name).and_then(|value| u64::try_from(value).ok());
        if family == "llama" {
            if let (Some(hidden), Some(heads)) = (number("hidden"), number("heads"))
                && heads > 0
                && hidden % heads == 0
                && hidden / heads % 2 != 0
            {
                self.error(
                    Diagnostic::new(
                        Code::FAMILY,
                        format!("rotary positions need an even head size, not {}", hidden / heads),
                    )
                    .label(block.place("heads"), format!("{hidden} ÷ {heads} = {}", hidden / heads))
                    .help("rotary positions rotate pairs of numbers: choose `heads` so that hidden ÷ heads is even"),
                );
            }
            return;
        }
        self.no_effect(block, "rotary_base", "on gpt_bigcode, whose positions are learned");
        if block
            .field("tied_embeddings")
            .is_some_and(|field| field.value == Value::Bool(false))
        {
            self.error(
                Diagnostic::new(Code::FAMILY, "gpt_bigcode has no separate output layer")
                    .label(block.place("tied_embeddings"), "its output layer is the word embedding")
                    .help("leave it out, or write `architecture = llama`"),
            );
        }
        if let (Some(heads), Some(kv_heads)) = (number("heads"), number("kv_heads"))
            && kv_heads != 1
            && kv_heads != heads
            && heads % kv_heads == 0
        {
            self.error(
                Diagnostic::new(
                    Code::FAMILY,
                    format!("gpt_bigcode has 1 or {heads} key and value heads, not {kv_heads}"),
                )
                .label(block.place("kv_heads"), "groups of heads")
                .help(format!(
                    "write `kv_heads = 1` or `kv_heads = {heads}`, or `architecture = llama`"
                )),
            );
        }
    }

    /// The logical grid of `invariant` numerics splits the model evenly.
    fn grid(&mut self, block: &Block, spec: &Spec) {
        let Some(numerics) = spec.experiment().and_then(|experiment| experiment.field("numerics")) else {
            return;
        };
        let Some(tensor) = numerics.argument("tensor") else {
            return;
        };
        let Some(shards) = tensor.integer().and_then(|shards| u64::try_from(shards).ok()) else {
            return;
        };
        for name in ["heads", "feed_forward", "vocabulary"] {
            let Some(size) = block.integer(name).and_then(|size| u64::try_from(size).ok()) else {
                continue;
            };
            if size % shards == 0 {
                continue;
            }
            let mut diagnostic = Diagnostic::new(
                Code::GRID,
                format!("{name} {size} cannot be split into {shards} logical tensor shards"),
            )
            .label(block.place(name), format!("{size} ÷ {shards} leaves {}", size % shards));
            if let Some(span) = tensor.span() {
                diagnostic = diagnostic.label(span, "the shards");
            }
            self.error(diagnostic.help(super::nearest_multiples(size, shards, "")));
        }
        let number = |name: &str| block.integer(name).and_then(|size| u64::try_from(size).ok());
        if let (Some(heads), Some(kv_heads)) = (number("heads"), number("kv_heads"))
            && kv_heads > 0
            && heads % kv_heads == 0
            && kv_heads % shards != 0
            && shards % kv_heads != 0
        {
            self.error(
                Diagnostic::new(
                    Code::GRID,
                    format!(
                        "{kv_heads} key and value heads and {shards} logical tensor shards do not divide each other"
                    ),
                )
                .label(block.place("kv_heads"), "neither divides the other")
                .help("a shard must hold complete heads, or several shards hold the same head"),
            );
        }
    }

    pub(super) fn tokenizer(&mut self, id: &BlockId, block: &Block) {
        let corpora = block.field("corpora");
        match block.word("kind") {
            Some("load") => self.no_effect(block, "corpora", "on a tokenizer that is loaded"),
            Some("train_bpe") if corpora.is_some_and(|field| field.value == Value::None) => {
                self.error(
                    Diagnostic::new(Code::MISSING_FIELD, format!("tokenizer `{}` has no `corpora`", id.name))
                        .label(block.span, "needs `corpora`")
                        .help("add `corpora = […]`, the corpora it is trained on"),
                );
            }
            _ => {}
        }
        let Some(kind) = block.field("kind") else { return };
        let special = kind
            .argument("special")
            .map_or(0, |special| special.elements().len() as i64);
        if let Some(vocabulary) = kind.argument("vocabulary").and_then(Field::integer)
            && vocabulary < 256 + special
        {
            self.error(
                Diagnostic::new(
                    Code::OUT_OF_RANGE,
                    format!("{vocabulary} entries cannot hold the 256 bytes and {special} special ones"),
                )
                .label(
                    kind.argument("vocabulary").and_then(Field::span).unwrap_or(block.span),
                    "too small",
                )
                .help(format!("write at least {}", 256 + special)),
            );
        }
    }

    pub(super) fn corpus(&mut self, _id: &BlockId, block: &Block) {
        self.preparation(block);
        for call in block.field("from").map_or(&[][..], Field::elements) {
            let Some(arguments) = call.arguments() else { continue };
            let is_set = |name: &str| {
                arguments
                    .get(name)
                    .is_some_and(|argument| argument.value != Value::None)
            };
            if let (Some("pairs"), Some(only)) = (call.word(), arguments.get("only"))
                && let (Value::Text(text), Some(span)) = (&only.value, only.span())
                && text.split_once('=').is_none_or(|(member, _)| member.trim().is_empty())
            {
                self.error(
                    Diagnostic::new(Code::BAD_ARGUMENT, "`only` does not have the form `MEMBER=TEXT`")
                        .label(span, "expected `MEMBER=TEXT`")
                        .help("such as `only = \"label=good\"`"),
                );
            }
            for [first, second] in [["field", "text"], ["by_line", "by_block"]] {
                let both = [first, second].map(|name| arguments.get(name).filter(|argument| argument.is_written()));
                if let [Some(one), Some(other)] = both
                    && ![one, other].iter().any(|argument| argument.value == Value::Bool(false))
                {
                    self.error(
                        Diagnostic::new(
                            Code::BAD_ARGUMENT,
                            format!("`{first}` and `{second}` exclude each other"),
                        )
                        .label(other.span().unwrap_or(block.span), format!("beside `{first}`"))
                        .help("remove one of them"),
                    );
                }
            }
            if call.word() != Some("html") {
                continue;
            }
            for name in ["own", "other"] {
                let place = arguments.get(name).and_then(Field::span);
                if is_set("reference") && !is_set(name) {
                    self.error(
                        Diagnostic::new(Code::BAD_ARGUMENT, format!("`html` with a `reference` has no `{name}`"))
                            .label(arguments["reference"].span().unwrap_or(block.span), format!("needs `{name}`"))
                            .help("`own` names the page's language in its path, `other` the reference language in the same place: `own = \"/fi/\", other = \"/en-US/\"`"),
                    );
                } else if !is_set("reference")
                    && is_set(name)
                    && let Some(place) = place
                {
                    self.error(
                        Diagnostic::new(Code::NO_EFFECT, format!("`{name}` has no effect without `reference`"))
                            .label(place, "would be ignored")
                            .help("add `reference = SOURCE`, or remove it"),
                    );
                }
            }
        }
    }
}
