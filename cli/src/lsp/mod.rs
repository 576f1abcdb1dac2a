//! `aurora lsp`: the language server, over standard input and output.
//!
//! In: the notifications and requests of an editor. Out: answers, and diagnostics when no message is waiting. One thread
//! handles all messages in order of arrival; a check takes milliseconds.
//!
//! Modules: the protocol (`transport`, `server`, `publish`, `convert`, `uri`, `text`), files (`workspace`), and answers
//! independent of the protocol (`analysis`, `types`, `scope`, `complete`, `hover`, `facts`, `hints`, `actions`, `rename`,
//! `outline`).
//! Not here: rules of the language. An editor shows what the compiler reports.

mod actions;
mod analysis;
mod complete;
mod convert;
mod docs;
mod explanations;
mod facts;
mod hints;
mod hover;
mod outline;
mod publish;
mod rename;
mod scope;
mod server;
mod text;
mod transport;
mod types;
mod uri;
mod workspace;

use camino::Utf8PathBuf;
use lsp_server::{Connection, ErrorCode, Message, Request, Response};
use lsp_types::notification::{DidChangeWatchedFiles, Exit as ExitNotification, Notification as _};
use lsp_types::request::{RegisterCapability, Request as _, Shutdown};
use lsp_types::{
    CodeActionKind, CodeActionOptions, CodeActionProviderCapability, CompletionOptions,
    DidChangeWatchedFilesRegistrationOptions, FileSystemWatcher, FoldingRangeProviderCapability, GlobPattern,
    HoverProviderCapability, InitializeParams, OneOf, PositionEncodingKind, Registration, RegistrationParams,
    RenameOptions, SaveOptions, SemanticTokenModifier, SemanticTokenType, SemanticTokensFullOptions,
    SemanticTokensLegend, SemanticTokensOptions, ServerCapabilities, TextDocumentSyncCapability, TextDocumentSyncKind,
    TextDocumentSyncOptions, TextDocumentSyncSaveOptions,
};
use serde_json::json;

use crate::failure::{Exit, Failure};
use server::{ClientCapabilities, Server};
use text::Encoding;

/// Serves one client until it sends `exit` or closes the connection.
///
/// # Errors
/// The client does not follow the protocol.
pub fn run() -> Result<Exit, Failure> {
    let broken = |error: &dyn std::fmt::Display| Failure::error(format!("cannot talk to the editor: {error}"));
    let (connection, threads) = transport::connect().map_err(|error| broken(&error))?;
    let exit = serve(&connection);
    drop(connection);
    // An error of the transport is the cause of one of the session.
    threads.join().map_err(|error| broken(&error))?;
    exit
}

fn serve(connection: &Connection) -> Result<Exit, Failure> {
    let broken =
        |error: &dyn std::fmt::Display| Failure::error(format!("the editor does not follow the protocol: {error}"));
    let (id, params) = connection.initialize_start().map_err(|error| broken(&error))?;
    let params: InitializeParams = match serde_json::from_value(params) {
        Ok(params) => params,
        Err(error) => {
            // The editor waits for an answer, and the thread that reads waits for the editor.
            let answer = Response::new_err(id, ErrorCode::InvalidParams as i32, error.to_string());
            let _ = connection.sender.send(Message::Response(answer));
            return Err(broken(&error));
        }
    };
    let client = client(&params);
    let answer = json!({
        "capabilities": capabilities(client.encoding),
        "serverInfo": { "name": "aurora", "version": env!("CARGO_PKG_VERSION") },
    });
    connection
        .initialize_finish(id, answer)
        .map_err(|error| broken(&error))?;
    if watches(&params) {
        let watch = Request::new(
            "watch".to_owned().into(),
            RegisterCapability::METHOD.to_owned(),
            watch(),
        );
        // A closed connection is detected below.
        let _ = connection.sender.send(Message::Request(watch));
    }
    let mut server = Server::new(client, folders(&params));
    let mut ending = false;
    loop {
        // Diagnostics are computed when no message is waiting, so that fast typing is checked once.
        let message = if server.stale {
            match connection.receiver.try_recv() {
                Ok(message) => message,
                Err(error) if error.is_empty() => {
                    for message in server.publish() {
                        let _ = connection.sender.send(message);
                    }
                    continue;
                }
                Err(_) => return Ok(Exit::Error),
            }
        } else {
            match connection.receiver.recv() {
                Ok(message) => message,
                Err(_) => return Ok(Exit::Error),
            }
        };
        match message {
            Message::Request(request) if request.method == Shutdown::METHOD => {
                ending = true;
                let _ = connection
                    .sender
                    .send(Message::Response(lsp_server::Response::new_ok(request.id, ())));
            }
            Message::Request(request) => {
                let response = server.request(request);
                let _ = connection.sender.send(Message::Response(response));
            }
            // The protocol requires 0 after `shutdown`, else 1.
            Message::Notification(notification) if notification.method == ExitNotification::METHOD => {
                return Ok(if ending { Exit::Done } else { Exit::Error });
            }
            Message::Notification(notification) => server.notification(notification),
            Message::Response(_) => {}
        }
    }
}

