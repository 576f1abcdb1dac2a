//! Publishes the diagnostics of open documents and of the files that belong to the same specs.

use std::collections::{BTreeMap, BTreeSet};

use camino::Utf8PathBuf;
use lsp_server::{Message, Notification};
use lsp_types::notification::{Notification as _, PublishDiagnostics};
use lsp_types::{Diagnostic, PublishDiagnosticsParams};

use super::explanations::Explanations;
use super::text::Encoding;
use super::workspace::Workspace;
use super::{convert, uri};

/// The diagnostics that the client has for each file.
pub type Published = BTreeMap<Utf8PathBuf, Vec<Diagnostic>>;

/// Checks the specs that open documents belong to, and returns the diagnostics that have changed.
pub fn publish(
    workspace: &mut Workspace,
    explanations: &mut Explanations,
    published: &mut Published,
    encoding: Encoding,
) -> Vec<Message> {
    let open: Vec<Utf8PathBuf> = workspace.documents.keys().cloned().collect();
    let mut specs: BTreeSet<Utf8PathBuf> = BTreeSet::new();
    for path in &open {
        specs.extend(workspace.specs_of(path));
        specs.insert(path.clone());
    }
    let mut all: BTreeMap<Utf8PathBuf, Vec<Diagnostic>> = open.iter().map(|path| (path.clone(), Vec::new())).collect();
    for spec in specs {
        let Some(analysis) = workspace.analysis(&spec) else {
            continue;
        };
        for found in analysis.diagnostics() {
            let converted = convert::diagnostic(workspace, &analysis, explanations, &found, encoding);
            let Some((path, diagnostic)) = converted else { continue };
            let known = all.entry(path).or_default();
            if !known.contains(&diagnostic) {
                known.push(diagnostic);
            }
        }
    }
    let closed = published.keys().filter(|path| !all.contains_key(*path));
    let closed: Vec<Utf8PathBuf> = closed.cloned().collect();
    all.extend(closed.into_iter().map(|path| (path, Vec::new())));
    let mut messages = Vec::new();
    for (path, mut diagnostics) in all {
        diagnostics.sort_by_key(|diagnostic| (diagnostic.range.start, diagnostic.range.end));
        let document = workspace.documents.get(&path);
        // The diagnostics of an open document are published for each of its versions.
        if document.is_none() && published.get(&path) == Some(&diagnostics) {
            continue;
        }
        let Some(uri) = document.map(|document| document.uri.clone()).or_else(|| uri::of(&path)) else {
            continue;
        };
        let params = PublishDiagnosticsParams {
            uri,
            diagnostics: diagnostics.clone(),
            version: document.map(|document| document.version),
        };
        messages.push(Message::Notification(Notification::new(
            PublishDiagnostics::METHOD.to_owned(),
            params,
        )));
        if diagnostics.is_empty() && document.is_none() {
            published.remove(&path);
        } else {
            published.insert(path, diagnostics);
        }
    }
    messages
}
