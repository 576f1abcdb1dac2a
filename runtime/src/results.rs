//! Results of a graph's nodes, as the engine and the report read them from the store.
//!
//! In: a keyed graph and a store. Out: verified files and parsed JSON of nodes that are built. Not here: building
//! (`engine`), the bytes of the store (`store`).

use std::collections::BTreeMap;

use aurora_compiler::fields::{EvalFields, OrderFields, TrainFields};
use aurora_compiler::graph::{Node, NodeId, NodeKind, Role};
use aurora_compiler::hash::{Key, Keyed, Preimage, digest_of};
use aurora_compiler::numerics_class::NumericsClass;
use aurora_compiler::plan::{CachedResult, ResultCache};
use camino::Utf8PathBuf;
use serde::de::DeserializeOwned;

use crate::errors::{BoxedError, FileError};
use crate::job::{Files, ItemFile};
use crate::statistics::Scored;
use crate::store::{Record, ResultId, Store, StoreError};
use crate::task::item_files;

#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    #[error("`{node}` failed")]
    Node {
        node: String,
        #[source]
        source: BoxedError,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The results of one experiment's graph in one store, in one numerics class.
#[derive(Clone, Copy)]
pub struct Results<'a> {
    pub experiment: &'a str,
    pub keyed: &'a Keyed,
    pub store: &'a Store,
    /// The class of the results that depend on one. If it is not known, there are none.
    pub class: Option<NumericsClass>,
}

impl ResultCache for Results<'_> {
    type Error = StoreError;

    fn result(&self, id: NodeId) -> Result<CachedResult, StoreError> {
        let state = match self.id(id) {
            Some(id) => self.store.state(id)?,
            None => CachedResult::Missing,
        };
        if state != CachedResult::Missing || !self.keyed.has_class(id) {
            return Ok(state);
        }
        let others = self.store.classes_of(self.keyed.key(id))?;
        Ok(if others.is_empty() {
            state
        } else {
            CachedResult::OtherClasses(others)
        })
    }

    fn last(&self, name: &str) -> Result<Option<Preimage>, StoreError> {
        self.store.last_built(self.experiment, name)
    }

    fn partial(&self, id: NodeId) -> Result<Option<u64>, StoreError> {
        let Some(id) = self.id(id) else { return Ok(None) };
        Ok(self.store.partial(id)?.and_then(|record| record.step))
    }
}

