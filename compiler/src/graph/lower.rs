//! Lowers a checked spec, block by block, inputs first.

use std::collections::BTreeMap;

use super::facts::{StagePlan, read_model, set_names, stage_plan};
use super::nodes::{
    experiment, judge, order_node, read_eval_kind, read_numerics, read_precision, report_node, segment_nodes, task,
};
use super::reader::{At, Reader, steps_of};
use super::{CheckpointOrigin, Graph, Input, Kind, Node, NodeId, NodeOrigin, Pins, Role, Work};
use crate::fields::{
    EvalFields, EvalSet, ExtractFields, FilterFields, Format, JudgeFields, Language, Only, PageReference, SourceFields,
    Split, TokenizerFields, TokensFields, Unit, WeightsFields, WeightsHow,
};
use crate::schema::EvalKind;
use crate::spec::{BlockId, BlockKind, Spec, Value};

/// Returns the graph of a spec whose sources are pinned as far as `pins` says.
pub fn lower(spec: &Spec, pins: &Pins) -> Graph {
    let mut lowering = Lowering::of(spec, pins);
    lowering.report();
    lowering.graph
}

/// Returns the graph of a spec without its report, and in it the node of eval `eval` at the checkpoint `checkpoint`, whether
/// the spec measures there or not; nothing if there is no such checkpoint in a stage.
pub fn lower_eval(spec: &Spec, pins: &Pins, checkpoint: &str, eval: &BlockId) -> Option<(Graph, NodeId)> {
    let mut lowering = Lowering::of(spec, pins);
    let node = lowering.graph.find(checkpoint)?;
    let holds = |stage: &&LoweredStage| stage.start == node || stage.checkpoints.values().any(|own| *own == node);
    let stage = lowering.stages.values().find(holds)?;
    let (model, sequence) = (stage.model.clone(), stage.plan.sequence);
    let node = lowering.eval_at(eval, node, &model, sequence);
    Some((lowering.graph, node))
}

impl<'a> Lowering<'a> {
    /// Everything but the report.
    fn of(spec: &'a Spec, pins: &'a Pins) -> Self {
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
        lowering
    }
}

pub(super) struct Lowering<'a> {
    pub(super) spec: &'a Spec,
    pins: &'a Pins,
    pub(super) graph: Graph,
    pub(super) stages: BTreeMap<String, LoweredStage>,
}

pub(super) struct LoweredStage {
    pub(super) plan: StagePlan,
    pub(super) start: NodeId,
    pub(super) model: BlockId,
    /// Checkpoint nodes by the step after which they stand.
    pub(super) checkpoints: BTreeMap<u64, NodeId>,
}

pub(super) fn input(role: Role, node: NodeId) -> Input {
    Input { role, node }
}

impl<'a> Lowering<'a> {
    /// Blocks of a kind, those first on which others build.
    fn blocks(&self, kind: BlockKind) -> Vec<BlockId> {
        let mut found: Vec<_> = self.spec.blocks.iter().filter(|(id, _)| id.kind == kind).collect();
        found.sort_by_key(|(id, _)| (*id).clone());
        found.into_iter().map(|(id, _)| id.clone()).collect()
    }

    /// Returns the node of this origin, made by `make` at the first call.
    fn once(&mut self, origin: NodeOrigin, make: impl FnOnce(&mut Self, NodeOrigin) -> (Node, Vec<Input>)) -> NodeId {
        if let Some(id) = self.graph.find(&origin.to_string()) {
            return id;
        }
        let (node, inputs) = make(self, origin);
        self.graph.add(node, inputs)
    }

    fn source(&mut self, id: &BlockId) -> NodeId {
        let origin = NodeOrigin::Source {
            source: id.name.clone(),
        };
        let block = id.clone();
        self.once(origin, |this, origin| {
            let mut read = Reader::new(this.spec);
            let from = read.text(&read.at(&block, "from"));
            let fields = match this.pins.get(&block.name) {
                Some(pin) => SourceFields::Content(pin.content.clone()),
                None => SourceFields::Declared(from.clone()),
            };
            (read.node(origin, Work::Source(fields)), Vec::new())
        })
    }

