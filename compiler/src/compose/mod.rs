//! Combines the files of a spec to one list of blocks: imports, names for values, parameters, sweeps.
//!
//! In: the text of a spec, a function that reads imported files, and the choices of the command line (profile, point of a
//! sweep, `--set`). Out: the input of `check`: blocks in which every name of a value is replaced by the value, and the
//! changes to apply to them, in order. All files are concatenated to one text ([`Sources`]), so that every value keeps its
//! place, also if it is used in another file.
//! Not here: whether a field exists and its value is valid (`check`).

mod flatten;
mod load;
mod names;
mod occurrences;
mod references;
pub mod remote;
mod sweep;

pub(crate) use flatten::{Flat, LayerKind, SpecLayer};
pub use occurrences::{BundledFile, Declared, DeclaredItem, Occurrence, OccurrenceRole};
pub use sweep::SweepPoint;
pub use sweep::slug;
pub(crate) use sweep::{Sweep, experiment_at_point};

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
    /// Errors of reading: missing files, import cycles, malformed `--set`.
    errors: Vec<Diagnostic>,
    /// `--set PATH=VALUE`, in the order of the command line.
    settings: Vec<Field>,
}

#[derive(Clone, Debug)]
struct Loaded {
    parsed: Parsed,
    /// The range of the file in the concatenated text.
    span: Span,
    /// For each statement, the index of the file that it imports or extends. `None` if it could not be read.
    targets: Vec<Option<usize>>,
}

/// The choices of the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice<'a> {
    /// The profile to apply.
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
        Self::read(name, text, &mut |_| Err("imports are not supported here".to_owned()))
    }

    /// Sets a parameter or a value, as `--set PATH=VALUE` does.
    pub fn set(&mut self, assignment: &str) {
        let start = self.sources.add("--set", assignment);
        match parse_field(assignment, start) {
            Ok(field) => self.settings.push(field),
            Err(errors) => self.errors.extend(errors.into_iter().map(|error| {
                let mut setting = Diagnostic::new(Code::BAD_SETTING, error.message);
                setting.labels = error.labels;
                setting.help("write `--set NAME=VALUE` or `--set KIND.NAME.FIELD=VALUE`; write a text in double quotes")
            })),
        }
    }

    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The names of the files of the spec and everything it imports.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.sources.files()[..self.files.len()]
            .iter()
            .map(|file| file.name.as_str())
    }

    /// The syntax errors of all files.
    pub(crate) fn syntax_errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.files.iter().flat_map(|file| &file.parsed.errors)
    }

    /// The `--set` arguments, as they were written.
    pub(crate) fn settings_text(&self) -> Vec<String> {
        let text = self.sources.text();
        self.settings
            .iter()
            .map(|field| text[field.span.start..field.span.end].to_owned())
            .collect()
    }

    /// For ranges of the text, the cause that a value from there takes effect.
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
        let end = self.files.last().map_or(0, |file| file.span.end);
        causes.push((Span::new(own, end), Cause::Import));
        causes.push((Span::new(end, self.sources.text().len()), Cause::Set));
        causes
    }
}
