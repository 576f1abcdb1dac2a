//! The schema at a path: which field or value a role of `aurora_lang::cursor` refers to.

use aurora_compiler::schema::{self, FieldSchema, Type};
use aurora_lang::cursor::{FieldPath, PathStep, ValuePath};
use aurora_lang::parse::Heading;

/// What a value may be.
#[derive(Default)]
pub struct ValueTypes {
    /// The alternatives; empty if the schema has no such value.
    pub types: Vec<&'static Type>,
    /// Whether it may be `unknown`.
    pub unknown: bool,
    /// Whether it is the list of values of a sweep.
    pub is_sweep: bool,
}

/// The path of a field from the top of the spec, such as `stage.cap.budget`.
pub fn spec_path(path: &FieldPath) -> Vec<String> {
    let Heading { keyword, name } = &path.owner;
    let block = schema::kind(keyword).map(|_| [keyword.clone(), name.clone()]);
    block.into_iter().flatten().chain(path.names.iter().cloned()).collect()
}

/// What a name of a path in a profile, a sweep or `extends` is, if it is not a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangePart {
    /// `stage` in `stage.cap.budget`.
    Kind,
    /// `cap` in `stage.cap.budget`, or a parameter.
    Name,
}

/// What the last name of a path is, if it is not a field. `is_last` if the field has no further names.
pub fn change_part(path: &FieldPath, is_last: bool) -> Option<ChangePart> {
    if schema::kind(&path.owner.keyword).is_some() {
        return None;
    }
    match path.names.len() {
        1 if !is_last => Some(ChangePart::Kind),
        1 | 2 => Some(ChangePart::Name),
        _ => None,
    }
}

/// The schema of a field, argument or setting at a path.
pub fn field(path: &FieldPath) -> Option<&'static FieldSchema> {
    let path = spec_path(path);
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    let [keyword, _, names @ ..] = &names[..] else {
        return None;
    };
    schema::at_path(schema::kind(keyword)?, names)
}

/// The schema of an argument. Only the first argument may have no name.
pub fn argument(call: &str, name: Option<&str>, index: usize) -> Option<&'static FieldSchema> {
    let call = schema::call(call)?;
    match name {
        Some(name) => call.arguments.iter().find(|field| field.name == name),
        None => call.first.filter(|_| index == 0),
    }
}

/// The path of an argument from the top of the spec, such as `stage.cap.learning_rate.peak`.
pub fn argument_path(path: &ValuePath) -> Vec<String> {
    let mut names = path.field.as_ref().map(spec_path).unwrap_or_default();
    names.extend(path.steps.iter().filter_map(|step| match step {
        PathStep::Setting(word) => Some(word.clone()),
        PathStep::Element(index) => Some(index.to_string()),
        PathStep::Argument { name, .. } => name.clone(),
    }));
    names
}

/// What the value at a path may be.
pub fn value(path: &ValuePath) -> ValueTypes {
    let of_field = |field: Option<&'static FieldSchema>| ValueTypes {
        types: field.map(|field| alternatives(&field.kind)).unwrap_or_default(),
        unknown: field.is_some_and(|field| field.unknown),
        is_sweep: false,
    };
    let mut found = of_field(path.field.as_ref().and_then(field));
    let owner = path.field.as_ref().map_or("", |field| &field.owner.keyword);
    found.is_sweep = matches!(owner, "sweep" | "zip");
    for step in &path.steps {
        found = match step {
            PathStep::Setting(word) => of_field(schema::component().all().find(|field| field.name == word)),
            PathStep::Element(_) if found.is_sweep => ValueTypes {
                is_sweep: false,
                ..found
            },
            PathStep::Element(_) => ValueTypes {
                types: elements(&found.types),
                ..ValueTypes::default()
            },
            PathStep::Argument { call, name, index } => of_field(argument(call, name.as_deref(), *index)),
        };
    }
    found
}

/// The alternatives of a type.
fn alternatives(kind: &'static Type) -> Vec<&'static Type> {
    match kind {
        Type::OneOf(types) => types.iter().flat_map(alternatives).collect(),
        _ => vec![kind],
    }
}

/// What the elements of a list may be.
fn elements(types: &[&'static Type]) -> Vec<&'static Type> {
    let lists = types.iter().filter_map(|kind| match kind {
        Type::List { of, .. } => Some(*of),
        _ => None,
    });
    lists.flat_map(alternatives).collect()
}
