//! The session: start, end, encodings, and recovery from invalid messages.

use serde_json::json;

use crate::client::{Editor, find, typical_capabilities};
use crate::specs::{FILES, SPEC};

#[test]
fn a_session_ends_according_to_the_protocol() {
    assert_eq!(Editor::new(&[]).end(), 0);
    // Without `shutdown`, and when the editor dies.
    let mut editor = Editor::new(&[]);
    editor.notify("exit", json!(null));
    assert_eq!(editor.disconnect(), 1);
    assert_eq!(Editor::new(&[]).disconnect(), 1);
}

#[test]
fn an_invalid_request_is_refused_and_the_session_continues() {
    let mut editor = Editor::new(&FILES);
    let code = |answer: Result<_, serde_json::Value>| answer.expect_err("a refusal")["code"].clone();
    assert_eq!(code(editor.try_request("aurora/dance", json!({}))), -32601);
    assert_eq!(
        code(editor.try_request("textDocument/hover", json!({ "textDocument": 3 }))),
        -32602
    );
    let elsewhere = json!({ "textDocument": { "uri": "untitled:one" }, "position": { "line": 0, "character": 0 } });
    assert!(editor.try_request("textDocument/hover", elsewhere).is_err());
    editor.notify("aurora/sing", json!({}));
    editor.open_file("specs/demo.aur");
    assert!(
        editor
            .hover("specs/demo.aur", find(SPEC, "budget", 0))
            .contains("The length of the stage")
    );
    assert_eq!(editor.end(), 0);
}

#[test]
fn positions_are_utf_16_unless_the_client_supports_utf_8() {
    let text = "experiment e { seed = 1 }\n// 😀é\nsource /* */ x { from = \"😀é\" form = 1 }\n".replace("/* */ ", "");
    let column = |editor: &mut Editor| {
        let found = editor.open("specs/a.aur", &text);
        let error = found
            .iter()
            .find(|error| error["code"] == "E0203")
            .expect("an unknown field");
        error["range"]["start"]["character"].clone()
    };
    let mut sixteen = Editor::new(&[]);
    assert_eq!(sixteen.capabilities["positionEncoding"], "utf-16");
    assert_eq!(column(&mut sixteen), 24);
    let mut capabilities = typical_capabilities();
    capabilities["general"]["positionEncodings"] = json!(["utf-16", "utf-8"]);
    let mut eight = Editor::with(&[], capabilities);
    assert_eq!(eight.capabilities["positionEncoding"], "utf-8");
    assert_eq!(column(&mut eight), 27);
}

#[test]
fn typing_changes_the_text_incrementally() {
    let mut editor = Editor::new(&FILES);
    assert_eq!(editor.open_file("specs/demo.aur").len(), 0);
    // Two edits in one notification, the second in the text after the first; then a third.
    let [line, character] = ["line", "character"].map(|part| find(SPEC, "budget", 0)[part].as_u64().expect("a number"));
    let range = |from: u64, to: u64| json!({ "start": { "line": line, "character": character + from }, "end": { "line": line, "character": character + to } });
    editor.type_in(
        "specs/demo.aur",
        json!([{ "range": range(0, 1), "text": "" }, { "range": range(0, 0), "text": "😀" }]),
    );
    editor.type_in("specs/demo.aur", json!([{ "range": range(0, 2), "text": "w" }]));
    let found = editor.diagnostics("specs/demo.aur");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0]["message"]
            .as_str()
            .expect("a text")
            .starts_with("no field `wudget` in a stage"),
        "{found:?}"
    );
    editor.type_in("specs/demo.aur", json!([{ "range": range(0, 1), "text": "b" }]));
    assert_eq!(editor.diagnostics("specs/demo.aur").len(), 0);
}

#[test]
fn the_server_watches_files_where_the_client_can() {
    let mut editor = Editor::new(&FILES);
    assert_eq!(editor.open_file("specs/demo.aur").len(), 0);
    assert_eq!(editor.server_requests.len(), 1);
    assert_eq!(
        editor.server_requests[0]["params"]["registrations"][0]["method"],
        "workspace/didChangeWatchedFiles"
    );
    let library = editor.path("specs/lib/data.aur");
    std::fs::write(&library, "corpus fi { language = fi }\n").expect("a file");
    let uri = editor.uri("specs/lib/data.aur");
    editor.notify(
        "workspace/didChangeWatchedFiles",
        json!({ "changes": [{ "uri": uri, "type": 2 }] }),
    );
    let found = editor.diagnostics("specs/demo.aur");
    assert!(found.iter().any(|error| error["code"] == "E0221"), "{found:?}");
}

