//! Lowers a checked spec, block by block, inputs first.

use std::collections::BTreeMap;

use super::facts::{StagePlan, read_model, set_names, stage_plan};
use super::reader::{At, Reader, steps_of};
use super::{Graph, Input, Kind, Node, NodeId, Pins};
use crate::fields::{
    AdamW, Component, EvalFields, EvalSet, Exact, ExpectFields, ExtractFields, FilterFields, Format, Language,
    Numerics, OptimizerState, OrderFields, PageReference, Precision, ReportFields, SourceFields, Split, Term,
    TokenizerFields, TokensFields, TrainFields, Unit, WeightsFields, WeightsHow,
};
use crate::schedule::{Part, Schedule, Shape};
use crate::spec::{BlockId, BlockKind, Expression, Metric, Spec, Value};

/// Returns the graph of a spec whose sources are pinned as far as `pins` says.
pub fn lower(spec: &Spec, pins: &Pins) -> Graph {
    let mut lowering = Lowering {
        spec,
        pins,
        graph: Graph::default(),
        stages: BTreeMap::new(),
    };
    for id in lowering.blocks(BlockKind::Stage) {
        lowering.stage(&id);
    }
    for id in lowering.blocks(BlockKind::Eval) {
        lowering.eval(&id);
    }
    for id in lowering.blocks(BlockKind::Expect) {
        lowering.expect(&id);
    }
    lowering.report();
    lowering.graph
}

struct Lowering<'a> {
    spec: &'a Spec,
    pins: &'a Pins,
    graph: Graph,
    stages: BTreeMap<String, LoweredStage>,
}

struct LoweredStage {
    plan: StagePlan,
    start: NodeId,
    model: BlockId,
    /// Checkpoint nodes by the step after which they stand.
    checkpoints: BTreeMap<u64, NodeId>,
}

fn input(role: &str, node: NodeId) -> Input {
    Input {
        role: role.to_string(),
        node,
        identity: true,
    }
}

impl<'a> Lowering<'a> {
    /// Blocks of a kind, those first on which others build.
    fn blocks(&self, kind: BlockKind) -> Vec<BlockId> {
        let mut found: Vec<_> = self.spec.blocks.iter().filter(|(id, _)| id.kind == kind).collect();
        found.sort_by_key(|(id, _)| (*id).clone());
        found.into_iter().map(|(id, _)| id.clone()).collect()
    }

    /// Returns the node of this name, made by `make` when it is first asked for.
    fn once(&mut self, name: String, make: impl FnOnce(&mut Self) -> (Node, Vec<Input>)) -> NodeId {
        if let Some(id) = self.graph.find(&name) {
            return id;
        }
        let (node, inputs) = make(self);
        self.graph.add(node, inputs)
    }

    fn source(&mut self, id: &BlockId) -> NodeId {
        let name = format!("source/{}", id.name);
        let block = id.clone();
        self.once(name.clone(), |this| {
            let mut read = Reader::new(this.spec);
            let from = read.text(&read.at(&block, "from"));
            let fields = match this.pins.get(&block.name) {
                Some(pin) => SourceFields::Content(pin.content.clone()),
                None => SourceFields::Declared(from.clone()),
            };
            if from.starts_with("hf:") {
                read.unsupported = Some("sources on the Hugging Face hub are not fetched yet".to_string());
            }
            (read.node(name, Kind::Source, &fields), Vec::new())
        })
    }

