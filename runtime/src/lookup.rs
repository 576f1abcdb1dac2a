//! The data of a stage from the results in a store: which documents a step has read, and where a document has been read.
//!
//! In: the results of a spec, a lock or a run. Out: its stages; the data of one, with the corpus, the source and the id of each
//! document. Not here: the arithmetic (`data::uses`), printing.

use std::collections::BTreeMap;
use std::ops::Range;

use aurora_compiler::graph::{NodeId, NodeOrigin, Role, Work};
use camino::Utf8PathBuf;

use crate::data::document_index::{DOCUMENT_INDEX, DocumentIndexError, IndexedDocuments};
use crate::data::filter::{INPUTS, KeptOfInput};
use crate::data::order::{Order, OrderSizes};
use crate::data::tokens::TokenStream;
use crate::data::uses::StageData;
use crate::engine::token_document_names;
use crate::results::{ResultError, Results};

#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error(transparent)]
    Result(#[from] ResultError),
    /// The result of this node is needed and not in the store.
    #[error("the result of `{node}` is not in the store")]
    NotBuilt { node: String },
}

/// A stage that trains.
#[derive(Clone, Debug)]
pub struct Stage {
    pub name: String,
    pub steps: u64,
    /// Samples of one step.
    pub global_batch: u32,
    /// Tokens of one sample.
    pub sequence: u32,
    /// Checkpoints by their last steps.
    pub checkpoints: BTreeMap<u64, NodeId>,
}

/// The stages of an experiment that train, each after the one that it starts from.
///
/// # Errors
/// The graph is damaged.
pub fn stages(results: &Results<'_>) -> Result<Vec<Stage>, LookupError> {
    let graph = &results.keyed.graph;
    let mut stages: Vec<Stage> = Vec::new();
    for id in graph.ids() {
        let Some((name, step)) = graph.node(id).origin.trained().filter(|(_, step)| *step > 0) else {
            continue;
        };
        let fields = results.train_fields(id)?;
        let known = stages.iter().position(|stage| stage.name == name);
        let at = known.unwrap_or_else(|| {
            stages.push(Stage {
                name: name.to_owned(),
                steps: 0,
                global_batch: fields.global_batch,
                sequence: fields.sequence,
                checkpoints: BTreeMap::new(),
            });
            stages.len() - 1
        });
        stages[at].steps = stages[at].steps.max(step);
        stages[at].checkpoints.insert(step, id);
    }
    Ok(stages)
}

impl Stage {
    /// The first of the stage's checkpoints after this step, and all others that were trained from it, in any stage.
    pub fn checkpoints_after(&self, step: u64, results: &Results<'_>) -> Vec<NodeId> {
        let graph = &results.keyed.graph;
        let own: Vec<NodeId> = self.checkpoints.range(step..).map(|(_, id)| *id).collect();
        let is_after = |id: NodeId| {
            let starts = std::iter::successors(Some(id), |&at| graph.input(at, &Role::Start));
            starts.into_iter().any(|at| own.contains(&at))
        };
        let trained = graph.ids().filter(|id| graph.node(*id).origin.trained().is_some());
        trained.filter(|id| is_after(*id)).collect()
    }
}

/// The documents of one source in the tokens of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRange {
    pub source: String,
    pub documents: Range<u64>,
}

/// The token file of a corpus in a component.
#[derive(Debug)]
pub struct CorpusTokens {
    pub corpus: String,
    pub node: NodeId,
    /// None if the tokens were not made from documents.
    documents: Option<IndexedDocuments>,
    /// In the order of the documents.
    pub sources: Vec<SourceRange>,
}

impl CorpusTokens {
    /// The source of a document.
    pub fn source(&self, document: u64) -> Option<&str> {
        let at = self.sources.partition_point(|range| range.documents.end <= document);
        self.sources.get(at).map(|range| range.source.as_str())
    }

    /// The id of a document; none if the tokens were not made from documents.
    ///
    /// # Errors
    /// The index or its documents are damaged.
    pub fn id(&self, document: u64) -> Result<Option<String>, DocumentIndexError> {
        self.documents
            .as_ref()
            .map(|documents| documents.id(document))
            .transpose()
    }

    /// The documents with an id.
    ///
    /// # Errors
    /// The index or its documents are damaged.
    pub fn find(&self, id: &str) -> Result<Vec<u64>, DocumentIndexError> {
        self.documents
            .as_ref()
            .map_or(Ok(Vec::new()), |documents| documents.find(id))
    }
}

/// The data of a stage, ready for questions.
#[derive(Debug)]
pub struct OpenStage {
    pub data: StageData,
    pub components: Vec<OpenComponent>,
}

