//! What every command has: the global options, and the projects and specs that they lead to.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};

use crate::arguments::SpecArgument;
use crate::failure::Failure;
use crate::project::{Loaded, Project, Reach, absolute, load};

/// The global options.
pub struct Context {
    pub json: bool,
    pub store: Option<Utf8PathBuf>,
    /// The folders of named roots (`--root`).
    pub roots: BTreeMap<String, Utf8PathBuf>,
}

impl Context {
    /// Loads a spec and finds its project.
    pub fn open(&self, argument: &SpecArgument) -> Result<(Project, Loaded), Failure> {
        self.open_with(argument, self.reach())
    }

    /// As [`open`](Self::open), with other places that remote imports may come from.
    pub fn open_with(&self, argument: &SpecArgument, reach: Reach<'_>) -> Result<(Project, Loaded), Failure> {
        let loaded = load(&argument.spec, &argument.selection, self.json, reach)?;
        let project = self.project(Some(&argument.spec))?;
        project.refuse_claimed_lock(&loaded)?;
        Ok((project, loaded))
    }

    /// Remote imports come from the store only, as far as a lock pins them.
    pub fn reach(&self) -> Reach<'_> {
        Reach::store(self.store.as_deref())
    }

    /// The project of a path, or of the current folder.
    pub fn project(&self, of: Option<&Utf8Path>) -> Result<Project, Failure> {
        let mut project = Project::of(of.unwrap_or(Utf8Path::new(".")), self.store.as_deref())?;
        for (name, folder) in &self.roots {
            project.folders.roots.insert(name.clone(), absolute(folder)?);
        }
        Ok(project)
    }
}
