//! First weights of a model: drawn at random, or imported from files that others have published.
//!
//! In: a model, and how its weights come about; for imported ones the files of a source. Out:
//! `weights/<group>.safetensors`, the layout of a checkpoint, in `f32`. Exported again they are what came in
//! (`export`). No pickle is ever opened: Hugging Face weights are read from safetensors alone. Not here: how files are
//! fetched (`source`), how shards are cut (`aurora-train`).

mod card;
mod config;
mod export;
mod gguf;
mod huggingface;
mod import;
mod initial;
mod quantised;
mod vocabulary;

#[cfg(test)]
mod tests;

use aurora_compiler::fields::{WeightsFields, WeightsHow};
use camino::{Utf8Path, Utf8PathBuf};

use crate::checkpoint::CheckpointError;
use crate::source::archive::{InputFile, MemberError};

pub use card::{Card, Trained};
pub use config::{ConfigError, read_config, write_config};
pub use export::{ExportError, Exported, SHARD_BYTES, export};
pub use gguf::{Gguf, GgufError};
pub use huggingface::{HuggingFace, HuggingFaceError};
pub use import::{Difference, Foreign};
pub use vocabulary::{PublishedTokenizerError, VocabularyError, published_tokenizer, tokenizer_json};

#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("weights are imported from a source, and there is none")]
    NoSource,
    #[error("cannot create the folder `{path}`")]
    Folder {
        path: Utf8PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Member(#[from] MemberError),
    #[error(transparent)]
    HuggingFace(#[from] HuggingFaceError),
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(
        "{place} describes another model than the spec: {}; write in the model what the file says",
        list(differences)
    )]
    OtherModel {
        place: String,
        differences: Vec<Difference>,
    },
    #[error(
        "{place} has no tensor `{tensor}`, which the model needs; is `architecture`, `layers` or `tied_embeddings` another?"
    )]
    NoTensor { place: String, tensor: String },
    #[error("{place} has a tensor `{tensor}` that the model has not: using it without would be another model")]
    ForeignTensor { place: String, tensor: String },
    #[error("tensor `{tensor}` of {place} has shape {found:?}, the model's has {expected:?}")]
    Shape {
        place: String,
        tensor: String,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
    #[error(
        "tensor `{tensor}` of {place} holds numbers that are not finite: the file is damaged, or was never a trained model"
    )]
    NotFinite { place: String, tensor: String },
    #[error("cannot write the weights")]
    Write(#[from] CheckpointError),
}

fn list(differences: &[Difference]) -> String {
    let each: Vec<String> = differences.iter().map(ToString::to_string).collect();
    each.join(", ")
}

/// Writes a model's first weights below `out`. `files` are those of the source, for imported weights; `note` is told what
/// a reader of the run should know.
///
/// # Errors
/// [`WeightsError`]; then `out` holds a part of the files.
pub fn weights(
    fields: &WeightsFields,
    files: Option<&[InputFile]>,
    out: &Utf8Path,
    note: &dyn Fn(&str),
) -> Result<(), WeightsError> {
    let files = files.ok_or(WeightsError::NoSource);
    match &fields.how {
        WeightsHow::Random { seed, std } => initial::initial_weights(&fields.model, *seed, *std, out),
        WeightsHow::Import => import::import(&fields.model, &HuggingFace::open(files?)?, out, note),
        WeightsHow::Gguf { member } => import::import(&fields.model, &Gguf::open(files?, member)?, out, note),
    }
}

/// JSON with its members by name, whatever order the parser of this build keeps.
fn pretty(value: &serde_json::Value) -> String {
    let members: Option<std::collections::BTreeMap<_, _>> = value.as_object().map(|object| object.iter().collect());
    let text = members.map_or_else(
        || serde_json::to_string_pretty(value),
        |members| serde_json::to_string_pretty(&members),
    );
    text.expect("names and numbers are JSON") + "\n"
}

/// Writes foreign weights below `out` as they are.
///
/// # Errors
/// [`WeightsError`]; then `out` holds a part of the files.
pub fn take(foreign: &dyn Foreign, out: &Utf8Path) -> Result<(), WeightsError> {
    import::import(foreign.model(), foreign, out, &|_| {})
}

fn weights_folder(out: &Utf8Path) -> Result<(), WeightsError> {
    let folder = out.join("weights");
    std::fs::create_dir_all(&folder).map_err(|source| WeightsError::Folder { path: folder, source })
}
