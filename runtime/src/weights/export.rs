//! Exports a checkpoint as a model that Hugging Face's tools load.
//!
//! In: a model, a checkpoint's files, a tokenizer, a card. Out: a folder with `config.json`, safetensors (several files
//! with an index if one would be too large), `tokenizer.json` and its configuration, `generation_config.json` and the card.
//! The same bytes for the same checkpoint; numbers stay `f32`, so that an import gives the same weights. The folder is
//! created in one step. `config.rs` next to this file maps the fields of `config.json` in both directions; `checkpoint.rs`
//! names the tensors.

use std::collections::BTreeMap;
use std::io;

use aurora_compiler::fields::ModelFields;
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use super::{Card, pretty, write_config};
use crate::checkpoint::{CheckpointError, Group, TensorInfo, groups, read, write_part};
use crate::data::tokenizer::TokenizerMeta;
use crate::errors::FileError;
use crate::job::Files;

/// The largest file of weights, as on the hub. A group of layers is never split.
pub const SHARD_BYTES: u64 = 5_000_000_000;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("`{path}` is not empty: name another folder")]
    NotEmpty { path: Utf8PathBuf },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// The written files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Names and bytes.
    pub files: BTreeMap<String, u64>,
}

/// Writes the model to the folder `out`, which must be empty or missing. `tokenizer` is the `tokenizer.json` with its
/// metadata.
///
/// # Errors
/// [`ExportError`]; then `out` is not created.
pub fn export(
    model: &ModelFields,
    files: &Files,
    tokenizer: Option<(&Utf8Path, &TokenizerMeta)>,
    card: &Card,
    shard_bytes: u64,
    out: &Utf8Path,
) -> Result<Exported, ExportError> {
    let filled = out.is_file() || out.read_dir_utf8().is_ok_and(|mut listing| listing.next().is_some());
    if filled {
        return Err(ExportError::NotEmpty { path: out.to_owned() });
    }
    let parent = out
        .parent()
        .filter(|parent| !parent.as_str().is_empty())
        .unwrap_or(Utf8Path::new("."));
    std::fs::create_dir_all(parent).map_err(FileError::writing(parent))?;
    let folder = tempfile::Builder::new()
        .prefix(".aurora-export-")
        .tempdir_in(parent)
        .map_err(FileError::writing(parent))?;
    let within =
        Utf8Path::from_path(folder.path()).expect("a folder with a plain name inside of one whose path is UTF-8");
    weights(model, files, shard_bytes, within)?;
    let put = |name: &str, text: &str| {
        let path = within.join(name);
        std::fs::write(&path, text).map_err(FileError::writing(&path))
    };
    let end = tokenizer.map(|(_, meta)| meta.end_of_document_id);
    put("config.json", &write_config(model, end))?;
    put(
        "generation_config.json",
        &pretty(&json!({"bos_token_id": end, "eos_token_id": end})),
    )?;
    put("README.md", &card.text(model))?;
    if let Some((path, meta)) = tokenizer {
        let to = within.join("tokenizer.json");
        let mut from = std::fs::File::open(path).map_err(FileError::writing(path))?;
        // Not a copy of the store's file, which is read-only.
        let mut new = std::fs::File::create(&to).map_err(FileError::writing(&to))?;
        io::copy(&mut from, &mut new).map_err(FileError::writing(&to))?;
        let end = &meta.end_of_document;
        put(
            "special_tokens_map.json",
            &pretty(&json!({"bos_token": end, "eos_token": end})),
        )?;
        let companion = json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": end, "eos_token": end,
            "model_max_length": model.context, "clean_up_tokenization_spaces": false,
        });
        put("tokenizer_config.json", &pretty(&companion))?;
    }
    let mut written = BTreeMap::new();
    for entry in within.read_dir_utf8().map_err(FileError::writing(within))? {
        let entry = entry.map_err(FileError::writing(within))?;
        let file = std::fs::File::open(entry.path()).map_err(FileError::writing(entry.path()))?;
        file.sync_all().map_err(FileError::writing(entry.path()))?;
        let bytes = entry.metadata().map_err(FileError::writing(entry.path()))?.len();
        written.insert(entry.file_name().to_owned(), bytes);
    }
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(within, std::fs::Permissions::from_mode(0o755)).map_err(FileError::writing(within))?;
    // A rename replaces an empty folder.
    std::fs::rename(folder.keep(), out).map_err(FileError::writing(out))?;
    Ok(Exported { files: written })
}

/// Writes the weights, and an index if there are several files.
fn weights(model: &ModelFields, files: &Files, shard_bytes: u64, out: &Utf8Path) -> Result<(), ExportError> {
    let groups = groups(model);
    let bytes = |group: &Group| 4 * group.tensors.iter().map(TensorInfo::count).sum::<usize>() as u64;
    let mut shards: Vec<(u64, Vec<&Group>)> = Vec::new();
    for group in &groups {
        match shards.last_mut() {
            Some((filled, shard)) if *filled + bytes(group) <= shard_bytes => {
                *filled += bytes(group);
                shard.push(group);
            }
            _ => shards.push((bytes(group), vec![group])),
        }
    }
    let count = shards.len();
    let mut map = BTreeMap::new();
    for (number, (_, shard)) in shards.iter().enumerate() {
        let name = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        let mut tensors: Vec<TensorInfo> = shard.iter().flat_map(|group| group.tensors.clone()).collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let mut at = BTreeMap::new();
        let mut next = 0;
        for tensor in &tensors {
            at.insert(tensor.name.clone(), next);
            next += tensor.count();
            map.insert(tensor.name.clone(), name.clone());
        }
        for group in shard {
            let mut runs = Vec::new();
            read(files, &group.weights(), &group.tensors, |tensor, numbers| {
                runs.push((at[&tensor.name], numbers.to_vec()));
            })?;
            let runs = runs.iter().map(|(at, numbers)| (*at, numbers.as_slice()));
            write_part(&out.join(&name), &tensors, runs)?;
        }
    }
    if count > 1 {
        let total: u64 = groups.iter().map(bytes).sum();
        let index = json!({"metadata": {"total_size": total}, "weight_map": map});
        let path = out.join("model.safetensors.index.json");
        std::fs::write(&path, pretty(&index)).map_err(FileError::writing(&path))?;
    }
    Ok(())
}
