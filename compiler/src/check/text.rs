//! Values as canonical text: equal values give equal texts, and the parser reads them back.

use std::collections::BTreeMap;
use std::fmt;

use crate::exact::Exact;
use crate::schema;
use crate::spec::{BlockKind, Expression, Field, Metric, Relation, Spec, Unit, Value};
use crate::text::group_digits;

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::None => f.write_str("none"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => f.write_str(&spaced(&value.to_string())),
            Self::Decimal(value) => f.write_str(&decimal(*value)),
            Self::Percent(value) => write!(f, "{value}%"),
            Self::Points(value) => write!(f, "{value} pp"),
            Self::Text(text) => f.write_str(&quoted(text)),
            // The tag of a language may have parts.
            Self::Word(word) if word.contains('-') => f.write_str(&quoted(word)),
            Self::Word(word) => f.write_str(word),
            Self::Quantity(count, unit) => f.write_str(&quantity(*count, *unit)),
            Self::Every(inner) => write!(f, "every {inner}"),
            Self::Reference(id) => f.write_str(&id.name),
            Self::List(elements) => {
                f.write_str("[")?;
                separated(f, elements.iter().map(|element| element.value.to_string()))?;
                f.write_str("]")
            }
            Self::Call { name, arguments } if name == schema::component().name => {
                let argument = |name: &str| arguments.get(name).map(|argument| &argument.value);
                let empty = Self::List(Vec::new());
                write!(
                    f,
                    "from {} weight {}",
                    argument("from").unwrap_or(&empty),
                    argument("weight").unwrap_or(&Self::Unknown)
                )?;
                match argument("max_epochs") {
                    None | Some(Self::None) => Ok(()),
                    Some(epochs) => write!(f, " max_epochs {epochs}"),
                }
            }
            Self::Call { name, arguments } => {
                let written: Vec<String> = in_table_order(name, arguments)
                    .into_iter()
                    .filter(|(_, _, argument)| argument.value != Self::None || argument.is_written())
                    .map(|(name, is_first, argument)| match is_first {
                        true => argument.value.to_string(),
                        false => format!("{name} = {}", argument.value),
                    })
                    .collect();
                write!(f, "{name}(")?;
                separated(f, written.into_iter())?;
                f.write_str(")")
            }
            Self::Gate(gate) => f.write_str(&gate.text),
        }
    }
}

/// The arguments of a call in the order of its table; the flag marks the one that is written without its name.
fn in_table_order<'a>(call: &str, arguments: &'a BTreeMap<String, Field>) -> Vec<(&'a str, bool, &'a Field)> {
    let table = schema::call(call);
    let place = |name: &str| table.and_then(|table| table.all().position(|argument| argument.name == name));
    let first = table.and_then(|table| table.first).map(|first| first.name);
    let mut all: Vec<_> = arguments
        .iter()
        .map(|(name, field)| (name.as_str(), first == Some(name.as_str()), field))
        .collect();
    all.sort_by_key(|(name, _, _)| (place(name).is_none(), place(name)));
    all
}

fn separated(f: &mut fmt::Formatter<'_>, parts: impl Iterator<Item = String>) -> fmt::Result {
    for (index, part) in parts.enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        f.write_str(&part)?;
    }
    Ok(())
}

