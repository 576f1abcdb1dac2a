//! Evals: fields of the kind, data that the eval may read, and checkpoints that exist.

use std::collections::BTreeSet;

use aurora_lang::diagnostics::{Code, Diagnostic};

use super::stage::not_whole_steps;
use crate::check::Checker;
use crate::schema::{self, EvalKind, FieldUse};
use crate::server::ServerAddress;
use crate::spec::{Block, BlockId, BlockKind, Field, Spec, Unit, Value};

impl Checker<'_> {
    pub(super) fn eval(&mut self, id: &BlockId, block: &Block, spec: &Spec) {
        let Some(kind) = EvalKind::of(block) else { return };
        for field in schema::block(BlockKind::Eval).fields {
            let field_use = kind.has_field(field.name);
            if field_use == FieldUse::NoEffect {
                self.no_effect(block, field.name, &format!("on an eval of kind `{kind}`"));
            } else if field_use == FieldUse::Required
                && block.field(field.name).is_some_and(|field| field.value == Value::None)
            {
                self.error(
                    Diagnostic::new(
                        Code::MISSING_FIELD,
                        format!("eval `{}` has no `{}`", id.name, field.name),
                    )
                    .label(block.span, format!("`{kind}` needs `{}`", field.name))
                    .help(format!("add `{} = …`, {}", field.name, schema::describe(&field.kind))),
                );
            }
        }
        self.eval_judge(block);
        self.eval_words(block);
        self.eval_data(kind, block, spec);
        self.eval_points(block, spec);
        self.eval_window(block, spec);
        let samples = block.integer("samples");
        for k in block.field("k").map_or(&[][..], Field::elements) {
            if let (Some(samples), Some(k_value)) = (samples, k.integer())
                && k_value > samples
            {
                self.error(
                    Diagnostic::new(
                        Code::OUT_OF_RANGE,
                        format!("pass@{k_value} needs at least {k_value} samples, and {samples} are drawn"),
                    )
                    .label(k.span().unwrap_or(block.span), "more than the samples")
                    .label(block.place("samples"), "the samples"),
                );
            }
        }
    }

    /// `chat` contains the prompt once, and attacks have unique names.
    fn eval_words(&mut self, block: &Block) {
        if let Some(chat) = block.field("chat")
            && let (Value::Text(text), Some(span)) = (&chat.value, chat.span())
            && text.matches("{prompt}").count() != 1
        {
            self.error(
                Diagnostic::new(Code::BAD_ARGUMENT, "`chat` must contain the prompt once")
                    .label(span, "expected `{prompt}` once")
                    .help("such as `\"<|user|>{prompt}<|assistant|>\"`"),
            );
        }
        let mut names = BTreeSet::new();
        for attack in block.field("attacks").map_or(&[][..], Field::elements) {
            let name = attack.argument("name");
            if let Some(Value::Text(text)) = name.map(|name| &name.value)
                && !names.insert(text.clone())
            {
                self.error(
                    Diagnostic::new(Code::BAD_LIST, format!("two attacks are called `{text}`"))
                        .label(name.and_then(Field::span).unwrap_or(block.span), "the second one")
                        .help("scores are reported under these names: give each attack its own"),
                );
            }
        }
    }

    /// A judge fits its eval, and its secret is sent encrypted or stays on this machine. Arguments about labelled responses have no
    /// effect without them.
    fn eval_judge(&mut self, block: &Block) {
        let Some(arguments) = block.field("judge").and_then(Field::arguments) else {
            return;
        };
        if EvalKind::of(block) == Some(EvalKind::PlugIn)
            && block.field("judge").and_then(Field::word) == Some("refusals")
        {
            self.error(
                Diagnostic::new(
                    Code::WRONG_KIND,
                    "`refusals` cannot judge a `plug_in`, which is scored outside of Aurora",
                )
                .label(block.place("judge"), "not a judge for a `plug_in`")
                .help("write `command(…)` or `endpoint(…)`, or an eval of kind `refusal`"),
            );
            return;
        }
        if let (Some(Value::Text(url)), Some(secret)) = (
            arguments.get("url").map(|url| &url.value),
            arguments.get("secret").filter(|secret| secret.value != Value::None),
        ) && ServerAddress::parse(url).is_ok_and(|server| !server.keeps_secrets())
        {
            self.error(
                Diagnostic::new(
                    Code::SECRET_IN_CLEAR,
                    format!("the secret of this judge would be sent to `{url}` without encryption"),
                )
                .label(secret.span().unwrap_or(block.span), "readable on the way")
                .label(
                    arguments.get("url").and_then(Field::span).unwrap_or(block.span),
                    "neither `https:` nor this machine",
                )
                .help("write the address with `https:`, or ask a server of this machine (`http://localhost`)"),
            );
        }
        if arguments
            .get("labelled")
            .is_none_or(|labelled| labelled.value != Value::None)
        {
            return;
        }
        for name in ["files", "prompt", "response", "label"] {
            if let Some(place) = arguments.get(name).and_then(Field::span) {
                self.error(
                    Diagnostic::new(Code::NO_EFFECT, format!("`{name}` has no effect without `labelled`"))
                        .label(place, "would be ignored")
                        .help("add `labelled = SOURCE`, or remove it"),
                );
            }
        }
    }

    fn eval_data(&mut self, kind: EvalKind, block: &Block, spec: &Spec) {
        let wanted = kind.data();
        let trained: BTreeSet<&BlockId> = spec
            .of_kind(BlockKind::Stage)
            .filter_map(|(_, stage)| spec.blocks.get(stage.reference("mixture")?))
            .flat_map(|mixture| mixture.fields.values())
            .flat_map(|component| component.argument("from").map_or(&[][..], Field::elements))
            .filter_map(Field::reference)
            .collect();
        for element in block.field("data").map_or(&[][..], Field::elements) {
            let (Some(id), Some(span)) = (element.reference(), element.span()) else {
                continue;
            };
            if id.kind != wanted {
                let message = format!(
                    "`{}` is {}, and an eval of kind `{kind}` reads {}",
                    id.name,
                    schema::with_article(id.kind),
                    wanted.plural()
                );
                self.error(
                    Diagnostic::new(Code::WRONG_KIND, message)
                        .label(span, format!("expected {}", schema::with_article(wanted))),
                );
                continue;
            }
            let Some(corpus) = spec.blocks.get(id).filter(|_| kind == EvalKind::Perplexity) else {
                continue;
            };
            match block.word("split") {
                Some("held_out") => {
                    let fraction = corpus.field("held_out").and_then(Field::number);
                    if fraction.is_some_and(|fraction| fraction.decimal().is_zero()) {
                        let mut diagnostic = Diagnostic::new(
                            Code::NOTHING_HELD_OUT,
                            format!("corpus `{}` has no held-out documents", id.name),
                        )
                        .label(span, "its held-out split is empty")
                        .label(corpus.place("held_out"), "`held_out` is 0%");
                        diagnostic = if trained.contains(id) {
                            diagnostic.help(format!("add `held_out = 5%` to corpus `{}`", id.name))
                        } else {
                            diagnostic.help("no stage trains on it: write `split = all`")
                        };
                        self.error(diagnostic);
                    }
                }
                Some("all") if trained.contains(id) => {
                    self.error(
                        Diagnostic::new(
                            Code::TRAINED_ON_EVAL,
                            format!(
                                "corpus `{}` is trained on, and `split = all` measures it on the same documents",
                                id.name
                            ),
                        )
                        .label(span, "also in a mixture")
                        .label(block.place("split"), "all of its documents")
                        .help("write `split = held_out`, or take a corpus that no stage trains on"),
                    );
                }
                _ => {}
            }
        }
    }

    /// A checkpoint can only be measured if it is kept.
    fn eval_points(&mut self, block: &Block, spec: &Spec) {
        for point in block.field("at").map_or(&[][..], Field::elements) {
            let (Value::Every(_), Some(quantity), Some(span)) = (&point.value, point.quantity(), point.span()) else {
                continue;
            };
            for stage_id in block.references("stages") {
                let (Some(stage), Some(batch)) = (spec.blocks.get(stage_id), spec.batch_of(stage_id)) else {
                    continue;
                };
                let Some(every) = batch.steps(quantity) else {
                    if quantity.1 == Unit::Tokens {
                        let text = format!("eval interval in stage `{}`:", stage_id.name);
                        self.error(not_whole_steps(&text, quantity.0, span, batch));
                    }
                    break;
                };
                let checkpoint = stage.field("checkpoint");
                let kept = checkpoint
                    .and_then(Field::quantity)
                    .and_then(|quantity| batch.steps(quantity));
                let is_known = checkpoint.is_some_and(|field| field.value != Value::Unknown);
                // The interval is longer than the stage.
                let steps = stage.quantity("budget").and_then(|quantity| batch.steps(quantity));
                if steps.is_some_and(|steps| every >= steps) {
                    continue;
                }
                let reason = match kept {
                    Some(kept) if every % kept != 0 => {
                        format!("stage `{}` keeps one every {kept} steps", stage_id.name)
                    }
                    None if is_known && checkpoint.is_some_and(|field| field.value == Value::None) => {
                        format!("stage `{}` keeps one only at its end", stage_id.name)
                    }
                    _ => continue,
                };
                let place = stage.place("checkpoint");
                let help = match kept {
                    Some(kept) => super::nearest_multiples(every, kept, " steps"),
                    None => format!("add `checkpoint = every {every} steps` to stage `{}`", stage_id.name),
                };
                self.error(
                    Diagnostic::new(
                        Code::EVAL_BETWEEN_CHECKPOINTS,
                        format!("there is no checkpoint every {every} steps: {reason}"),
                    )
                    .label(span, "no checkpoint is kept there")
                    .label(place, "where checkpoints are kept")
                    .help(help),
                );
                break;
            }
        }
    }

    fn eval_window(&mut self, block: &Block, spec: &Spec) {
        let Some((window, _)) = block.quantity("window") else {
            return;
        };
        for stage in block.references("stages") {
            let Some(model) = spec.model_of(stage) else { continue };
            let Some(model_block) = spec.blocks.get(model) else {
                continue;
            };
            let Some((context, _)) = model_block.quantity("context") else {
                continue;
            };
            if window > context {
                self.error(
                    Diagnostic::new(
                        Code::SEQUENCE_TOO_LONG,
                        format!(
                            "window {window} tokens is longer than the context of model `{}`, {context} tokens",
                            model.name
                        ),
                    )
                    .label(block.place("window"), format!("{} too long", window - context))
                    .label(model_block.place("context"), "the model's positions")
                    .help(format!("write at most {context} tokens")),
                );
                return;
            }
        }
    }
}
