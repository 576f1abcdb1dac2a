//! The language reference as Markdown, generated from the schema.

use std::fmt::Write as _;

use super::calls::ALL;
use super::eval_kind::EvalKind;
use super::{BLOCKS, CallSchema, Default, FUNCTIONS, FieldEffect, FieldSchema, Type, UNITS, component, unit_names};
use crate::spec::{Better, BlockKind};

const HEAD: &str = "\
# Language reference

This page is generated from the schema that the checker uses (`compiler/src/schema`).

A file is a list of blocks, `KIND NAME { … }`, in any order; each block is a list of fields, `name = value`, in any order.
`//` starts a comment, `///` the documentation of the next block. Every value may have one mark of evidence,
`@published(\"where\")`, `@inferred(\"how\")` or `@assumed(\"why\")`. Some fields may be `unknown`. Evidence, comments and the
order of blocks and fields never change a result.

**Numbers** are exact decimals: `48`, `1e-4`, `49_152`. The suffixes `K`, `M`, `B`, `T` (thousands, millions, …) follow the digits
without a space: `377B tokens`. **Fractions** are percentages: `12.5%`. **Texts** are written in double quotes, with the escapes
`\\\"`, `\\\\`, `\\n` and `\\t`. **Intervals** are `every 10B tokens`. **Lists** are `[a, b]`.

Between the blocks, a file has statements: `import \"lib/corpora.aur\" { finnish, hindi }` imports blocks and names of another
file, `let length = 2048 tokens` gives a name to a value, `param peak = 1e-4 in 1e-5 .. 1e-3` gives a name to a value that can be
set, and `extends \"base.aur\" { stage.cap.budget = 1M tokens }` inherits another experiment and changes it. A `profile` and a
`sweep` are blocks of changes. [Composition](composition.md) describes how they work together.
";

/// Returns the reference.
pub fn reference() -> String {
    let mut out = String::from(HEAD);
    units(&mut out);
    for block in BLOCKS {
        let _ = write!(
            out,
            "\n## `{}`\n\n{}\n\n```aur\n{}\n```\n",
            block.kind, block.meaning, block.example
        );
        if !block.fields.is_empty() {
            fields(&mut out, block.fields.iter());
        }
        if block.kind == BlockKind::Mixture {
            out.push_str("\nEach component:\n");
            fields(&mut out, component().all());
        }
        let parts = match block.kind {
            BlockKind::Mixture => component().arguments,
            _ => &[],
        };
        for field in block.fields.iter().chain(parts) {
            words(&mut out, field);
            for table in ALL {
                if uses(&field.kind, table) {
                    let _ = write!(out, "\n### Calls of `{}`\n", field.name);
                    table.iter().for_each(|call| self::call(&mut out, call));
                }
            }
        }
        if block.kind == BlockKind::Eval {
            metrics(&mut out);
        }
        if block.kind == BlockKind::Expect {
            functions(&mut out);
        }
    }
    out.push_str(PROFILE);
    out
}

const PROFILE: &str = "
## `profile`

A named set of changes to the file, selected with `--profile NAME`. It changes fields (`stage.cap.budget = 1M tokens`),
arguments of calls (`stage.cap.learning_rate.peak = 1e-3`) and components of mixtures (`mixture.cap.fi.weight = 20%`), or contains
blocks with some of their fields. The blocks must exist; gates cannot be changed.

```aur
profile smoke {
  stage.cap.budget = 10 steps
  model small { layers = 1 }
}
```
";

fn units(out: &mut String) {
    out.push_str("\n## Units\n\n| Written | Counts | Is |\n|---|---|---|\n");
    for unit in UNITS {
        let _ = writeln!(
            out,
            "| `{}` | {} | {} |",
            unit.text,
            unit_names(&[unit.unit]),
            unit.factor
        );
    }
    out.push_str("\n`pp` (percentage points) is only used in gates.\n");
}

fn fields<'a>(out: &mut String, all: impl Iterator<Item = &'a FieldSchema>) {
    out.push_str("\n| Field | Value | Default | Meaning |\n|---|---|---|---|\n");
    for field in all {
        let mut meaning = field.meaning.to_owned();
        if let Some(when) = field.ignored {
            let _ = write!(meaning, " It would have no effect and is {when}.");
        }
        if field.unknown {
            meaning.push_str(" May be `unknown`.");
        }
        match field.effect {
            FieldEffect::Semantic => {}
            FieldEffect::Placement => meaning.push_str(" *Placement.*"),
            FieldEffect::Description => meaning.push_str(" *Only documentation, never part of a key.*"),
        }
        let default = match field.default {
            Default::Required => "required".to_owned(),
            Default::Unset(meaning) => format!("not set: {meaning}"),
            Default::Value(text) => format!("`{text}`"),
            Default::Derived(rule) => rule.to_owned(),
        };
        let row = format!(
            "| `{}` | {} | {default} | {meaning} |",
            field.name,
            type_text(&field.kind)
        );
        // A bar ends a table cell.
        let _ = writeln!(out, "{}", row.replace("<|", "<\\|").replace("|>", "\\|>"));
    }
}

