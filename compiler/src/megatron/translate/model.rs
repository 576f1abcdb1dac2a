//! Translates the model flags: architecture, shape, initial weights, tokenizer.

use rust_decimal::Decimal;

use super::{DEFAULT, TranslatedBlock, Translation, WithOrigin, number_text};
use crate::megatron::findings::FindingKind;

/// The differences between the two architectures, with the origin of each flag.
struct ArchitectureFlags {
    rotary: Option<String>,
    root_mean_square: Option<String>,
    gated: Option<String>,
    no_biases: Option<String>,
}

impl Translation<'_> {
    pub(super) fn model(&mut self) -> String {
        let tokenizer = self.tokenizer();
        let mut block = TranslatedBlock::new("model base");
        let llama = self.architecture(&mut block);
        let layers = self.required("--num-layers");
        block.read("layers", &layers);
        let hidden = self.required("--hidden-size");
        block.read("hidden", &hidden);
        let heads = self.required("--num-attention-heads");
        block.read("heads", &heads);
        let kv_heads = self.kv_heads(&heads, llama);
        block.read("kv_heads", &kv_heads);
        self.head_width(&hidden, &heads);
        let feed_forward = self.feed_forward(&hidden);
        block.read("feed_forward", &feed_forward);
        let context = self.required("--max-position-embeddings");
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
            (Some(_), false) => self.report_flag(
                FindingKind::ChangesResult,
                "--untie-embeddings-and-output-weights",
                "gpt_bigcode always has tied embeddings",
            ),
            (None, _) => block.field("tied_embeddings", true, DEFAULT),
        }
        block.field("tokenizer", "tokens", "");
        let source = self.weights(&mut block);
        [tokenizer, source, block.done()].concat()
    }

    /// The architecture of the network. What is different from it is reported.
    fn architecture(&mut self, block: &mut TranslatedBlock) -> bool {
        let positions = self.text("--position-embedding-type");
        let position = positions.as_ref().and_then(|read| read.value.as_deref());
        let rope = (position == Some("rope")).then(|| self.origin_of("--position-embedding-type"));
        let normalization = self.text("--normalization").and_then(|read| read.value);
        let root_mean_square = (normalization.as_deref() == Some("RMSNorm")).then(|| self.origin_of("--normalization"));
        let traits = ArchitectureFlags {
            rotary: rope.or_else(|| self.switch("--use-rotary-position-embeddings")),
            root_mean_square,
            gated: self.switch("--swiglu"),
            no_biases: self.switch("--disable-bias-linear"),
        };
        if let Some(other) = position.filter(|position| !matches!(*position, "rope" | "learned_absolute" | "absolute"))
        {
            let why = format!("the supported positions are learned and rotary, not `{other}`");
            self.report_flag(FindingKind::ChangesResult, "--position-embedding-type", why);
        }
        if let Some(other) = normalization.filter(|other| !matches!(other.as_str(), "RMSNorm" | "LayerNorm")) {
            let why = format!("the supported norms are LayerNorm and RMSNorm, not `{other}`");
            self.report_flag(FindingKind::ChangesResult, "--normalization", why);
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
        let of_llama = parts.iter().filter(|(_, _, origin, _)| origin.is_some()).count();
        // Positions decide if the other flags are divided evenly.
        let llama = of_llama * 2 > parts.len() || (of_llama * 2 == parts.len() && traits.rotary.is_some());
        for (flag, has, origin, has_not) in parts {
            if origin.is_some() == llama {
                continue;
            }
            let (family, here) = if llama {
                ("llama", has_not)
            } else {
                ("gpt_bigcode", has)
            };
            let why = format!("the network has {here}, but {family} does not: no architecture of Aurora matches");
            self.report_flag(FindingKind::ChangesResult, flag, why);
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

    fn kv_heads(&mut self, heads: &WithOrigin<u64>, llama: bool) -> WithOrigin<u64> {
        let kind = self.text("--attention-head-type");
        match kind.as_ref().and_then(|kind| kind.value.as_deref()) {
            Some("multiquery") => return WithOrigin::new(1, self.origin_of("--attention-head-type")),
            Some("multihead") => {
                let origin = self.origin_of("--attention-head-type");
                return WithOrigin {
                    origin,
                    ..heads.clone()
                };
            }
            Some(other) => {
                let why = format!("`{other}` is neither `multiquery` nor `multihead`");
                self.report_flag(FindingKind::NotUnderstood, "--attention-head-type", why);
            }
            None => {}
        }
        if self.given("--group-query-attention").is_none() {
            self.no_effect_if_given("--num-query-groups", "it is only used with --group-query-attention");
            return WithOrigin {
                value: heads.value,
                origin: format!("{DEFAULT}: the number of heads"),
            };
        }
        let groups = self.or("--num-query-groups", Self::integer, 1);
        if let (Some(groups), Some(heads), false) = (groups.value, heads.value, llama)
            && groups != 1
            && groups != heads
        {
            let why = format!("gpt_bigcode has 1 or {heads} key-value heads, not {groups}");
            self.report_flag(FindingKind::ChangesResult, "--num-query-groups", why);
        }
        let origin = format!("{}, {}", self.origin_of("--group-query-attention"), groups.origin);
        WithOrigin { origin, ..groups }
    }

    fn no_effect_if_given(&mut self, name: &str, why: &str) {
        if self.given(name).is_some() {
            self.report_flag(FindingKind::NoEffect, name, why);
        }
    }

    fn head_width(&mut self, hidden: &WithOrigin<u64>, heads: &WithOrigin<u64>) {
        let Some(width) = self.integer("--kv-channels") else {
            return;
        };
        let (Some(width), Some(hidden), Some(heads)) = (width.value, hidden.value, heads.value) else {
            return;
        };
        match hidden.checked_div(heads) {
            Some(own) if own == width && hidden % heads == 0 => {
                self.report_flag(
                    FindingKind::NoEffect,
                    "--kv-channels",
                    format!("the head dimension is always {hidden} ÷ {heads} = {own}"),
                );
            }
            _ => self.report_flag(
                FindingKind::ChangesResult,
                "--kv-channels",
                format!("the head dimension is always {hidden} ÷ {heads}"),
            ),
        }
    }

    fn feed_forward(&mut self, hidden: &WithOrigin<u64>) -> WithOrigin<u64> {
        if let Some(given) = self.integer("--ffn-hidden-size") {
            return given;
        }
        // Source: `validate_args`: 4·h, or with a gate two thirds of that, rounded down to a multiple of 64.
        let gated = self.given("--swiglu").is_some();
        let rule = if gated {
            "4 × hidden × ⅔, rounded down to a multiple of 64"
        } else {
            "4 × hidden"
        };
        WithOrigin {
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

    /// Rows of the embedding: the entries of the tokenizer, padded as in Megatron.
    ///
    /// Source: `_vocab_size_with_padding`: the next multiple of divisor × tensor degree.
    fn vocabulary(&mut self) -> WithOrigin<u64> {
        let divisor = self.or("--make-vocab-size-divisible-by", Self::integer, 128);
        let entries = match (self.integer("--vocab-size"), self.options.vocabulary) {
            (given, Some(entries)) => {
                if given.is_some_and(|given| given.value != Some(entries)) {
                    self.report_flag(
                        FindingKind::Resolved,
                        "--vocab-size",
                        format!("`--vocabulary {entries}` of this import is used"),
                    );
                }
                WithOrigin::new(entries, "--vocabulary of this import")
            }
            (Some(given), None) => given,
            (None, None) => {
                let what = "the number of entries of the tokenizer";
                self.report(FindingKind::Unknown, 0, what, "set it with `--vocabulary`");
                return WithOrigin {
                    value: None,
                    origin: format!("{what}: set it with --vocabulary"),
                };
            }
        };
        let multiple = divisor
            .value
            .and_then(|divisor| divisor.checked_mul(self.shared.tensor.max(1)));
        let (Some(count), Some(multiple)) = (entries.value, multiple.filter(|multiple| *multiple > 0)) else {
            return entries;
        };
        match count.checked_next_multiple_of(multiple) {
            Some(rows) if rows != count => {
                let origin = format!(
                    "{}: {count}, padded to a multiple of {} × tensor {}, {}",
                    entries.origin,
                    multiple / self.shared.tensor.max(1),
                    self.shared.tensor.max(1),
                    divisor.origin
                );
                WithOrigin {
                    value: Some(rows),
                    origin,
                }
            }
            _ => entries,
        }
    }

    /// The GELU that Megatron fuses with the bias is the tanh approximation.
    fn gelu(&self) -> (&'static str, String) {
        if let Some(origin) = self.switch("--openai-gelu") {
            return ("gelu_tanh", origin);
        }
        match self.any_switch(&["--no-bias-gelu-fusion", "--disable-bias-linear"]) {
            Some(origin) => ("gelu", origin),
            None => (
                "gelu_tanh",
                format!("{DEFAULT}: GELU fused with the bias is the tanh approximation"),
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
                self.report(FindingKind::Unknown, 0, "the tokenizer", "no flag contains its path");
                let origin = "no flag contains its path".to_owned();
                ("", WithOrigin { value: None, origin })
            }
        };
        if let Some(kind) = kind.filter(|kind| !matches!(kind.as_str(), "TokenizerFromFile" | "HuggingFaceTokenizer")) {
            let why = format!("Aurora loads a `tokenizer.json`; convert `{kind}` to one");
            self.report_flag(FindingKind::Resolved, "--tokenizer-type", why);
        }
        if name == "--vocab-file" {
            self.report_flag(
                FindingKind::Resolved,
                "--vocab-file",
                "Aurora loads a `tokenizer.json`; convert it to one",
            );
        }
        if self.given("--merge-file").is_some() {
            self.report_flag(
                FindingKind::Resolved,
                "--merge-file",
                "Aurora loads a `tokenizer.json`; convert it to one",
            );
        }
        let mut source = TranslatedBlock::new("source tokenizer_files");
        let what = path.value.as_deref().unwrap_or_default();
        source.field("from", "unknown", format!("{} {what}", path.origin).trim());
        let mut block = TranslatedBlock::new("tokenizer tokens");
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

    /// Whether the run loads its own checkpoints.
    fn loads_its_own(&self) -> bool {
        let value = |name: &str| self.given(name).and_then(|given| given.values.last());
        match (value("--load"), value("--save")) {
            (Some(load), Some(save)) => load.text == save.text && load.unknown == save.unknown,
            _ => false,
        }
    }

    /// The initial weights. If they are loaded, also the text of their source.
    fn weights(&mut self, block: &mut TranslatedBlock) -> String {
        let pretrained = self.text("--pretrained-checkpoint");
        let loaded = self.text("--load");
        let finetune = self.given("--finetune").is_some();
        let from = match (pretrained, loaded) {
            (Some(pretrained), _) => Some(pretrained),
            (None, Some(loaded)) if finetune => Some(loaded),
            (None, Some(_)) if self.loads_its_own() => {
                self.report_flag(
                    FindingKind::NoEffect,
                    "--load",
                    "the folder of the run itself: the same command resumes from there",
                );
                None
            }
            (None, Some(loaded)) => {
                let why =
                    "it resumes the optimizer and iteration of another run; the spec only starts from its weights";
                self.report_flag(FindingKind::ChangesResult, "--load", why);
                Some(loaded)
            }
            (None, None) => None,
        };
        self.no_effect_if_given("--save", "Aurora saves checkpoints in its store");
        if from.is_none() {
            self.no_effect_if_given("--finetune", "no weights are loaded");
        }
        let std = self.or("--init-method-std", Self::number, Decimal::new(2, 2));
        let Some(from) = from else {
            let value = std.value.as_ref().map_or("unknown".to_owned(), number_text);
            block.call("weights", "random", &[("std", value, std.origin)]);
            return String::new();
        };
        self.no_effect_if_given("--init-method-std", "loaded weights are not initialized");
        let mut source = TranslatedBlock::new("source first_weights");
        source.comment("convert the Megatron checkpoint to the Hugging Face format first");
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