    fn extract(&mut self, corpus: &BlockId, index: usize, call: &At<'a>) -> NodeId {
        let mut read = Reader::new(self.spec);
        let source = read.reference(&read.argument(call, "source"));
        let Some(source) = source else {
            unreachable!("check resolves {}.source", call.path)
        };
        let mut inputs = vec![input("source", self.source(&source))];
        let format = match read.call_name(call) {
            "html" => {
                let reference = read.argument(call, "reference");
                let reference = (reference.field.value != Value::None)
                    .then(|| read.reference(&reference))
                    .flatten();
                if let Some(other) = &reference {
                    inputs.push(input("reference", self.source(other)));
                }
                Format::Html {
                    select: read.text(&read.argument(call, "select")),
                    drop: read.optional_text(&read.argument(call, "drop")),
                    reference: reference.map(|_| PageReference {
                        own: read.text(&read.argument(call, "own")),
                        other: read.text(&read.argument(call, "other")),
                    }),
                }
            }
            "roff" => Format::Roff,
            "mo" => Format::Mo,
            "text" => Format::Text {
                by_line: read.flag(&read.argument(call, "by_line")),
            },
            "code" => Format::Code,
            "jsonl" => Format::Jsonl {
                field: read.text(&read.argument(call, "field")),
            },
            "json" => Format::Json {
                field: read.optional_text(&read.argument(call, "field")),
            },
            other => unreachable!("the table of extractions lists {other}"),
        };
        let fields = ExtractFields {
            files: read.texts(&read.argument(call, "files")),
            exclude: read.texts(&read.argument(call, "exclude")),
            format,
        };
        // The first extraction of a source in a corpus has the source's name; later ones are numbered.
        let plain = format!("extract/{}/{}", corpus.name, source.name);
        let name = if self.graph.find(&plain).is_none() {
            plain
        } else {
            format!("{plain}.{index}")
        };
        let node = read.node(name, Kind::Extract, &fields);
        self.graph.add(node, inputs)
    }

    fn corpus(&mut self, id: &BlockId) -> NodeId {
        let name = format!("filter/{}", id.name);
        let block = id.clone();
        self.once(name.clone(), |this| {
            let mut read = Reader::new(this.spec);
            let fields = FilterFields {
                language: read.word(&read.at(&block, "language"), Language::Other),
                language_filter: read.flag(&read.at(&block, "language_filter")),
                minimum_characters: read.count(&read.at(&block, "minimum")),
                unit: read.word(&read.at(&block, "unit"), Unit::Paragraph),
                deduplicate: read.flag(&read.at(&block, "deduplicate")),
                held_out: read.exact(&read.at(&block, "held_out")),
                limit_bytes: {
                    let limit = read.at(&block, "limit");
                    (limit.field.value != Value::None).then(|| read.whole(&limit))
                },
            };
            let calls = read.elements(&read.at(&block, "from"));
            let inputs = calls
                .iter()
                .enumerate()
                .map(|(index, call)| input("documents", this.extract(&block, index, call)))
                .collect();
            (read.node(name, Kind::Filter, &fields), inputs)
        })
    }

    fn tokenizer(&mut self, id: &BlockId) -> NodeId {
        let name = format!("tokenizer/{}", id.name);
        let block = id.clone();
        self.once(name.clone(), |this| {
            let mut read = Reader::new(this.spec);
            let kind = read.at(&block, "kind");
            let (fields, inputs) = match read.call_name(&kind) {
                "train_bpe" => {
                    let fields = TokenizerFields::TrainBpe {
                        vocabulary: read.count(&read.argument(&kind, "vocabulary")),
                        minimum_frequency: read.count(&read.argument(&kind, "minimum_frequency")),
                        special: read.texts(&read.argument(&kind, "special")),
                    };
                    let corpora = read.elements(&read.at(&block, "corpora"));
                    let inputs = corpora
                        .iter()
                        .filter_map(|corpus| read.reference(corpus))
                        .map(|corpus| input("documents", this.corpus(&corpus)))
                        .collect();
                    (fields, inputs)
                }
                _ => {
                    let fields = TokenizerFields::Load {
                        member: read.text(&read.argument(&kind, "member")),
                        end_of_document: read.text(&read.argument(&kind, "end_of_document")),
                    };
                    let source = read.reference(&read.argument(&kind, "source"));
                    (
                        fields,
                        source
                            .iter()
                            .map(|source| input("source", this.source(source)))
                            .collect(),
                    )
                }
            };
            (read.node(name, Kind::Tokenizer, &fields), inputs)
        })
    }

    fn tokens(&mut self, corpus: &BlockId, model: &BlockId, split: Split) -> NodeId {
        let mut read = Reader::new(self.spec);
        let tokenizer = read.reference(&read.at(model, "tokenizer"));
        let Some(tokenizer) = tokenizer else {
            unreachable!("check asks for {model}.tokenizer where tokens are read")
        };
        let suffix = match split {
            Split::Train => "",
            Split::HeldOut => "/held_out",
            Split::All => "/all",
        };
        let name = format!("tokens/{}/{}{suffix}", tokenizer.name, corpus.name);
        let corpus = corpus.clone();
        let model = model.clone();
        self.once(name.clone(), |this| {
            let fields = TokensFields {
                split,
                vocabulary: read.count(&read.at(&model, "vocabulary")),
            };
            let inputs = vec![
                input("documents", this.corpus(&corpus)),
                input("tokenizer", this.tokenizer(&tokenizer)),
            ];
            (read.node(name, Kind::Tokens, &fields), inputs)
        })
    }

