//! The files of a spec as one list of blocks: imports, names for values, parameters, sweeps.
//!
//! In: the text of a spec, a way to read the files that it imports, and what the command line chooses (profile, point
//! of a sweep, `--set`). Out: what `check` reads: blocks in which every name of a value is replaced by the value, and
//! the changes to lay over them, in order. All files stand in one text ([`Sources`]), so that every value keeps the
//! place where it was written, however far away from its use.
//! Not here: whether a field exists and its value fits (`check`).

mod flatten;
mod load;
mod names;
mod occurrences;
mod references;
pub mod remote;
mod sweep;

pub(crate) use flatten::{Flat, Layer, LayerKind};
pub use occurrences::{BundledFile, Declared, Occurrence, OccurrenceRole, What};
pub use sweep::Point;
pub(crate) use sweep::Sweep;
pub use sweep::slug;

use aurora_lang::ast::{Field, Span};
use aurora_lang::diagnostics::{Code, Diagnostic, Sources};
use aurora_lang::parse::{Parsed, parse_field};

use crate::spec::Cause;

/// Files that one spec may read.
pub const MOST_FILES: usize = 256;

/// A spec with every file that it imports, parsed.
#[derive(Clone, Debug)]
pub struct Bundle {
    sources: Sources,
    files: Vec<Loaded>,
    /// Faults of reading: files that are not there, circles, malformed `--set`.
    errors: Vec<Diagnostic>,
    /// `--set PATH=VALUE`, in the order of the command line.
    settings: Vec<Field>,
}

#[derive(Clone, Debug)]
struct Loaded {
    parsed: Parsed,
    /// The range of the file in the common text.
    span: Span,
    /// For each statement that is an import or `extends`, the file that it names, if that could be read.
    targets: Vec<Option<usize>>,
}

/// What is chosen besides the text of a spec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice<'a> {
    /// The profile that is laid over it.
    pub profile: Option<&'a str>,
    /// The point of one of its sweeps.
    pub point: Option<&'a str>,
}

impl Bundle {
    /// Parses a spec and every file that it imports. `read` returns the text of a file, or why it cannot be read; its
    /// path is relative to the same folder as `name`.
    pub fn read(name: &str, text: &str, read: &mut dyn FnMut(&str) -> Result<String, String>) -> Self {
        load::load(name, text, read, None)
    }

    /// As [`read`](Self::read), without parsing the blocks again that an earlier version of the bundle has as well.
    pub fn read_again(
        name: &str,
        text: &str,
        read: &mut dyn FnMut(&str) -> Result<String, String>,
        previous: &Self,
    ) -> Self {
        load::load(name, text, read, Some(previous))
    }

    /// A spec that imports nothing.
    pub fn alone(name: &str, text: &str) -> Self {
        Self::read(name, text, &mut |_| Err("other files are not read here".to_owned()))
    }

    /// Sets a parameter or a value, as `--set PATH=VALUE` does.
    pub fn set(&mut self, assignment: &str) {
        let start = self.sources.add("--set", assignment);
        match parse_field(assignment, start) {
            Ok(field) => self.settings.push(field),
            Err(found) => self.errors.extend(found.into_iter().map(|fault| {
                let mut again = Diagnostic::new(Code::BAD_SETTING, fault.message);
                again.labels = fault.labels;
                again.help("write `--set NAME=VALUE` or `--set KIND.NAME.FIELD=VALUE`; a text stands in double quotes")
            })),
        }
    }

    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The names and texts of the spec and everything it imports, for those who watch the files.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.sources.files()[..self.files.len()]
            .iter()
            .map(|file| file.name.as_str())
    }

    /// Syntax faults of all files.
    pub(crate) fn faults(&self) -> impl Iterator<Item = &Diagnostic> {
        self.files.iter().flat_map(|file| &file.parsed.errors)
    }

    /// What `--set` says, as it was written.
    pub(crate) fn settings_text(&self) -> Vec<String> {
        let text = self.sources.text();
        self.settings
            .iter()
            .map(|field| text[field.span.start..field.span.end].to_owned())
            .collect()
    }

    /// Why a value that stands at a place has its say.
    pub(crate) fn causes(&self) -> Vec<(Span, Cause)> {
        use aurora_lang::ast::StatementKind;
        let mut causes = Vec::new();
        for file in &self.files {
            for statement in &file.parsed.file.statements {
                let cause = match &statement.kind {
                    StatementKind::Import { .. } => continue,
                    StatementKind::Extends { path, .. } => Cause::Extends(path.text.clone()),
                    StatementKind::Let { name, .. } => Cause::Let(name.text.clone()),
                    StatementKind::Param { name, .. } => Cause::Param(name.text.clone()),
                };
                causes.push((statement.span, cause));
            }
            for block in &file.parsed.file.items {
                let name = || block.name.text.clone();
                match block.keyword.text.as_str() {
                    "profile" => causes.push((block.span, Cause::Profile(name()))),
                    "sweep" => causes.push((block.span, Cause::Sweep(name()))),
                    _ => {}
                }
            }
        }
        let own = self.files.first().map_or(0, |file| file.span.end);
        let behind = self.files.last().map_or(0, |file| file.span.end);
        causes.push((Span::new(own, behind), Cause::Import));
        causes.push((Span::new(behind, self.sources.text().len()), Cause::Set));
        causes
    }
}