/// A text in quotes, with its escapes.
fn quoted(text: &str) -> String {
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

/// Small numbers with an exponent: `0.0001` is `1e-4`.
fn decimal(value: Exact) -> String {
    let text = value.to_string();
    let (sign, digits) = text
        .strip_prefix('-')
        .map_or(("", text.as_str()), |digits| ("-", digits));
    let Some(fraction) = digits.strip_prefix("0.") else {
        return text;
    };
    let significant = fraction.trim_start_matches('0');
    let zeros = fraction.len() - significant.len();
    if zeros < 2 || significant.is_empty() {
        return text;
    }
    let (first, rest) = significant.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{first}{point}{rest}e-{}", zeros + 1)
}

fn quantity(count: u64, unit: Unit) -> String {
    if unit == Unit::Bytes {
        let larger = [
            ("TB", 1_000_000_000_000),
            ("GB", 1_000_000_000),
            ("MB", 1_000_000),
            ("KB", 1_000),
        ];
        let binary = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let fitting = larger
            .iter()
            .chain(&binary)
            .find(|(_, factor)| count > 0 && count.is_multiple_of(*factor));
        if let Some((name, factor)) = fitting {
            return format!("{} {name}", count / factor);
        }
        return format!("{} bytes", spaced(&count.to_string()));
    }
    let suffixes = [("T", 1_000_000_000_000), ("B", 1_000_000_000), ("M", 1_000_000)];
    match suffixes
        .iter()
        .find(|(_, factor)| count > 0 && count.is_multiple_of(*factor))
    {
        Some((suffix, factor)) => format!("{}{suffix} {unit}", count / factor),
        None => format!("{} {unit}", spaced(&count.to_string())),
    }
}

/// Digits in groups of three, from five digits on.
fn spaced(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    if digits.len() < 5 {
        return format!("{sign}{digits}");
    }
    format!("{sign}{}", group_digits(digits, '_'))
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        })
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let product_part = |inner: &Self| match inner {
            Self::Add(..) | Self::Subtract(..) => format!("({inner})"),
            _ => inner.to_string(),
        };
        match self {
            Self::Metric(metric) => write!(f, "{metric}"),
            Self::Function(function, arguments) => {
                write!(f, "{}(", schema::function(*function).name)?;
                separated(f, arguments.iter().map(Self::to_string))?;
                f.write_str(")")
            }
            Self::Number(value) => f.write_str(&decimal(*value)),
            Self::Points(value) => write!(f, "{value} pp"),
            Self::Add(left, right) => write!(f, "{left} + {}", sum_part(right)),
            Self::Subtract(left, right) => write!(f, "{left} - {}", sum_part(right)),
            Self::Multiply(left, right) => {
                let right = match **right {
                    Self::Multiply(..) => format!("({right})"),
                    _ => product_part(right),
                };
                write!(f, "{} * {right}", product_part(left))
            }
        }
    }
}

/// The right-hand side of a sum: in parentheses if it is a sum itself.
fn sum_part(right: &Expression) -> String {
    match right {
        Expression::Add(..) | Expression::Subtract(..) => format!("({right})"),
        _ => right.to_string(),
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.at.name, self.eval, self.metric)?;
        if self.set.is_empty() {
            Ok(())
        } else {
            // As gates write the tag of a language.
            write!(f, ".{}", self.set.replace('-', "_"))
        }
    }
}

impl Spec {
    /// Every value by its path, such as `stage.cap.learning_rate.peak`: a field, each argument of a call, and each
    /// element of a list of calls.
    pub fn resolved(&self) -> BTreeMap<String, (String, &Field)> {
        let mut all = BTreeMap::new();
        for (id, block) in &self.blocks {
            for (name, field) in &block.fields {
                let path = if id.kind == BlockKind::Expect {
                    id.to_string()
                } else {
                    format!("{id}.{name}")
                };
                add(&mut all, path, field);
            }
        }
        all
    }
}

fn add<'a>(all: &mut BTreeMap<String, (String, &'a Field)>, path: String, field: &'a Field) {
    match &field.value {
        Value::Call { name, arguments } => {
            for (argument, inner) in arguments {
                add(all, format!("{path}.{argument}"), inner);
            }
            all.insert(path, (name.clone(), field));
        }
        Value::List(elements)
            if elements
                .iter()
                .any(|element| matches!(element.value, Value::Call { .. })) =>
        {
            for (index, element) in elements.iter().enumerate() {
                add(all, format!("{path}.{index}"), element);
            }
        }
        value => {
            all.insert(path, (value.to_string(), field));
        }
    }
}
