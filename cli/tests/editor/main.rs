//! Tests of the language server, with a client that talks to `aurora lsp` over standard input and output.
//!
//! One test per feature, on a spec with imports, and where it matters on a spec with syntax errors.

#[path = "../../../tests/missing_tools.rs"]
mod missing_tools;

mod client;
mod completing;
mod diagnosing;
mod neovim;
mod reading;
mod renaming;
mod repository;
mod session;
mod specs;
mod treesitter;
mod vscode;
