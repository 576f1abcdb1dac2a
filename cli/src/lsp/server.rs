//! Dispatches the requests and notifications of the protocol.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use aurora_lang::ast::Span;
use camino::Utf8PathBuf;
use lsp_server::{ErrorCode, Message, Notification, Request, RequestId, Response};
use lsp_types::notification::{self as notified, Notification as _};
use lsp_types::request::{self as requested, Request as _};
use lsp_types::{
    CodeAction, CodeActionKind, CodeActionOrCommand, CodeActionParams, CodeActionResponse, CompletionList,
    CompletionParams, CompletionResponse, DocumentFormattingParams, DocumentHighlight, DocumentHighlightKind,
    DocumentHighlightParams, DocumentSymbolParams, DocumentSymbolResponse, FoldingRange, FoldingRangeParams,
    GotoDefinitionParams, GotoDefinitionResponse, Hover, HoverContents, HoverParams, InlayHint, InlayHintKind,
    InlayHintLabel, InlayHintParams, Location, PrepareRenameResponse, ReferenceParams, RenameParams, SemanticTokens,
    SemanticTokensParams, SemanticTokensResult, TextDocumentPositionParams, Uri, WorkspaceEdit,
};

use super::explanations::Explanations;
use super::publish::{Published, publish};
use super::text::{Encoding, Text};
use super::workspace::{OpenDocument, Workspace};
use super::{actions, complete, convert, hints, hover, outline, rename, uri};

/// The capabilities of the client.
#[derive(Clone, Copy, Debug)]
pub struct ClientCapabilities {
    pub encoding: Encoding,
    pub snippets: bool,
    /// Whether it accepts edits with the version of the document they were made for.
    pub versioned_edits: bool,
}

pub struct Server {
    pub workspace: Workspace,
    pub client: ClientCapabilities,
    pub explanations: Explanations,
    pub published: Published,
    /// Whether a text, a file on disk or the set of open documents has changed since the last diagnostics were
    /// computed.
    pub stale: bool,
}

/// The result of a request, or an error message.
type Answer<R> = Result<<R as requested::Request>::Result, String>;

impl Server {
    pub fn new(client: ClientCapabilities, folders: Vec<Utf8PathBuf>) -> Self {
        Self {
            workspace: Workspace::new(folders),
            client,
            explanations: Explanations::new(),
            published: Published::new(),
            stale: false,
        }
    }

    pub fn request(&mut self, request: Request) -> Response {
        match request.method.as_str() {
            requested::HoverRequest::METHOD => self.answer::<requested::HoverRequest>(request, Self::hover),
            requested::Completion::METHOD => self.answer::<requested::Completion>(request, Self::complete),
            requested::GotoDefinition::METHOD => self.answer::<requested::GotoDefinition>(request, Self::definition),
            requested::References::METHOD => self.answer::<requested::References>(request, Self::references),
            requested::DocumentHighlightRequest::METHOD => {
                self.answer::<requested::DocumentHighlightRequest>(request, Self::highlights)
            }
            requested::PrepareRenameRequest::METHOD => {
                self.answer::<requested::PrepareRenameRequest>(request, Self::prepare_rename)
            }
            requested::Rename::METHOD => self.answer::<requested::Rename>(request, Self::rename),
            requested::Formatting::METHOD => self.answer::<requested::Formatting>(request, Self::format),
            requested::CodeActionRequest::METHOD => self.answer::<requested::CodeActionRequest>(request, Self::actions),
            requested::InlayHintRequest::METHOD => self.answer::<requested::InlayHintRequest>(request, Self::hints),
            requested::DocumentSymbolRequest::METHOD => {
                self.answer::<requested::DocumentSymbolRequest>(request, Self::symbols)
            }
            requested::FoldingRangeRequest::METHOD => {
                self.answer::<requested::FoldingRangeRequest>(request, Self::folds)
            }
            requested::SemanticTokensFullRequest::METHOD => {
                self.answer::<requested::SemanticTokensFullRequest>(request, Self::semantic_tokens)
            }
            method => Response::new_err(
                request.id,
                ErrorCode::MethodNotFound as i32,
                format!("`{method}` is not supported"),
            ),
        }
    }

