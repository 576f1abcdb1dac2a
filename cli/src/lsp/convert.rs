//! Converts answers to the types of the protocol.

use std::collections::BTreeMap;

use aurora_lang::ast::Span;
use aurora_lang::diagnostics as lang;
use camino::Utf8PathBuf;
use lsp_types::{
    CodeDescription, CompletionItem, CompletionItemKind, CompletionTextEdit, Diagnostic, DiagnosticRelatedInformation,
    DiagnosticSeverity, DocumentSymbol, Documentation, FoldingRange, FoldingRangeKind, InsertTextFormat, Location,
    MarkupContent, MarkupKind, NumberOrString, Range, SemanticToken, SymbolKind,
};

use super::analysis::{Analysis, FileRange};
use super::complete::{Suggestion, SuggestionKind};
use super::explanations::Explanations;
use super::outline;
use super::text::{Encoding, Text};
use super::uri;
use super::workspace::Workspace;

pub fn location(workspace: &mut Workspace, place: &FileRange, encoding: Encoding) -> Option<Location> {
    let text = workspace.text(&place.path)?;
    let open = workspace
        .documents
        .get(&place.path)
        .map(|document| document.uri.clone());
    Some(Location {
        uri: open.or_else(|| uri::of(&place.path))?,
        range: text.range(place.span, encoding),
    })
}

/// A diagnostic and the file that it is in. Without a place, it is shown at the start of the spec.
pub fn diagnostic(
    workspace: &mut Workspace,
    analysis: &Analysis,
    explanations: &mut Explanations,
    found: &lang::Diagnostic,
    encoding: Encoding,
) -> Option<(Utf8PathBuf, Diagnostic)> {
    let place = analysis.place(found.place().unwrap_or_default());
    let text = workspace.text(&place.path)?;
    let first = found
        .labels
        .first()
        .map(|label| label.text.as_str())
        .filter(|text| !text.is_empty());
    let mut message = found.message.clone();
    message.extend(first.map(|label| format!("\n{label}")));
    message.extend(found.notes.iter().map(|note| format!("\nnote: {note}")));
    message.extend(found.helps.iter().map(|help| format!("\nhelp: {}", help.text)));
    let others = found.labels.iter().skip(1).filter_map(|label| {
        Some(DiagnosticRelatedInformation {
            location: location(workspace, &analysis.place(label.span), encoding)?,
            message: label.text.clone(),
        })
    });
    let related: Vec<DiagnosticRelatedInformation> = others.collect();
    let diagnostic = Diagnostic {
        range: text.range(place.span, encoding),
        severity: Some(match found.severity {
            lang::Severity::Error => DiagnosticSeverity::ERROR,
            lang::Severity::Warning => DiagnosticSeverity::WARNING,
        }),
        code: Some(NumberOrString::String(found.code.as_str().to_owned())),
        code_description: explanations.link(found.code).map(|href| CodeDescription { href }),
        source: Some("aurora".to_owned()),
        message,
        related_information: (!related.is_empty()).then_some(related),
        tags: None,
        data: None,
    };
    Some((place.path, diagnostic))
}

