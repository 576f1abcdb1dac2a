//! Finds the checkpoint that a command names.
//!
//! In: `EXPERIMENT/NODE`, or a folder that `aurora import` has written. Out: the model, the weights' files, the tokenizer,
//! and the content of its model card. A name refers to the current spec and lock of the experiment: a checkpoint of an
//! older spec is an error. Not here: the format of the files (`runtime/src/checkpoint.rs`), writing them
//! (`runtime/train/src/train/checkpoint.rs`).

use aurora_compiler::fields::{ModelFields, OrderFields, WeightsHow};
use aurora_compiler::graph::{CheckpointOrigin, NodeId, NodeOrigin, Pins, Role, Work, model_fields};
use aurora_compiler::hash::Keyed;
use aurora_compiler::lock::Lock;
use aurora_compiler::spec::{BlockKind, Spec, Value};
use aurora_compiler::views::hub_source;
use aurora_runtime::checkpoint::groups;
use aurora_runtime::data::tokenizer::TokenizerMeta;
use aurora_runtime::errors::FileError;
use aurora_runtime::job::Files;
use aurora_runtime::store::Store;
use aurora_runtime::weights::{Card, Trained};
use camino::{Utf8Path, Utf8PathBuf};

use crate::arguments::VariantSelection;
use crate::context::Context;
use crate::failure::Failure;
use crate::numerics::results_to_read;
use crate::project::{Loaded, Project, Reach, compile, load, read_lock};

/// The file that makes a folder of imported weights a checkpoint.
pub const MODEL: &str = "model.json";

pub struct Checkpoint {
    pub model: ModelFields,
    pub files: Files,
    /// `tokenizer.json`, if there is one.
    pub tokenizer: Option<(Utf8PathBuf, TokenizerMeta)>,
    pub card: Card,
}

/// A checkpoint in the graph of its experiment, built or not.
pub struct NamedCheckpoint {
    pub project: Project,
    pub loaded: Loaded,
    pub keyed: Keyed,
    pub pins: Pins,
    pub id: NodeId,
    /// Path of the lock.
    pub lock: Utf8PathBuf,
}

/// The lock of the experiment of `EXPERIMENT/NODE`.
fn lock_path(project: &Project, name: &str) -> Utf8PathBuf {
    let (experiment, _) = name.split_once('/').unwrap_or((name, ""));
    project.root.join("lockfiles").join(format!("{experiment}.lock"))
}

impl NamedCheckpoint {
    /// The version of libtorch that the lock of `EXPERIMENT/NODE` pins; `None` also if it cannot be read, which `find`
    /// reports.
    pub fn pinned_libtorch(context: &Context, name: &str) -> Option<String> {
        let project = context.project(None).ok()?;
        Some(read_lock(&lock_path(&project, name)).ok()??.libtorch)
    }

    /// Finds `EXPERIMENT/NODE` in the project of the current folder.
    pub fn find(context: &Context, name: &str) -> Result<Self, Failure> {
        let (_, node) = name.split_once('/').unwrap_or((name, ""));
        let project = context.project(None)?;
        let path = lock_path(&project, name);
        let Some(lock) = read_lock(&path)? else {
            return Err(
                Failure::error(format!("`{name}` is not a checkpoint: `{path}` does not exist")).help(
                    "write EXPERIMENT/NODE of an experiment of this project, such as `tiny/cat@10`, or a folder that \
                 `aurora import` has written",
                ),
            );
        };
        let reach = Reach {
            lock: Some(&lock),
            ..context.reach()
        };
        let loaded = load(
            &project.root.join(&lock.spec),
            &VariantSelection::of(&lock),
            context.json,
            reach,
        )?;
        let (keyed, pins, _) = compile(&project, &loaded.spec)?;
        let id = find_node(&keyed, &loaded.spec, node)?;
        Ok(Self {
            project,
            loaded,
            keyed,
            pins,
            id,
            lock: path,
        })
    }
}

