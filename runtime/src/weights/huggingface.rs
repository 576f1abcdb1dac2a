//! Weights in Hugging Face's format: `config.json`, and safetensors in one file or in several with an index.
//!
//! In: the files of a source. Out: [`PublishedWeights`]. Files are mapped and never unpacked, and the safetensors reader
//! checks header, offsets and lengths before a tensor is read. Pickles (`*.bin`, `*.pt`) are never opened.

use std::collections::BTreeMap;
use std::io::Read;

use aurora_compiler::fields::ModelFields;
use camino::Utf8PathBuf;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::Deserialize;

use super::config::{ConfigError, read_config};
use super::import::PublishedWeights;
use super::{WeightsError, quantised};
use crate::checkpoint::TensorInfo;
use crate::errors::FileError;
use crate::limits::CONFIG;
use crate::regular;
use crate::source::archive::{InputFile, is_plain};
use crate::strict_json;

const INDEX: &str = "model.safetensors.index.json";

#[derive(Debug, thiserror::Error)]
pub enum HuggingFaceError {
    #[error(
        "there is no `config.json` among the files ({}); name a source with the files of a Hugging Face model",
        some(files)
    )]
    NoConfig { files: Vec<String> },
    #[error(
        "there is more than one `config.json` ({}); name a source with one model",
        some(files)
    )]
    ManyConfigs { files: Vec<String> },
    #[error("`{path}` does not describe a model that can be imported: {cause}")]
    Config { path: String, cause: ConfigError },
    #[error(
        "the folder of `{config}` has no safetensors{}; convert the weights with the tools of their authors",
        if *pickles { ", only pickles, which are never opened" } else { "" }
    )]
    NoWeights { config: String, pickles: bool },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{path}` has {found} bytes, more than the limit of {CONFIG}")]
    Large { path: Utf8PathBuf, found: u64 },
    #[error("`{path}` is not a complete safetensors file ({cause}): fetch it again")]
    Damaged { path: Utf8PathBuf, cause: SafeTensorError },
    #[error("`{path}` is not a valid index of weights: {cause}")]
    Index { path: String, cause: String },
    #[error("according to `{index}`, `{tensor}` is in `{file}`, which {problem}: fetch the complete model")]
    Misplaced {
        index: String,
        tensor: String,
        file: String,
        problem: &'static str,
    },
    #[error("tensor `{tensor}` is in `{first}` and in `{second}`: without an index, it must be in one file only")]
    Twice {
        tensor: String,
        first: String,
        second: String,
    },
    #[error("tensor `{tensor}` of `{path}` is {found}; supported are F32, F16 and BF16")]
    Type {
        path: Utf8PathBuf,
        tensor: String,
        found: String,
    },
    #[error(
        "`{first}` and `{second}` are tied in `config.json`, but their numbers differ: set `tied_embeddings = false` there"
    )]
    NotTied { first: &'static str, second: &'static str },
}

fn some(files: &[String]) -> String {
    let mut text = files.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
    if files.len() > 4 {
        text.push_str(", …");
    }
    text
}

/// A model's files, mapped.
#[derive(Debug)]
pub struct HuggingFace {
    folder: String,
    model: ModelFields,
    shards: Vec<Shard>,
    /// The location of each tensor.
    tensors: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Shard {
    path: Utf8PathBuf,
    bytes: Mmap,
}

#[derive(Clone, Debug)]
struct Place {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// The range in the shard's bytes.
    range: std::ops::Range<usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl HuggingFace {
    /// Opens the one model among these files.
    ///
    /// # Errors
    /// [`HuggingFaceError`].
    pub fn open(files: &[InputFile]) -> Result<Self, HuggingFaceError> {
        let named = |file: &InputFile, name: &str| file.name == name || file.name.ends_with(&format!("/{name}"));
        let configs: Vec<&InputFile> = files.iter().filter(|file| named(file, "config.json")).collect();
        let names = |files: &[&InputFile]| files.iter().map(|file| file.name.clone()).collect::<Vec<_>>();
        let config = match configs.as_slice() {
            [one] => *one,
            [] => {
                let files = names(&files.iter().collect::<Vec<_>>());
                return Err(HuggingFaceError::NoConfig { files });
            }
            several => return Err(HuggingFaceError::ManyConfigs { files: names(several) }),
        };
        let folder = config.name.strip_suffix("config.json").unwrap_or_default().to_owned();
        let model = read_config(&small(config)?).map_err(|cause| HuggingFaceError::Config {
            path: config.name.clone(),
            cause,
        })?;
        let beside = |file: &&InputFile| file.name.strip_prefix(&folder).is_some_and(|name| !name.contains('/'));
        let beside: Vec<&InputFile> = files
            .iter()
            .filter(beside)
            .filter(|file| is_plain(&file.name))
            .collect();
        let weights: Vec<&InputFile> = beside
            .iter()
            .copied()
            .filter(|file| file.name.ends_with(".safetensors"))
            .collect();
        if weights.is_empty() {
            let pickled = |file: &InputFile| {
                [".bin", ".pt", ".pth", ".ckpt"]
                    .iter()
                    .any(|end| file.name.ends_with(end))
            };
            return Err(HuggingFaceError::NoWeights {
                config: config.name.clone(),
                pickles: files.iter().any(pickled),
            });
        }
        let index = beside.iter().copied().find(|file| named(file, INDEX));
        let mut this = Self {
            folder,
            model,
            shards: Vec::new(),
            tensors: BTreeMap::new(),
        };
        match index {
            Some(index) => this.open_by(index, &weights)?,
            None => {
                for file in weights {
                    this.open_shard(file)?;
                }
            }
        }
        this.drop_aliases()?;
        Ok(this)
    }

    /// Opens the files that an index names.
    fn open_by(&mut self, index: &InputFile, weights: &[&InputFile]) -> Result<(), HuggingFaceError> {
        let read = strict_json::parse(&small(index)?).and_then(serde_json::from_value);
        let read: Index = read.map_err(|error| HuggingFaceError::Index {
            path: index.name.clone(),
            cause: error.to_string(),
        })?;
        let misplaced = |tensor: &str, file: &str, problem| HuggingFaceError::Misplaced {
            index: index.name.clone(),
            tensor: tensor.to_owned(),
            file: file.to_owned(),
            problem,
        };
        let mut opened: BTreeMap<&str, usize> = BTreeMap::new();
        for (tensor, file) in &read.weight_map {
            if !opened.contains_key(file.as_str()) {
                let name = format!("{}{file}", self.folder);
                let found = weights.iter().find(|weights| weights.name == name);
                let found = found.ok_or_else(|| misplaced(tensor, file, "is missing"))?;
                self.open_shard(found)?;
                opened.insert(file, self.shards.len() - 1);
            }
        }
        for (tensor, file) in &read.weight_map {
            match self.tensors.get(tensor) {
                Some(place) if place.shard == opened[file.as_str()] => {}
                _ => return Err(misplaced(tensor, file, "does not have this tensor")),
            }
        }
        Ok(())
    }

    fn open_shard(&mut self, file: &InputFile) -> Result<(), HuggingFaceError> {
        let reading = FileError::reading(&file.path);
        let open = regular::open(&file.path).map_err(reading)?;
        // SAFETY: nothing changes the files of a source. `aurora import` reads a user's own files; one that is truncated
        // meanwhile ends that command.
        let bytes = unsafe { Mmap::map(&open) }.map_err(reading)?;
        let damaged = |cause| HuggingFaceError::Damaged {
            path: file.path.clone(),
            cause,
        };
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        let start = header + 8;
        let mut found = Vec::new();
        for (name, info) in metadata.tensors() {
            let range = start + info.data_offsets.0..start + info.data_offsets.1;
            found.push((name, info.dtype, info.shape.clone(), range));
        }
        // Only the complete reader compares the header with the length of the file.
        SafeTensors::deserialize(&bytes).map_err(damaged)?;
        for (name, dtype, shape, range) in found {
            if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) && !is_buffer(&name) {
                return Err(HuggingFaceError::Type {
                    path: file.path.clone(),
                    tensor: name,
                    found: format!("{dtype:?}"),
                });
            }
            let shard = self.shards.len();
            let place = Place {
                shard,
                dtype,
                shape,
                range,
            };
            if let Some(before) = self.tensors.insert(name.clone(), place) {
                return Err(HuggingFaceError::Twice {
                    tensor: name,
                    first: self.shards[before.shard].path.to_string(),
                    second: file.path.to_string(),
                });
            }
        }
        self.shards.push(Shard {
            path: file.path.clone(),
            bytes,
        });
        Ok(())
    }

    /// Leaves out tensors that transformers recomputes when it loads a model: masks and angles, and the output layer if it is
    /// the word embedding.
    fn drop_aliases(&mut self) -> Result<(), HuggingFaceError> {
        self.tensors.retain(|name, _| !is_buffer(name));
        let (output, words) = (
            "lm_head.weight",
            ["transformer.wte.weight", "model.embed_tokens.weight"],
        );
        if !self.model.tied_embeddings || !self.tensors.contains_key(output) {
            return Ok(());
        }
        for word in words.into_iter().filter(|word| self.tensors.contains_key(*word)) {
            if self.bytes(&self.tensors[word]) != self.bytes(&self.tensors[output]) {
                return Err(HuggingFaceError::NotTied {
                    first: "lm_head.weight",
                    second: word,
                });
            }
        }
        self.tensors.remove(output);
        Ok(())
    }

    fn bytes(&self, place: &Place) -> &[u8] {
        &self.shards[place.shard].bytes[place.range.clone()]
    }
}

fn is_buffer(name: &str) -> bool {
    [".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"]
        .iter()
        .any(|end| name.ends_with(end))
}

fn small(file: &InputFile) -> Result<Vec<u8>, HuggingFaceError> {
    let reading = FileError::reading(&file.path);
    let open = regular::open(&file.path).map_err(reading)?;
    let found = open.metadata().map_err(reading)?.len();
    let mut bytes = Vec::new();
    // A file can grow while it is read.
    open.take(CONFIG + 1).read_to_end(&mut bytes).map_err(reading)?;
    if bytes.len() as u64 > CONFIG {
        let path = file.path.clone();
        return Err(HuggingFaceError::Large { path, found });
    }
    Ok(bytes)
}

impl PublishedWeights for HuggingFace {
    fn place(&self) -> String {
        match self.folder.trim_end_matches('/') {
            "" => "the Hugging Face model".to_owned(),
            folder => format!("the Hugging Face model `{folder}`"),
        }
    }

    fn model(&self) -> &ModelFields {
        &self.model
    }

    fn tensors(&self) -> Vec<TensorInfo> {
        let each = self.tensors.iter();
        each.map(|(name, place)| TensorInfo {
            name: name.clone(),
            shape: place.shape.clone(),
        })
        .collect()
    }

    fn numbers(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let place = self.tensors.get(name).ok_or_else(|| WeightsError::NoTensor {
            place: self.place(),
            tensor: name.to_owned(),
        })?;
        let bytes = self.bytes(place);
        Ok(match place.dtype {
            Dtype::F16 => quantised::f16(bytes),
            Dtype::BF16 => quantised::bf16(bytes),
            _ => quantised::f32(bytes),
        })
    }
}