    fn weights(&mut self, model: &BlockId) -> NodeId {
        let name = format!("weights/{}", model.name);
        let block = model.clone();
        self.once(name.clone(), |this| {
            let mut read = Reader::new(this.spec);
            let fields = read_model(&mut read, &block);
            let how = read.at(&block, "weights");
            let mut inputs = Vec::new();
            let how = match read.call_name(&how) {
                "random" => WeightsHow::Random {
                    seed: read.whole(&read.at(&experiment(this.spec), "seed")),
                    std: read.exact(&read.argument(&how, "std")),
                },
                _ => {
                    // Published weights are a source like any other, named after the model.
                    let mut hub = Reader::new(this.spec);
                    let repository = hub.text(&hub.argument(&how, "repository"));
                    let revision = hub.text(&hub.argument(&how, "revision"));
                    hub.unsupported = Some("weights on the Hugging Face hub are not fetched yet".to_string());
                    let pinned = SourceFields::Declared(format!("hf:{repository}@{revision}"));
                    let node = hub.node(format!("source/{}.weights", block.name), Kind::Source, &pinned);
                    inputs.push(input("source", this.graph.add(node, Vec::new())));
                    WeightsHow::Import
                }
            };
            (
                read.node(name, Kind::Weights, &WeightsFields { model: fields, how }),
                inputs,
            )
        })
    }

    fn stage(&mut self, id: &BlockId) {
        if self.stages.contains_key(&id.name) {
            return;
        }
        let mut read = Reader::new(self.spec);
        let Some(start) = read.reference(&read.at(id, "start")) else {
            unreachable!("check resolves {id}.start")
        };
        let (start_node, model) = if start.kind == BlockKind::Model {
            (self.weights(&start), start.clone())
        } else {
            self.stage(&start);
            let before = &self.stages[&start.name];
            (
                before
                    .checkpoints
                    .last_key_value()
                    .map_or(before.start, |(_, node)| *node),
                before.model.clone(),
            )
        };
        let plan = stage_plan(self.spec, id);
        let mut inputs = vec![input("start", start_node)];
        if plan.steps > 0 {
            inputs.extend(self.order(id, &model, &plan));
        }
        let mut checkpoints: BTreeMap<u64, NodeId> = BTreeMap::new();
        for &last_step in &plan.checkpoints {
            let node = self.segment(id, &model, &plan, last_step);
            let mut inputs = inputs.clone();
            if let Some((_, &before)) = checkpoints.last_key_value() {
                inputs.push(Input {
                    role: "goes on from".to_string(),
                    node: before,
                    identity: false,
                });
            }
            checkpoints.insert(last_step, self.graph.add(node, inputs));
        }
        self.stages.insert(
            id.name.clone(),
            LoweredStage {
                plan,
                start: start_node,
                model,
                checkpoints,
            },
        );
    }

    /// The order node of a stage and the tokens that it deals out, as inputs of the stage's segments.
    fn order(&mut self, stage: &BlockId, model: &BlockId, plan: &StagePlan) -> Vec<Input> {
        let (node, corpora) = order_node(self.spec, stage, plan);
        let tokens: Vec<Input> = corpora
            .iter()
            .map(|(name, corpus)| input(&format!("tokens.{name}"), self.tokens(corpus, model, Split::Train)))
            .collect();
        let order = self.graph.add(node, tokens.clone());
        let mut inputs = vec![input("order", order)];
        inputs.extend(tokens);
        inputs
    }

    /// A checkpoint is known by all that leads to it from the start of its stage, not by where the stage was cut.
    fn segment(&self, stage: &BlockId, model: &BlockId, plan: &StagePlan, last_step: u64) -> Node {
        segment_node(self.spec, stage, model, plan, last_step)
    }

