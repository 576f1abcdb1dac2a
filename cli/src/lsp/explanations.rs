//! The explanations of diagnostic codes as files, so that the code of a diagnostic links to its page without a network.

use std::collections::BTreeMap;

use aurora_lang::diagnostics::{Code, explain};
use camino::Utf8PathBuf;
use lsp_types::Uri;

use super::uri;

/// Pages in the cache of the user, written when a code is first shown.
pub struct Explanations {
    folder: Option<Utf8PathBuf>,
    known: BTreeMap<Code, Option<Uri>>,
}

impl Explanations {
    pub fn new() -> Self {
        let variable = |name: &str| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.is_empty())
                .map(Utf8PathBuf::from)
        };
        let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
        Self {
            folder: cache.map(|cache| cache.join("aurora/explanations").join(env!("CARGO_PKG_VERSION"))),
            known: BTreeMap::new(),
        }
    }

    /// The page of a code. `None` if it cannot be written.
    pub fn link(&mut self, code: Code) -> Option<Uri> {
        let Self { folder, known } = self;
        let page = || {
            let folder = folder.as_ref()?;
            let path = folder.join(format!("{code}.md"));
            let text = explain(code.as_str())?.page();
            std::fs::create_dir_all(folder).ok()?;
            if std::fs::read_to_string(&path).ok().as_ref() != Some(&text) {
                aurora_runtime::write_atomically(&path, text.as_bytes()).ok()?;
            }
            uri::of(&path)
        };
        known.entry(code).or_insert_with(page).clone()
    }
}
