//! From files to the stream of samples that training reads: documents, filter, tokenizer, tokens, order.
//!
//! In: paths of files that somebody else has verified, and orders (`aurora_compiler::fields`). Out: files in an empty
//! folder, or values. Everything here is a pure function of its inputs: no clock, no host, no number of threads.
//! Not here: where the files come from (`source`), the store, tensors.

pub mod order;
pub mod permutation;
pub mod random;
pub mod tokens;
