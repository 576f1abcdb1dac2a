//! Document symbols, folding ranges and semantic tokens of a file.

use aurora_lang::ast::{Block, Body, Entry, Span, StatementKind};
use aurora_lang::cursor::{CursorRole, roles};
use aurora_lang::token::{TokenKind, tokens};

use super::analysis::Analysis;
use super::types::{self, ChangePart};
use aurora_compiler::schema::Type;
use camino::Utf8Path;

/// A block, a field of a block, or a statement.
pub struct Symbol {
    pub name: String,
    pub detail: String,
    pub kind: SymbolKind,
    pub span: Span,
    pub name_span: Span,
    pub children: Vec<Symbol>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    Block,
    Field,
    Line,
    Import,
}

/// The blocks and statements of a file, in order.
pub fn symbols(analysis: &Analysis, path: &Utf8Path) -> Vec<Symbol> {
    let Some((_, file)) = analysis.file(path) else {
        return Vec::new();
    };
    let start = file.span.start;
    let local = |span: Span| Span::new(span.start - start, span.end - start);
    let mut all: Vec<Symbol> = file.parsed.file.items.iter().map(|item| block(item, &local)).collect();
    for statement in &file.parsed.file.statements {
        let (name, name_span, detail, kind) = match &statement.kind {
            StatementKind::Import { path, .. } | StatementKind::Extends { path, .. } => {
                (path.text.clone(), path.span, String::new(), SymbolKind::Import)
            }
            StatementKind::Let { name, value } | StatementKind::Param { name, value, .. } => (
                name.text.clone(),
                name.span,
                aurora_lang::format::value(value),
                SymbolKind::Line,
            ),
        };
        all.push(Symbol {
            name: if name.is_empty() {
                statement.kind.keyword().to_owned()
            } else {
                name
            },
            detail: format!("{} {detail}", statement.kind.keyword()).trim_end().to_owned(),
            kind,
            span: local(statement.span),
            name_span: local(name_span),
            children: Vec::new(),
        });
    }
    all.sort_by_key(|symbol| symbol.span);
    all
}

fn block(block: &Block, local: &impl Fn(Span) -> Span) -> Symbol {
    let children = match &block.body {
        Body::Gate(_) => Vec::new(),
        Body::Entries(entries) => entries.iter().map(|entry| self::entry(entry, local)).collect(),
    };
    Symbol {
        name: block.name.text.clone(),
        detail: block.keyword.text.clone(),
        kind: SymbolKind::Block,
        span: local(block.span),
        name_span: local(block.name.span),
        children,
    }
}

fn entry(entry: &Entry, local: &impl Fn(Span) -> Span) -> Symbol {
    let (name, name_span, detail) = match entry {
        Entry::Block(inner) => return block(inner, local),
        Entry::Field(field) => {
            let names: Vec<&str> = field.path.iter().map(|name| name.text.as_str()).collect();
            let span = field.path[0].span.to(field.path[field.path.len() - 1].span);
            (names.join("."), span, aurora_lang::format::value(&field.value))
        }
        Entry::Component(component) => (component.name.text.clone(), component.name.span, "component".to_owned()),
    };
    Symbol {
        name,
        detail,
        kind: SymbolKind::Field,
        span: local(entry.span()),
        name_span: local(name_span),
        children: Vec::new(),
    }
}

/// Ranges that can be folded: brackets over several lines, and consecutive comment lines. The flag is true for comments.
pub fn folds(text: &str) -> Vec<(Span, bool)> {
    let mut folds = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut comments: Option<Span> = None;
    for token in tokens(text) {
        match token.kind {
            TokenKind::Comment if token.first_on_line => {
                let run = comments.filter(|run| text[run.end..token.span.start].matches('\n').count() == 1);
                folds.extend(comments.filter(|_| run.is_none()).map(|run| (run, true)));
                comments = Some(run.unwrap_or(token.span).to(token.span));
                continue;
            }
            TokenKind::Open(_) => open.push(token.span.start),
            TokenKind::Close(_) => folds.extend(open.pop().map(|start| (Span::new(start, token.span.end), false))),
            _ => {}
        }
        folds.extend(comments.take().map(|run| (run, true)));
    }
    folds.extend(comments.map(|run| (run, true)));
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let has_line_end = |span: &Span| {
        let next = ends.partition_point(|&at| at < span.start);
        ends.get(next).is_some_and(|&at| at < span.end)
    };
    folds.retain(|(span, _)| has_line_end(span));
    folds.sort();
    folds
}

/// The types of semantic tokens, in the order of the legend.
pub const TOKEN_TYPES: [&str; 12] = [
    "comment",
    "keyword",
    "class",
    "property",
    "function",
    "parameter",
    "enumMember",
    "variable",
    "number",
    "string",
    "decorator",
    "type",
];

/// The semantic tokens of a text: the range, the index of the type in [`TOKEN_TYPES`], and whether it declares a name.
pub fn semantic_tokens(text: &str) -> Vec<(Span, usize, bool)> {
    let tokens = tokens(text);
    let roles = roles(text, &tokens);
    let all = tokens.iter().zip(roles).filter_map(|(token, role)| {
        let (kind, declares) = match role {
            CursorRole::Comment => ("comment", false),
            CursorRole::Keyword => ("keyword", false),
            CursorRole::Declared { keyword } if matches!(keyword.as_str(), "let" | "param") => ("variable", true),
            CursorRole::Declared { .. } => ("class", true),
            CursorRole::Block | CursorRole::ImportName { .. } => ("class", false),
            CursorRole::Field { path, is_last } => match types::change_part(&path, is_last) {
                Some(ChangePart::Kind) => ("keyword", false),
                Some(ChangePart::Name) => ("class", false),
                None => ("property", false),
            },
            CursorRole::Component { .. } => ("property", false),
            CursorRole::Call { .. } => ("function", false),
            CursorRole::Argument { .. } => ("parameter", false),
            CursorRole::Word { path } => {
                let word = token.text(text);
                let closed = matches!(word, "true" | "false" | "unknown" | "none")
                    || types::value(&path)
                        .types
                        .iter()
                        .any(|kind| matches!(kind, Type::Word(words) if words.iter().any(|(known, _)| *known == word)));
                (if closed { "enumMember" } else { "variable" }, false)
            }
            CursorRole::Number => ("number", false),
            CursorRole::Unit { .. } => ("type", false),
            CursorRole::Text | CursorRole::ImportPath => ("string", false),
            CursorRole::Mark => ("decorator", false),
            CursorRole::Metric { .. } => ("variable", false),
            CursorRole::Other => return None,
        };
        let kind = TOKEN_TYPES.iter().position(|known| *known == kind)?;
        Some((token.span, kind, declares))
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::folds;

    #[test]
    fn brackets_and_comments_fold() {
        let text = "// a\n// b\n\n// c\nx y {\n  z = [\n    1,\n  ]\n}\nq r { s = 1 }\n";
        let folded: Vec<(&str, bool)> = folds(text)
            .into_iter()
            .map(|(span, comment)| (&text[span.start..span.end], comment))
            .collect();
        assert_eq!(
            folded,
            [
                ("// a\n// b", true),
                ("{\n  z = [\n    1,\n  ]\n}", false),
                ("[\n    1,\n  ]", false)
            ]
        );
    }
}
