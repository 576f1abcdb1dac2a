//! The formatter: the canonical format of a file.
//!
//! In: the text of a spec without syntax errors. Out: the same blocks, fields and comments in canonical format: one field
//! per line, `=` and evidence aligned between blank lines, a single short field on the line of its block, long calls and
//! lists with one element per line. Formatting twice changes nothing, and the syntax tree stays the same except for its
//! spans. Only a comment in the middle of a field may move, to the line before it.
//! Not here: any change of a value, not even of how a number is written.

mod elements;
mod value;

use crate::ast::{Allowed, Block, Body, Component, Entry, Field, File, Name, Span, Statement, StatementKind};
use crate::diagnostics::Diagnostic;
use crate::parse::parse;
use elements::{Element, elements};
use value::{gate, inline, is_breakable, marks, quoted};

/// The maximum width of a line, where possible.
pub const WIDTH: usize = 110;
/// Wider values do not move the evidence of their neighbours to the right.
const WIDEST_ALIGNED: usize = 24;
const INDENT: usize = 2;

/// Returns the text in canonical format.
///
/// # Errors
/// The syntax errors of the text. Names, units and values are not checked.
pub fn format(text: &str) -> Result<String, Vec<Diagnostic>> {
    let parsed = parse(text, None);
    if !parsed.errors.is_empty() {
        return Err(parsed.errors);
    }
    Ok(format_file(text, &parsed.file))
}

/// Returns the text in canonical format, given its syntax tree.
pub fn format_file(text: &str, file: &File) -> String {
    Printer { text, file }.file()
}

/// Returns a value on one line, without its evidence.
pub fn value(value: &crate::ast::Value) -> String {
    inline(value)
}

/// The text and its syntax tree.
struct Printer<'a> {
    text: &'a str,
    file: &'a File,
}

/// A line of a block before its columns are aligned.
enum Row<'a> {
    Blank,
    Comment(String),
    Field {
        field: &'a Field,
        tail: Option<String>,
    },
    Component {
        component: &'a Component,
        tail: Option<String>,
    },
    Lines(Vec<String>),
}

