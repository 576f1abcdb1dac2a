//! The files of the workspace: open documents, files on disk, and the specs they belong to.
//!
//! In: the documents and folders of the client. Out: texts (an open document hides the file on disk), and analyses of
//! specs, each kept until one of its files changes.
//! Not here: the protocol (`server`).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use aurora_compiler::compose::Bundle;
use aurora_compiler::compose::remote::is_remote;
use aurora_lang::token::{TokenKind, tokens};
use aurora_runtime::regular;
use camino::{Utf8Path, Utf8PathBuf};

use super::analysis::Analysis;
use super::text::Text;
use super::uri;
use crate::arguments::VariantSelection;
use crate::project::{LARGEST_SPEC, Project, Reach, is_inside};

/// The limit of files and folders in the search for specs.
const MOST_ENTRIES: usize = 20_000;
/// The limit of nested folders in the search for specs.
const DEEPEST: usize = 8;
/// The limit of specs that are checked after a change of a library.
pub const MOST_SPECS: usize = 16;

/// A document that the client has open.
pub struct OpenDocument {
    pub uri: lsp_types::Uri,
    pub version: i32,
    pub text: Rc<Text>,
}

/// How a file is connected to others.
#[derive(Clone, Debug, Default)]
struct FileImports {
    /// Whether it has an `experiment`, or extends a file that has one.
    is_spec: bool,
    imports: Vec<Utf8PathBuf>,
}

#[derive(Default)]
pub struct Workspace {
    pub folders: Vec<Utf8PathBuf>,
    pub documents: BTreeMap<Utf8PathBuf, OpenDocument>,
    /// Texts of files on disk.
    disk: BTreeMap<Utf8PathBuf, Option<Rc<Text>>>,
    analyses: BTreeMap<Utf8PathBuf, Rc<Analysis>>,
    imports: BTreeMap<Utf8PathBuf, FileImports>,
    /// The last analysis of each spec: blocks that have not changed are not parsed again.
    previous: BTreeMap<Utf8PathBuf, Rc<Analysis>>,
    /// The `.aur` files of the folders. `None` before the first search.
    files: Option<BTreeSet<Utf8PathBuf>>,
}

impl Workspace {
    pub fn new(folders: Vec<Utf8PathBuf>) -> Self {
        Self {
            folders,
            ..Self::default()
        }
    }

    pub fn open(&mut self, path: Utf8PathBuf, document: OpenDocument) {
        self.documents.insert(path, document);
        // It may be an import that could not be read.
        self.forget_analyses();
    }

    pub fn close(&mut self, path: &Utf8Path) {
        self.documents.remove(path);
        self.imports.remove(path);
        self.disk.remove(path);
        self.forget_analyses();
    }

    /// Sets a new text of an open document.
    pub fn change(&mut self, path: &Utf8Path, version: i32, text: Text) {
        if let Some(document) = self.documents.get_mut(path) {
            document.version = version;
            document.text = Rc::new(text);
            self.imports.remove(path);
            self.analyses.retain(|_, analysis| !analysis.reads(path));
        }
    }

    /// Drops everything read from disk, because files have changed.
    pub fn forget(&mut self) {
        self.disk.clear();
        self.files = None;
        self.imports.clear();
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
        let read = regular::read_text(path, LARGEST_SPEC).ok();
        let read = read.map(|text| Rc::new(Text::new(text)));
        self.disk.insert(path.to_owned(), read.clone());
        read
    }

    /// A copy with the same folders and documents, to test a change.
    pub fn trial(&self) -> Self {
        let copy = |document: &OpenDocument| OpenDocument {
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
            imports: self.imports.clone(),
            previous: self.previous.clone(),
            files: self.files.clone(),
            analyses: BTreeMap::new(),
        }
    }

    /// The analysis of a file as a spec, or as a library by itself.
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
                    imports = reach.imports(path, &VariantSelection::default()).ok();
                }
                let imports = imports.as_mut().ok_or("the project's locks cannot be read")?;
                return imports.text(name);
            }
            let full = uri::normal(&base.join(name));
            if !is_inside(&full, &base) {
                return Err(format!("it is outside the project `{base}`"));
            }
            match self.text(&full) {
                Some(text) => Ok(text.as_str().to_owned()),
                None => {
                    failed.push(full);
                    Err("the file does not exist".to_owned())
                }
            }
        };
        let bundle = match previous {
            Some(analysis) => Bundle::read_again(name.as_str(), text.as_str(), &mut read, &analysis.bundle),
            None => Bundle::read(name.as_str(), text.as_str(), &mut read),
        };
        let is_spec = self.file_imports(path).is_spec;
        let analysis = Rc::new(Analysis::new(bundle, &base, failed, is_spec));
        self.analyses.insert(path.to_owned(), analysis.clone());
        self.previous.insert(path.to_owned(), analysis.clone());
        Some(analysis)
    }

    /// The specs that a file is part of: the file itself if it is a spec, else the specs that import it.
    pub fn specs_of(&mut self, path: &Utf8Path) -> Vec<Utf8PathBuf> {
        if self.file_imports(path).is_spec {
            return vec![path.to_owned()];
        }
        let files: Vec<Utf8PathBuf> = self.files().into_iter().collect();
        let mut reaching = BTreeSet::from([path.to_owned()]);
        loop {
            let before = reaching.len();
            for file in &files {
                if !reaching.contains(file)
                    && self
                        .file_imports(file)
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
            .filter(|file| self.file_imports(file).is_spec)
            .take(MOST_SPECS)
            .collect()
    }

    /// The most complete analysis of a file: that of a spec which it is part of, else its own.
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

    fn file_imports(&mut self, path: &Utf8Path) -> FileImports {
        if let Some(known) = self.imports.get(path) {
            return known.clone();
        }
        let imports = self
            .text(path)
            .map(|text| file_imports(path, text.as_str()))
            .unwrap_or_default();
        self.imports.insert(path.to_owned(), imports.clone());
        imports
    }
}

/// Finds the imports of a file from its tokens, also if it has syntax errors.
fn file_imports(path: &Utf8Path, text: &str) -> FileImports {
    let mut imports = FileImports::default();
    let all = tokens(text);
    for (token, next) in all.iter().zip(all.iter().skip(1)) {
        let at_edge = token.first_on_line && token.kind == TokenKind::Word;
        match token.text(text) {
            "experiment" if at_edge && next.kind == TokenKind::Word => imports.is_spec = true,
            word @ ("import" | "extends") if at_edge && next.kind == (TokenKind::Text { closed: true }) => {
                imports.is_spec |= word == "extends";
                let import = next.text(text).trim_matches('"');
                let folder = path.parent().unwrap_or(path);
                imports.imports.push(uri::normal(&folder.join(import)));
            }
            _ => {}
        }
    }
    imports
}

/// A search for `.aur` files. It ends early in a folder with too many files.
struct Search {
    found: BTreeSet<Utf8PathBuf>,
    /// The number of entries that it may still visit.
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
