//! Snapshots of syntax trees, formatted text and errors.

use aurora_lang::ast::{Block, Body, Entry, Expression, ExpressionKind, Value, ValueKind};
use aurora_lang::diagnostics::{Source, render_text};
use aurora_lang::parse;

#[test]
fn ok() {
    insta::glob!("../ok", "*.aur", |path| {
        let text = std::fs::read_to_string(path).expect("a file of the folder");
        let parsed = parse(&text, None);
        assert_eq!(parsed.errors, Vec::new(), "{}", path.display());
        let formatted = aurora_lang::format(&text).expect("it parses");
        assert_eq!(
            aurora_lang::format(&formatted).as_ref(),
            Ok(&formatted),
            "formatting twice changes nothing"
        );
        let tree: String = parsed.file.items.iter().map(|item| outline(item, 0)).collect();
        insta::assert_snapshot!(format!("{formatted}\n-- tree --\n{tree}"));
    });
}

#[test]
fn err() {
    insta::glob!("../err", "*.aur", |path| {
        let text = std::fs::read_to_string(path).expect("a file of the folder");
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let parsed = parse(&text, None);
        let items: Vec<String> = parsed
            .file
            .items
            .iter()
            .map(|item| format!("{} {}", item.keyword.text, item.name.text))
            .collect();
        let drawn = render_text(&parsed.errors, Source::new(name, &text), false);
        insta::assert_snapshot!(format!("{drawn}-- parsed blocks: {}\n", items.join(", ")));
        assert!(!parsed.errors.is_empty());
        assert_eq!(aurora_lang::format(&text), Err(parsed.errors));
    });
}

/// The syntax tree without spans.
fn outline(block: &Block, level: usize) -> String {
    let margin = "  ".repeat(level);
    let mut out = format!(
        "{margin}{} {} {:?}\n",
        block.keyword.text, block.name.text, block.documentation
    );
    match &block.body {
        Body::Gate(gate) => {
            let (left, right) = (expression(&gate.left), expression(&gate.right));
            let confidence = gate.confidence.as_ref();
            let confidence = confidence.map_or(String::new(), |found| format!(" with {}", found.number.digits));
            out.push_str(&format!(
                "{margin}  {left} {} {right}{confidence}{}\n",
                gate.relation.text,
                marks(&gate.marks)
            ));
        }
        Body::Entries(entries) => {
            for entry in entries {
                match entry {
                    Entry::Field(field) => {
                        let path: Vec<&str> = field.path.iter().map(|name| name.text.as_str()).collect();
                        out.push_str(&format!("{margin}  {path:?} = {}\n", value(&field.value)));
                    }
                    Entry::Component(component) => {
                        let settings: Vec<String> = component
                            .settings
                            .iter()
                            .map(|(word, set)| format!("{}: {}", word.text, value(set)))
                            .collect();
                        let from = value(&component.from);
                        out.push_str(&format!(
                            "{margin}  component {} {from} {settings:?}\n",
                            component.name.text
                        ));
                    }
                    Entry::Block(inner) => out.push_str(&outline(inner, level + 1)),
                }
            }
        }
    }
    out
}

fn value(written: &Value) -> String {
    let text = match &written.kind {
        ValueKind::Number(number) => {
            let unit = number.unit.as_ref().map(|unit| unit.text.as_str());
            format!(
                "number({} {:?} percent: {} {unit:?})",
                number.digits, number.suffix, number.percent
            )
        }
        ValueKind::Text(text) => format!("text({text:?})"),
        ValueKind::Word(word) => format!("word({word})"),
        ValueKind::Every(inner) => format!("every {}", value(inner)),
        ValueKind::List(items) => format!("[{}]", items.iter().map(value).collect::<Vec<_>>().join(", ")),
        ValueKind::Call(call) => {
            let arguments: Vec<String> = call
                .arguments
                .iter()
                .map(|argument| match &argument.name {
                    Some(name) => format!("{}: {}", name.text, value(&argument.value)),
                    None => value(&argument.value),
                })
                .collect();
            format!("{}({})", call.name.text, arguments.join(", "))
        }
    };
    text + &marks(&written.marks)
}

fn marks(marks: &[aurora_lang::ast::Mark]) -> String {
    marks
        .iter()
        .map(|mark| format!(" @{}({:?})", mark.name.text, mark.text))
        .collect()
}

fn expression(written: &Expression) -> String {
    match &written.kind {
        ExpressionKind::Number(number) => {
            format!(
                "{}{}",
                number.digits,
                number
                    .unit
                    .as_ref()
                    .map_or(String::new(), |unit| format!(" {}", unit.text))
            )
        }
        ExpressionKind::Metric(path) => path.iter().map(|name| name.text.as_str()).collect::<Vec<_>>().join("."),
        ExpressionKind::Function { name, arguments } => {
            let arguments: Vec<String> = arguments.iter().map(expression).collect();
            format!("function {}[{}]", name.text, arguments.join("; "))
        }
        ExpressionKind::Group(inner) => format!("group{}", expression(inner)),
        ExpressionKind::Binary { left, operator, right } => {
            format!("({} {} {})", expression(left), operator.symbol(), expression(right))
        }
    }
}
