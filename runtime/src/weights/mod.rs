//! Initial weights of a model: random, or imported from published files.
//!
//! In: a model and the kind of its weights; for imported ones the files of a source. Out: `weights/<group>.safetensors`, the
//! format of a checkpoint, in `f32`. An export gives the imported weights again (`export`). Pickles are never opened:
//! Hugging Face weights are read from safetensors only. Not here: how files are fetched (`source`), how the model is split
//! (`aurora-train`).

mod bytes;
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
use crate::make_below;
use crate::source::archive::{InputFile, MemberError};

pub use card::{Card, Trained};
pub use config::{ConfigError, read_config, write_config};
pub use export::{ExportError, Exported, SHARD_BYTES, export};
pub use gguf::{Gguf, GgufError};
pub use huggingface::{HuggingFace, HuggingFaceError};
pub use import::{ConfigDifference, PublishedWeights};
pub use vocabulary::{PublishedTokenizerError, VocabularyError, published_tokenizer, tokenizer_json};

#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("importing weights needs a source")]
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
        "{place} describes another model than the spec: {}; change the spec's model to match the file",
        list(differences)
    )]
    OtherModel {
        place: String,
        differences: Vec<ConfigDifference>,
    },
    #[error(
        "{place} does not have the tensor `{tensor}` that the model needs; check `architecture`, `layers` and `tied_embeddings`"
    )]
    NoTensor { place: String, tensor: String },
    #[error("{place} has a tensor `{tensor}` that the model does not have: without it, this would be another model")]
    ForeignTensor { place: String, tensor: String },
    #[error("tensor `{tensor}` of {place} has shape {found:?}, the model's has {expected:?}")]
    Shape {
        place: String,
        tensor: String,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
    #[error(
        "tensor `{tensor}` of {place} has numbers that are not finite: the file is damaged, or is not a trained model"
    )]
    NotFinite { place: String, tensor: String },
    #[error("cannot write the weights")]
    Write(#[from] CheckpointError),
}

fn list(differences: &[ConfigDifference]) -> String {
    let each: Vec<String> = differences.iter().map(ToString::to_string).collect();
    each.join(", ")
}

/// Writes a model's initial weights below `out`. `files` are those of the source, for imported weights; `note` receives
/// notes for the user.
///
/// # Errors
/// [`WeightsError`]; then `out` has some of the files.
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

/// JSON with its members sorted by name.
fn pretty(value: &serde_json::Value) -> String {
    let members: Option<std::collections::BTreeMap<_, _>> = value.as_object().map(|object| object.iter().collect());
    let text = members.map_or_else(
        || serde_json::to_string_pretty(value),
        |members| serde_json::to_string_pretty(&members),
    );
    text.expect("names and numbers are JSON") + "\n"
}

/// Writes published weights below `out` unchanged. Makes `out` if there is none.
///
/// # Errors
/// [`WeightsError`]; then `out` has some of the files.
pub fn convert(published: &dyn PublishedWeights, out: &Utf8Path) -> Result<(), WeightsError> {
    if let Some(above) = out.parent() {
        std::fs::create_dir_all(above).map_err(|source| WeightsError::Folder {
            path: out.to_owned(),
            source,
        })?;
    }
    import::import(published.model(), published, out, &|_| {})
}

fn weights_folder(out: &Utf8Path) -> Result<(), WeightsError> {
    let folder = out.join("weights");
    make_below(out.parent().unwrap_or(out), &folder).map_err(|source| WeightsError::Folder { path: folder, source })
}
