//! Diagnostics of every file that an open document is read with.

use std::collections::{BTreeMap, BTreeSet};

use camino::Utf8PathBuf;
use lsp_server::{Message, Notification};
use lsp_types::notification::{Notification as _, PublishDiagnostics};
use lsp_types::{Diagnostic, PublishDiagnosticsParams};

use super::server::Server;
use super::{convert, uri};

/// Checks the specs that open documents belong to, and tells what has changed.
pub fn publish(server: &mut Server) -> Vec<Message> {
    let open: Vec<Utf8PathBuf> = server.workspace.documents.keys().cloned().collect();
    let mut specs: BTreeSet<Utf8PathBuf> = BTreeSet::new();
    for path in &open {
        specs.extend(server.workspace.specs_of(path));
        specs.insert(path.clone());
    }
    let mut all: BTreeMap<Utf8PathBuf, Vec<Diagnostic>> = open.iter().map(|path| (path.clone(), Vec::new())).collect();
    for spec in specs {
        let Some(analysis) = server.workspace.analysis(&spec) else {
            continue;
        };
        for found in analysis.found() {
            let Server {
                workspace,
                explanations,
                client,
                ..
            } = server;
            let converted = convert::diagnostic(workspace, &analysis, explanations, &found, client.encoding);
            let Some((path, diagnostic)) = converted else { continue };
            let known = all.entry(path).or_default();
            if !known.contains(&diagnostic) {
                known.push(diagnostic);
            }
        }
    }
    let gone: Vec<Utf8PathBuf> = server
        .published
        .keys()
        .filter(|path| !all.contains_key(*path))
        .cloned()
        .collect();
    all.extend(gone.into_iter().map(|path| (path, Vec::new())));
    let mut messages = Vec::new();
    for (path, mut diagnostics) in all {
        diagnostics.sort_by_key(|diagnostic| (diagnostic.range.start, diagnostic.range.end));
        let document = server.workspace.documents.get(&path);
        // An open document hears of each of its versions.
        if document.is_none() && server.published.get(&path) == Some(&diagnostics) {
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
            server.published.remove(&path);
        } else {
            server.published.insert(path, diagnostics);
        }
    }
    messages
}
