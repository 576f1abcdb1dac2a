//! Syntax errors of the grammar as diagnostics: what was expected, what was found, and what to do about it.

use pest::error::{Error, ErrorVariant, InputLocation};

use super::grammar::Rule;
use crate::ast::Span;
use crate::diagnostics::{Code, Diagnostic};
use crate::token::Token;

/// Where an error is, and the rules that the grammar expected there.
pub(super) fn expected(error: &Error<Rule>) -> (usize, &[Rule]) {
    let at = match error.location {
        InputLocation::Pos(at) => at,
        InputLocation::Span((start, _)) => start,
    };
    match &error.variant {
        ErrorVariant::ParsingError { positives, .. } => (at, positives),
        ErrorVariant::CustomError { .. } => (at, &[]),
    }
}

/// The error of a chunk as a diagnostic. `tokens` are those of the complete text.
pub(super) fn diagnostic(error: &Error<Rule>, text: &str, tokens: &[Token], chunk: Span) -> Diagnostic {
    let (at, rules) = expected(error);
    let at = chunk.start + at;
    let mut names: Vec<&str> = rules.iter().filter_map(|&rule| name(rule)).collect();
    // Where a field may start, it is the field that was expected, not its name.
    if names.contains(&"`}`") {
        names = names
            .into_iter()
            .map(|name| if name == "a name" { "a field" } else { name })
            .collect();
    }
    // Where a value may start, its kinds are not listed.
    if names.contains(&"a value") || names.contains(&"a number") && names.contains(&"a name") {
        names.retain(|name| matches!(*name, "`]`" | "`)`"));
        names.push("a value");
    }
    names.sort_unstable();
    names.dedup();
    // The rest of the chunk is white space: something is missing after its last word.
    let is_end = text[at.min(chunk.end)..chunk.end].trim().is_empty();
    let found = if is_end {
        Span::new(chunk.end, chunk.end)
    } else {
        token(text, tokens, at)
    };
    let written = &text[found.start..found.end];
    let found_text = if is_end {
        "the end of the block".to_owned()
    } else {
        format!("`{written}`")
    };
    let expected = list(&names);
    let message = if expected.is_empty() {
        format!("unexpected {found_text}")
    } else {
        format!("expected {expected}, found {found_text}")
    };
    let label = if expected.is_empty() {
        "unexpected".to_owned()
    } else {
        format!("expected {expected}")
    };
    let diagnostic = Diagnostic::new(Code::SYNTAX, message).label(found, label);
    match hint(written, &names) {
        Some(hint) => diagnostic.help(hint),
        None => diagnostic,
    }
}

/// The token at `at`, from there on; one character if no token contains it.
fn token(text: &str, tokens: &[Token], at: usize) -> Span {
    let next = tokens.partition_point(|token| token.span.end <= at);
    match tokens.get(next).filter(|token| token.span.start <= at) {
        Some(token) => Span::new(at, token.span.end),
        None => Span::new(at, at + text[at..].chars().next().map_or(0, char::len_utf8)),
    }
}

/// Help for common mistakes.
fn hint(found: &str, expected: &[&str]) -> Option<&'static str> {
    let is_first = found.chars().next();
    match found {
        "," | ";" if expected.contains(&"a field") => Some("fields need no separator: write each on a line of its own"),
        "=" if expected.contains(&"a field") => Some("the field before this one has no value"),
        "=" if expected.iter().any(|name| name.contains('<')) => Some("a gate compares with `<`, `<=`, `>` or `>=`"),
        "{" if expected.contains(&"`=`") => Some("a block inside a profile is written `stage cap { … }`"),
        "weight" | "max_epochs" => Some("a component is `NAME from [CORPORA] weight PERCENTAGE max_epochs N`"),
        ":" => Some("a field is written `name = value`"),
        "#" => Some("a comment starts with `//`"),
        "'" => Some("a text is written in double quotes: `\"text\"`"),
        "-" if expected.contains(&"`{`") => Some("a name is made of letters, digits and `_`"),
        "{" if expected.contains(&"a name") => Some("a block has a name: `stage cap { … }`"),
        "/" => Some("a comment starts with `//`"),
        _ if is_first.is_some_and(|first| !first.is_ascii()) && expected.iter().any(|name| name.contains("name")) => {
            Some("a name is made of the letters a to z, digits and `_`")
        }
        _ => None,
    }
}

fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// What messages call a rule. `None` for rules that only look ahead or that have no text of their own.
fn name(rule: Rule) -> Option<&'static str> {
    Some(match rule {
        Rule::EOI => "the end of the block",
        Rule::lone_field => "a field",
        Rule::item | Rule::block | Rule::gate_block => "a block",
        Rule::import | Rule::extends | Rule::let_line | Rule::param => "a block",
        Rule::names => "names in braces",
        Rule::between => "a range such as `1 .. 10`",
        Rule::nested | Rule::component | Rule::field | Rule::path => "a field",
        Rule::nested_start | Rule::component_start | Rule::call_start | Rule::argument_start => return None,
        Rule::setting => "`weight` or `max_epochs`",
        Rule::setting_word => return None,
        Rule::marked | Rule::value | Rule::every | Rule::list | Rule::call | Rule::word => "a value",
        Rule::argument => "an argument",
        Rule::mark | Rule::at_sign => return None,
        Rule::number | Rule::digits => "a number",
        Rule::suffix | Rule::percent | Rule::unit => return None,
        Rule::text => "a text in double quotes",
        Rule::inner => return None,
        Rule::quote => "`\"`",
        Rule::gate | Rule::expression | Rule::term | Rule::factor => "a metric or a number",
        Rule::group | Rule::function => return None,
        Rule::confidence | Rule::with_word => return None,
        Rule::confidence_word => "`confidence`",
        Rule::metric | Rule::metric_name => "a metric or a number",
        Rule::relation => "`<=`, `>=`, `<` or `>`",
        Rule::sum_sign | Rule::times_sign => return None,
        Rule::name | Rule::block_name => "a name",
        Rule::expect_word => return None,
        Rule::every_word => return None,
        Rule::from_word => "`from`",
        Rule::import_word | Rule::extends_word | Rule::let_word | Rule::param_word => return None,
        Rule::in_word => "`in`",
        Rule::to_sign => "`..`",
        Rule::equals => "`=`",
        Rule::dot => return None,
        Rule::comma => "`,`",
        Rule::open_brace => "`{`",
        Rule::close_brace => "`}`",
        Rule::open_paren => "`(`",
        Rule::close_paren => "`)`",
        Rule::open_bracket => "`[`",
        Rule::close_bracket => "`]`",
        // Silent rules are never part of an error.
        Rule::WHITESPACE
        | Rule::COMMENT
        | Rule::blank
        | Rule::inline
        | Rule::name_char
        | Rule::identifier
        | Rule::entry => {
            return None;
        }
    })
}