pub fn completion(suggestion: Suggestion, range: Range, order: usize, snippets: bool) -> CompletionItem {
    let kind = match suggestion.kind {
        SuggestionKind::Keyword => CompletionItemKind::KEYWORD,
        SuggestionKind::Field => CompletionItemKind::FIELD,
        SuggestionKind::Word => CompletionItemKind::ENUM_MEMBER,
        SuggestionKind::Call => CompletionItemKind::FUNCTION,
        SuggestionKind::Name => CompletionItemKind::REFERENCE,
        SuggestionKind::Unit => CompletionItemKind::UNIT,
        SuggestionKind::Mark => CompletionItemKind::PROPERTY,
        SuggestionKind::File => CompletionItemKind::FILE,
    };
    let is_snippet = snippets && suggestion.snippet.contains('$');
    let new_text = if is_snippet {
        suggestion.snippet
    } else {
        plain(&suggestion.snippet)
    };
    CompletionItem {
        label: suggestion.label,
        kind: Some(kind),
        detail: (!suggestion.detail.is_empty()).then_some(suggestion.detail),
        documentation: (!suggestion.documentation.is_empty())
            .then(|| Documentation::MarkupContent(markdown(suggestion.documentation))),
        sort_text: Some(format!("{}{order:04}", u8::from(!suggestion.required))),
        filter_text: Some(
            new_text
                .split(['(', ' ', '\n', '$'])
                .next()
                .unwrap_or_default()
                .to_owned(),
        ),
        insert_text_format: Some(if is_snippet {
            InsertTextFormat::SNIPPET
        } else {
            InsertTextFormat::PLAIN_TEXT
        }),
        text_edit: Some(CompletionTextEdit::Edit(lsp_types::TextEdit { range, new_text })),
        ..CompletionItem::default()
    }
}

/// A snippet without its placeholders.
fn plain(snippet: &str) -> String {
    let mut text = String::new();
    let mut rest = snippet;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        rest = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((inner, after)) => {
                text.push_str(inner.split_once(':').map_or("", |(_, default)| default));
                after
            }
            None => after.trim_start_matches(|digit: char| digit.is_ascii_digit()),
        };
    }
    text + rest
}

pub fn markdown(value: String) -> MarkupContent {
    MarkupContent {
        kind: MarkupKind::Markdown,
        value,
    }
}

pub fn symbol(symbol: outline::Symbol, text: &Text, encoding: Encoding) -> DocumentSymbol {
    let kind = match symbol.kind {
        outline::SymbolKind::Block => SymbolKind::CLASS,
        outline::SymbolKind::Field => SymbolKind::FIELD,
        outline::SymbolKind::Line => SymbolKind::CONSTANT,
        outline::SymbolKind::Import => SymbolKind::MODULE,
    };
    let children: Vec<DocumentSymbol> = symbol
        .children
        .into_iter()
        .map(|child| self::symbol(child, text, encoding))
        .collect();
    #[allow(deprecated)] // the field is required
    DocumentSymbol {
        name: symbol.name,
        detail: Some(symbol.detail),
        kind,
        tags: None,
        deprecated: None,
        range: text.range(symbol.span, encoding),
        selection_range: text.range(symbol.name_span, encoding),
        children: (!children.is_empty()).then_some(children),
    }
}

pub fn fold((span, comment): (Span, bool), text: &Text) -> FoldingRange {
    let range = text.range(span, Encoding::Utf16);
    FoldingRange {
        start_line: range.start.line,
        // The line of the closing bracket remains visible.
        end_line: if comment {
            range.end.line
        } else {
            range.end.line.saturating_sub(1).max(range.start.line)
        },
        start_character: None,
        end_character: None,
        kind: comment.then_some(FoldingRangeKind::Comment),
        collapsed_text: None,
    }
}

pub fn semantic_tokens(text: &Text, encoding: Encoding) -> Vec<SemanticToken> {
    let (mut line, mut character) = (0, 0);
    outline::semantic_tokens(text.as_str())
        .into_iter()
        .map(|(span, kind, declares)| {
            let range = text.range(span, encoding);
            let same_line = range.start.line == line;
            let token = SemanticToken {
                delta_line: range.start.line - line,
                delta_start: if same_line {
                    range.start.character - character
                } else {
                    range.start.character
                },
                length: range.end.character - range.start.character,
                token_type: kind as u32,
                token_modifiers_bitset: u32::from(declares),
            };
            (line, character) = (range.start.line, range.start.character);
            token
        })
        .collect()
}

