//! A client of `aurora lsp` over its standard input and output.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// A session with the server in a temporary folder.
pub struct Editor {
    folder: tempfile::TempDir,
    server: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    next: i64,
    versions: BTreeMap<String, i64>,
    /// The requests of the server.
    pub server_requests: Vec<Value>,
    /// The diagnostics that were last published of each file.
    pub shown: BTreeMap<String, Vec<Value>>,
    pub capabilities: Value,
}

/// The capabilities of a typical editor.
pub fn typical_capabilities() -> Value {
    json!({
        "general": { "positionEncodings": ["utf-16"] },
        "textDocument": { "completion": { "completionItem": { "snippetSupport": true } } },
        "workspace": {
            "workspaceEdit": { "documentChanges": true },
            "didChangeWatchedFiles": { "dynamicRegistration": true },
        },
    })
}

impl Editor {
    pub fn new(files: &[(&str, &str)]) -> Self {
        Self::with(files, typical_capabilities())
    }

    pub fn with(files: &[(&str, &str)], capabilities: Value) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("lockfiles")).expect("a folder for locks");
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        let mut server = Command::new(env!("CARGO_BIN_EXE_aurora"))
            .args(["lsp", "--stdio"])
            .env("XDG_CACHE_HOME", folder.path().join("cache"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let input = server.stdin.take();
        let output = BufReader::new(server.stdout.take().expect("its output"));
        let mut editor = Self {
            folder,
            server,
            input,
            output,
            next: 0,
            versions: BTreeMap::new(),
            server_requests: Vec::new(),
            shown: BTreeMap::new(),
            capabilities: Value::Null,
        };
        let root = editor.uri("");
        let params = json!({ "processId": null, "rootUri": root, "capabilities": capabilities, "workspaceFolders": [{ "uri": root, "name": "test" }] });
        let answer = editor.request("initialize", params);
        editor.capabilities = answer["capabilities"].clone();
        editor.notify("initialized", json!({}));
        editor
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub fn uri(&self, file: &str) -> String {
        format!("file://{}", self.path(file).display())
    }

    fn send(&mut self, message: Value) {
        let body = message.to_string();
        let input = self.input.as_mut().expect("the session is open");
        write!(input, "Content-Length: {}\r\n\r\n{body}", body.len()).expect("the server reads");
        input.flush().expect("the server reads");
    }

    fn receive(&mut self) -> Value {
        let mut length = 0;
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).expect("the server writes");
            assert!(read > 0, "the server has ended");
            match line.trim() {
                "" => break,
                header => {
                    if let Some(value) = header.strip_prefix("Content-Length: ") {
                        length = value.parse().expect("a length");
                    }
                }
            }
        }
        let mut body = vec![0; length];
        self.output.read_exact(&mut body).expect("a complete message");
        serde_json::from_slice(&body).expect("JSON")
    }

    pub fn notify(&mut self, method: &str, params: Value) {
        self.send(json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    /// Sends a request and waits for its result or error.
    pub fn try_request(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.next += 1;
        let id = self.next;
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        loop {
            let message = self.receive();
            if message["method"].is_string() {
                self.handle(message);
            } else if message["id"] == json!(id) {
                return match message.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(message["result"].clone()),
                };
            }
        }
    }

    pub fn request(&mut self, method: &str, params: Value) -> Value {
        let answer = self.try_request(method, params);
        answer.unwrap_or_else(|error| panic!("{method} failed: {error}"))
    }

    fn handle(&mut self, message: Value) {
        let params = &message["params"];
        if let (Some(uri), Some(found)) = (params["uri"].as_str(), params["diagnostics"].as_array()) {
            self.shown.insert(uri.to_owned(), found.clone());
        }
        if let Some(id) = message.get("id") {
            let answer = json!({ "jsonrpc": "2.0", "id": id, "result": null });
            self.server_requests.push(message.clone());
            self.send(answer);
        }
    }

    /// Opens a file with a text, which may differ from the file on disk, and returns its diagnostics.
    pub fn open(&mut self, file: &str, text: &str) -> Vec<Value> {
        let uri = self.uri(file);
        self.versions.insert(file.to_owned(), 1);
        let document = json!({ "uri": uri, "languageId": "aur", "version": 1, "text": text });
        self.notify("textDocument/didOpen", json!({ "textDocument": document }));
        self.diagnostics(file)
    }

    /// Opens a file as it is on disk.
    pub fn open_file(&mut self, file: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(file)).expect("the file is there");
        self.open(file, &text)
    }

    /// Sends changes, each a range and its new text, without waiting for diagnostics.
    pub fn type_in(&mut self, file: &str, changes: Value) {
        let version = self.versions.get_mut(file).expect("the file is open");
        *version += 1;
        let document =
            json!({ "uri": format!("file://{}", self.folder.path().join(file).display()), "version": *version });
        self.notify(
            "textDocument/didChange",
            json!({ "textDocument": document, "contentChanges": changes }),
        );
    }

    /// Replaces the complete text and returns the new diagnostics.
    pub fn change(&mut self, file: &str, text: &str) -> Vec<Value> {
        self.type_in(file, json!([{ "text": text }]));
        self.diagnostics(file)
    }

    /// Waits for the diagnostics of the newest version of an open file.
    pub fn diagnostics(&mut self, file: &str) -> Vec<Value> {
        let uri = self.uri(file);
        let version = self.versions.get(file).copied();
        loop {
            let message = self.receive();
            let params = message["params"].clone();
            self.handle(message);
            if params["uri"] == uri && params["version"].as_i64() == version && params["diagnostics"].is_array() {
                return self.shown[&uri].clone();
            }
        }
    }

    /// Sends a request about a place of a file.
    pub fn at(&mut self, method: &str, file: &str, position: Value) -> Value {
        let uri = self.uri(file);
        self.request(
            method,
            json!({ "textDocument": { "uri": uri }, "position": position, "context": { "includeDeclaration": true, "triggerKind": 1 } }),
        )
    }

    /// Markdown of the hover at a place.
    pub fn hover(&mut self, file: &str, position: Value) -> String {
        self.at("textDocument/hover", file, position)["contents"]["value"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Opens a text in which `|` marks the cursor, and completes there; label and inserted text of each.
    pub fn completions(&mut self, file: &str, marked: &str) -> Vec<(String, String)> {
        let (text, position) = cursor(marked);
        match self.versions.contains_key(file) {
            true => self.change(file, &text),
            false => self.open(file, &text),
        };
        let list = self.at("textDocument/completion", file, position);
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        items
            .iter()
            .map(|item| (text(&item["label"]), text(&item["textEdit"]["newText"])))
            .collect()
    }

    pub fn labels(&mut self, file: &str, marked: &str) -> Vec<String> {
        self.completions(file, marked)
            .into_iter()
            .map(|(label, _)| label)
            .collect()
    }

    /// Ends the session according to the protocol and returns the exit status.
    pub fn end(mut self) -> i32 {
        self.request("shutdown", Value::Null);
        self.notify("exit", Value::Null);
        self.input = None;
        self.server
            .wait()
            .expect("the server ends")
            .code()
            .expect("an exit status")
    }

    /// Closes the connection without `shutdown` and returns the exit status.
    pub fn disconnect(mut self) -> i32 {
        self.input = None;
        self.server
            .wait()
            .expect("the server ends")
            .code()
            .expect("an exit status")
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        // After a failed test the server is still running.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The text without its `|`, and the position of the `|` in UTF-16 units.
pub fn cursor(marked: &str) -> (String, Value) {
    let at = marked.find('|').expect("a cursor");
    let text = [&marked[..at], &marked[at + 1..]].concat();
    (text, position(&marked[..at]))
}

/// The position after a text.
pub fn position(before: &str) -> Value {
    let line = before.matches('\n').count();
    let last = before.rsplit('\n').next().unwrap_or_default();
    json!({ "line": line, "character": last.encode_utf16().count() })
}

/// The start of the nth occurrence of a part of a text.
pub fn find(text: &str, part: &str, nth: usize) -> Value {
    let (at, _) = text
        .match_indices(part)
        .nth(nth)
        .unwrap_or_else(|| panic!("`{part}` does not occur {nth} times"));
    position(&text[..at])
}

/// The text at a range of the protocol.
pub fn slice<'t>(text: &'t str, range: &Value) -> &'t str {
    &text[byte(text, &range["start"])..byte(text, &range["end"])]
}

pub fn byte(text: &str, position: &Value) -> usize {
    let line = position["line"].as_u64().expect("a line") as usize;
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let mut left = position["character"].as_u64().expect("a character") as usize;
    for (at, character) in text[start..].char_indices() {
        if left == 0 {
            return start + at;
        }
        left = left.saturating_sub(character.len_utf16());
    }
    text.len()
}

/// A text after edits of the protocol.
pub fn edited(text: &str, edits: &Value) -> String {
    let mut edits: Vec<&Value> = edits.as_array().expect("a list of edits").iter().collect();
    edits.sort_by_key(|edit| byte(text, &edit["range"]["start"]));
    let mut text = text.to_owned();
    for edit in edits.iter().rev() {
        let [start, end] = ["start", "end"].map(|end| byte(&text, &edit["range"][end]));
        text.replace_range(start..end, edit["newText"].as_str().expect("a text"));
    }
    text
}