    /// Answers a request. A panic is answered with an error and does not end the session.
    fn answer<R: requested::Request>(
        &mut self,
        request: Request,
        with: fn(&mut Self, R::Params) -> Answer<R>,
    ) -> Response {
        let id: RequestId = request.id;
        let params = match serde_json::from_value::<R::Params>(request.params) {
            Ok(params) => params,
            Err(error) => return Response::new_err(id, ErrorCode::InvalidParams as i32, error.to_string()),
        };
        match catch_unwind(AssertUnwindSafe(|| with(self, params))) {
            Ok(Ok(answer)) => Response::new_ok(id, answer),
            Ok(Err(why)) => Response::new_err(id, ErrorCode::RequestFailed as i32, why),
            Err(_) => {
                self.workspace.forget();
                Response::new_err(
                    id,
                    ErrorCode::InternalError as i32,
                    "this is a bug in Aurora".to_owned(),
                )
            }
        }
    }

    pub fn notification(&mut self, notification: Notification) {
        match notification.method.as_str() {
            notified::DidOpenTextDocument::METHOD => {
                if let Some(params) = parameters::<notified::DidOpenTextDocument>(notification)
                    && let Some(path) = uri::path(&params.text_document.uri)
                {
                    let opened = params.text_document;
                    let text = Rc::new(Text::new(opened.text));
                    let document = OpenDocument {
                        uri: opened.uri,
                        version: opened.version,
                        text,
                    };
                    self.workspace.open(path, document);
                    self.stale = true;
                }
            }
            notified::DidChangeTextDocument::METHOD => {
                if let Some(params) = parameters::<notified::DidChangeTextDocument>(notification)
                    && let Some(path) = uri::path(&params.text_document.uri)
                    && let Some(text) = self.workspace.text(&path)
                {
                    let mut text = (*text).clone();
                    for change in &params.content_changes {
                        text = text.changed(change, self.client.encoding);
                    }
                    self.workspace.change(&path, params.text_document.version, text);
                    self.stale = true;
                }
            }
            notified::DidCloseTextDocument::METHOD => {
                if let Some(params) = parameters::<notified::DidCloseTextDocument>(notification)
                    && let Some(path) = uri::path(&params.text_document.uri)
                {
                    self.workspace.close(&path);
                    self.stale = true;
                }
            }
            notified::DidSaveTextDocument::METHOD | notified::DidChangeWatchedFiles::METHOD => {
                self.workspace.forget();
                self.stale = true;
            }
            _ => {}
        }
    }

    /// Checks what has changed, and returns the new diagnostics as messages to the client.
    pub fn publish(&mut self) -> Vec<Message> {
        self.stale = false;
        let Self {
            workspace,
            explanations,
            published,
            client,
            ..
        } = self;
        let publish = || publish(workspace, explanations, published, client.encoding);
        match catch_unwind(AssertUnwindSafe(publish)) {
            Ok(messages) => messages,
            Err(_) => {
                self.workspace.forget();
                Vec::new()
            }
        }
    }

    fn place(&mut self, at: &TextDocumentPositionParams) -> Result<(Utf8PathBuf, Rc<Text>, usize), String> {
        let (path, text) = self.file(&at.text_document.uri)?;
        let byte = text.byte(at.position, self.client.encoding);
        Ok((path, text, byte))
    }

    fn file(&mut self, uri: &Uri) -> Result<(Utf8PathBuf, Rc<Text>), String> {
        let path = uri::path(uri).ok_or_else(|| format!("`{}` is not a file", uri.as_str()))?;
        let text = self
            .workspace
            .text(&path)
            .ok_or_else(|| format!("`{path}` cannot be read"))?;
        Ok((path, text))
    }