/// The edit that turns one text into another: the lines that differ.
pub fn replacement(old: &Text, new: &str, encoding: Encoding) -> Vec<lsp_types::TextEdit> {
    let text = old.as_str();
    if text == new {
        return Vec::new();
    }
    let same = |(a, b): &(&str, &str)| a == b;
    let lines = |text: &'_ str| text.split_inclusive('\n').map(str::to_owned).collect::<Vec<_>>();
    let (before, after) = (lines(text), lines(new));
    let pairs = before.iter().map(String::as_str).zip(after.iter().map(String::as_str));
    let head = pairs.take_while(same).count();
    let pairs = before[head..]
        .iter()
        .rev()
        .map(String::as_str)
        .zip(after[head..].iter().rev().map(String::as_str));
    let tail = pairs.take_while(same).count();
    let length = |lines: &[String]| lines.iter().map(String::len).sum::<usize>();
    let span = Span::new(
        length(&before[..head]),
        text.len() - length(&before[before.len() - tail..]),
    );
    vec![lsp_types::TextEdit {
        range: old.range(span, encoding),
        new_text: after[head..after.len() - tail].concat(),
    }]
}

/// Edits of several files, in a form that the client supports.
#[allow(clippy::mutable_key_type)] // the keys of the protocol's type are URIs
pub fn workspace_edit(
    workspace: &mut Workspace,
    edits: BTreeMap<Utf8PathBuf, Vec<(Span, String)>>,
    encoding: Encoding,
    versioned: bool,
) -> lsp_types::WorkspaceEdit {
    let mut documents = Vec::new();
    for (path, edits) in edits {
        let (Some(text), Some(file)) = (workspace.text(&path), uri::of(&path)) else {
            continue;
        };
        let open = workspace.documents.get(&path);
        let edits: Vec<lsp_types::TextEdit> = edits
            .into_iter()
            .map(|(span, new_text)| lsp_types::TextEdit {
                range: text.range(span, encoding),
                new_text,
            })
            .collect();
        documents.push((
            open.map_or(file, |open| open.uri.clone()),
            open.map(|open| open.version),
            edits,
        ));
    }
    if !versioned {
        let changes = documents.into_iter().map(|(uri, _, edits)| (uri, edits)).collect();
        return lsp_types::WorkspaceEdit {
            changes: Some(changes),
            ..lsp_types::WorkspaceEdit::default()
        };
    }
    let changes = documents
        .into_iter()
        .map(|(uri, version, edits)| lsp_types::TextDocumentEdit {
            text_document: lsp_types::OptionalVersionedTextDocumentIdentifier { uri, version },
            edits: edits.into_iter().map(lsp_types::OneOf::Left).collect(),
        });
    lsp_types::WorkspaceEdit {
        document_changes: Some(lsp_types::DocumentChanges::Edits(changes.collect())),
        ..lsp_types::WorkspaceEdit::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{plain, replacement};
    use crate::lsp::text::{Encoding, Text};

    #[test]
    fn a_client_without_snippets_gets_plain_text() {
        assert_eq!(
            plain("${1:name} from [${2:corpus}] weight ${3:10}%$0"),
            "name from [corpus] weight 10%"
        );
        assert_eq!(
            plain("stage $1 {\n  start = $2\n  $0\n}"),
            "stage  {\n  start = \n  \n}"
        );
    }

    #[test]
    fn formatting_touches_the_lines_that_change() {
        let old = Text::new("a\nb\nc\nd\n".to_owned());
        let edits = replacement(&old, "a\nB\nx\nd\n", Encoding::Utf16);
        assert_eq!(edits.len(), 1);
        assert_eq!((edits[0].range.start.line, edits[0].range.end.line), (1, 3));
        assert_eq!(edits[0].new_text, "B\nx\n");
        assert!(replacement(&old, "a\nb\nc\nd\n", Encoding::Utf16).is_empty());
        let edits = replacement(&old, "a\nb\nc\nd\nd\n", Encoding::Utf16);
        assert_eq!(edits[0].new_text, "d\n");
    }
}
