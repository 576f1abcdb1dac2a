//! Nodes by themselves: the fields that one has of a spec, whatever it is made from.
//!
//! In: a checked spec and a block. Out: nodes without inputs. Not here: which nodes there are and what leads to what
//! (`lower`).

use super::facts::{StagePlan, read_model};
use super::reader::{At, Reader};
use super::{CheckpointOrigin, Node, NodeOrigin, Role, Work};
use crate::fields::{
    AdamW, Asks, Attack, Component, Contract, Exact, Judge, JudgeFields, Labelled, Numerics, OptimizerState,
    OrderFields, Precision, ReportFields, TaskFields, TrainFields,
};
use crate::schedule::{Part, Schedule, Shape};
use crate::schema::EvalKind;
use crate::spec::{Better, BlockId, BlockKind, Spec, Value};

pub(super) fn experiment(spec: &Spec) -> BlockId {
    BlockId {
        kind: BlockKind::Experiment,
        name: spec.name.clone(),
    }
}

pub(super) fn read_numerics<'a>(spec: &'a Spec, read: &mut Reader<'a>) -> Numerics {
    let at = read.at(&experiment(spec), "numerics");
    let micro_batch = read.count(&read.argument(&at, "micro_batch"));
    let tensor = read.count(&read.argument(&at, "tensor"));
    let lanes = read.count(&read.argument(&at, "lanes"));
    let contract = read.call_name(&at);
    Numerics {
        contract: Contract::named(contract).unwrap_or_else(|| unreachable!("the table of numerics lists {contract}")),
        tensor,
        lanes,
        micro_batch,
    }
}

pub(super) fn read_eval_kind(read: &mut Reader<'_>, eval: &BlockId) -> EvalKind {
    let kind = read.text(&read.at(eval, "kind"));
    EvalKind::named(&kind).unwrap_or_else(|| unreachable!("the table of evals lists {kind}"))
}

pub(super) fn read_precision<'a>(spec: &'a Spec, read: &mut Reader<'a>) -> Precision {
    read.word(&read.at(&experiment(spec), "precision"), Precision::F32)
}

/// The data order of a stage, and the corpora of its components.
pub(super) fn order_node(spec: &Spec, stage: &BlockId, plan: &StagePlan) -> (Node, Vec<(String, BlockId)>) {
    let mut read = Reader::new(spec);
    let Some(mixture) = read.reference(&read.at(stage, "mixture")) else {
        unreachable!("check resolves {stage}.mixture")
    };
    let mut components = Vec::new();
    let mut tokens = Vec::new();
    let mut corpora = Vec::new();
    for name in spec.blocks[&mixture].fields.keys() {
        let component = read.at(&mixture, name);
        for corpus in read.elements(&read.argument(&component, "from")) {
            corpora.extend(read.reference(&corpus).map(|corpus| (name.clone(), corpus)));
        }
        let weight = read.argument(&component, "weight");
        let (weight_ppm, until_ppm) = match &weight.field.value {
            Value::Quantity(..) => {
                tokens.push(read.whole(&weight));
                (0, None)
            }
            Value::Call { .. } => {
                let [start, end] = ["start", "end"].map(|name| parts(read.exact(&read.argument(&weight, name))));
                (start, (end != start).then_some(end))
            }
            _ => (parts(read.exact(&weight)), None),
        };
        components.push(Component {
            name: name.clone(),
            weight_ppm,
            until_ppm,
        });
    }
    for (component, share) in components.iter_mut().zip(shares(&tokens)) {
        component.weight_ppm = share;
    }
    let changes = components.iter().any(|component| component.until_ppm.is_some());
    let fields = OrderFields {
        seed: read.whole(&read.at(&experiment(spec), "seed")),
        sequence: u32::try_from(plan.sequence).unwrap_or(0),
        components,
        samples: changes.then(|| plan.steps.saturating_mul(plan.global_batch)),
    };
    let origin = NodeOrigin::Order {
        stage: stage.name.clone(),
    };
    (read.node(origin, Work::Order(fields)), corpora)
}

/// A share in parts of a million.
fn parts(share: Exact) -> u32 {
    let ppm = share.decimal() * rust_decimal::Decimal::from(1_000_000);
    ppm.to_string().parse::<Exact>().map_or(0, whole)
}

/// Counts as parts of a million of their sum, by largest remainder; ties go to the first.
pub(crate) fn shares(counts: &[u64]) -> Vec<u32> {
    const WHOLE: u128 = 1_000_000;
    let total: u128 = counts.iter().map(|&count| u128::from(count)).sum();
    if total == 0 {
        return vec![0; counts.len()];
    }
    let exact: Vec<u128> = counts.iter().map(|&count| u128::from(count) * WHOLE).collect();
    let mut shares: Vec<u128> = exact.iter().map(|parts| parts / total).collect();
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|&at| (std::cmp::Reverse(exact[at] % total), at));
    let left = WHOLE - shares.iter().sum::<u128>();
    for &at in order.iter().take(left as usize) {
        shares[at] += 1;
    }
    shares
        .into_iter()
        .map(|share| u32::try_from(share).unwrap_or_else(|_| unreachable!("a share is at most a million")))
        .collect()
}

