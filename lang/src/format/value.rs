//! Values on one or several lines.

use super::elements::{Element, elements};
use super::{INDENT, Printer, WIDTH, width};
use crate::ast::{Argument, Expression, ExpressionKind, Gate, Mark, Number, Span, Value, ValueKind};

/// Whether a value can be written on several lines.
pub(super) fn is_breakable(value: &Value) -> bool {
    match &value.kind {
        ValueKind::List(items) => !items.is_empty(),
        ValueKind::Call(call) => !call.arguments.is_empty(),
        _ => false,
    }
}

/// A value on one line, without its marks.
pub(super) fn inline(value: &Value) -> String {
    match &value.kind {
        ValueKind::Number(number) => self::number(number),
        ValueKind::Text(text) => quoted(text),
        ValueKind::Word(word) => word.clone(),
        ValueKind::Every(inner) => format!("every {}", inline(inner)),
        ValueKind::List(items) => {
            let items: Vec<String> = items.iter().map(|item| inline(item) + &marks(&item.marks)).collect();
            format!("[{}]", items.join(", "))
        }
        ValueKind::Call(call) => {
            let arguments: Vec<String> = call.arguments.iter().map(argument).collect();
            format!("{}({})", call.name.text, arguments.join(", "))
        }
    }
}

fn argument(argument: &Argument) -> String {
    let value = inline(&argument.value) + &marks(&argument.value.marks);
    match &argument.name {
        Some(name) => format!("{} = {value}", name.text),
        None => value,
    }
}

/// ` @published("…")` for each mark.
pub(super) fn marks(marks: &[Mark]) -> String {
    marks
        .iter()
        .map(|mark| format!(" @{}({})", mark.name.text, quoted(&mark.text)))
        .collect()
}

/// A gate on one line, with its marks.
pub(super) fn gate(gate: &Gate) -> String {
    let confidence = gate.confidence.as_ref();
    format!(
        "{} {} {}{}{}",
        expression(&gate.left),
        gate.relation.text,
        expression(&gate.right),
        confidence.map_or(String::new(), |confidence| format!(
            " with {} confidence",
            number(&confidence.number)
        )),
        marks(&gate.marks)
    )
}

fn expression(written: &Expression) -> String {
    match &written.kind {
        ExpressionKind::Number(value) => number(value),
        ExpressionKind::Metric(path) => path.iter().map(|name| name.text.as_str()).collect::<Vec<_>>().join("."),
        ExpressionKind::Function { name, arguments } => {
            let arguments: Vec<String> = arguments.iter().map(expression).collect();
            format!("{}({})", name.text, arguments.join(", "))
        }
        ExpressionKind::Group(inner) => format!("({})", expression(inner)),
        ExpressionKind::Binary { left, operator, right } => {
            format!("{} {} {}", expression(left), operator.symbol(), expression(right))
        }
    }
}

fn number(number: &Number) -> String {
    let mut text = number.digits.clone();
    text.extend(number.suffix);
    if number.percent {
        text.push('%');
    }
    if let Some(unit) = &number.unit {
        text.push(' ');
        text.push_str(&unit.text);
    }
    text
}

/// A text in double quotes, with its escapes.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

impl Printer<'_> {
    /// The lines of a value without its marks, on one line if it fits. It starts in `column` of a line indented by `indent`.
    pub(super) fn value(&self, value: &Value, indent: usize, column: usize) -> Vec<String> {
        let short = inline(value);
        let has_comments = self.hoisted(value.span, None).next().is_some();
        let fits = column + width(&short) + width(&marks(&value.marks)) <= WIDTH;
        if !is_breakable(value) || fits && !has_comments {
            return vec![short];
        }
        match &value.kind {
            ValueKind::List(items) => {
                let items: Vec<_> = items.iter().map(|item| (None, item, item.span.to(end(item)))).collect();
                self.broken("[".to_owned(), "]", value.span, &items, indent)
            }
            ValueKind::Call(call) => {
                let items: Vec<_> = call
                    .arguments
                    .iter()
                    .map(|argument| (argument.name.as_ref(), &argument.value, argument.span))
                    .collect();
                self.broken(format!("{}(", call.name.text), ")", value.span, &items, indent)
            }
            _ => vec![short],
        }
    }

    fn broken(
        &self,
        open: String,
        close: &str,
        span: Span,
        items: &[(Option<&crate::ast::Name>, &Value, Span)],
        indent: usize,
    ) -> Vec<String> {
        let inner = indent + INDENT;
        let margin = " ".repeat(inner);
        let spans: Vec<Span> = items.iter().map(|(_, _, span)| *span).collect();
        let mut lines = vec![open];
        for element in elements(self.text, &self.file.comments, span, &spans) {
            match element {
                Element::Blank => {}
                Element::Comment(comment) => lines.push(format!("{margin}{comment}")),
                Element::Item { index, tail } => {
                    let (name, value, span) = items[index];
                    let inside = is_breakable(value).then_some(value.span);
                    lines.extend(self.hoisted(span, inside).map(|comment| format!("{margin}{comment}")));
                    let name = name.map_or(String::new(), |name| format!("{} = ", name.text));
                    // One column for the comma.
                    let mut value_lines = self.value(value, inner, inner + width(&name) + 1);
                    value_lines[0] = format!("{margin}{name}{}", value_lines[0]);
                    let last = value_lines.last_mut().expect("a value has a line");
                    last.push_str(&marks(&value.marks));
                    last.push(',');
                    if let Some(tail) = tail {
                        last.push(' ');
                        last.push_str(&tail);
                    }
                    lines.append(&mut value_lines);
                }
            }
        }
        lines.push(format!("{}{close}", " ".repeat(indent)));
        lines
    }
}

/// The end of a value with its marks.
fn end(value: &Value) -> Span {
    value.marks.last().map_or(value.span, |mark| mark.span)
}
