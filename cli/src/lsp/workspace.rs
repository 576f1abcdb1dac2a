//! The files that an editor looks at: what is open, what is on disk, and which spec each belongs to.
//!
//! In: what the client says of documents and folders. Out: texts, open ones before those on disk, and analyses of
//! specs, each kept until one of its files changes.
//! Not here: the protocol (`server`).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use aurora_compiler::compose::Bundle;
use aurora_compiler::compose::remote::is_remote;
use aurora_lang::token::{TokenKind, tokens};
use camino::{Utf8Path, Utf8PathBuf};

use super::analysis::Analysis;
use super::text::Text;
use super::uri;
use crate::arguments::Selection;
use crate::project::{Project, Reach};

/// Files and folders that are looked at in the search for specs.
const MOST_ENTRIES: usize = 20_000;
/// Folders inside each other that are looked into.
const DEEPEST: usize = 8;
/// Specs that a change of a library is checked in.
pub const MOST_SPECS: usize = 16;

/// A document that the client has open.
pub struct Document {
    pub uri: lsp_types::Uri,
    pub version: i32,
    pub text: Rc<Text>,
}

/// What a file is to others.
#[derive(Clone, Debug, Default)]
struct Outline {
    /// It has an `experiment`, or extends a file that has one.
    is_spec: bool,
    imports: Vec<Utf8PathBuf>,
}

#[derive(Default)]
pub struct Workspace {
    pub folders: Vec<Utf8PathBuf>,
    pub documents: BTreeMap<Utf8PathBuf, Document>,
    /// Texts on disk that have been read.
    disk: BTreeMap<Utf8PathBuf, Option<Rc<Text>>>,
    analyses: BTreeMap<Utf8PathBuf, Rc<Analysis>>,
    outlines: BTreeMap<Utf8PathBuf, Outline>,
    /// The last analysis of each spec: blocks that have not changed are not parsed again.
    previous: BTreeMap<Utf8PathBuf, Rc<Analysis>>,
    /// The `.aur` files of the folders, once they have been looked for.
    files: Option<BTreeSet<Utf8PathBuf>>,
}

impl Workspace {
    pub fn new(folders: Vec<Utf8PathBuf>) -> Self {
        Self {
            folders,
            ..Self::default()
        }
    }

    pub fn open(&mut self, path: Utf8PathBuf, document: Document) {
        self.documents.insert(path, document);
        // An import that could not be read may be this file.
        self.forget_analyses();
    }

    pub fn close(&mut self, path: &Utf8Path) {
        self.documents.remove(path);
        self.outlines.remove(path);
        self.disk.remove(path);
        self.forget_analyses();
    }

    /// Takes over a new text of an open document.
    pub fn change(&mut self, path: &Utf8Path, version: i32, text: Text) {
        if let Some(document) = self.documents.get_mut(path) {
            document.version = version;
            document.text = Rc::new(text);
            self.outlines.remove(path);
            self.analyses.retain(|_, analysis| !analysis.reads(path));
        }
    }

    /// Files on disk have changed.
    pub fn forget(&mut self) {
        self.disk.clear();
        self.files = None;
        self.outlines.clear();
        self.forget_analyses();
    }

    fn forget_analyses(&mut self) {
        self.analyses.clear();
    }

    /// The text of a file.
    pub fn text(&mut self, path: &Utf8Path) -> Option<Rc<Text>> {
        if let Some(document) = self.documents.get(path) {
            return Some(document.text.clone());
        }
        if let Some(known) = self.disk.get(path) {
            return known.clone();
        }
        let read = std::fs::read_to_string(path).ok().map(|text| Rc::new(Text::new(text)));
        self.disk.insert(path.to_owned(), read.clone());
        read
    }

    /// A workspace of the same folders and documents, to be changed on trial.
    pub fn trial(&self) -> Self {
        let copy = |document: &Document| Document {
            uri: document.uri.clone(),
            version: document.version,
            text: document.text.clone(),
        };
        Self {
            folders: self.folders.clone(),
            documents: self
                .documents
                .iter()
                .map(|(path, document)| (path.clone(), copy(document)))
                .collect(),
            disk: self.disk.clone(),
            outlines: self.outlines.clone(),
            previous: self.previous.clone(),
            files: self.files.clone(),
            analyses: BTreeMap::new(),
        }
    }

