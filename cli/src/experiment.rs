//! The experiment that a command names by a run, a lock or a spec.
//!
//! In: the name. Out: its project, graph and lock. Not here: comparing two of them (`diff`), checkpoints (`checkpoint`).

use aurora_compiler::graph::NodeId;
use aurora_compiler::hash::Keyed;
use aurora_compiler::lock::Lock;
use aurora_compiler::spec::{BlockKind, Value};
use aurora_runtime::errors::FileError;
use aurora_runtime::lookup::LookupError;
use aurora_runtime::record::{self, RunFacts};
use aurora_runtime::results::Results;
use aurora_runtime::store::Store;
use camino::{Utf8Path, Utf8PathBuf};

use crate::arguments::VariantSelection;
use crate::context::Context;
use crate::failure::Failure;
use crate::numerics::results_to_read;
use crate::project::{Loaded, Project, Reach, compile, load, locked_graph, read_lock, refuse_damaged_run};

pub struct Experiment {
    pub project: Project,
    pub loaded: Loaded,
    pub keyed: Keyed,
    /// The lock that was named, or that of the spec.
    lock: Option<Lock>,
    /// Whether a lock or a run was named.
    is_locked: bool,
}

impl Experiment {
    /// Finds the experiment of a run, a lock or a spec. `selection` applies to a spec.
    pub fn named(context: &Context, name: &str, selection: &VariantSelection) -> Result<Self, Failure> {
        let path = Utf8Path::new(name);
        if path.extension() == Some("lock") {
            return Self::of_lock(context, context.project(Some(path))?, path);
        }
        if path.is_file() {
            let loaded = load(path, selection, context.json, context.reach())?;
            let project = Project::of(path, context.store.as_deref())?;
            let (keyed, _, lock) = compile(&project, &loaded.spec)?;
            return Ok(Self {
                project,
                loaded,
                keyed,
                lock,
                is_locked: false,
            });
        }
        let project = context.project(None)?;
        let facts = run_of(&project, name)?.ok_or_else(|| {
            Failure::error(format!("`{name}` is neither a file nor a run of this project"))
                .help("name a spec, a lock, or a run that `aurora status` lists")
        })?;
        let kept = project.store.join("runs").join(&facts.id).join(record::LOCK);
        // Until a run ends, its lock is the one it started from.
        let path = match &facts.lock {
            _ if kept.exists() => kept,
            Some(lock) => project.root.join(lock),
            None => {
                return Err(Failure::error(format!(
                    "run {} does not name a lock; its state: {}",
                    facts.id,
                    facts.state()
                ))
                .help("name the spec instead"));
            }
        };
        Self::of_lock(context, project, &path)
    }

    fn of_lock(context: &Context, project: Project, path: &Utf8Path) -> Result<Self, Failure> {
        let lock = read_lock(path)?.ok_or_else(|| {
            Failure::error(format!("there is no lock `{path}`"))
                .help("`aurora lock SPEC` or `aurora run SPEC` writes one")
        })?;
        let reach = Reach {
            lock: Some(&lock),
            ..context.reach()
        };
        let spec = project.root.join(&lock.spec);
        let loaded = load(&spec, &VariantSelection::of(&lock), context.json, reach)?;
        let keyed = locked_graph(&lock, &loaded).map_err(|failure| match failure.code {
            // The lock itself is wrong.
            Some(_) => failure,
            None => failure
                .help("name the spec instead, or check out the revision of the spec that this lock was written for"),
        })?;
        Ok(Self {
            project,
            loaded,
            keyed,
            lock: Some(lock),
            is_locked: true,
        })
    }

    /// The results of the experiment: those of the class that the lock names or, of a spec, of this machine's.
    pub fn results<'a>(&'a self, store: &'a Store) -> Result<Results<'a>, Failure> {
        let (spec, lock) = (&self.loaded.spec, self.lock.as_ref());
        match lock.filter(|_| self.is_locked).and_then(|lock| lock.class) {
            Some(class) => Ok(Results::to_read(&spec.name, &self.keyed, store, Some(class))?),
            None => results_to_read(store, spec, &self.keyed, lock),
        }
    }

    /// A node by its name, with or without the name of the experiment.
    pub fn node(&self, name: &str) -> Result<NodeId, Failure> {
        let experiment = &self.loaded.spec.name;
        let name = name.strip_prefix(&format!("{experiment}/")).unwrap_or(name);
        self.keyed.graph.find(name).ok_or_else(|| {
            let failure = Failure::error(format!("there is no node `{name}` in `{experiment}`"));
            match aurora_compiler::names::nearest(name, self.keyed.graph.names()) {
                Some(near) => failure.help(format!("a node with a similar name exists: `{near}`")),
                None => failure.help("`aurora build SPEC` lists the nodes"),
            }
        })
    }

    /// The failure of a question to the results.
    pub fn failure(&self, error: LookupError) -> Failure {
        match error {
            LookupError::NotBuilt { node } => self.project.not_built(&node, &self.loaded),
            LookupError::Result(error) => error.into(),
        }
    }

    /// The licence of a source; none if its block does not state one.
    pub fn licence(&self, source: &str) -> Option<&str> {
        match &self
            .loaded
            .spec
            .block(BlockKind::Source, source)?
            .field("licence")?
            .value
        {
            Value::Text(licence) => Some(licence),
            _ => None,
        }
    }

    /// The names of the source blocks.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        let sources = self.loaded.spec.of_kind(BlockKind::Source);
        sources.map(|(id, _)| id.name.as_str())
    }
}

/// The run whose id begins so; none if there is no such run.
pub fn run_of(project: &Project, name: &str) -> Result<Option<RunFacts>, Failure> {
    let runs = record::runs(&project.store).map_err(FileError::reading(&project.store))?;
    let mut named = runs.into_iter().filter(|facts| facts.id.starts_with(name));
    match (named.next(), named.next()) {
        (Some(facts), None) => {
            refuse_damaged_run(&project.store, &facts.id)?;
            Ok(Some(facts))
        }
        (Some(_), Some(_)) => {
            Err(Failure::error(format!("several runs begin with `{name}`")).help("`aurora status` lists them"))
        }
        (None, _) => Ok(None),
    }
}

/// The only lock of a project.
pub fn only_lock(project: &Project) -> Result<Utf8PathBuf, Failure> {
    let folder = project.root.join("lockfiles");
    let mut locks: Vec<Utf8PathBuf> = match folder.read_dir_utf8() {
        Ok(entries) => entries.flatten().map(camino::Utf8DirEntry::into_path).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(FileError::reading(&folder)(error).into()),
    };
    locks.retain(|path| path.extension() == Some("lock"));
    locks.sort();
    match locks.len() {
        1 => Ok(locks.remove(0)),
        0 => Err(Failure::error(format!("the project `{}` has no lock", project.root))
            .help("name the spec after the node, or write a lock with `aurora run SPEC`")),
        _ => {
            let names: Vec<&str> = locks.iter().filter_map(|path| path.file_name()).collect();
            Err(
                Failure::error(format!("the project has several locks: {}", names.join(", ")))
                    .help("name the spec or the lock after the node"),
            )
        }
    }
}
