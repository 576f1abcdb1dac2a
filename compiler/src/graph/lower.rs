//! Lowers a checked spec, block by block, inputs first.

use std::collections::BTreeMap;

use super::nodes::{checked, order_node, report_node, segment_nodes};
use super::{CheckpointOrigin, Graph, Input, Node, NodeId, NodeKind, NodeOrigin, Pins, Role, Work};
use crate::fields::{EvalFields, EvalSet, JudgeFields, SourceFields, Split, TokensFields, WeightsFields, WeightsHow};
use crate::spec::{BlockId, BlockKind, Spec, set_names};
use crate::views::{self, EvalView, ExperimentView, JudgeView, MeasuredAt, SpecValues, TokenizerInputs, WeightsView};

/// Returns the graph of a spec. Sources that `pins` does not contain stay declared.
pub fn lower(spec: &Spec, pins: &Pins) -> Graph {
    let mut lowering = Lowering::of(spec, pins);
    lowering.report();
    lowering.graph
}

/// Returns the graph of a spec without its report, and in it the node of eval `eval` at the checkpoint `checkpoint`, even
/// if the spec does not measure there. None if no stage has such a checkpoint.
pub fn lower_eval(spec: &Spec, pins: &Pins, checkpoint: &str, eval: &BlockId) -> Option<(Graph, NodeId)> {
    let mut lowering = Lowering::of(spec, pins);
    let node = lowering.graph.find(checkpoint)?;
    let holds = |stage: &&LoweredStage| stage.start == node || stage.checkpoints.values().any(|own| *own == node);
    let stage = lowering.stages.values().find(holds)?;
    let (model, sequence) = (stage.model.clone(), stage.sequence);
    let node = lowering.eval_at(eval, node, &model, sequence);
    Some((lowering.graph, node))
}

pub(super) struct Lowering<'a> {
    pub(super) spec: &'a Spec,
    pins: &'a Pins,
    experiment: ExperimentView,
    pub(super) graph: Graph,
    pub(super) stages: BTreeMap<String, LoweredStage>,
}

pub(super) struct LoweredStage {
    pub(super) start: NodeId,
    pub(super) model: BlockId,
    /// Tokens of one sequence.
    pub(super) sequence: u32,
    pub(super) tokens_per_step: u64,
    /// Checkpoint nodes by their steps.
    pub(super) checkpoints: BTreeMap<u64, NodeId>,
}

impl LoweredStage {
    /// The last checkpoint; the start of a stage without steps.
    pub(super) fn end(&self) -> NodeId {
        self.checkpoints.last_key_value().map_or(self.start, |(_, node)| *node)
    }
}

pub(super) fn input(role: Role, node: NodeId) -> Input {
    Input { role, node }
}

/// Whether the files of a source include the members of this one instead of the file itself.
pub fn is_archive(name: &str) -> bool {
    let endings = [
        ".deb",
        ".whl",
        ".zip",
        ".tar",
        ".tar.gz",
        ".tgz",
        ".crate",
        ".tar.xz",
        ".txz",
        ".tar.zst",
        ".tar.zstd",
        ".tzst",
        ".tar.bz2",
        ".tbz2",
    ];
    endings.iter().any(|ending| name.ends_with(ending))
}

