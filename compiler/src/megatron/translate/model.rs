//! The network: its family, its shape, its first weights, its tokenizer.

use rust_decimal::Decimal;

use super::{Block, DEFAULT, Read, Translation, number_text};
use crate::megatron::findings::Kind;

/// What the two families differ in, and how a flag says it.
struct Traits {
    rotary: Option<String>,
    root_mean_square: Option<String>,
    gated: Option<String>,
    no_biases: Option<String>,
}

impl Translation<'_> {
    pub(super) fn model(&mut self) -> String {
        let tokenizer = self.tokenizer();
        let mut block = Block::new("model base");
        let llama = self.family(&mut block);
        let layers = self.needed("--num-layers");
        block.read("layers", &layers);
        let hidden = self.needed("--hidden-size");
        block.read("hidden", &hidden);
        let heads = self.needed("--num-attention-heads");
        block.read("heads", &heads);
        let kv_heads = self.kv_heads(&heads, llama);
        block.read("kv_heads", &kv_heads);
        self.head_width(&hidden, &heads);
        let feed_forward = self.feed_forward(&hidden);
        block.read("feed_forward", &feed_forward);
        let context = self.needed("--max-position-embeddings");
        block.shown("context", &context, |context| format!("{context} tokens"));
        let vocabulary = self.vocabulary();
        block.read("vocabulary", &vocabulary);
        if !llama {
            let (activation, origin) = self.gelu();
            block.field("activation", activation, &origin);
        }
        let name = if self.given("--norm-epsilon").is_some() {
            "--norm-epsilon"
        } else {
            "--layernorm-epsilon"
        };
        let epsilon = self.or(name, Self::number, Decimal::new(1, 5));
        block.shown("norm_epsilon", &epsilon, number_text);
        if llama {
            let name = if self.given("--rotary-theta").is_some() {
                "--rotary-theta"
            } else {
                "--rotary-base"
            };
            let base = self.or(name, Self::number, Decimal::from(10_000));
            block.shown("rotary_base", &base, |base| base.normalize().to_string());
        }
        match (self.switch("--untie-embeddings-and-output-weights"), llama) {
            (Some(origin), true) => block.field("tied_embeddings", false, &origin),
            (Some(_), false) => self.tell_of(
                Kind::ChangesResult,
                "--untie-embeddings-and-output-weights",
                "the output layer of gpt_bigcode is its word embedding",
            ),
            (None, _) => block.field("tied_embeddings", true, DEFAULT),
        }
        block.field("tokenizer", "tokens", "");
        let source = self.weights(&mut block);
        [tokenizer, source, block.done()].concat()
    }

    /// Which family the network is of; what fits neither is told.
    fn family(&mut self, block: &mut Block) -> bool {
        let positions = self.text("--position-embedding-type");
        let position = positions.as_ref().and_then(|read| read.value.as_deref());
        let rope = (position == Some("rope")).then(|| self.origin_of("--position-embedding-type"));
        let normalization = self.text("--normalization").and_then(|read| read.value);
        let root_mean_square = (normalization.as_deref() == Some("RMSNorm")).then(|| self.origin_of("--normalization"));
        let traits = Traits {
            rotary: rope.or_else(|| self.switch("--use-rotary-position-embeddings")),
            root_mean_square,
            gated: self.switch("--swiglu"),
            no_biases: self.switch("--disable-bias-linear"),
        };
        if let Some(other) = position.filter(|position| !matches!(*position, "rope" | "learned_absolute" | "absolute"))
        {
            let why = format!("positions are learned or rotary, not `{other}`");
            self.tell_of(Kind::ChangesResult, "--position-embedding-type", why);
        }
        if let Some(other) = normalization.filter(|other| !matches!(other.as_str(), "RMSNorm" | "LayerNorm")) {
            let why = format!("norms are LayerNorm or RMSNorm, not `{other}`");
            self.tell_of(Kind::ChangesResult, "--normalization", why);
        }
        let positions = match self.given("--use-rotary-position-embeddings") {
            Some(_) => "--use-rotary-position-embeddings",
            None => "--position-embedding-type",
        };
        let parts = [
            (positions, "rotary positions", &traits.rotary, "learned positions"),
            ("--normalization", "RMSNorm", &traits.root_mean_square, "LayerNorm"),
            ("--swiglu", "SwiGLU", &traits.gated, "GELU"),
            ("--disable-bias-linear", "no biases", &traits.no_biases, "biases"),
        ];
        let said = parts.iter().filter(|(_, _, origin, _)| origin.is_some()).count();
        // Positions decide where the rest is undecided.
        let llama = said * 2 > parts.len() || (said * 2 == parts.len() && traits.rotary.is_some());
        for (flag, has, origin, has_not) in parts {
            if origin.is_some() == llama {
                continue;
            }
            let (family, here) = if llama {
                ("llama", has_not)
            } else {
                ("gpt_bigcode", has)
            };
            let why = format!("this network has {here}, and {family} has not: no family of Aurora is like it");
            self.tell_of(Kind::ChangesResult, flag, why);
        }
        let origins: Vec<&str> = parts.iter().filter_map(|(_, _, origin, _)| origin.as_deref()).collect();
        match llama {
            true => block.field("architecture", "llama", &origins.join(", ")),
            false => block.field(
                "architecture",
                "gpt_bigcode",
                &format!("{DEFAULT}s: learned positions, LayerNorm, GELU, biases"),
            ),
        }
        llama
    }

    fn kv_heads(&mut self, heads: &Read<u64>, llama: bool) -> Read<u64> {
        let kind = self.text("--attention-head-type");
        match kind.as_ref().and_then(|kind| kind.value.as_deref()) {
            Some("multiquery") => return Read::new(1, self.origin_of("--attention-head-type")),
            Some("multihead") => {
                let origin = self.origin_of("--attention-head-type");
                return Read {
                    origin,
                    ..heads.clone()
                };
            }
            Some(other) => {
                let why = format!("heads share keys and values, or do not; `{other}` is neither");
                self.tell_of(Kind::NotUnderstood, "--attention-head-type", why);
            }
            None => {}
        }
        if self.given("--group-query-attention").is_none() {
            self.tell_if_given("--num-query-groups", "it counts with --group-query-attention only");
            return Read {
                value: heads.value,
                origin: format!("{DEFAULT}: as many as heads"),
            };
        }
        let groups = self.or("--num-query-groups", Self::whole, 1);
        if let (Some(groups), Some(heads), false) = (groups.value, heads.value, llama)
            && groups != 1
            && groups != heads
        {
            let why = format!("gpt_bigcode has 1 or {heads} key and value heads, not {groups}");
            self.tell_of(Kind::ChangesResult, "--num-query-groups", why);
        }
        let origin = format!("{}, {}", self.origin_of("--group-query-attention"), groups.origin);
        Read { origin, ..groups }
    }

    fn tell_if_given(&mut self, name: &str, why: &str) {
        if self.given(name).is_some() {
            self.tell_of(Kind::NoEffect, name, why);
        }
    }

    fn head_width(&mut self, hidden: &Read<u64>, heads: &Read<u64>) {
        let Some(width) = self.whole("--kv-channels") else {
            return;
        };
        let (Some(width), Some(hidden), Some(heads)) = (width.value, hidden.value, heads.value) else {
            return;
        };
        match hidden.checked_div(heads) {
            Some(own) if own == width && hidden % heads == 0 => {
                self.tell_of(
                    Kind::NoEffect,
                    "--kv-channels",
                    format!("a head has {hidden} ÷ {heads} = {own} numbers anyway"),
                );
            }
            _ => self.tell_of(
                Kind::ChangesResult,
                "--kv-channels",
                format!("a head has {hidden} ÷ {heads} numbers"),
            ),
        }
    }

    fn feed_forward(&mut self, hidden: &Read<u64>) -> Read<u64> {
        if let Some(given) = self.whole("--ffn-hidden-size") {
            return given;
        }
        // Source: `validate_args`: 4·h, and two thirds of it in whole 64s where there are two projections up.
        let gated = self.given("--swiglu").is_some();
        let rule = if gated {
            "4 × hidden × ⅔ in whole 64s"
        } else {
            "4 × hidden"
        };
        Read {
            value: hidden.value.and_then(|hidden| hidden.checked_mul(4)).map(|four| {
                if gated {
                    (u128::from(four) * 2 / 3 / 64 * 64) as u64
                } else {
                    four
                }
            }),
            origin: format!("{DEFAULT}: {rule}"),
        }
    }

    /// Rows of the embedding: the tokenizer's entries, filled up as Megatron does.
    ///
    /// Source: `_vocab_size_with_padding`: the next multiple of divisor × tensor degree.
    fn vocabulary(&mut self) -> Read<u64> {
        let divisor = self.or("--make-vocab-size-divisible-by", Self::whole, 128);
        let entries = match (self.whole("--vocab-size"), self.options.vocabulary) {
            (given, Some(entries)) => {
                if given.is_some_and(|given| given.value != Some(entries)) {
                    self.tell_of(
                        Kind::Settled,
                        "--vocab-size",
                        format!("`--vocabulary {entries}` of this import counts"),
                    );
                }
                Read::new(entries, "--vocabulary of this import")
            }
            (Some(given), None) => given,
            (None, None) => {
                let what = "the tokenizer's entries";
                self.tell(Kind::OnlyARunKnows, 0, what, "say them with `--vocabulary`");
                return Read {
                    value: None,
                    origin: format!("{what}: say them with --vocabulary"),
                };
            }
        };
        let multiple = divisor
            .value
            .and_then(|divisor| divisor.checked_mul(self.facts.tensor.max(1)));
        let (Some(count), Some(multiple)) = (entries.value, multiple.filter(|multiple| *multiple > 0)) else {
            return entries;
        };
        match count.checked_next_multiple_of(multiple) {
            Some(rows) if rows != count => {
                let origin = format!(
                    "{} says {count}: filled up to {} × tensor {}, {}",
                    entries.origin,
                    multiple / self.facts.tensor.max(1),
                    self.facts.tensor.max(1),
                    divisor.origin
                );
                Read {
                    value: Some(rows),
                    origin,
                }
            }
            _ => entries,
        }
    }

    /// Fused with the bias, Megatron's GELU is the tanh form.
    fn gelu(&self) -> (&'static str, String) {
        if let Some(origin) = self.switch("--openai-gelu") {
            return ("gelu_tanh", origin);
        }
        match self.any_switch(&["--no-bias-gelu-fusion", "--disable-bias-linear"]) {
            Some(origin) => ("gelu", origin),
            None => (
                "gelu_tanh",
                format!("{DEFAULT}: GELU fused with the bias has the tanh form"),
            ),
        }
    }

    fn tokenizer(&mut self) -> String {
        let kind = self.text("--tokenizer-type").and_then(|kind| kind.value);
        let file = [
            "--tokenizer-file",
            "--tokenizer-model",
            "--tokenizer-path",
            "--vocab-file",
        ]
        .into_iter()
        .find_map(|name| Some((name, self.text(name)?)));
        let (name, path) = match file {
            Some((name, path)) => (name, path),
            None => {
                self.tell(Kind::OnlyARunKnows, 0, "the tokenizer", "no flag says where it is");
                let origin = "no flag says where it is".to_owned();
                ("", Read { value: None, origin })
            }
        };
        if let Some(kind) = kind.filter(|kind| !matches!(kind.as_str(), "TokenizerFromFile" | "HuggingFaceTokenizer")) {
            let why = format!("Aurora loads a `tokenizer.json`; `{kind}` has to be made into one");
            self.tell_of(Kind::Settled, "--tokenizer-type", why);
        }
        if name == "--vocab-file" {
            self.tell_of(
                Kind::Settled,
                "--vocab-file",
                "Aurora loads a `tokenizer.json`; make one of it",
            );
        }
        if self.given("--merge-file").is_some() {
            self.tell_of(
                Kind::Settled,
                "--merge-file",
                "Aurora loads a `tokenizer.json`; make one of it",
            );
        }
        let mut source = Block::new("source tokenizer_files");
        let what = path.value.as_deref().unwrap_or_default();
        source.field("from", "unknown", format!("{} {what}", path.origin).trim());
        let mut block = Block::new("tokenizer tokens");
        let member = what
            .rsplit('/')
            .next()
            .filter(|member| member.ends_with(".json") && name != "--vocab-file");
        match member.filter(|member| *member != "tokenizer.json") {
            Some(member) => block.field("kind", format!("load(tokenizer_files, member = {member:?})"), ""),
            None => block.field("kind", "load(tokenizer_files)", ""),
        }
        source.done() + &block.done()
    }

    /// Whether the run loads from where it saves.
    fn loads_its_own(&self) -> bool {
        let value = |name: &str| self.given(name).and_then(|given| given.values.last());
        match (value("--load"), value("--save")) {
            (Some(load), Some(save)) => load.text == save.text && load.unknown == save.unknown,
            _ => false,
        }
    }

    /// The first weights; a source of its own where they are loaded.
    fn weights(&mut self, block: &mut Block) -> String {
        let pretrained = self.text("--pretrained-checkpoint");
        let loaded = self.text("--load");
        let finetune = self.given("--finetune").is_some();
        let from = match (pretrained, loaded) {
            (Some(pretrained), _) => Some(pretrained),
            (None, Some(loaded)) if finetune => Some(loaded),
            (None, Some(_)) if self.loads_its_own() => {
                self.tell_of(
                    Kind::NoEffect,
                    "--load",
                    "the run's own folder: the same command goes on from there",
                );
                None
            }
            (None, Some(loaded)) => {
                let why = "goes on with another run's optimizer and iteration; the spec starts from its weights";
                self.tell_of(Kind::ChangesResult, "--load", why);
                Some(loaded)
            }
            (None, None) => None,
        };
        self.tell_if_given("--save", "checkpoints go into Aurora's store");
        if from.is_none() {
            self.tell_if_given("--finetune", "nothing is loaded");
        }
        let std = self.or("--init-method-std", Self::number, Decimal::new(2, 2));
        let Some(from) = from else {
            let value = std.value.as_ref().map_or("unknown".to_owned(), number_text);
            block.call("weights", "random", &[("std", value, std.origin)]);
            return String::new();
        };
        self.tell_if_given("--init-method-std", "weights that are loaded are not drawn");
        let mut source = Block::new("source first_weights");
        source.comment("a checkpoint of Megatron has to be written in Hugging Face's layout first");
        let what = from.value.as_deref().unwrap_or_default();
        let finetune = self
            .switch("--finetune")
            .map(|origin| format!(", {origin}"))
            .unwrap_or_default();
        source.field("from", "unknown", format!("{}{finetune} {what}", from.origin).trim());
        block.field("weights", "safetensors(first_weights)", &from.origin);
        source.done()
    }
}