/// The training nodes of a stage, by their last steps. A checkpoint is known by all that leads to it from the start of its
/// stage, not by where the stage was cut.
pub(super) fn segment_nodes(spec: &Spec, stage: &BlockId, model: &BlockId, plan: &StagePlan) -> Vec<(u64, Node)> {
    let mut read = Reader::new(spec);
    let rate = read.at(stage, "learning_rate");
    let schedule = read_schedule(&mut read, &rate, plan.tokens_per_step());
    let optimizer = read.at(stage, "optimizer");
    let mut number = |name: &str| read.exact(&read.argument(&optimizer, name));
    let [beta1, beta2, epsilon, weight_decay] = ["beta1", "beta2", "epsilon", "weight_decay"].map(&mut number);
    let clip = read.argument(&optimizer, "clip");
    let clip = (clip.field.value != Value::None).then(|| read.exact(&clip));
    let mut fields = TrainFields {
        model: read_model(&mut read, model),
        numerics: read_numerics(spec, &mut read),
        precision: read_precision(spec, &mut read),
        optimizer: AdamW {
            beta1,
            beta2,
            epsilon,
            weight_decay,
            clip,
        },
        optimizer_state: read.word(&read.at(stage, "optimizer_state"), OptimizerState::Reset),
        schedule: Vec::new(),
        last_step: 0,
        global_batch: u32::try_from(plan.global_batch).unwrap_or(0),
        sequence: u32::try_from(plan.sequence).unwrap_or(0),
    };
    read.value(&read.at(stage, "global_batch"));
    read.value(&read.at(stage, "sequence"));
    let node = |&last_step: &u64| {
        fields.schedule = schedule.pieces_before(plan.steps, last_step);
        fields.last_step = last_step;
        let origin = NodeOrigin::Checkpoint(CheckpointOrigin::Trained {
            stage: stage.name.clone(),
            step: last_step,
        });
        (last_step, read.clone().node(origin, Work::Train(fields.clone())))
    };
    plan.checkpoints.iter().map(node).collect()
}

pub(super) fn report_node(spec: &Spec) -> Node {
    let fields = ReportFields {
        experiment: spec.name.clone(),
    };
    Reader::new(spec).node(NodeOrigin::Report, Work::Report(fields))
}

fn read_schedule<'a>(read: &mut Reader<'a>, rate: &At<'a>, tokens_per_step: u64) -> Schedule {
    if rate_name(rate) == "piecewise" {
        let start = read.exact(&read.argument(rate, "start"));
        let pieces = read.elements(&read.argument(rate, "pieces"));
        let pieces = pieces.iter().map(|piece| {
            let mut to = || read.exact(&read.argument(piece, "to"));
            let shape = match rate_name(piece) {
                "line" => Shape::Line { to: to() },
                "half_cosine" => Shape::HalfCosine { to: to() },
                _ => Shape::Hold,
            };
            let over = read.argument(piece, "over");
            let over = (over.field.value != Value::None).then(|| read.steps(&over, tokens_per_step));
            Part { shape, over }
        });
        return Schedule::Piecewise {
            start,
            pieces: pieces.collect(),
        };
    }
    let mut steps = |name: &str| read.steps(&read.argument(rate, name), tokens_per_step);
    let warmup = steps("warmup");
    let decay = if rate_name(rate) == "wsd" { steps("decay") } else { 0 };
    let mut number = |name: &str| read.exact(&read.argument(rate, name));
    match rate_name(rate) {
        "constant" => Schedule::Constant {
            rate: number("rate"),
            warmup,
        },
        "linear" => Schedule::Linear {
            peak: number("peak"),
            floor: number("floor"),
            warmup,
        },
        "cosine" => Schedule::Cosine {
            peak: number("peak"),
            floor: number("floor"),
            warmup,
        },
        _ => Schedule::WarmupStableDecay {
            peak: number("peak"),
            floor: number("floor"),
            warmup,
            decay,
        },
    }
}