impl<'a> Lowering<'a> {
    /// Everything but the report.
    fn of(spec: &'a Spec, pins: &'a Pins) -> Self {
        let mut lowering = Lowering {
            spec,
            pins,
            experiment: checked(views::experiment(spec)),
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

    /// The blocks of a kind, by name.
    fn blocks(&self, kind: BlockKind) -> Vec<BlockId> {
        self.spec.of_kind(kind).map(|(id, _)| id.clone()).collect()
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
        let view = checked(views::source(self.spec, id));
        self.pinned_source(&id.name, view.from, view.values)
    }

    /// A source by its name, with its reference in the spec.
    fn pinned_source(&mut self, name: &str, declared: String, values: SpecValues) -> NodeId {
        let origin = NodeOrigin::Source {
            source: name.to_owned(),
        };
        self.once(origin, |this, origin| {
            let fields = match this.pins.get(name) {
                Some(pin) => SourceFields::Content(pin.content.clone()),
                None => SourceFields::Declared(declared),
            };
            (Node::new(origin, Work::Source(fields), values), Vec::new())
        })
    }

    fn extract(&mut self, corpus: &BlockId, index: usize, view: views::ExtractionView) -> NodeId {
        let mut inputs = vec![input(Role::Source, self.source(&view.source))];
        if let Some(reference) = &view.reference {
            inputs.push(input(Role::Reference, self.source(reference)));
        }
        // The first extraction of a source in a corpus has the source's name; later ones are numbered.
        let origin = |repeat| NodeOrigin::Extract {
            corpus: corpus.name.clone(),
            source: view.source.name.clone(),
            repeat,
        };
        let repeats = self.graph.find(&origin(None).to_string()).is_some();
        let origin = origin(repeats.then_some(index));
        self.graph
            .add(Node::new(origin, Work::Extract(view.fields), view.values), inputs)
    }

    fn corpus(&mut self, id: &BlockId) -> NodeId {
        let origin = NodeOrigin::Filter {
            corpus: id.name.clone(),
        };
        self.once(origin, |this, origin| {
            let view = checked(views::corpus(this.spec, id));
            let extractions = view.extractions.into_iter().enumerate();
            let inputs = extractions
                .map(|(index, extraction)| input(Role::Documents, this.extract(id, index, extraction)))
                .collect();
            (Node::new(origin, Work::Filter(view.filter), view.values), inputs)
        })
    }

    fn tokenizer(&mut self, id: &BlockId) -> NodeId {
        let origin = NodeOrigin::Tokenizer {
            tokenizer: id.name.clone(),
        };
        self.once(origin, |this, origin| {
            let view = checked(views::tokenizer(this.spec, id));
            let inputs = match &view.inputs {
                TokenizerInputs::Corpora(corpora) => corpora
                    .iter()
                    .map(|corpus| input(Role::Documents, this.corpus(corpus)))
                    .collect(),
                TokenizerInputs::Source(source) => vec![input(Role::Source, this.source(source))],
            };
            (Node::new(origin, Work::Tokenizer(view.fields), view.values), inputs)
        })
    }

    fn tokens(&mut self, corpus: &BlockId, model: &BlockId, split: Split) -> NodeId {
        let model = checked(views::model(self.spec, model));
        let origin = NodeOrigin::Tokens {
            tokenizer: model.tokenizer.name.clone(),
            corpus: corpus.name.clone(),
            split,
        };
        self.once(origin, |this, origin| {
            let fields = TokensFields {
                split,
                vocabulary: model.fields.vocabulary,
            };
            let inputs = vec![
                input(Role::Documents, this.corpus(corpus)),
                input(Role::Tokenizer, this.tokenizer(&model.tokenizer)),
            ];
            let mut values = model.tokenizer_values;
            values.extend(&model.vocabulary_values);
            (Node::new(origin, Work::Tokens(fields), values), inputs)
        })
    }

    pub(super) fn weights(&mut self, id: &BlockId) -> NodeId {
        let origin = NodeOrigin::Checkpoint(CheckpointOrigin::Initial { model: id.name.clone() });
        self.once(origin, |this, origin| {
            let model = checked(views::model(this.spec, id));
            let mut values = model.values;
            let mut inputs = Vec::new();
            let how = match model.weights {
                WeightsView::Random { std } => {
                    values.extend(&this.experiment.seed_values);
                    WeightsHow::Random {
                        seed: this.experiment.seed,
                        std,
                    }
                }
                WeightsView::Hub {
                    repository,
                    revision,
                    values,
                } => {
                    let declared = format!("hf:{repository}@{revision}");
                    let source = this.pinned_source(&views::hub_source(id), declared, values);
                    inputs.push(input(Role::Source, source));
                    WeightsHow::Import
                }
                WeightsView::Import { source } => {
                    inputs.push(input(Role::Source, this.source(&source)));
                    WeightsHow::Import
                }
                WeightsView::Gguf { source, member } => {
                    inputs.push(input(Role::Source, this.source(&source)));
                    WeightsHow::Gguf { member }
                }
            };
            values.extend(&model.weights_values);
            let fields = WeightsFields {
                model: model.fields,
                how,
            };
            (Node::new(origin, Work::Weights(fields), values), inputs)
        })
    }

    fn stage(&mut self, id: &BlockId) {
        if self.stages.contains_key(&id.name) {
            return;
        }
        let view = checked(views::stage(self.spec, id));
        let (start, model) = if view.start.kind == BlockKind::Model {
            (self.weights(&view.start), view.start.clone())
        } else {
            self.stage(&view.start);
            let before = &self.stages[&view.start.name];
            (before.end(), before.model.clone())
        };
        let mut inputs = vec![input(Role::Start, start)];
        if view.steps > 0 {
            inputs.extend(self.order(id, &model, &view));
        }
        let mut checkpoints: BTreeMap<u64, NodeId> = BTreeMap::new();
        let model_view = checked(views::model(self.spec, &model));
        for (last_step, node) in segment_nodes(id, &view, &model_view, &self.experiment) {
            let mut inputs = inputs.clone();
            if let Some((_, &before)) = checkpoints.last_key_value() {
                inputs.push(input(Role::ResumesFrom, before));
            }
            checkpoints.insert(last_step, self.graph.add(node, inputs));
        }
        self.stages.insert(
            id.name.clone(),
            LoweredStage {
                start,
                model,
                sequence: view.sequence,
                tokens_per_step: view.tokens_per_step(),
                checkpoints,
            },
        );
    }

    /// The order node of a stage and the tokens that it draws from, as inputs of the stage's segments.
    fn order(&mut self, stage: &BlockId, model: &BlockId, view: &views::StageView) -> Vec<Input> {
        let mixture = checked(views::mixture(self.spec, &view.mixture));
        let node = order_node(stage, view, &mixture, &self.experiment);
        let mut tokens = Vec::new();
        for component in &mixture.components {
            for corpus in &component.corpora {
                let node = self.tokens(corpus, model, Split::Train);
                tokens.push(input(Role::Tokens(component.name.clone()), node));
            }
        }
        let order = self.graph.add(node, tokens.clone());
        let mut inputs = vec![input(Role::Order, order)];
        inputs.extend(tokens);
        inputs
    }

    /// The checkpoints of a stage that an eval measures.
    pub(super) fn eval_points(&self, eval: &EvalView, stage: &LoweredStage) -> Vec<NodeId> {
        let mut points = Vec::new();
        for at in &eval.at {
            match at {
                MeasuredAt::Start => points.push((0, stage.start)),
                MeasuredAt::End => {
                    points.extend(stage.checkpoints.last_key_value().map(|(step, node)| (*step, *node)));
                }
                MeasuredAt::Every(_) => {
                    let every = at.every(stage.tokens_per_step).filter(|every| *every > 0);
                    let regular = stage
                        .checkpoints
                        .iter()
                        .filter(|(step, _)| every.is_some_and(|every| *step % every == 0));
                    points.extend(regular.map(|(step, node)| (*step, *node)));
                }
            }
        }
        points.sort_unstable();
        points.dedup();
        points.into_iter().map(|(_, node)| node).collect()
    }

    fn eval(&mut self, id: &BlockId) {
        let view = checked(views::eval(self.spec, id));
        for stage in &view.stages {
            let Some(lowered) = self.stages.get(&stage.name) else {
                continue;
            };
            let (model, sequence) = (lowered.model.clone(), lowered.sequence);
            for checkpoint in self.eval_points(&view, lowered) {
                self.eval_at(id, checkpoint, &model, sequence);
            }
        }
    }

    pub(super) fn eval_at(&mut self, id: &BlockId, checkpoint: NodeId, model: &BlockId, sequence: u32) -> NodeId {
        let NodeOrigin::Checkpoint(at) = self.graph.node(checkpoint).origin.clone() else {
            unreachable!("an eval's checkpoint is a node with weights")
        };
        let origin = NodeOrigin::Eval {
            eval: id.name.clone(),
            at: at.clone(),
        };
        self.once(origin, |this, origin| {
            let view = checked(views::eval(this.spec, id));
            let inputs = vec![input(Role::Checkpoint, checkpoint)];
            if view.task.is_some() {
                return this.task(origin, view, at, inputs, model);
            }
            this.perplexity(origin, id, view, inputs, model, sequence)
        })
    }

    fn perplexity(
        &mut self,
        origin: NodeOrigin,
        id: &BlockId,
        view: EvalView,
        mut inputs: Vec<Input>,
        model: &BlockId,
        sequence: u32,
    ) -> (Node, Vec<Input>) {
        let sets = self.spec.blocks.get(id).map(|eval| set_names(self.spec, eval));
        let sets = sets.unwrap_or_default();
        for (_, corpus) in &sets {
            inputs.push(input(Role::Set, self.tokens(corpus, model, view.split)));
        }
        let model = checked(views::model(self.spec, model));
        let mut values = view.values;
        values.extend(&model.values);
        values.extend(&self.experiment.values);
        values.extend(&view.window_values);
        let fields = EvalFields {
            model: model.fields,
            numerics: self.experiment.numerics.clone(),
            precision: self.experiment.precision,
            window: view.window.unwrap_or(sequence),
            sets: sets.into_iter().map(|(name, _)| EvalSet { name }).collect(),
            task: None,
        };
        (Node::new(origin, Work::Eval(fields), values), inputs)
    }

    /// The node of a task. If a judge scores its answers, the node of the judge, whose input is the node of the answers.
    fn task(
        &mut self,
        origin: NodeOrigin,
        view: EvalView,
        at: CheckpointOrigin,
        mut inputs: Vec<Input>,
        model: &BlockId,
    ) -> (Node, Vec<Input>) {
        let items: Vec<Input> = view
            .data
            .iter()
            .map(|source| input(Role::Items, self.source(source)))
            .collect();
        inputs.extend(items.iter().cloned());
        let model = checked(views::model(self.spec, model));
        inputs.push(input(Role::Tokenizer, self.tokenizer(&model.tokenizer)));
        let mut values = view.values;
        values.extend(&model.tokenizer_values);
        values.extend(&model.values);
        values.extend(&self.experiment.values);
        let fields = EvalFields {
            numerics: self.experiment.numerics.clone(),
            precision: self.experiment.precision,
            window: model.fields.context,
            sets: Vec::new(),
            task: view.task,
            model: model.fields,
        };
        let (Some(judge), NodeOrigin::Eval { eval, .. }) = (view.judge, &origin) else {
            return (Node::new(origin, Work::Eval(fields), values), inputs);
        };
        let eval = eval.clone();
        let answers = Node::new(NodeOrigin::Answers { eval, at }, Work::Answers(fields), values);
        let answers = self.graph.add(answers, inputs);
        self.judge(origin, judge, answers, items)
    }

    fn judge(
        &mut self,
        origin: NodeOrigin,
        judge: JudgeView,
        answers: NodeId,
        items: Vec<Input>,
    ) -> (Node, Vec<Input>) {
        let mut inputs = vec![input(Role::Answers, answers)];
        if let JudgeFields::Programs { .. } = judge.fields {
            inputs.extend(items);
        }
        for (role, source) in [(Role::Judge, judge.program), (Role::Labelled, judge.labelled)] {
            inputs.extend(source.map(|source| input(role, self.source(&source))));
        }
        (Node::new(origin, Work::Judge(judge.fields), judge.values), inputs)
    }

    fn report(&mut self) {
        let reported = |id: NodeId| {
            let kind = self.graph.node(id).kind();
            let is_shown = matches!(
                kind,
                NodeKind::Train | NodeKind::Eval | NodeKind::Judge | NodeKind::Expect | NodeKind::Filter
            );
            is_shown.then(|| input(Role::Reported(kind), id))
        };
        let reported = self.graph.ids().filter_map(reported).collect();
        let names = self
            .graph
            .ids()
            .map(|id| self.graph.node(id).name().to_owned())
            .collect();
        self.graph.add(report_node(self.spec, names), reported);
    }
}