    /// The checkpoints at which an eval looks at a stage.
    fn eval_points(&self, eval: &BlockId, stage: &LoweredStage) -> Vec<NodeId> {
        let mut read = Reader::new(self.spec);
        let mut points = Vec::new();
        for at in read.elements(&read.at(eval, "at")) {
            match read.value(&at) {
                Some(Value::Word(word)) if word == "start" => points.push((0, stage.start)),
                Some(every @ Value::Every(_)) => {
                    let every = steps_of(Some(every), stage.plan.tokens_per_step());
                    let regular = stage
                        .checkpoints
                        .iter()
                        .filter(|(step, _)| every > 0 && *step % every == 0);
                    points.extend(regular.map(|(step, node)| (*step, *node)));
                }
                _ => points.extend(stage.checkpoints.last_key_value().map(|(step, node)| (*step, *node))),
            }
        }
        points.sort_unstable();
        points.dedup();
        points.into_iter().map(|(_, node)| node).collect()
    }

    fn eval(&mut self, id: &BlockId) {
        let read = Reader::new(self.spec);
        let chosen = read.elements(&read.at(id, "stages"));
        let chosen: Vec<String> = if chosen.is_empty() {
            self.stages.keys().cloned().collect()
        } else {
            chosen.iter().filter_map(|at| reference_name(&at.field.value)).collect()
        };
        for stage in chosen {
            let Some(lowered) = self.stages.get(&stage) else {
                continue;
            };
            let model = lowered.model.clone();
            let sequence = lowered.plan.sequence;
            for checkpoint in self.eval_points(id, lowered) {
                self.eval_at(id, checkpoint, &model, sequence);
            }
        }
    }

    fn eval_at(&mut self, id: &BlockId, checkpoint: NodeId, model: &BlockId, sequence: u64) -> NodeId {
        let at = self.graph.node(checkpoint).name.clone();
        let at = at.strip_prefix("weights/").unwrap_or(&at).to_string();
        let (id, model) = (id.clone(), model.clone());
        let name = format!("eval/{}/{at}", id.name);
        self.once(name.clone(), |this| {
            let mut read = Reader::new(this.spec);
            let mut inputs = vec![input("checkpoint", checkpoint)];
            let kind = read.text(&read.at(&id, "kind"));
            if kind != "perplexity" {
                read.unsupported = Some(format!("evals of kind `{kind}` are not executed yet"));
                let fields: BTreeMap<String, String> = this.spec.blocks[&id]
                    .fields
                    .iter()
                    .filter(|(name, _)| !matches!(name.as_str(), "at" | "stages"))
                    .map(|(name, field)| (name.clone(), field.value.to_string()))
                    .collect();
                for field in fields.keys() {
                    read.value(&read.at(&id, field));
                }
                return (read.node(name, Kind::Eval, &fields), inputs);
            }
            let split = read.word(&read.at(&id, "split"), Split::HeldOut);
            let sets = set_names(this.spec, &id);
            for (_, corpus) in &sets {
                inputs.push(input("set", this.tokens(corpus, &model, split)));
            }
            let window = read.at(&id, "window");
            let fields = EvalFields {
                model: read_model(&mut read, &model),
                numerics: read_numerics(this.spec, &mut read),
                precision: read_precision(this.spec, &mut read),
                window: match window.field.value {
                    Value::None => u32::try_from(sequence).unwrap_or(0),
                    _ => read.count(&window),
                },
                sets: sets.into_iter().map(|(name, _)| EvalSet { name }).collect(),
            };
            (read.node(name, Kind::Eval, &fields), inputs)
        })
    }

    fn expect(&mut self, id: &BlockId) {
        let mut read = Reader::new(self.spec);
        let at = read.at(id, "gate");
        let Some(Value::Gate(gate)) = read.value(&at) else {
            return;
        };
        let mut inputs = Vec::new();
        let left = self.term(&gate.left, &mut inputs);
        let right = self.term(&gate.right, &mut inputs);
        let fields = ExpectFields {
            left,
            relation: gate.relation,
            right,
        };
        let node = read.node(format!("expect/{}", id.name), Kind::Expect, &fields);
        self.graph.add(node, inputs);
    }