    fn hover(&mut self, params: HoverParams) -> Answer<requested::HoverRequest> {
        let (path, text, byte) = self.place(&params.text_document_position_params)?;
        Ok(
            hover::hover(&mut self.workspace, &path, byte).map(|(span, value)| Hover {
                contents: HoverContents::Markup(convert::markdown(value)),
                range: Some(text.range(span, self.client.encoding)),
            }),
        )
    }

    fn complete(&mut self, params: CompletionParams) -> Answer<requested::Completion> {
        let (path, text, byte) = self.place(&params.text_document_position)?;
        let Some((span, items)) = complete::complete(&mut self.workspace, &path, byte) else {
            return Ok(None);
        };
        let range = text.range(span, self.client.encoding);
        let items = items
            .into_iter()
            .enumerate()
            .map(|(order, item)| convert::completion(item, range, order, self.client.snippets));
        Ok(Some(CompletionResponse::List(CompletionList {
            is_incomplete: false,
            items: items.collect(),
        })))
    }

    fn definition(&mut self, params: GotoDefinitionParams) -> Answer<requested::GotoDefinition> {
        let (path, _, byte) = self.place(&params.text_document_position_params)?;
        let places = rename::declarations(&mut self.workspace, &path, byte);
        let locations: Vec<Location> = places
            .iter()
            .filter_map(|place| convert::location(&mut self.workspace, place, self.client.encoding))
            .collect();
        Ok((!locations.is_empty()).then_some(GotoDefinitionResponse::Array(locations)))
    }

    fn references(&mut self, params: ReferenceParams) -> Answer<requested::References> {
        let (path, _, byte) = self.place(&params.text_document_position)?;
        let declares = params.context.include_declaration;
        let found = rename::references(&mut self.workspace, &path, byte);
        let wanted = found.iter().filter(|found| declares || !found.declares);
        Ok(Some(
            wanted
                .filter_map(|found| convert::location(&mut self.workspace, &found.place, self.client.encoding))
                .collect(),
        ))
    }

    fn highlights(&mut self, params: DocumentHighlightParams) -> Answer<requested::DocumentHighlightRequest> {
        let (path, text, byte) = self.place(&params.text_document_position_params)?;
        let found = rename::in_file(&mut self.workspace, &path, byte);
        let highlights = found.into_iter().map(|(span, declares)| DocumentHighlight {
            range: text.range(span, self.client.encoding),
            kind: Some(if declares {
                DocumentHighlightKind::WRITE
            } else {
                DocumentHighlightKind::READ
            }),
        });
        Ok(Some(highlights.collect()))
    }

    fn prepare_rename(&mut self, params: TextDocumentPositionParams) -> Answer<requested::PrepareRenameRequest> {
        let (path, text, byte) = self.place(&params)?;
        let span = rename::prepare(&mut self.workspace, &path, byte)?;
        Ok(Some(PrepareRenameResponse::Range(
            text.range(span, self.client.encoding),
        )))
    }

    fn rename(&mut self, params: RenameParams) -> Answer<requested::Rename> {
        let (path, _, byte) = self.place(&params.text_document_position)?;
        let edits = rename::rename(&mut self.workspace, &path, byte, &params.new_name)?;
        Ok(Some(self.edit(edits)))
    }

    fn edit(&mut self, edits: BTreeMap<Utf8PathBuf, Vec<(Span, String)>>) -> WorkspaceEdit {
        convert::workspace_edit(
            &mut self.workspace,
            edits,
            self.client.encoding,
            self.client.versioned_edits,
        )
    }

    fn format(&mut self, params: DocumentFormattingParams) -> Answer<requested::Formatting> {
        let (path, text) = self.file(&params.text_document.uri)?;
        let Some(analysis) = self.workspace.analysis(&path) else {
            return Ok(None);
        };
        // A file with syntax errors is not formatted.
        let own = analysis
            .bundle
            .files()
            .next()
            .filter(|file| file.parsed.errors.is_empty());
        Ok(own.map(|file| {
            let formatted = aurora_lang::format::format_file(text.as_str(), &file.parsed.file);
            convert::replacement(&text, &formatted, self.client.encoding)
        }))
    }

