//! The schema as Markdown, for hovers and completions.

use std::fmt::Write as _;

use aurora_compiler::schema::{
    self, BlockSchema, CallSchema, Default, FieldEffect, FieldSchema, FunctionSchema, unit_names, written_unit,
};

/// Marks of evidence: the word, its argument, and its meaning.
pub const MARKS: [(&str, &str, &str); 3] = [
    ("published", "where", "The value is published in this source."),
    ("inferred", "how", "The value follows from published information."),
    ("assumed", "why", "The value is not published; it is assumed."),
];

/// Statements and blocks that the schema does not contain: the word, its completion, and its meaning.
pub const STATEMENTS: [(&str, &str, &str); 6] = [
    (
        "import",
        "import \"${1:lib/file.aur}\" { $0 }",
        "Imports blocks and values from another file.",
    ),
    (
        "extends",
        "extends \"${1:base.aur}\" {\n  $0\n}",
        "Inherits another experiment and changes it.",
    ),
    ("let", "let ${1:name} = $0", "Gives a value a name."),
    (
        "param",
        "param ${1:name} = ${2:value} in ${3:least} .. ${4:most}$0",
        "A value that `--set`, a profile or a sweep may change, and its allowed values.",
    ),
    (
        "profile",
        "profile ${1:name} {\n  $0\n}",
        "A named set of changes to the spec, selected with `--profile NAME`.",
    ),
    (
        "sweep",
        "sweep ${1:name} {\n  $0\n}",
        "A list of experiments: every combination of the listed values.",
    ),
];

/// The meaning of a keyword.
pub fn word(word: &str) -> Option<&'static str> {
    if let Some((_, _, meaning)) = STATEMENTS.iter().find(|(statement, _, _)| *statement == word) {
        return Some(meaning);
    }
    Some(match word {
        "zip" => "Paths that change together.",
        "every" => "An interval.",
        "in" => "The allowed values of the parameter: a range, or a list.",
        _ => {
            return schema::component()
                .all()
                .find(|field| field.name == word)
                .map(|field| field.meaning);
        }
    })
}

pub fn block(block: &BlockSchema) -> String {
    format!(
        "**{}**: {}\n\n```aur\n{}\n```",
        block.kind, block.meaning, block.example
    )
}

/// Type, default and meaning of a field or argument.
pub fn field(field: &FieldSchema) -> String {
    let mut text = format!(
        "{}\n\n`{}`: {}. ",
        field.meaning,
        field.name,
        schema::describe(&field.kind)
    );
    let _ = match field.default {
        Default::Required => write!(text, "Required."),
        Default::Unset(meaning) => write!(text, "Not set by default: {meaning}."),
        Default::Value(value) => write!(text, "Default: `{value}`."),
        Default::Derived(rule) => write!(text, "Default: {rule}."),
    };
    if field.unknown {
        text.push_str(" May be `unknown`.");
    }
    if let Some(when) = field.ignored {
        let _ = write!(text, " It would have no effect and is {when}.");
    }
    match field.effect {
        FieldEffect::Semantic => {}
        FieldEffect::Placement => text.push_str(" Placement: does not change results."),
        FieldEffect::Description => text.push_str(" Only documentation, never part of a key."),
    }
    text
}

pub fn call(call: &CallSchema) -> String {
    let mut text = format!("**{}(…)**: {}\n", call.name, call.meaning);
    for field in call.all() {
        let default = match field.default {
            Default::Required => "required".to_owned(),
            Default::Value(value) => format!("default `{value}`"),
            Default::Unset(meaning) | Default::Derived(meaning) => meaning.to_owned(),
        };
        let _ = write!(text, "\n- `{}`: {} ({default})", field.name, field.meaning);
    }
    text
}

/// A function of gates.
pub fn function(table: &FunctionSchema) -> String {
    format!("**{}(…)**: {}\n\n`{}`", table.name, table.meaning, table.example)
}

/// The meaning of a unit.
pub fn unit(text: &str) -> String {
    if text == "pp" {
        return "percentage points: added to a metric that is a fraction, 2 pp = 0.02".to_owned();
    }
    match written_unit(text) {
        Some(written) if written.factor > 1 => format!(
            "{} {}",
            crate::output::grouped(written.factor),
            unit_names(&[written.unit])
        ),
        Some(written) => unit_names(&[written.unit]),
        None => String::new(),
    }
}