    fn term(&mut self, expression: &Expression, inputs: &mut Vec<Input>) -> Term {
        let mut both = |left: &Expression, right: &Expression| {
            (Box::new(self.term(left, inputs)), Box::new(self.term(right, inputs)))
        };
        match expression {
            Expression::Number(value) => Term::Number(*value),
            Expression::Points(value) => Term::Number(Exact::new(value.decimal() / rust_decimal::Decimal::ONE_HUNDRED)),
            Expression::Add(left, right) => {
                let (left, right) = both(left, right);
                Term::Add(left, right)
            }
            Expression::Subtract(left, right) => {
                let (left, right) = both(left, right);
                Term::Subtract(left, right)
            }
            Expression::Multiply(left, right) => {
                let (left, right) = both(left, right);
                Term::Multiply(left, right)
            }
            Expression::Metric(metric) => {
                let scores = self.scores(metric);
                let known = inputs.iter().position(|input| input.node == scores);
                let index = known.unwrap_or_else(|| {
                    inputs.push(input("scores", scores));
                    inputs.len() - 1
                });
                Term::Metric {
                    input: index,
                    metric: metric.metric.clone(),
                    set: metric.set.clone(),
                }
            }
        }
    }

    /// The eval node that a metric is read from: at the end of a stage, or at a model's first weights.
    fn scores(&mut self, metric: &Metric) -> NodeId {
        let eval = BlockId {
            kind: BlockKind::Eval,
            name: metric.eval.clone(),
        };
        let (checkpoint, model, sequence) = if metric.at.kind == BlockKind::Model {
            let first = self.stages.values().find(|stage| stage.model == metric.at);
            let sequence = first.map_or(0, |stage| stage.plan.sequence);
            (self.weights(&metric.at), metric.at.clone(), sequence)
        } else {
            let stage = &self.stages[&metric.at.name];
            let last = stage
                .checkpoints
                .last_key_value()
                .map_or(stage.start, |(_, node)| *node);
            (last, stage.model.clone(), stage.plan.sequence)
        };
        self.eval_at(&eval, checkpoint, &model, sequence)
    }

    fn report(&mut self) {
        let told: Vec<Input> = self
            .graph
            .ids()
            .filter(|id| {
                matches!(
                    self.graph.node(*id).kind,
                    Kind::Train | Kind::Eval | Kind::Expect | Kind::Filter
                )
            })
            .map(|id| input(self.graph.node(id).kind.name(), id))
            .collect();
        self.graph.add(report_node(self.spec), told);
    }
}

fn experiment(spec: &Spec) -> BlockId {
    BlockId {
        kind: BlockKind::Experiment,
        name: spec.name.clone(),
    }
}

fn read_numerics<'a>(spec: &'a Spec, read: &mut Reader<'a>) -> Numerics {
    let at = read.at(&experiment(spec), "numerics");
    let micro_batch = read.count(&read.argument(&at, "micro_batch"));
    let tensor = read.count(&read.argument(&at, "tensor"));
    let lanes = read.count(&read.argument(&at, "lanes"));
    match read.call_name(&at) {
        "native" => Numerics::Native {
            tensor,
            lanes,
            micro_batch,
        },
        "portable" => Numerics::Portable {
            tensor,
            lanes,
            micro_batch,
        },
        _ => Numerics::Invariant {
            tensor,
            lanes,
            micro_batch,
        },
    }
}

fn read_precision<'a>(spec: &'a Spec, read: &mut Reader<'a>) -> Precision {
    read.word(&read.at(&experiment(spec), "precision"), Precision::F32)
}

/// The data order of a stage, and the corpora of its components.
fn order_node(spec: &Spec, stage: &BlockId, plan: &StagePlan) -> (Node, Vec<(String, BlockId)>) {
    let mut read = Reader::new(spec);
    let Some(mixture) = read.reference(&read.at(stage, "mixture")) else {
        unreachable!("check resolves {stage}.mixture")
    };
    let mut components = Vec::new();
    let mut corpora = Vec::new();
    for name in spec.blocks[&mixture].fields.keys() {
        let component = read.at(&mixture, name);
        for corpus in read.elements(&read.argument(&component, "from")) {
            corpora.extend(read.reference(&corpus).map(|corpus| (name.clone(), corpus)));
        }
        let weight = read.exact(&read.argument(&component, "weight")).decimal();
        let ppm = weight * rust_decimal::Decimal::from(1_000_000);
        components.push(Component {
            name: name.clone(),
            weight_ppm: ppm.to_string().parse::<Exact>().map_or(0, whole),
        });
    }
    let fields = OrderFields {
        seed: read.whole(&read.at(&experiment(spec), "seed")),
        sequence: u32::try_from(plan.sequence).unwrap_or(0),
        components,
    };
    (
        read.node(format!("order/{}", stage.name), Kind::Order, &fields),
        corpora,
    )
}