    fn actions(&mut self, params: CodeActionParams) -> Answer<requested::CodeActionRequest> {
        let (path, text) = self.file(&params.text_document.uri)?;
        let range = text.span(params.range, self.client.encoding);
        let mut response: CodeActionResponse = Vec::new();
        let mut titles = Vec::new();
        let mut specs = self.workspace.specs_of(&path);
        specs.push(path.clone());
        for spec in specs {
            let Some(analysis) = self.workspace.analysis(&spec) else {
                continue;
            };
            for action in actions::actions(&analysis, &path, range) {
                if titles.contains(&action.title) {
                    continue;
                }
                titles.push(action.title.clone());
                let mut edits: BTreeMap<Utf8PathBuf, Vec<(Span, String)>> = BTreeMap::new();
                for edit in action.edits {
                    let place = analysis.place(edit.span);
                    edits
                        .entry(place.path)
                        .or_default()
                        .push((place.span, edit.replacement));
                }
                let fixed = convert::diagnostic(
                    &mut self.workspace,
                    &analysis,
                    &mut self.explanations,
                    &action.fixes,
                    self.client.encoding,
                );
                response.push(CodeActionOrCommand::CodeAction(CodeAction {
                    title: action.title,
                    kind: Some(CodeActionKind::QUICKFIX),
                    diagnostics: fixed.map(|(_, diagnostic)| vec![diagnostic]),
                    edit: Some(self.edit(edits)),
                    is_preferred: Some(action.preferred),
                    ..CodeAction::default()
                }));
            }
        }
        Ok(Some(response))
    }

    fn hints(&mut self, params: InlayHintParams) -> Answer<requested::InlayHintRequest> {
        let (path, text) = self.file(&params.text_document.uri)?;
        let Some(analysis) = self.workspace.best(&path) else {
            return Ok(None);
        };
        let range = text.span(params.range, self.client.encoding);
        let hints = hints::hints(&analysis, &path)
            .into_iter()
            .filter(|hint| hint.value.start <= range.end && range.start <= hint.value.end);
        let hints = hints.map(|hint| InlayHint {
            position: text.position(hint.value.end, self.client.encoding),
            label: InlayHintLabel::String(hint.text),
            kind: Some(InlayHintKind::TYPE),
            text_edits: None,
            tooltip: None,
            padding_left: Some(true),
            padding_right: None,
            data: None,
        });
        Ok(Some(hints.collect()))
    }

    fn symbols(&mut self, params: DocumentSymbolParams) -> Answer<requested::DocumentSymbolRequest> {
        let (path, text) = self.file(&params.text_document.uri)?;
        let Some(analysis) = self.workspace.analysis(&path) else {
            return Ok(None);
        };
        let symbols = outline::symbols(&analysis, &path)
            .into_iter()
            .map(|symbol| convert::symbol(symbol, &text, self.client.encoding));
        Ok(Some(DocumentSymbolResponse::Nested(symbols.collect())))
    }

    fn folds(&mut self, params: FoldingRangeParams) -> Answer<requested::FoldingRangeRequest> {
        let (_, text) = self.file(&params.text_document.uri)?;
        let folds: Vec<FoldingRange> = outline::folds(text.as_str())
            .into_iter()
            .map(|fold| convert::fold(fold, &text))
            .collect();
        Ok(Some(folds))
    }

    fn semantic_tokens(&mut self, params: SemanticTokensParams) -> Answer<requested::SemanticTokensFullRequest> {
        let (_, text) = self.file(&params.text_document.uri)?;
        let data = convert::semantic_tokens(&text, self.client.encoding);
        Ok(Some(SemanticTokensResult::Tokens(SemanticTokens {
            result_id: None,
            data,
        })))
    }
}

/// The parameters of a notification. `None` if they are malformed: such a notification is ignored.
fn parameters<N: notified::Notification>(notification: Notification) -> Option<N::Params> {
    serde_json::from_value(notification.params).ok()
}