    fn extract(&mut self, corpus: &BlockId, index: usize, call: &At<'a>) -> NodeId {
        let mut read = Reader::new(self.spec);
        let source = read.reference(&read.argument(call, "source"));
        let Some(source) = source else {
            unreachable!("check resolves {}.source", call.path)
        };
        let mut inputs = vec![input(Role::Source, self.source(&source))];
        let format = match read.call_name(call) {
            "html" => {
                let reference = read.argument(call, "reference");
                let reference = (reference.field.value != Value::None)
                    .then(|| read.reference(&reference))
                    .flatten();
                if let Some(other) = &reference {
                    inputs.push(input(Role::Reference, self.source(other)));
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
            "pairs" => Format::Pairs {
                prompt: read.text(&read.argument(call, "prompt")),
                answer: read.text(&read.argument(call, "answer")),
                only: read.optional_text(&read.argument(call, "only")).map(|only| {
                    let (member, text) = only.split_once('=').unwrap_or((&only, ""));
                    Only {
                        member: member.trim().to_owned(),
                        text: text.trim().to_owned(),
                    }
                }),
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
        let origin = |repeat| NodeOrigin::Extract {
            corpus: corpus.name.clone(),
            source: source.name.clone(),
            repeat,
        };
        let repeats = self.graph.find(&origin(None).to_string()).is_some();
        let node = read.node(origin(repeats.then_some(index)), Work::Extract(fields));
        self.graph.add(node, inputs)
    }

    fn corpus(&mut self, id: &BlockId) -> NodeId {
        let origin = NodeOrigin::Filter {
            corpus: id.name.clone(),
        };
        let block = id.clone();
        self.once(origin, |this, origin| {
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
                .map(|(index, call)| input(Role::Documents, this.extract(&block, index, call)))
                .collect();
            (read.node(origin, Work::Filter(fields)), inputs)
        })
    }

    fn tokenizer(&mut self, id: &BlockId) -> NodeId {
        let origin = NodeOrigin::Tokenizer {
            tokenizer: id.name.clone(),
        };
        let block = id.clone();
        self.once(origin, |this, origin| {
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
                        .map(|corpus| input(Role::Documents, this.corpus(&corpus)))
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
                            .map(|source| input(Role::Source, this.source(source)))
                            .collect(),
                    )
                }
            };
            (read.node(origin, Work::Tokenizer(fields)), inputs)
        })
    }

    fn tokens(&mut self, corpus: &BlockId, model: &BlockId, split: Split) -> NodeId {
        let mut read = Reader::new(self.spec);
        let tokenizer = read.reference(&read.at(model, "tokenizer"));
        let Some(tokenizer) = tokenizer else {
            unreachable!("check asks for {model}.tokenizer where tokens are read")
        };
        let origin = NodeOrigin::Tokens {
            tokenizer: tokenizer.name.clone(),
            corpus: corpus.name.clone(),
            split,
        };
        let corpus = corpus.clone();
        let model = model.clone();
        self.once(origin, |this, origin| {
            let fields = TokensFields {
                split,
                vocabulary: read.count(&read.at(&model, "vocabulary")),
            };
            let inputs = vec![
                input(Role::Documents, this.corpus(&corpus)),
                input(Role::Tokenizer, this.tokenizer(&tokenizer)),
            ];
            (read.node(origin, Work::Tokens(fields)), inputs)
        })
    }

    pub(super) fn weights(&mut self, model: &BlockId) -> NodeId {
        let origin = NodeOrigin::Checkpoint(CheckpointOrigin::Initial {
            model: model.name.clone(),
        });
        let block = model.clone();
        self.once(origin, |this, origin| {
            let mut read = Reader::new(this.spec);
            let fields = read_model(&mut read, &block);
            let how = read.at(&block, "weights");
            let mut inputs = Vec::new();
            let how = match read.call_name(&how) {
                "random" => WeightsHow::Random {
                    seed: read.whole(&read.at(&experiment(this.spec), "seed")),
                    std: read.exact(&read.argument(&how, "std")),
                },
                "hf" => {
                    // Published weights are a source like any other, named after the model.
                    let mut hub = Reader::new(this.spec);
                    let repository = hub.text(&hub.argument(&how, "repository"));
                    let revision = hub.text(&hub.argument(&how, "revision"));
                    let name = hub_source(&block);
                    let pinned = match this.pins.get(&name) {
                        Some(pin) => SourceFields::Content(pin.content.clone()),
                        None => SourceFields::Declared(format!("hf:{repository}@{revision}")),
                    };
                    let node = hub.node(NodeOrigin::Source { source: name }, Work::Source(pinned));
                    inputs.push(input(Role::Source, this.graph.add(node, Vec::new())));
                    WeightsHow::Import
                }
                other => {
                    if let Some(source) = read.reference(&read.argument(&how, "source")) {
                        inputs.push(input(Role::Source, this.source(&source)));
                    }
                    match other {
                        "gguf" => WeightsHow::Gguf {
                            member: read.text(&read.argument(&how, "member")),
                        },
                        _ => WeightsHow::Import,
                    }
                }
            };
            (
                read.node(origin, Work::Weights(WeightsFields { model: fields, how })),
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
        let mut inputs = vec![input(Role::Start, start_node)];
        if plan.steps > 0 {
            inputs.extend(self.order(id, &model, &plan));
        }
        let mut checkpoints: BTreeMap<u64, NodeId> = BTreeMap::new();
        for (last_step, node) in segment_nodes(self.spec, id, &model, &plan) {
            let mut inputs = inputs.clone();
            if let Some((_, &before)) = checkpoints.last_key_value() {
                inputs.push(input(Role::ResumesFrom, before));
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
            .map(|(name, corpus)| input(Role::Tokens(name.clone()), self.tokens(corpus, model, Split::Train)))
            .collect();
        let order = self.graph.add(node, tokens.clone());
        let mut inputs = vec![input(Role::Order, order)];
        inputs.extend(tokens);
        inputs
    }

    /// The checkpoints at which an eval looks at a stage.
    pub(super) fn eval_points(&self, eval: &BlockId, stage: &LoweredStage) -> Vec<NodeId> {
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

    pub(super) fn eval_at(&mut self, id: &BlockId, checkpoint: NodeId, model: &BlockId, sequence: u64) -> NodeId {
        let NodeOrigin::Checkpoint(at) = self.graph.node(checkpoint).origin.clone() else {
            unreachable!("an eval's checkpoint is a node with weights")
        };
        let (id, model) = (id.clone(), model.clone());
        let origin = NodeOrigin::Eval {
            eval: id.name.clone(),
            at: at.clone(),
        };
        self.once(origin, |this, origin| {
            let mut read = Reader::new(this.spec);
            let mut inputs = vec![input(Role::Checkpoint, checkpoint)];
            let kind = read_eval_kind(&mut read, &id);
            if kind != EvalKind::Perplexity {
                return this.task(read, at, kind, &id, inputs, &model);
            }
            let split = read.word(&read.at(&id, "split"), Split::HeldOut);
            let sets = set_names(this.spec, &id);
            for (_, corpus) in &sets {
                inputs.push(input(Role::Set, this.tokens(corpus, &model, split)));
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
                task: None,
            };
            (read.node(origin, Work::Eval(fields)), inputs)
        })
    }

    /// A task's node; where its answers are judged, the node of the judge, behind that of the answers.
    fn task(
        &mut self,
        mut read: Reader<'a>,
        at: CheckpointOrigin,
        kind: EvalKind,
        id: &BlockId,
        mut inputs: Vec<Input>,
        model: &BlockId,
    ) -> (Node, Vec<Input>) {
        let task = task(&mut read, id, kind, self.spec);
        let mut items = Vec::new();
        for source in read.elements(&read.at(id, "data")) {
            items.extend(
                read.reference(&source)
                    .map(|source| input(Role::Items, self.source(&source))),
            );
        }
        inputs.extend(items.iter().cloned());
        let tokenizer = read.reference(&read.at(model, "tokenizer"));
        inputs.extend(tokenizer.map(|tokenizer| input(Role::Tokenizer, self.tokenizer(&tokenizer))));
        let model = read_model(&mut read, model);
        let fields = EvalFields {
            numerics: read_numerics(self.spec, &mut read),
            precision: read_precision(self.spec, &mut read),
            window: model.context,
            sets: Vec::new(),
            task: Some(task),
            model,
        };
        let eval = id.name.clone();
        let origin = NodeOrigin::Eval {
            eval: eval.clone(),
            at: at.clone(),
        };
        if !kind.is_judged() {
            return (read.node(origin, Work::Eval(fields)), inputs);
        }
        let answers = read.node(NodeOrigin::Answers { eval, at }, Work::Answers(fields));
        let answers = self.graph.add(answers, inputs);
        let mut read = Reader::new(self.spec);
        let mut inputs = vec![input(Role::Answers, answers)];
        let (fields, sources) = judge(&mut read, id, kind);
        if let JudgeFields::Programs { .. } = fields {
            inputs.extend(items);
        }
        inputs.extend(
            sources
                .into_iter()
                .map(|(role, source)| input(role, self.source(&source))),
        );
        (read.node(origin, Work::Judge(fields)), inputs)
    }

    fn report(&mut self) {
        let reported: Vec<Input> = self
            .graph
            .ids()
            .filter(|id| {
                matches!(
                    self.graph.node(*id).kind(),
                    Kind::Train | Kind::Eval | Kind::Judge | Kind::Expect | Kind::Filter
                )
            })
            .map(|id| input(Role::Reported(self.graph.node(id).kind()), id))
            .collect();
        self.graph.add(report_node(self.spec), reported);
    }
}

/// The name under which the weights that a model takes from the hub are pinned.
pub fn hub_source(model: &BlockId) -> String {
    format!("{}.weights", model.name)
}

fn reference_name(value: &Value) -> Option<String> {
    match value {
        Value::Reference(id) => Some(id.name.clone()),
        _ => None,
    }
}
