//! The language server, driven by a real client over standard input and output.
//!
//! One test a feature; each on a spec with imports, and where it matters on a broken one.

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
