//! The tables of the language as Markdown for hovers and completions.

use std::fmt::Write as _;

use aurora_compiler::schema::{
    self, BlockSchema, CallSchema, Default, FieldSchema, FunctionSchema, Role, unit_names, written_unit,
};

/// Marks of evidence: the word, its argument, what it says.
pub const MARKS: [(&str, &str, &str); 3] = [
    ("published", "where", "The value is published there."),
    ("inferred", "how", "The value follows from something published."),
    ("assumed", "why", "Nobody has published the value; it is assumed."),
];

/// Lines and blocks that are in no table: the word, how it is completed, what it does.
pub const STATEMENTS: [(&str, &str, &str); 6] = [
    (
        "import",
        "import \"${1:lib/file.aur}\" { $0 }",
        "Takes blocks and values from another file of the project.",
    ),
    (
        "extends",
        "extends \"${1:base.aur}\" {\n  $0\n}",
        "Takes another experiment, with changes.",
    ),
    ("let", "let ${1:name} = $0", "Gives a value a name."),
    (
        "param",
        "param ${1:name} = ${2:value} in ${3:least} .. ${4:most}$0",
        "A value that `--set`, a profile or a sweep may change, with what it may be.",
    ),
    (
        "profile",
        "profile ${1:name} {\n  $0\n}",
        "A named set of values to lay over the spec, chosen with `--profile NAME`.",
    ),
    (
        "sweep",
        "sweep ${1:name} {\n  $0\n}",
        "A list of experiments: every combination of the values listed.",
    ),
];

/// What words between names and values mean.
pub fn word(word: &str) -> Option<&'static str> {
    if let Some((_, _, meaning)) = STATEMENTS.iter().find(|(statement, _, _)| *statement == word) {
        return Some(meaning);
    }
    Some(match word {
        "zip" => "Paths that change together.",
        "every" => "An interval.",
        "in" => "What the parameter may be: a range, or a list of values.",
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
        let _ = write!(text, " Would do nothing, and is {when}.");
    }
    match field.role {
        Role::Semantic => {}
        Role::Placement => text.push_str(" Placement: changes no result."),
        Role::Description => text.push_str(" Only told, never part of a key."),
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

/// What a unit counts.
pub fn unit(text: &str) -> String {
    if text == "pp" {
        return "percentage points: added to a metric that is a share, 2 pp = 0.02".to_owned();
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