fn segment_node(spec: &Spec, stage: &BlockId, model: &BlockId, plan: &StagePlan, last_step: u64) -> Node {
    let mut read = Reader::new(spec);
    let rate = read.at(stage, "learning_rate");
    let schedule = read_schedule(&mut read, &rate, plan.tokens_per_step());
    let optimizer = read.at(stage, "optimizer");
    let mut number = |name: &str| read.exact(&read.argument(&optimizer, name));
    let [beta1, beta2, epsilon, weight_decay] = ["beta1", "beta2", "epsilon", "weight_decay"].map(&mut number);
    let clip = read.argument(&optimizer, "clip");
    let clip = (clip.field.value != Value::None).then(|| read.exact(&clip));
    let fields = TrainFields {
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
        schedule: schedule.pieces_before(plan.steps, last_step),
        first_step: 0,
        last_step,
        global_batch: u32::try_from(plan.global_batch).unwrap_or(0),
        sequence: u32::try_from(plan.sequence).unwrap_or(0),
    };
    read.value(&read.at(stage, "global_batch"));
    read.value(&read.at(stage, "sequence"));
    read.node(format!("{}@{last_step}", stage.name), Kind::Train, &fields)
}

fn report_node(spec: &Spec) -> Node {
    let fields = ReportFields {
        experiment: spec.name.clone(),
    };
    Reader::new(spec).node("report".to_string(), Kind::Report, &fields)
}

/// The nodes of a graph that are others where only these fields of the spec, `(block, field)`, have changed since it
/// was lowered; none if more than their own fields may have changed.
pub fn changed_nodes(spec: &Spec, graph: &Graph, changed: &[(BlockId, String)]) -> Option<Vec<(NodeId, Node)>> {
    let mut nodes = vec![(graph.find("report")?, report_node(spec))];
    let mut orders: Vec<&BlockId> = Vec::new();
    let mut trained: Vec<&BlockId> = Vec::new();
    for (block, field) in changed {
        match (block.kind, field.as_str()) {
            (BlockKind::Stage, "learning_rate" | "optimizer" | "optimizer_state") => trained.push(block),
            (BlockKind::Mixture, _) => {
                let reads = |stage: &crate::spec::Block| stage.reference("mixture") == Some(block);
                orders.extend(
                    spec.of_kind(BlockKind::Stage)
                        .filter(|(_, stage)| reads(stage))
                        .map(|(id, _)| id),
                );
            }
            _ => return None,
        }
    }
    orders.sort();
    orders.dedup();
    trained.sort();
    trained.dedup();
    for stage in orders {
        let (node, corpora) = order_node(spec, stage, &stage_plan(spec, stage));
        let id = graph.find(&node.name)?;
        // Other components or corpora are other inputs.
        let roles: Vec<String> = corpora.iter().map(|(name, _)| format!("tokens.{name}")).collect();
        let same = graph
            .inputs(id)
            .zip(&corpora)
            .all(|(input, (_, corpus))| graph.node(input.node).name.rsplit('/').next() == Some(corpus.name.as_str()));
        if !same || !graph.inputs(id).map(|input| input.role).eq(roles) {
            return None;
        }
        nodes.push((id, node));
    }
    for stage in trained {
        let plan = stage_plan(spec, stage);
        let model = spec.model_of(stage)?;
        for &last_step in &plan.checkpoints {
            let node = segment_node(spec, stage, model, &plan, last_step);
            nodes.push((graph.find(&node.name)?, node));
        }
    }
    Some(nodes)
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

fn rate_name<'a>(at: &At<'a>) -> &'a str {
    match &at.field.value {
        Value::Call { name, .. } => name,
        _ => "",
    }
}

fn reference_name(value: &Value) -> Option<String> {
    match value {
        Value::Reference(id) => Some(id.name.clone()),
        _ => None,
    }
}

fn whole(value: Exact) -> u32 {
    value.decimal().round().to_string().parse().unwrap_or(0)
}
