//! Sweeps: every point is an experiment.
//!
//! The points are all combinations of the values of the paths; the last path changes fastest. Paths in a `zip` change
//! together.

use std::collections::{BTreeMap, BTreeSet};

use aurora_lang::ast::{Block, Body, Entry, Field, Name, Value, ValueKind};
use aurora_lang::diagnostics::{Code, Diagnostic};

/// The limit of points of a sweep.
pub const MOST_POINTS: usize = 100_000;

/// A sweep with its values.
#[derive(Clone, Debug)]
pub(crate) struct Sweep {
    pub name: Name,
    pub dimensions: Vec<Dimension>,
}

/// One dimension of a sweep: paths that change together.
#[derive(Clone, Debug)]
pub(crate) struct Dimension {
    pub paths: Vec<(Vec<Name>, Vec<Value>)>,
    /// The names of the paths in the names of points.
    short: Vec<String>,
    /// Whether the values of the first path are distinct, so that they identify a point.
    is_first_distinct: bool,
}

/// One experiment of a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepPoint {
    pub sweep: String,
    /// The suffix of the name of the experiment, such as `peak_5e_5`.
    pub name: String,
    index: usize,
}

impl Sweep {
    /// Reads a sweep block. Names of values have been replaced by the values.
    pub(super) fn read(block: &Block, errors: &mut Vec<Diagnostic>) -> Option<Self> {
        let Body::Entries(entries) = &block.body else {
            return None;
        };
        let errors_before = errors.len();
        let mut dimensions = Vec::new();
        for entry in entries {
            match entry {
                Entry::Field(field) => dimensions.extend(path(field, errors).map(|path| vec![path])),
                Entry::Block(zip) if zip.keyword.text == "zip" => dimensions.extend(together(zip, errors)),
                Entry::Block(other) => errors.push(
                    Diagnostic::new(Code::BAD_SWEEP, format!("a sweep cannot have a `{}`", other.keyword.text))
                        .label(other.keyword.span, "not part of a sweep")
                        .help("write `stage.cap.budget = [1M tokens, 2M tokens]`, or `zip NAME { … }` for paths that change together"),
                ),
                Entry::Component(component) => errors.push(
                    Diagnostic::new(Code::BAD_SWEEP, "a sweep cannot have components of a mixture")
                        .label(component.name.span, "not part of a sweep")
                        .help(format!("write `mixture.NAME.{}.weight = [10%, 20%]`", component.name.text)),
                ),
            }
        }
        if errors.len() > errors_before {
            return None;
        }
        if dimensions.is_empty() {
            errors.push(
                Diagnostic::new(Code::BAD_SWEEP, format!("sweep `{}` has no paths", block.name.text))
                    .label(block.name.span, "no path")
                    .help("write `stage.cap.learning_rate.peak = [5e-5, 1e-4]`"),
            );
            return None;
        }
        let all: Vec<&Vec<Name>> = dimensions.iter().flatten().map(|(path, _)| path).collect();
        let short: Vec<Vec<String>> = dimensions
            .iter()
            .map(|paths| paths.iter().map(|(path, _)| short_name(path, &all)).collect())
            .collect();
        let dimensions = dimensions
            .into_iter()
            .zip(short)
            .map(|(paths, short)| {
                let first: Vec<String> = paths.first().map_or_else(Vec::new, |(_, values)| {
                    values.iter().map(aurora_lang::format::value).collect()
                });
                let different: BTreeSet<&String> = first.iter().collect();
                Dimension {
                    is_first_distinct: different.len() == first.len(),
                    paths,
                    short,
                }
            })
            .collect();
        let sweep = Self {
            name: block.name.clone(),
            dimensions,
        };
        let count = sweep
            .dimensions
            .iter()
            .try_fold(1_usize, |count, dimension| count.checked_mul(dimension.len()));
        if count.is_none_or(|count| count > MOST_POINTS) {
            errors.push(
                Diagnostic::new(Code::BAD_SWEEP, format!("more than {MOST_POINTS} points"))
                    .label(block.name.span, "too many")
                    .help("use `zip` for paths that change together, or sweep fewer paths"),
            );
            return None;
        }
        Some(sweep)
    }

    pub(crate) fn len(&self) -> usize {
        self.dimensions.iter().map(Dimension::len).product()
    }

    /// The changes of a point, in the order of the sweep.
    pub(crate) fn fields(&self, index: usize) -> Vec<Field> {
        let mut fields = Vec::new();
        for (dimension, at) in self.dimensions.iter().zip(self.indices(index)) {
            for (path, values) in &dimension.paths {
                let value = values[at].clone();
                fields.push(Field {
                    path: path.clone(),
                    span: value.span,
                    value,
                });
            }
        }
        fields
    }

    /// The index in each dimension. The last dimension changes fastest.
    fn indices(&self, index: usize) -> Vec<usize> {
        let mut rest = index;
        let mut indices: Vec<usize> = self
            .dimensions
            .iter()
            .rev()
            .map(|dimension| {
                let at = rest % dimension.len();
                rest /= dimension.len();
                at
            })
            .collect();
        indices.reverse();
        indices
    }