#[test]
fn no_text_ends_the_session() {
    let mut editor = Editor::new(&FILES);
    editor.open_file("specs/demo.aur");
    let end = |text: &str| crate::client::position(text);
    for length in (0..SPEC.len()).step_by(5) {
        // A text that ends anywhere, and one with a missing part.
        let stopped = &SPEC[..length];
        let without = [stopped, &SPEC[(length + 9).min(SPEC.len())..]].concat();
        for text in [stopped, &without] {
            editor.type_in("specs/demo.aur", json!([{ "text": text }]));
            let uri = editor.uri("specs/demo.aur");
            let document = json!({ "uri": uri });
            let place = json!({ "textDocument": document, "position": end(stopped) });
            let range = json!({ "start": end(""), "end": end(text) });
            for method in ["hover", "completion", "definition"] {
                editor.request(&format!("textDocument/{method}"), place.clone());
            }
            for method in ["documentSymbol", "foldingRange", "semanticTokens/full"] {
                editor.request(&format!("textDocument/{method}"), json!({ "textDocument": document }));
            }
            editor.request(
                "textDocument/inlayHint",
                json!({ "textDocument": document, "range": range }),
            );
            let context = json!({ "diagnostics": [] });
            editor.request(
                "textDocument/codeAction",
                json!({ "textDocument": document, "range": range, "context": context }),
            );
            let renamed = json!({ "textDocument": document, "position": end(stopped), "newName": "other" });
            let answer = editor.try_request("textDocument/rename", renamed);
            assert!(
                answer.as_ref().err().is_none_or(|error| error["code"] == -32803),
                "{answer:?}"
            );
        }
    }
    assert_eq!(editor.end(), 0);
}

/// A text of brackets or quotes costs time in proportion to its length, and memory too.
#[test]
fn a_text_of_brackets_is_answered() {
    let mut editor = Editor::new(&[]);
    for text in ["[", "experiment x {\n  a = [", "\"", "(", "x {\n"] {
        let found = editor.open("specs/a.aur", &text.repeat(300_000));
        assert!(!found.is_empty());
        let document = json!({ "uri": editor.uri("specs/a.aur") });
        let at = json!({ "line": 0, "character": 1000 });
        for method in [
            "semanticTokens/full",
            "foldingRange",
            "hover",
            "definition",
            "completion",
        ] {
            let params = json!({ "textDocument": document, "position": at });
            editor.request(&format!("textDocument/{method}"), params);
        }
    }
    assert_eq!(editor.end(), 0);
}

#[test]
fn a_length_that_no_message_has_ends_the_session_with_an_error() {
    let mut server = std::process::Command::new(env!("CARGO_BIN_EXE_aurora"));
    let server = server.arg("lsp").stdin(std::process::Stdio::piped());
    let mut server = server
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the server starts");
    let mut input = server.stdin.take().expect("its input");
    std::io::Write::write_all(&mut input, b"Content-Length: 999999999999999999\r\n\r\n{").expect("sent");
    drop(input);
    let output = server.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("more than the limit of"), "{text}");
}

#[test]
fn invalid_parameters_of_the_first_request_are_answered() {
    let mut server = std::process::Command::new(env!("CARGO_BIN_EXE_aurora"));
    let server = server.arg("lsp").stdin(std::process::Stdio::piped());
    let mut server = server
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the server starts");
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":5}}"#;
    let mut input = server.stdin.take().expect("its input");
    let message = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    std::io::Write::write_all(&mut input, message.as_bytes()).expect("sent");
    // The editor keeps its side open: it waits for the answer.
    let mut output = server.stdout.take().expect("its output");
    let mut answer = [0; 100];
    std::io::Read::read_exact(&mut output, &mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains(r#""error":{"code":-32602"#), "{answer}");
    drop(input);
    assert_eq!(server.wait().expect("it ends").code(), Some(1));
}
