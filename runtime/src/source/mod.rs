//! Where files come from: references, their fetching by the ordinary package clients, and the archives they come in.
//!
//! In: a reference as a spec states it, and a pin as the lock states it. Out: files with their BLAKE3, or the members of
//! such files. Nothing is installed and nothing runs as another user. Not here: the store, what members mean (`data`).

pub mod archive;