impl Checkpoint {
    /// Finds the checkpoint that a command names.
    pub fn find(context: &Context, name: &str) -> Result<Self, Failure> {
        let path = Utf8Path::new(name);
        if path.join(MODEL).is_file() {
            return Self::imported(path);
        }
        let NamedCheckpoint {
            project,
            loaded,
            keyed,
            pins,
            id,
            lock,
        } = NamedCheckpoint::find(context, name)?;
        let locked = read_lock(&lock)?;
        let mut found = Self::of(&project, &loaded, (&keyed, &pins), id, locked.as_ref())?;
        let text = std::fs::read(&lock).map_err(|error| Failure::error(format!("cannot read `{lock}`: {error}")))?;
        found.card.lock = Some((project.relative(&lock), aurora_runtime::content_of(&text)));
        Ok(found)
    }

    fn imported(folder: &Utf8Path) -> Result<Self, Failure> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|error| Failure::error(format!("cannot read `{path}`: {error}")))
        };
        let wrong = |error: serde_json::Error| {
            Failure::error(format!("`{folder}` is not an imported checkpoint: {error}"))
                .help("import it again with `aurora import`")
        };
        let model: ModelFields = serde_json::from_slice(&read(MODEL)?).map_err(wrong)?;
        let json = folder.join("tokenizer.json");
        let tokenizer = if json.is_file() {
            Some((json, serde_json::from_slice(&read("meta.json")?).map_err(wrong)?))
        } else {
            None
        };
        Ok(Self {
            files: groups(&model)
                .iter()
                .map(|group| (group.weights(), folder.join(group.weights())))
                .collect(),
            model,
            tokenizer,
            card: Card {
                name: folder.file_name().unwrap_or(folder.as_str()).to_owned(),
                base: Some("imported, not by a spec: see where the files came from".to_owned()),
                ..Card::default()
            },
        })
    }

    fn of(
        project: &Project,
        loaded: &Loaded,
        (keyed, pins): (&Keyed, &Pins),
        id: NodeId,
        lock: Option<&Lock>,
    ) -> Result<Self, Failure> {
        let (spec, graph) = (&loaded.spec, &keyed.graph);
        let node = graph.node(id);
        let store = Store::open_read_only(&project.store)?;
        let results = results_to_read(&store, spec, keyed, lock)?;
        let record = results
            .find(id)?
            .ok_or_else(|| project.not_built(node.name(), loaded))?;
        let model_id = model_of(keyed, spec, id);
        let model_id = model_id.ok_or_else(|| Failure::error(format!("`{}` is not a checkpoint", node.name())))?;
        let tokenizer = spec
            .blocks
            .get(&model_id)
            .and_then(|block| block.field("tokenizer")?.reference());
        let tokenizer = tokenizer.and_then(|tokenizer| graph.find(&format!("tokenizer/{}", tokenizer.name)));
        let tokenizer = tokenizer.map(|id| results.find(id)).transpose()?;
        let tokenizer = match tokenizer.flatten() {
            Some(record) => {
                let files = store.files(&record)?;
                let file = |name: &str| {
                    let none = || Failure::error(format!("the result of `{}` has no {name}", record.node));
                    files.get(name).ok_or_else(none)
                };
                let path = file("meta.json")?;
                let meta = std::fs::read(path).map_err(FileError::reading(path))?;
                let damaged =
                    |error| Failure::error(format!("`{path}` is not the description of a tokenizer: {error}"));
                Some((
                    file("tokenizer.json")?.clone(),
                    serde_json::from_slice(&meta).map_err(damaged)?,
                ))
            }
            None => None,
        };
        Ok(Self {
            model: model_fields(spec, &model_id),
            files: store.files(&record)?,
            tokenizer,
            card: card(spec, keyed, pins, id, record.numerics()),
        })
    }
}