impl<'a> Printer<'a> {
    fn file(&self) -> String {
        let blocks = self.file.items.iter().map(|block| {
            let lines = self.block(block, 0);
            (block.span, block.keyword.text.as_str(), lines)
        });
        let statements = self.file.statements.iter().map(|statement| {
            let lines = self.statement(statement);
            (statement.span, statement.kind.keyword(), lines)
        });
        let mut items: Vec<(Span, &str, Vec<String>)> = blocks.chain(statements).collect();
        items.sort_by_key(|(span, _, _)| *span);
        let spans: Vec<Span> = items.iter().map(|(span, _, _)| *span).collect();
        // The keyword of an item of one line. Such items need no empty line between them.
        let short = |index: usize| (items[index].2.len() == 1).then(|| items[index].1);
        let mut lines: Vec<String> = Vec::new();
        let mut next_block = 0;
        let mut blank = false;
        let mut after_block = false;
        for element in elements(self.text, &self.file.comments, Span::new(0, self.text.len()), &spans) {
            let run = next_block > 0
                && next_block < items.len()
                && short(next_block).is_some()
                && short(next_block - 1) == short(next_block);
            if matches!(element, Element::Blank) {
                blank = true;
                continue;
            }
            if !lines.is_empty() && (blank || after_block && !run) {
                lines.push(String::new());
            }
            blank = false;
            after_block = false;
            match element {
                Element::Blank => {}
                Element::Comment(comment) => lines.push(comment),
                Element::Item { index, tail } => {
                    let mut block = items[index].2.clone();
                    add_tail(&mut block, tail.as_deref());
                    lines.append(&mut block);
                    next_block = index + 1;
                    after_block = true;
                }
            }
        }
        let mut out = String::new();
        for line in lines {
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    fn statement(&self, statement: &'a Statement) -> Vec<String> {
        let span = statement.span;
        match &statement.kind {
            StatementKind::Import { path, names } => {
                let head = format!("import {}", quoted(&path.text));
                let mut lines: Vec<String> = self.hoisted(span, None).collect();
                lines.extend(match names {
                    None => vec![head],
                    Some(names) => import(&head, names),
                });
                lines
            }
            StatementKind::Extends { path, entries } => {
                let head = format!("extends {}", quoted(&path.text));
                if entries.is_empty() && self.comments_in(span).is_empty() {
                    return vec![head];
                }
                self.braced(&format!("{head} {{"), span, entries, 0)
            }
            StatementKind::Let { name, value } => self.line("let", name, value, span, None),
            StatementKind::Param { name, value, allowed } => self.line("param", name, value, span, allowed.as_deref()),
        }
    }

    /// `let NAME = VALUE`, or a `param` with its allowed values.
    fn line(
        &self,
        word: &str,
        name: &Name,
        value: &crate::ast::Value,
        span: Span,
        allowed: Option<&Allowed>,
    ) -> Vec<String> {
        let head = format!("{word} {} = ", name.text);
        let inside = is_breakable(value).then_some(value.span);
        let mut lines: Vec<String> = self.hoisted(span, inside).collect();
        let column = width(&head);
        let after = marks(&value.marks)
            + &match allowed {
                None => String::new(),
                Some(Allowed::Between(least, most)) => format!(" in {} .. {}", inline(least), inline(most)),
                Some(Allowed::OneOf(values)) => {
                    let values: Vec<String> = values.iter().map(|one| inline(one) + &marks(&one.marks)).collect();
                    format!(" in [{}]", values.join(", "))
                }
            };
        let written = self.value(value, 0, column);
        let last = written.len() - 1;
        lines.extend(written.into_iter().enumerate().map(|(at, line)| {
            let line = if at == 0 { format!("{head}{line}") } else { line };
            if at == last { line + &after } else { line }
        }));
        lines
    }

    /// Lines of a block, indented.
    fn block(&self, block: &'a Block, indent: usize) -> Vec<String> {
        let head = format!("{}{} {} {{", " ".repeat(indent), block.keyword.text, block.name.text);
        match &block.body {
            Body::Entries(entries) => self.braced(&head, block.span, entries, indent),
            Body::Gate(written) => {
                let text = gate(written);
                let comments = self.comments_in(block.span);
                let short = format!("{head} {text} }}");
                if comments.is_empty() && width(&short) <= WIDTH {
                    return vec![short];
                }
                let inner = " ".repeat(indent + INDENT);
                let mut lines = vec![head];
                lines.extend(comments.into_iter().map(|comment| format!("{inner}{comment}")));
                lines.push(format!("{inner}{text}"));
                lines.push(format!("{}}}", " ".repeat(indent)));
                lines
            }
        }
    }

    /// A head and its entries in braces, on one line if there is one short entry.
    fn braced(&self, head: &str, span: Span, entries: &'a [Entry], indent: usize) -> Vec<String> {
        let has_comments = !self.comments_in(span).is_empty();
        if entries.is_empty() && !has_comments {
            return vec![format!("{head}}}")];
        }
        if let ([entry @ (Entry::Field(_) | Entry::Component(_))], false) = (entries, has_comments) {
            let text = match entry {
                Entry::Field(field) => format!(
                    "{} = {}{}",
                    path(field),
                    inline(&field.value),
                    marks(&field.value.marks)
                ),
                Entry::Component(component) => component_parts(component).join(" "),
                Entry::Block(_) => String::new(),
            };
            let short = format!("{head} {text} }}");
            if width(&short) <= WIDTH {
                return vec![short];
            }
        }
        let mut lines = vec![head.to_owned()];
        lines.extend(self.body(span, entries, indent + INDENT));
        lines.push(format!("{}}}", " ".repeat(indent)));
        lines
    }

    fn body(&self, span: Span, entries: &'a [Entry], indent: usize) -> Vec<String> {
        let spans: Vec<Span> = entries.iter().map(Entry::span).collect();
        let mut rows: Vec<Row<'a>> = Vec::new();
        for element in elements(self.text, &self.file.comments, span, &spans) {
            match element {
                Element::Blank => rows.push(Row::Blank),
                Element::Comment(comment) => rows.push(Row::Comment(comment)),
                Element::Item { index, tail } => match &entries[index] {
                    Entry::Field(field) => {
                        let inside = if is_breakable(&field.value) {
                            Some(field.value.span)
                        } else {
                            None
                        };
                        rows.extend(self.hoisted(field.span, inside).map(Row::Comment));
                        rows.push(Row::Field { field, tail });
                    }
                    Entry::Component(component) => {
                        rows.extend(self.hoisted(component.span, None).map(Row::Comment));
                        rows.push(Row::Component { component, tail });
                    }
                    Entry::Block(inner) => {
                        let mut lines = self.block(inner, indent);
                        add_tail(&mut lines, tail.as_deref());
                        rows.push(Row::Lines(lines));
                    }
                },
            }
        }
        // A hoisted comment can leave a blank line at the start or end of the block.
        let mut lines = Vec::new();
        for run in rows.split_inclusive(|row| matches!(row, Row::Blank)) {
            self.run(run, indent, &mut lines);
        }
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        let first = lines.iter().position(|line| !line.is_empty()).unwrap_or(lines.len());
        lines.split_off(first)
    }

    /// The lines between two blank lines, with aligned columns.
    fn run(&self, rows: &[Row<'a>], indent: usize, lines: &mut Vec<String>) {
        let margin = " ".repeat(indent);
        let name_width = rows
            .iter()
            .map(|row| match row {
                Row::Field { field, .. } => width(&path(field)),
                _ => 0,
            })
            .max()
            .unwrap_or(0);
        let column = indent + name_width + 3;
        // The lines of every field, and for a field of one line, what follows the value.
        let fields: Vec<Option<(Vec<String>, String)>> = rows
            .iter()
            .map(|row| match row {
                Row::Field { field, tail } => {
                    let after = marks(&field.value.marks);
                    let mut value = self.value(&field.value, indent, column);
                    let after = match tail {
                        Some(tail) => format!("{after} {tail}"),
                        None => after,
                    };
                    if value.len() > 1 {
                        let last = value.last_mut().expect("a value has a line");
                        last.push_str(&after);
                        return Some((value, String::new()));
                    }
                    Some((value, after))
                }
                _ => None,
            })
            .collect();
        let value_width = fields
            .iter()
            .flatten()
            .filter(|(value, after)| value.len() == 1 && !after.is_empty())
            .map(|(value, _)| width(&value[0]))
            .filter(|&width| width <= WIDEST_ALIGNED)
            .max()
            .unwrap_or(0);
        let components: Vec<Vec<String>> = rows
            .iter()
            .map(|row| match row {
                Row::Component { component, .. } => component_parts(component),
                _ => Vec::new(),
            })
            .collect();
        let part_width = |part: usize| {
            components
                .iter()
                .filter_map(|parts| parts.get(part))
                .map(|text| width(text))
                .max()
                .unwrap_or(0)
        };
        let widths = [part_width(0), part_width(1)];
        for (index, row) in rows.iter().enumerate() {
            match row {
                Row::Blank => lines.push(String::new()),
                Row::Comment(comment) => lines.push(format!("{margin}{comment}")),
                Row::Lines(inner) => lines.extend(inner.iter().cloned()),
                Row::Field { field, .. } => {
                    let Some((value, after)) = &fields[index] else {
                        continue;
                    };
                    let name = path(field);
                    let padding = " ".repeat(name_width - width(&name));
                    let (first, rest) = value.split_first().expect("a value has a line");
                    let tail_padding = if after.is_empty() {
                        0
                    } else {
                        value_width.saturating_sub(width(first))
                    };
                    lines.push(format!(
                        "{margin}{name}{padding} = {first}{}{after}",
                        " ".repeat(tail_padding)
                    ));
                    lines.extend(rest.iter().cloned());
                }
                Row::Component { tail, .. } => {
                    let parts = &components[index];
                    let mut line = margin.clone();
                    for (part, text) in parts.iter().enumerate() {
                        if part > 0 {
                            line.push(' ');
                        }
                        line.push_str(text);
                        if let Some(column) = widths.get(part) {
                            line.push_str(&" ".repeat(column - width(text)));
                        }
                    }
                    if let Some(tail) = tail {
                        line.push(' ');
                        line.push_str(tail);
                    }
                    lines.push(line);
                }
            }
        }
    }

    /// Comments inside an entry, but not inside its list or call. They move before it.
    fn hoisted(&self, span: Span, inside: Option<Span>) -> impl Iterator<Item = String> {
        let all = &self.file.comments;
        let first = all.partition_point(|comment| comment.span.start < span.start);
        let after = all.partition_point(|comment| comment.span.start < span.end);
        all[first..after.max(first)]
            .iter()
            .filter(move |comment| !inside.is_some_and(|inside| inside.contains(comment.span)))
            .map(|comment| comment.text.clone())
    }

    fn comments_in(&self, span: Span) -> Vec<String> {
        self.hoisted(span, None).collect()
    }
}

/// An import on one line, or one name per line if that is too long.
fn import(head: &str, names: &[Name]) -> Vec<String> {
    let names: Vec<&str> = names.iter().map(|name| name.text.as_str()).collect();
    let short = format!("{head} {{ {} }}", names.join(", "));
    if names.is_empty() {
        return vec![format!("{head} {{}}")];
    }
    if width(&short) <= WIDTH {
        return vec![short];
    }
    let mut lines = vec![format!("{head} {{")];
    lines.extend(names.iter().map(|name| format!("{}{name},", " ".repeat(INDENT))));
    lines.push("}".to_owned());
    lines
}

fn path(field: &Field) -> String {
    field
        .path
        .iter()
        .map(|name| name.text.as_str())
        .collect::<Vec<_>>()
        .join(".")
}

/// The name, `from` with its list, and each setting.
fn component_parts(component: &Component) -> Vec<String> {
    let from = format!("from {}{}", inline(&component.from), marks(&component.from.marks));
    let settings = component
        .settings
        .iter()
        .map(|(word, value)| format!("{} {}{}", word.text, inline(value), marks(&value.marks)));
    [component.name.text.clone(), from]
        .into_iter()
        .chain(settings)
        .collect()
}

fn add_tail(lines: &mut [String], tail: Option<&str>) {
    if let (Some(tail), Some(last)) = (tail, lines.last_mut()) {
        last.push(' ');
        last.push_str(tail);
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}