    pub(crate) fn points(&self) -> impl Iterator<Item = SweepPoint> {
        (0..self.len()).map(|index| SweepPoint {
            sweep: self.name.text.clone(),
            name: self.point_name(index),
            index,
        })
    }

    fn point_name(&self, index: usize) -> String {
        let mut name = String::new();
        for (dimension, at) in self.dimensions.iter().zip(self.indices(index)) {
            // One path is enough if its values are distinct.
            let paths = dimension.paths.iter().zip(&dimension.short);
            let named = if dimension.is_first_distinct { 1 } else { paths.len() };
            for ((_, values), short) in paths.take(named) {
                if !name.is_empty() {
                    name.push('_');
                }
                name.push_str(short);
                name.push('_');
                name.push_str(&slug(&aurora_lang::format::value(&values[at])));
            }
        }
        name
    }
}

/// The name of an experiment at a point of a sweep.
pub(crate) fn experiment_at_point(experiment: &str, point: &str) -> String {
    format!("{experiment}_{point}")
}

impl SweepPoint {
    pub(crate) fn index(&self) -> usize {
        self.index
    }
}

impl Dimension {
    fn len(&self) -> usize {
        self.paths.first().map_or(1, |(_, values)| values.len())
    }
}

/// Reports points with the same name, because they would be the same experiment.
pub(super) fn distinct(sweeps: &[Sweep], errors: &mut Vec<Diagnostic>) {
    let mut names: BTreeMap<String, &Sweep> = BTreeMap::new();
    for sweep in sweeps {
        for point in sweep.points() {
            if let Some(first) = names.get(&point.name) {
                let message = format!("two points have the name `{}`", point.name);
                let mut diagnostic = Diagnostic::new(Code::BAD_SWEEP, message).label(sweep.name.span, "second point");
                if first.name.span != sweep.name.span {
                    diagnostic = diagnostic.label(first.name.span, "first point");
                }
                errors.push(diagnostic.help("remove the repeated value, or one of the sweeps"));
                break;
            }
            names.insert(point.name, sweep);
        }
    }
}

fn path(field: &Field, errors: &mut Vec<Diagnostic>) -> Option<(Vec<Name>, Vec<Value>)> {
    match &field.value.kind {
        ValueKind::List(values) if !values.is_empty() => Some((field.path.clone(), values.clone())),
        _ => {
            errors.push(
                Diagnostic::new(Code::BAD_SWEEP, "a sweep needs a list of values")
                    .label(field.value.span, "expected a list")
                    .help("write `[first, second]`; for a field that is a list, write a list of lists"),
            );
            None
        }
    }
}

fn together(zip: &Block, errors: &mut Vec<Diagnostic>) -> Option<Vec<(Vec<Name>, Vec<Value>)>> {
    let Body::Entries(entries) = &zip.body else { return None };
    let mut paths: Vec<(Vec<Name>, Vec<Value>)> = Vec::new();
    for entry in entries {
        let Entry::Field(field) = entry else {
            errors.push(
                Diagnostic::new(Code::BAD_SWEEP, "a `zip` can only have paths")
                    .label(entry.span(), "not a path")
                    .help("write `stage.cap.budget = [1M tokens, 2M tokens]`"),
            );
            return None;
        };
        let (path, values) = path(field, errors)?;
        if let Some((_, first)) = paths.first()
            && first.len() != values.len()
        {
            let message = "paths that change together need the same number of values";
            errors.push(
                Diagnostic::new(Code::BAD_SWEEP, message)
                    .label(field.value.span, format!("{} here", values.len()))
                    .label(zip.name.span, format!("{} in the first path", first.len()))
                    .help("for every combination, write the paths without `zip`"),
            );
            return None;
        }
        paths.push((path, values));
    }
    if paths.is_empty() {
        errors.push(Diagnostic::new(Code::BAD_SWEEP, "this `zip` is empty").label(zip.name.span, "no path"));
        return None;
    }
    Some(paths)
}

/// The shortest end of a path that is unique among all paths.
fn short_name(path: &[Name], all: &[&Vec<Name>]) -> String {
    let tail = |path: &[Name], length: usize| -> Vec<String> {
        path[path.len().saturating_sub(length)..]
            .iter()
            .map(|name| name.text.clone())
            .collect()
    };
    let unique = |length: &usize| {
        let own = tail(path, *length);
        all.iter().filter(|other| tail(other, *length) == own).count() == 1
    };
    let length = (1..=path.len()).find(unique).unwrap_or(path.len());
    tail(path, length).join("_")
}

/// A value as part of a name: letters and digits are kept, other characters become underscores.
pub fn slug(text: &str) -> String {
    let mut slug = String::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let next_is_digit = characters.peek().is_some_and(char::is_ascii_digit);
        match character {
            character if character.is_ascii_alphanumeric() => slug.push(character),
            // Underscores between digits are only for readability.
            '_' if next_is_digit && slug.ends_with(|last: char| last.is_ascii_digit()) => {}
            '%' | '"' => {}
            _ if slug.ends_with('_') => {}
            _ => slug.push('_'),
        }
    }
    slug.trim_matches('_').to_owned()
}
