//! From files to the stream of samples that training reads: documents, filter, tokenizer, tokens, order.
//!
//! In: paths of verified files, and the fields of nodes (`aurora_compiler::fields`). Out: files in an empty
//! folder, or values. Everything here is a pure function of its inputs: no clock, no host, no number of threads.
//! Not here: where the files come from (`source`), the store, tensors.

pub mod bpe;
pub mod columns;
pub mod detect;
pub mod document_index;
pub mod documents;
pub mod encoder;
pub mod encoding;
pub mod extract;
pub mod filter;
pub mod items;
pub mod language;
pub mod megatron;
pub mod order;
pub mod permutation;
pub mod random;
mod records;
mod table;
pub mod template;
pub mod tokenizer;
pub mod tokens;
pub mod uses;
pub mod whitespace;

use std::io;

/// Writes a value as indented JSON with a final line break.
pub(crate) fn write_json(path: &camino::Utf8Path, value: &impl serde::Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    std::fs::write(path, bytes)
}
