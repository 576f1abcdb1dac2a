//! The analysis of one spec for an editor: its files, their names, and its diagnostics.
//!
//! In: a bundle. Out: answers with byte ranges of its files. Each part is computed when it is first used.

use std::cell::OnceCell;

use aurora_compiler::check::Examined;
use aurora_compiler::compose::{Bundle, BundledFile, Choice, Occurrence};
use aurora_lang::ast::Span;
use aurora_lang::diagnostics::{Code, Diagnostic};
use camino::{Utf8Path, Utf8PathBuf};

use super::uri;

pub struct Analysis {
    pub bundle: Bundle,
    paths: Vec<Utf8PathBuf>,
    /// Imported files that do not exist.
    missing: Vec<Utf8PathBuf>,
    is_spec: bool,
    examined: OnceCell<Examined>,
    occurrences: OnceCell<Vec<Occurrence>>,
}

/// A range of one file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileRange {
    pub path: Utf8PathBuf,
    pub span: Span,
}

impl Analysis {
    pub fn new(bundle: Bundle, base: &Utf8Path, missing: Vec<Utf8PathBuf>, is_spec: bool) -> Self {
        let paths = bundle.file_names().map(|name| uri::normal(&base.join(name))).collect();
        Self {
            bundle,
            paths,
            missing,
            is_spec,
            examined: OnceCell::new(),
            occurrences: OnceCell::new(),
        }
    }

    /// Whether it depends on the content of a file.
    pub fn reads(&self, path: &Utf8Path) -> bool {
        self.paths.iter().chain(&self.missing).any(|own| own == path)
    }

    pub fn paths(&self) -> &[Utf8PathBuf] {
        &self.paths
    }

    pub fn file(&self, path: &Utf8Path) -> Option<(usize, BundledFile<'_>)> {
        let index = self.paths.iter().position(|own| own == path)?;
        Some((index, self.bundle.files().nth(index)?))
    }

    /// The checked spec, without the parts that have errors.
    pub fn examined(&self) -> &Examined {
        self.examined.get_or_init(|| self.bundle.examine(&Choice::default()))
    }

    pub fn occurrences(&self) -> &[Occurrence] {
        self.occurrences.get_or_init(|| self.bundle.occurrences())
    }

    /// Converts a range of the concatenated text to a range of its file.
    pub fn place(&self, span: Span) -> FileRange {
        let (index, _, file) = self.bundle.sources().view().file(span.start);
        let path = self.paths.get(index).cloned().unwrap_or_default();
        let local = |byte: usize| byte.clamp(file.start, file.end) - file.start;
        FileRange {
            path,
            span: Span::new(local(span.start), local(span.end)),
        }
    }

    /// Errors and warnings. A library has no experiment, and declares names that it does not use itself.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let examined = self.examined();
        let warnings: &[Diagnostic] = if examined.errors.is_empty() {
            &examined.spec.warnings
        } else {
            &[]
        };
        let all = examined.errors.iter().chain(warnings);
        let of_library = |found: &&Diagnostic| found.code == Code::UNUSED || found.code == Code::EXPERIMENT_COUNT;
        all.filter(|found| self.is_spec || !of_library(found))
            .cloned()
            .collect()
    }

    /// The occurrences of names at a byte of a file.
    pub fn names_at(&self, path: &Utf8Path, byte: usize) -> Vec<Occurrence> {
        let Some((_, file)) = self.file(path) else {
            return Vec::new();
        };
        let at = file.span.start + byte;
        let holds = |found: &&Occurrence| found.span.start <= at && at <= found.span.end;
        self.occurrences().iter().filter(holds).copied().collect()
    }
}