    /// The analysis of a file as the first one of a spec.
    pub fn analysis(&mut self, path: &Utf8Path) -> Option<Rc<Analysis>> {
        if let Some(known) = self.analyses.get(path) {
            return Some(known.clone());
        }
        let text = self.text(path)?;
        let base = Project::of(path, None).ok()?.root;
        let name = path.strip_prefix(&base).unwrap_or(path).to_owned();
        let mut failed = Vec::new();
        let previous = self.previous.get(path).cloned();
        let mut imports = None;
        let mut read = |name: &str| {
            if is_remote(name) {
                if imports.is_none() {
                    let reach = Reach::store(None);
                    imports = reach.imports(path, &Selection::default()).ok();
                }
                let imports = imports.as_mut().ok_or("the project's locks cannot be read")?;
                return imports.text(name);
            }
            let full = uri::normal(&base.join(name));
            if !full.starts_with(&base) {
                return Err(format!("it lies outside of the project `{base}`"));
            }
            match self.text(&full) {
                Some(text) => Ok(text.as_str().to_owned()),
                None => {
                    failed.push(full);
                    Err("there is no such file".to_owned())
                }
            }
        };
        let bundle = match previous {
            Some(analysis) => Bundle::read_again(name.as_str(), text.as_str(), &mut read, &analysis.bundle),
            None => Bundle::read(name.as_str(), text.as_str(), &mut read),
        };
        let is_spec = self.outline(path).is_spec;
        let analysis = Rc::new(Analysis::new(bundle, &base, failed, is_spec));
        self.analyses.insert(path.to_owned(), analysis.clone());
        self.previous.insert(path.to_owned(), analysis.clone());
        Some(analysis)
    }

    /// The specs whose words a file has a part in: itself if it is one, else those that import it.
    pub fn specs_of(&mut self, path: &Utf8Path) -> Vec<Utf8PathBuf> {
        if self.outline(path).is_spec {
            return vec![path.to_owned()];
        }
        let files: Vec<Utf8PathBuf> = self.files().into_iter().collect();
        let mut reaching = BTreeSet::from([path.to_owned()]);
        loop {
            let before = reaching.len();
            for file in &files {
                if !reaching.contains(file)
                    && self
                        .outline(file)
                        .imports
                        .iter()
                        .any(|import| reaching.contains(import))
                {
                    reaching.insert(file.clone());
                }
            }
            if reaching.len() == before {
                break;
            }
        }
        reaching
            .into_iter()
            .filter(|file| self.outline(file).is_spec)
            .take(MOST_SPECS)
            .collect()
    }

    /// The analysis that says most of a file: that of a spec which it is part of, else its own.
    pub fn best(&mut self, path: &Utf8Path) -> Option<Rc<Analysis>> {
        let spec = self
            .specs_of(path)
            .into_iter()
            .next()
            .unwrap_or_else(|| path.to_owned());
        self.analysis(&spec)
            .filter(|analysis| analysis.reads(path))
            .or_else(|| self.analysis(path))
    }

    /// Every `.aur` file of the folders, of the projects of open documents, and every open document.
    pub fn files(&mut self) -> BTreeSet<Utf8PathBuf> {
        if self.files.is_none() {
            let projects = self
                .documents
                .keys()
                .filter_map(|path| Project::of(path, None).ok().map(|project| project.root));
            let mut folders: BTreeSet<Utf8PathBuf> = self.folders.iter().cloned().chain(projects).collect();
            folders.retain(|folder| folder.parent().is_some());
            let mut search = Search {
                found: BTreeSet::new(),
                left: MOST_ENTRIES,
            };
            folders.iter().for_each(|folder| search.folder(folder, 0));
            self.files = Some(search.found);
        }
        let open = self.documents.keys().cloned();
        self.files.iter().flatten().cloned().chain(open).collect()
    }

    fn outline(&mut self, path: &Utf8Path) -> Outline {
        if let Some(known) = self.outlines.get(path) {
            return known.clone();
        }
        let outline = self
            .text(path)
            .map(|text| outline(path, text.as_str()))
            .unwrap_or_default();
        self.outlines.insert(path.to_owned(), outline.clone());
        outline
    }
}

/// Looks at the words alone: whatever is broken in a file, its imports are known.
fn outline(path: &Utf8Path, text: &str) -> Outline {
    let mut outline = Outline::default();
    let all = tokens(text);
    for (token, next) in all.iter().zip(all.iter().skip(1)) {
        let at_edge = token.first_on_line && token.kind == TokenKind::Word;
        match token.text(text) {
            "experiment" if at_edge && next.kind == TokenKind::Word => outline.is_spec = true,
            word @ ("import" | "extends") if at_edge && next.kind == (TokenKind::Text { closed: true }) => {
                outline.is_spec |= word == "extends";
                let import = next.text(text).trim_matches('"');
                let folder = path.parent().unwrap_or(path);
                outline.imports.push(uri::normal(&folder.join(import)));
            }
            _ => {}
        }
    }
    outline
}

/// A search for `.aur` files; it ends early in a folder that is no project.
struct Search {
    found: BTreeSet<Utf8PathBuf>,
    /// Entries that may still be looked at.
    left: usize,
}

impl Search {
    fn folder(&mut self, folder: &Utf8Path, depth: usize) {
        let Ok(entries) = folder.read_dir_utf8() else { return };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let Ok(kind) = entry.file_type() else { continue };
            let Some(left) = self.left.checked_sub(1) else { return };
            self.left = left;
            if kind.is_dir() && depth < DEEPEST && !name.starts_with('.') && !matches!(name, "target" | "node_modules")
            {
                self.folder(path, depth + 1);
            } else if kind.is_file() && path.extension() == Some("aur") {
                self.found.insert(path.to_owned());
            }
        }
    }
}