#[derive(Debug)]
pub struct OpenComponent {
    pub name: String,
    /// In the order in which the component reads them.
    pub corpora: Vec<CorpusTokens>,
}

/// Opens the data of a stage.
///
/// # Errors
/// A result that it needs is not in the store, or is damaged.
pub fn open(results: &Results<'_>, stage: &Stage) -> Result<OpenStage, LookupError> {
    let graph = &results.keyed.graph;
    let order = graph.find(
        &NodeOrigin::Order {
            stage: stage.name.clone(),
        }
        .to_string(),
    );
    let last = stage.checkpoints.values().next_back();
    let Some(id) = order.or_else(|| results.input(*last?, &Role::Order)) else {
        return Err(LookupError::NotBuilt {
            node: format!("order/{}", stage.name),
        });
    };
    let fields = results.order_fields(id)?;
    needed(results, id)?;
    let sizes: OrderSizes = results.json(id, "order.json")?;
    let order = Order::new(fields, &sizes.samples()).map_err(|error| results.fail(id, error))?;
    let (mut streams, mut components) = (Vec::new(), Vec::new());
    for component in &fields.components {
        let (mut pairs, mut corpora) = (Vec::new(), Vec::new());
        for node in results.inputs(id, &Role::Tokens(component.name.clone())) {
            needed(results, node)?;
            let mut files = results.files(node)?;
            let mut file = |name: &str| {
                let none = || results.fail(node, format!("its result has no {name}"));
                files.remove(name).ok_or_else(none)
            };
            pairs.push((file("tokens.bin")?, file("tokens.idx")?));
            let index = files.remove(DOCUMENT_INDEX);
            corpora.push(corpus_tokens(results, node, index)?);
        }
        let pairs = pairs.iter().map(|(bin, idx)| (bin.as_path(), idx.as_path()));
        let stream = TokenStream::open_verified(pairs).map_err(|error| results.fail(id, error))?;
        streams.push(stream);
        components.push(OpenComponent {
            name: component.name.clone(),
            corpora,
        });
    }
    Ok(OpenStage {
        data: StageData::new(order, streams, stage.sequence, stage.global_batch, stage.steps),
        components,
    })
}

/// The tokenizer of a component's tokens.
///
/// # Errors
/// It is not in the store.
pub fn tokenizer(results: &Results<'_>, tokens: NodeId) -> Result<Utf8PathBuf, LookupError> {
    let tokenizer = results.required_input(tokens, &Role::Tokenizer)?;
    needed(results, tokenizer)?;
    Ok(results.file(tokenizer, "tokenizer.json")?)
}

/// Fails if the result of a node is not in the store.
fn needed(results: &Results<'_>, id: NodeId) -> Result<(), LookupError> {
    match results.find(id).map_err(ResultError::from)? {
        Some(_) => Ok(()),
        None => Err(LookupError::NotBuilt {
            node: results.node(id).name().to_owned(),
        }),
    }
}

fn corpus_tokens(results: &Results<'_>, node: NodeId, index: Option<Utf8PathBuf>) -> Result<CorpusTokens, LookupError> {
    let NodeOrigin::Tokens { corpus, .. } = &results.node(node).origin else {
        return Err(results.fail(node, "it is not a tokens node").into());
    };
    let Work::Tokens(fields) = &results.node(node).work else {
        return Err(results.fail(node, "it is not a tokens node").into());
    };
    let filters = results.inputs(node, &Role::Documents);
    let (mut files, mut sources, mut start) = (Vec::new(), Vec::new(), 0);
    for name in token_document_names(fields.split) {
        for &filter in &filters {
            needed(results, filter)?;
            files.push(results.file(filter, name)?);
            let kept: Vec<KeptOfInput> = results.json(filter, INPUTS)?;
            for (kept, extract) in kept.iter().zip(results.inputs(filter, &Role::Documents)) {
                let count = if *name == "train.jsonl" {
                    kept.train
                } else {
                    kept.held_out
                };
                if let NodeOrigin::Extract { source, .. } = &results.node(extract).origin {
                    sources.push(SourceRange {
                        source: source.clone(),
                        documents: start..start + count,
                    });
                }
                start += count;
            }
        }
    }
    let documents = index.map(|index| IndexedDocuments::open(&index, &files));
    let documents = documents.transpose().map_err(|error| results.fail(node, error))?;
    if let Some(documents) = &documents
        && documents.num_documents() != start
    {
        let (found, all) = (documents.num_documents(), start);
        let text = format!("it has {found} documents, but the filters before it kept {all}");
        return Err(results.fail(node, text).into());
    }
    Ok(CorpusTokens {
        corpus: corpus.clone(),
        node,
        documents,
        sources,
    })
}