/// The capabilities of the client that the server uses.
fn client(params: &InitializeParams) -> ClientCapabilities {
    let capabilities = &params.capabilities;
    let encodings = capabilities
        .general
        .as_ref()
        .and_then(|general| general.position_encodings.as_ref());
    let utf8 = encodings.is_some_and(|encodings| encodings.contains(&PositionEncodingKind::UTF8));
    let completion = capabilities
        .text_document
        .as_ref()
        .and_then(|document| document.completion.as_ref());
    let item = completion.and_then(|completion| completion.completion_item.as_ref());
    let edit = capabilities
        .workspace
        .as_ref()
        .and_then(|workspace| workspace.workspace_edit.as_ref());
    ClientCapabilities {
        encoding: if utf8 { Encoding::Utf8 } else { Encoding::Utf16 },
        snippets: item.and_then(|item| item.snippet_support).unwrap_or(false),
        versioned_edits: edit.and_then(|edit| edit.document_changes).unwrap_or(false),
    }
}

fn folders(params: &InitializeParams) -> Vec<Utf8PathBuf> {
    let folders = params
        .workspace_folders
        .iter()
        .flatten()
        .filter_map(|folder| uri::path(&folder.uri));
    let mut folders: Vec<Utf8PathBuf> = folders.collect();
    #[allow(deprecated)] // for clients without workspace folders
    if folders.is_empty() {
        folders.extend(params.root_uri.as_ref().and_then(uri::path));
    }
    folders
}

fn watches(params: &InitializeParams) -> bool {
    let workspace = params.capabilities.workspace.as_ref();
    let watched = workspace.and_then(|workspace| workspace.did_change_watched_files.as_ref());
    watched
        .and_then(|watched| watched.dynamic_registration)
        .unwrap_or(false)
}

fn watch() -> RegistrationParams {
    let watchers = vec![FileSystemWatcher {
        glob_pattern: GlobPattern::String("**/*.aur".to_owned()),
        kind: None,
    }];
    let options = DidChangeWatchedFilesRegistrationOptions { watchers };
    RegistrationParams {
        registrations: vec![Registration {
            id: "aur".to_owned(),
            method: DidChangeWatchedFiles::METHOD.to_owned(),
            register_options: serde_json::to_value(options).ok(),
        }],
    }
}

fn capabilities(encoding: Encoding) -> ServerCapabilities {
    ServerCapabilities {
        position_encoding: Some(match encoding {
            Encoding::Utf8 => PositionEncodingKind::UTF8,
            Encoding::Utf16 => PositionEncodingKind::UTF16,
        }),
        text_document_sync: Some(TextDocumentSyncCapability::Options(TextDocumentSyncOptions {
            open_close: Some(true),
            change: Some(TextDocumentSyncKind::INCREMENTAL),
            save: Some(TextDocumentSyncSaveOptions::SaveOptions(SaveOptions {
                include_text: Some(false),
            })),
            ..TextDocumentSyncOptions::default()
        })),
        hover_provider: Some(HoverProviderCapability::Simple(true)),
        completion_provider: Some(CompletionOptions {
            trigger_characters: Some([".", "@", "\"", "=", " "].map(str::to_owned).into()),
            ..CompletionOptions::default()
        }),
        definition_provider: Some(OneOf::Left(true)),
        document_highlight_provider: Some(OneOf::Left(true)),
        references_provider: Some(OneOf::Left(true)),
        rename_provider: Some(OneOf::Right(RenameOptions {
            prepare_provider: Some(true),
            work_done_progress_options: lsp_types::WorkDoneProgressOptions::default(),
        })),
        document_formatting_provider: Some(OneOf::Left(true)),
        code_action_provider: Some(CodeActionProviderCapability::Options(CodeActionOptions {
            code_action_kinds: Some(vec![CodeActionKind::QUICKFIX]),
            ..CodeActionOptions::default()
        })),
        inlay_hint_provider: Some(OneOf::Left(true)),
        document_symbol_provider: Some(OneOf::Left(true)),
        folding_range_provider: Some(FoldingRangeProviderCapability::Simple(true)),
        semantic_tokens_provider: Some(
            SemanticTokensOptions {
                legend: SemanticTokensLegend {
                    token_types: outline::TOKEN_TYPES.map(SemanticTokenType::new).into(),
                    token_modifiers: vec![SemanticTokenModifier::DECLARATION],
                },
                full: Some(SemanticTokensFullOptions::Bool(true)),
                ..SemanticTokensOptions::default()
            }
            .into(),
        ),
        ..ServerCapabilities::default()
    }
}