/// A checkpoint by the name of its node, its stage, or its model.
fn find_node(keyed: &Keyed, spec: &Spec, name: &str) -> Result<NodeId, Failure> {
    let graph = &keyed.graph;
    let is_checkpoint = |id: &NodeId| graph.node(*id).origin.checkpoint().is_some();
    let found = graph
        .find(name)
        .or_else(|| graph.find(&format!("weights/{name}")))
        .filter(is_checkpoint);
    let last = || {
        let step = |id: &NodeId| match graph.node(*id).origin.trained() {
            Some((stage, step)) if stage == name => Some(step),
            _ => None,
        };
        graph.ids().filter(|id| step(id).is_some()).max_by_key(step)
    };
    found.or_else(last).ok_or_else(|| {
        let all: Vec<&str> = graph
            .ids()
            .filter(is_checkpoint)
            .map(|id| graph.node(id).name())
            .collect();
        let failure = Failure::error(format!("`{}` has no checkpoint `{name}`", spec.name));
        failure.help(format!("its checkpoints: {}", all.join(", ")))
    })
}

/// The chain of checkpoints from the initial weights to this one.
fn ancestry(keyed: &Keyed, id: NodeId) -> Vec<NodeId> {
    let mut chain = vec![id];
    let mut at = id;
    while let Some(start) = keyed.graph.input(at, &Role::Start) {
        at = start;
        chain.push(at);
    }
    chain.reverse();
    chain
}

fn model_of(keyed: &Keyed, spec: &Spec, id: NodeId) -> Option<aurora_compiler::spec::BlockId> {
    let first = *ancestry(keyed, id).first()?;
    let Some(CheckpointOrigin::Initial { model }) = keyed.graph.node(first).origin.checkpoint() else {
        return None;
    };
    spec.of_kind(BlockKind::Model)
        .map(|(id, _)| id)
        .find(|id| id.name == *model)
        .cloned()
}

fn card(spec: &Spec, keyed: &Keyed, pins: &Pins, id: NodeId, made_on: Option<String>) -> Card {
    let graph = &keyed.graph;
    let mut card = Card {
        name: match graph.node(id).origin.checkpoint() {
            Some(checkpoint) => format!("{}/{checkpoint}", spec.name),
            None => spec.name.clone(),
        },
        key: Some(keyed.key(id).to_hex()),
        made_on,
        ..Card::default()
    };
    for at in ancestry(keyed, id) {
        let node = graph.node(at);
        if let Work::Weights(fields) = &node.work {
            let source = graph.input(at, &Role::Source).map(|source| &graph.node(source).origin);
            let pinned = match source {
                Some(NodeOrigin::Source { source }) => pins.get(source).map(|pin| pin.reference.clone()),
                _ => None,
            };
            card.base = Some(match (&fields.how, pinned) {
                (WeightsHow::Random { seed, std }, _) => format!("random, seed {seed}, standard deviation {std}"),
                (WeightsHow::Import, pinned) => format!("`{}`", pinned.unwrap_or_default()),
                (WeightsHow::Gguf { member }, pinned) => {
                    format!("`{member}` of `{}`, as `float32`", pinned.unwrap_or_default())
                }
            });
            continue;
        }
        let (Some(fields), Some((stage, _))) = (node.work.train(), node.origin.trained()) else {
            continue;
        };
        let order = graph.input(at, &Role::Order);
        let order = order.and_then(|order| graph.node(order).work.order());
        let samples = fields.last_step * u64::from(fields.global_batch);
        let mixture = |order: &OrderFields| {
            let parts = |component| (order.configured_fraction(component, samples) * 1e6).round() as u32;
            let components = order.components.iter();
            components
                .map(|component| (component.name.clone(), parts(component)))
                .collect()
        };
        card.stages.push(Trained {
            stage: stage.to_owned(),
            steps: fields.last_step,
            tokens: fields.last_step * u64::from(fields.global_batch) * u64::from(fields.sequence),
            mixture: order.map(mixture).unwrap_or_default(),
        });
    }
    for (name, pin) in pins {
        let block = spec.of_kind(BlockKind::Source).find(|(id, _)| id.name == *name);
        let licence = block.and_then(|(_, block)| match &block.field("licence")?.value {
            Value::Text(licence) => Some(licence.clone()),
            _ => None,
        });
        let of_model = spec.of_kind(BlockKind::Model).any(|(id, _)| hub_source(id) == *name);
        let unstated = if of_model {
            "the initial weights"
        } else {
            "terms not stated"
        };
        card.sources
            .push((pin.reference.clone(), licence.unwrap_or_else(|| unstated.to_owned())));
    }
    card
}