/// What an eval of any kind but `perplexity` asks.
pub(super) fn task(read: &mut Reader<'_>, eval: &BlockId, kind: EvalKind, spec: &Spec) -> TaskFields {
    let asks = if kind == EvalKind::MultipleChoice {
        Asks::Choices(read.texts(&read.at(eval, "choices")))
    } else {
        let mut number = |name: &str| {
            let at = read.at(eval, name);
            (at.field.value != Value::None).then(|| read.exact(&at))
        };
        let (temperature, top_p) = (number("temperature"), number("top_p"));
        let samples = read.at(eval, "samples");
        Asks::Text {
            stop: read.texts(&read.at(eval, "stop")),
            maximum: read.count(&read.at(eval, "maximum")),
            temperature: temperature.filter(|temperature| !temperature.decimal().is_zero()),
            top_p,
            samples: match samples.field.value {
                Value::None => 1,
                _ => read.count(&samples),
            },
        }
    };
    let attacks = read
        .elements(&read.at(eval, "attacks"))
        .into_iter()
        .map(|attack| Attack {
            name: read.text(&read.argument(&attack, "name")),
            template: read.text(&read.argument(&attack, "template")),
        });
    let attacks = attacks.collect();
    let shots = read.at(eval, "shots");
    let shots = match shots.field.value {
        Value::None => 0,
        _ => read.count(&shots),
    };
    let limit = read.at(eval, "limit");
    TaskFields {
        files: read.texts(&read.at(eval, "files")),
        limit: (limit.field.value != Value::None).then(|| read.count(&limit)),
        shot_files: read.texts(&read.at(eval, "shot_files")),
        prompt: read.text(&read.at(eval, "prompt")),
        attacks,
        chat: read.optional_text(&read.at(eval, "chat")),
        answer: read.optional_text(&read.at(eval, "answer")),
        shots,
        separator: read.text(&read.at(eval, "separator")),
        delimiter: read.text(&read.at(eval, "delimiter")),
        by: words(read, &read.at(eval, "by")),
        seed: read.whole(&read.at(&experiment(spec), "seed")),
        asks,
    }
}

/// A word, or a list of words.
fn words<'a>(read: &mut Reader<'a>, at: &At<'a>) -> Vec<String> {
    match at.field.value {
        Value::None => Vec::new(),
        Value::List(_) => read.texts(at),
        _ => vec![read.text(at)],
    }
}

/// What makes scores of the answers to an eval, and the sources that it needs beside them, by their roles.
pub(super) fn judge<'a>(read: &mut Reader<'a>, eval: &BlockId, kind: EvalKind) -> (JudgeFields, Vec<(Role, BlockId)>) {
    if kind == EvalKind::PassAtK {
        let k = read.elements(&read.at(eval, "k"));
        let fields = JudgeFields::Programs {
            files: read.texts(&read.at(eval, "files")),
            program: read.text(&read.at(eval, "program")),
            k: k.iter().map(|k| read.count(k)).collect(),
            seconds: read.count(&read.at(eval, "timeout")),
            memory: read.whole(&read.at(eval, "memory")),
            unprotected: read.flag(&read.at(eval, "unprotected")),
        };
        return (fields, Vec::new());
    }
    let at = read.at(eval, "judge");
    let mut sources = Vec::new();
    let judge = match read.call_name(&at) {
        "command" => {
            let source = read.reference(&read.argument(&at, "source"));
            sources.extend(source.map(|source| (Role::Judge, source)));
            Judge::Program {
                run: read.texts(&read.argument(&at, "run")),
            }
        }
        "endpoint" => {
            let mut text = |name: &str| read.text(&read.argument(&at, name));
            Judge::Endpoint {
                url: text("url"),
                model: text("model"),
                question: text("question"),
                yes: text("yes"),
            }
        }
        "refusals" => {
            let labelled = read.argument(&at, "labelled");
            let labelled = match labelled.field.value {
                Value::None => None,
                _ => {
                    let source = read.reference(&labelled);
                    sources.extend(source.map(|source| (Role::Labelled, source)));
                    Some(Labelled {
                        files: read.texts(&read.argument(&at, "files")),
                        prompt: read.text(&read.argument(&at, "prompt")),
                        response: read.text(&read.argument(&at, "response")),
                        label: read.text(&read.argument(&at, "label")),
                    })
                }
            };
            Judge::Rules { labelled }
        }
        // Nobody knows it: told with the node.
        _ => {
            read.value(&at);
            Judge::Rules { labelled: None }
        }
    };
    let fields = match kind {
        EvalKind::AttackSuccess => JudgeFields::Attacks(judge),
        EvalKind::Refusal => JudgeFields::Refusals(judge),
        _ => JudgeFields::Score {
            judge,
            better: read.word(&read.at(eval, "better"), Better::Higher),
        },
    };
    (fields, sources)
}

fn rate_name<'a>(at: &At<'a>) -> &'a str {
    match &at.field.value {
        Value::Call { name, .. } => name,
        _ => "",
    }
}

fn whole(value: Exact) -> u32 {
    value.decimal().round().to_string().parse().unwrap_or(0)
}