impl<'a> Results<'a> {
    /// The results of an experiment that are shown: those of the preferred class or, if it has none, of the class that has
    /// most.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn to_read(
        experiment: &'a str,
        keyed: &'a Keyed,
        store: &'a Store,
        preferred: Option<NumericsClass>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            experiment,
            keyed,
            store,
            class: store.class_to_read(keyed, preferred)?,
        })
    }

    /// Identifies the result of a node; `None` if it depends on the class, which is not known.
    pub fn id(&self, id: NodeId) -> Option<ResultId> {
        let key = self.keyed.key(id);
        if self.keyed.has_class(id) {
            let class = Some(self.class?);
            Some(ResultId { key, class })
        } else {
            Some(ResultId::without_class(key))
        }
    }

    /// Identifies the result of a node that is built.
    ///
    /// # Errors
    /// It depends on the numerics class, which is not known.
    pub fn known_id(&self, id: NodeId) -> Result<ResultId, ResultError> {
        self.id(id)
            .ok_or_else(|| self.fail(id, "the numerics class of this machine is not known"))
    }

    pub fn node(&self, id: NodeId) -> &'a Node {
        self.keyed.graph.node(id)
    }

    /// Whether the node's result is in the store, complete and undamaged.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn is_built(&self, id: NodeId) -> Result<bool, ResultError> {
        let Some(id) = self.id(id) else { return Ok(false) };
        Ok(self.store.state(id)? == CachedResult::Complete)
    }

    /// Writes the records that refer to a node's result again, if they are missing or damaged.
    ///
    /// # Errors
    /// A record cannot be read or written.
    pub fn restore(&self, id: NodeId) -> Result<(), ResultError> {
        if let Some(record) = self.find(id)? {
            self.store.restore(&record, self.experiment, self.node(id).name())?;
        }
        Ok(())
    }

    /// The record of a node, if it has been built.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn find(&self, id: NodeId) -> Result<Option<Record>, StoreError> {
        let Some(id) = self.id(id) else { return Ok(None) };
        self.store.record(id)
    }

    /// The record of a node that has been built.
    ///
    /// # Errors
    /// It is missing.
    pub fn record(&self, id: NodeId) -> Result<Record, ResultError> {
        let record = self.find(id)?;
        let root = self.store.root();
        record.ok_or_else(|| {
            self.fail(
                id,
                format!("its result was removed from the store `{root}` while it was needed"),
            )
        })
    }

    /// The verified files of a node that has been built.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn files(&self, id: NodeId) -> Result<Files, ResultError> {
        Ok(self.store.files(&self.record(id)?)?)
    }

    /// One verified file of a node that has been built.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn file(&self, id: NodeId, name: &str) -> Result<Utf8PathBuf, ResultError> {
        let mut files = self.files(id)?;
        files
            .remove(name)
            .ok_or_else(|| self.fail(id, format!("its result has no {name}")))
    }

    /// The text of one file of a node that has been built.
    ///
    /// # Errors
    /// It is missing, damaged or not UTF-8.
    pub fn text(&self, id: NodeId, file: &str) -> Result<String, ResultError> {
        let path = self.file(id, file)?;
        std::fs::read_to_string(&path).map_err(|error| self.fail(id, FileError::reading(&path)(error)))
    }

    /// The value in a JSON file of a node that has been built.
    ///
    /// # Errors
    /// It is missing, damaged or not such a value.
    pub fn json<T: DeserializeOwned>(&self, id: NodeId, file: &str) -> Result<T, ResultError> {
        serde_json::from_str(&self.text(id, file)?).map_err(|error| self.fail(id, format!("{file}: {error}")))
    }

    /// The values in a file of JSON lines of a node that has been built.
    ///
    /// # Errors
    /// It is missing, damaged, or a line is not such a value.
    pub fn json_lines<T: DeserializeOwned>(&self, id: NodeId, file: &str) -> Result<Vec<T>, ResultError> {
        let text = self.text(id, file)?;
        let values = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        values.map_err(|error| self.fail(id, format!("{file}: {error}")))
    }

    /// The scores of an eval and the items behind them.
    ///
    /// # Errors
    /// Its result is missing or damaged.
    pub fn scored(&self, eval: NodeId) -> Result<Scored, ResultError> {
        let items = self.text(eval, "items.jsonl")?;
        Scored::new(self.json(eval, "scores.json")?, &items).map_err(|error| self.fail(eval, error))
    }

    /// The files of an eval's items.
    ///
    /// # Errors
    /// A source is missing or damaged.
    pub fn item_files(&self, id: NodeId) -> Result<Vec<ItemFile>, ResultError> {
        let mut sources = Vec::new();
        for input in self.inputs(id, &Role::Items) {
            sources.push(self.files(input)?);
        }
        Ok(item_files(sources))
    }

    /// The inputs of a role, in order.
    pub fn inputs(&self, id: NodeId, role: &Role) -> Vec<NodeId> {
        self.keyed
            .graph
            .inputs(id)
            .filter(|input| input.role == *role)
            .map(|input| input.node)
            .collect()
    }

    /// The first input of a role.
    pub fn input(&self, id: NodeId, role: &Role) -> Option<NodeId> {
        self.keyed.graph.input(id, role)
    }

    /// The input of a role that the node must have.
    ///
    /// # Errors
    /// It has none.
    pub fn required_input(&self, id: NodeId, role: &Role) -> Result<NodeId, ResultError> {
        self.input(id, role)
            .ok_or_else(|| self.fail(id, format!("it does not have an input `{role}`")))
    }

    /// The node's key by the contents of its inputs.
    ///
    /// Only the report reads what a node reports about itself (counts of dropped documents), so for other nodes these
    /// files do not count: the same documents with other counts are the same input.
    ///
    /// # Errors
    /// An input is missing.
    pub fn realised(&self, id: NodeId) -> Result<Key, ResultError> {
        let reads_reports = self.node(id).kind() == NodeKind::Report;
        let mut digests = BTreeMap::new();
        for input in self.keyed.graph.inputs(id).filter(|input| input.role.is_identity()) {
            let outputs = self.record(input.node)?.outputs;
            let read = outputs
                .iter()
                .filter(|(name, _)| reads_reports || *name != "report.json");
            let digest = digest_of(read.map(|(name, object)| (name.as_str(), object.bytes, object.content.as_str())));
            digests.insert(input.node, digest);
        }
        Ok(self.keyed.realised(id, &|input| digests[&input]))
    }

    /// An error of a node, with its cause.
    pub fn fail(&self, id: NodeId, cause: impl Into<BoxedError>) -> ResultError {
        ResultError::Node {
            node: self.node(id).name().to_owned(),
            source: cause.into(),
        }
    }

    /// The fields of a train node.
    ///
    /// # Errors
    /// It is another node.
    pub fn train_fields(&self, id: NodeId) -> Result<&'a TrainFields, ResultError> {
        let fields = self.node(id).work.train();
        fields.ok_or_else(|| self.fail(id, "it is not a train node"))
    }

    /// The fields of an eval or answers node.
    ///
    /// # Errors
    /// It is another node.
    pub fn eval_fields(&self, id: NodeId) -> Result<&'a EvalFields, ResultError> {
        let fields = self.node(id).work.eval();
        fields.ok_or_else(|| self.fail(id, "it is not an eval"))
    }

    /// The fields of an order node.
    ///
    /// # Errors
    /// It is another node.
    pub fn order_fields(&self, id: NodeId) -> Result<&'a OrderFields, ResultError> {
        let fields = self.node(id).work.order();
        fields.ok_or_else(|| self.fail(id, "it is not an order node"))
    }
}