fn words(out: &mut String, field: &FieldSchema) {
    let mut tables = Vec::new();
    collect_words(&field.kind, &mut tables);
    for table in tables {
        let _ = write!(out, "\n`{}`:\n\n", field.name);
        for (word, meaning) in table {
            let _ = writeln!(out, "- `{word}`: {meaning}");
        }
    }
}

fn collect_words(kind: &Type, tables: &mut Vec<&'static [(&'static str, &'static str)]>) {
    match kind {
        Type::Word(words) => tables.push(words),
        Type::OneOf(types) => types.iter().for_each(|kind| collect_words(kind, tables)),
        Type::List { of, .. } => collect_words(of, tables),
        _ => {}
    }
}

fn uses(kind: &Type, table: &'static [CallSchema]) -> bool {
    match kind {
        // Compared by name: a constant may have several addresses.
        Type::Call(calls) => calls
            .iter()
            .map(|call| call.name)
            .eq(table.iter().map(|call| call.name)),
        Type::List { of, .. } => uses(of, table),
        Type::OneOf(types) => types.iter().any(|kind| uses(kind, table)),
        _ => false,
    }
}

fn call(out: &mut String, call: &CallSchema) {
    let _ = write!(out, "\n#### `{}`\n\n{}", call.name, call.meaning);
    if let Some(first) = call.first {
        let _ = write!(out, " `{}` is written first, without its name.", first.name);
    }
    out.push('\n');
    if call.all().next().is_some() {
        fields(out, call.all());
    }
}

fn metrics(out: &mut String) {
    out.push_str("\n### Metrics\n\n| Kind | Metrics | Percentage points | Better |\n|---|---|---|---|\n");
    for kind in EvalKind::ALL {
        let metrics = kind.metrics();
        let names: Vec<String> = metrics
            .iter()
            .map(|metric| {
                if metric.name == "pass@" {
                    "`pass@1`, … for each k".to_owned()
                } else {
                    format!("`{}`", metric.name)
                }
            })
            .collect();
        let fraction = if metrics.iter().all(|metric| metric.is_fraction) {
            "yes"
        } else {
            "no"
        };
        let better = match metrics.first().map(|metric| metric.better) {
            _ if kind == EvalKind::PlugIn => "the field `better`",
            Some(Better::Lower) => "lower",
            _ => "higher",
        };
        let _ = writeln!(out, "| `{kind}` | {} | {fraction} | {better} |", names.join(", "));
    }
}

fn functions(out: &mut String) {
    out.push_str("\n### Functions of metrics\n\n| Function | Meaning | Example |\n|---|---|---|\n");
    for function in FUNCTIONS {
        let _ = writeln!(
            out,
            "| `{}` | {} | `{}` |",
            function.name, function.meaning, function.example
        );
    }
}

/// A type for a table cell, with its range.
fn type_text(kind: &Type) -> String {
    match kind {
        Type::Bool => "`true`, `false`".to_owned(),
        Type::Integer {
            least,
            most,
            power_of_two,
        } => {
            let bounds = if *most == i64::MAX {
                format!("from {least}")
            } else {
                format!("{least} to {most}")
            };
            let name = if *power_of_two { "power of two" } else { "whole number" };
            format!("{name}, {bounds}")
        }
        Type::Decimal { range } => format!("number, {}", range_text(range, "")),
        Type::Percent { range } => format!("percentage, {}", range_text(range, "%")),
        Type::Text(_) => "text".to_owned(),
        Type::Word(words) => words
            .iter()
            .map(|(word, _)| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(", "),
        Type::Language => "a language tag (BCP 47) such as `de` or `\"pt-BR\"`, `code`, `other`".to_owned(),
        Type::Quantity { units, .. } => unit_names(units),
        Type::Every(units) => format!("`every` {}", unit_names(units)),
        Type::Reference(kinds) => {
            format!(
                "name of {}",
                kinds
                    .iter()
                    .map(|kind| kind.to_string())
                    .collect::<Vec<_>>()
                    .join(" or ")
            )
        }
        Type::List { of, .. } => format!("list of: {}", type_text(of)),
        Type::Call(calls) => calls
            .iter()
            .map(|call| format!("`{}(…)`", call.name))
            .collect::<Vec<_>>()
            .join(", "),
        Type::OneOf(types) => types.iter().map(type_text).collect::<Vec<_>>().join(", or "),
        Type::Nothing => "`none`".to_owned(),
    }
}

fn range_text(range: &super::Range, sign: &str) -> String {
    let from = if range.includes_least { "from" } else { "above" };
    let to = if range.includes_most { "to" } else { "below" };
    match range.most {
        Some(most) => format!("{from} {}{sign} {to} {most}{sign}", range.least),
        None => format!("{from} {}{sign}", range.least),
    }
}
