//! Where files come from: references, their fetching by the ordinary package clients, and the archives they come in.
//!
//! In: a reference as a spec states it, and a pin as the lock states it. Out: files with their BLAKE3, or the members of
//! such files. Nothing is installed and nothing runs as another user. Not here: the store, what members mean (`data`).

pub mod archive;
use aurora_compiler::graph::Pin;
use camino::{Utf8Path, Utf8PathBuf};
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct FetchError;
impl FetchError {
    pub fn help(&self) -> Option<String> {
        None
    }
}
pub struct Reference;
impl Reference {
    pub fn parse(_t: &str) -> Result<Self, FetchError> {
        Err(FetchError)
    }
}
pub struct Fetched {
    pub reference: String,
    pub files: Vec<(String, Utf8PathBuf)>,
    pub bytes: u64,
    pub content: String,
}
pub struct Request<'a> {
    pub name: &'a str,
    pub root: &'a Utf8Path,
    pub scratch: &'a Utf8Path,
    pub pin: Option<&'a Pin>,
    pub newest: bool,
    pub offline: bool,
}
pub fn fetch(_r: &Reference, _q: &Request<'_>, _w: crate::progress::Watch<'_>) -> Result<Fetched, FetchError> {
    Err(FetchError)
}
pub fn fetch_local(_r: &Reference, _root: &Utf8Path) -> Result<Fetched, FetchError> {
    Err(FetchError)
}
