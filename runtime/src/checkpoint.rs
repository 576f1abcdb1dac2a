//! The format of checkpoints: the tensors of each file, and the files' bytes.
//!
//! In: a model, full logical tensors in `f32`. Out: `weights/<group>.safetensors` and `optimizer/<group>.safetensors`,
//! the same bytes for the same numbers: tensors by name, without times, hosts and layout. Reading checks every name, shape,
//! type and length before a number is used. Not here: how tensors are divided among ranks (`model::parameter_map` of
//! `aurora-train`), which rank writes what and when (`train::checkpoint` of `aurora-train`), which checkpoint a command
//! names (`cli/src/checkpoint.rs`), the store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};

use aurora_compiler::fields::{Architecture, ModelFields};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

use crate::errors::FileError;
use crate::job::Files;

/// The progress of a stage, in a checkpoint.
pub const STATE: &str = "state.json";
/// The step log of a stage, in a checkpoint: one [`StepLogLine`](crate::job::StepLogLine) per line. The locks contain
/// digests of results, which include this name.
pub const STEP_LOG: &str = "trail.jsonl";

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("the checkpoint does not have a file `{name}`")]
    NoFile { name: String },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{path}` is not a complete safetensors file")]
    Damaged {
        path: Utf8PathBuf,
        #[source]
        source: safetensors::SafeTensorError,
    },
    #[error("`{path}` does not have a tensor `{tensor}`")]
    NoTensor { path: Utf8PathBuf, tensor: String },
    #[error("`{path}` has a tensor `{tensor}` that the model does not have")]
    ForeignTensor { path: Utf8PathBuf, tensor: String },
    #[error("tensor `{tensor}` of `{path}` has shape {found:?}, the model's has {expected:?}")]
    Shape {
        path: Utf8PathBuf,
        tensor: String,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
    #[error("tensor `{tensor}` of `{path}` is {found}, not F32")]
    Type {
        path: Utf8PathBuf,
        tensor: String,
        found: String,
    },
    #[error("tensor `{tensor}` has {found} numbers, its shape {shape:?} needs {expected}")]
    Length {
        tensor: String,
        found: usize,
        shape: Vec<usize>,
        expected: usize,
    },
}

/// A tensor's name, in Hugging Face's naming, and its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub shape: Vec<usize>,
}

impl TensorInfo {
    fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        Self {
            name: name.into(),
            shape: shape.to_vec(),
        }
    }

    /// The number of its elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The tensors of one file, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// `embeddings`, `layer.000`, …, `final_norm`.
    pub name: String,
    pub tensors: Vec<TensorInfo>,
}

impl Group {
    fn new(name: impl Into<String>, mut tensors: Vec<TensorInfo>) -> Self {
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            name: name.into(),
            tensors,
        }
    }

    /// The group's file of weights, inside a checkpoint.
    pub fn weights(&self) -> String {
        format!("weights/{}.safetensors", self.name)
    }

    /// The group's file of optimizer moments, inside a checkpoint.
    pub fn optimizer(&self) -> String {
        format!("optimizer/{}.safetensors", self.name)
    }

    /// The tensors of the optimizer's file: `NAME.m` and `NAME.v` for each weight.
    pub fn moments(&self) -> Vec<TensorInfo> {
        let each = self.tensors.iter();
        each.flat_map(|t| ["m", "v"].map(|moment| TensorInfo::new(format!("{}.{moment}", t.name), &t.shape)))
            .collect()
    }
}

/// The groups of a model, in the order of its layers. Names are those of Hugging Face's models.
pub fn groups(model: &ModelFields) -> Vec<Group> {
    match model.architecture {
        Architecture::GptBigcode => bigcode(model),
        Architecture::Llama => llama(model),
    }
}

fn bigcode(model: &ModelFields) -> Vec<Group> {
    let [hidden, heads, kv_heads] = [model.hidden, model.heads, model.kv_heads].map(|n| n as usize);
    let [feed_forward, vocabulary, context] = [model.feed_forward, model.vocabulary, model.context].map(|n| n as usize);
    let projected = hidden + 2 * kv_heads * (hidden / heads.max(1));
    let mut groups = vec![Group::new(
        "embeddings",
        vec![
            TensorInfo::new("transformer.wte.weight", &[vocabulary, hidden]),
            TensorInfo::new("transformer.wpe.weight", &[context, hidden]),
        ],
    )];
    for layer in 0..model.layers {
        let linear = |name: &str, out: usize, inputs: usize| {
            [
                TensorInfo::new(format!("transformer.h.{layer}.{name}.weight"), &[out, inputs]),
                TensorInfo::new(format!("transformer.h.{layer}.{name}.bias"), &[out]),
            ]
        };
        let norm = |name: &str| {
            ["weight", "bias"].map(|part| TensorInfo::new(format!("transformer.h.{layer}.{name}.{part}"), &[hidden]))
        };
        let tensors = [
            norm("ln_1"),
            norm("ln_2"),
            linear("attn.c_attn", projected, hidden),
            linear("attn.c_proj", hidden, hidden),
            linear("mlp.c_fc", feed_forward, hidden),
            linear("mlp.c_proj", hidden, feed_forward),
        ];
        groups.push(Group::new(
            format!("layer.{layer:03}"),
            tensors.into_iter().flatten().collect(),
        ));
    }
    let last = ["weight", "bias"].map(|part| TensorInfo::new(format!("transformer.ln_f.{part}"), &[hidden]));
    groups.push(Group::new("final_norm", last.to_vec()));
    groups
}

fn llama(model: &ModelFields) -> Vec<Group> {
    let [hidden, heads, kv_heads] = [model.hidden, model.heads, model.kv_heads].map(|n| n as usize);
    let [feed_forward, vocabulary] = [model.feed_forward, model.vocabulary].map(|n| n as usize);
    let keys = kv_heads * (hidden / heads.max(1));
    let embeddings = TensorInfo::new("model.embed_tokens.weight", &[vocabulary, hidden]);
    let mut groups = vec![Group::new("embeddings", vec![embeddings])];
    for layer in 0..model.layers {
        let of = |name: &str, shape: &[usize]| TensorInfo::new(format!("model.layers.{layer}.{name}.weight"), shape);
        let tensors = vec![
            of("input_layernorm", &[hidden]),
            of("post_attention_layernorm", &[hidden]),
            of("self_attn.q_proj", &[hidden, hidden]),
            of("self_attn.k_proj", &[keys, hidden]),
            of("self_attn.v_proj", &[keys, hidden]),
            of("self_attn.o_proj", &[hidden, hidden]),
            of("mlp.gate_proj", &[feed_forward, hidden]),
            of("mlp.up_proj", &[feed_forward, hidden]),
            of("mlp.down_proj", &[hidden, feed_forward]),
        ];
        groups.push(Group::new(format!("layer.{layer:03}"), tensors));
    }
    let norm = TensorInfo::new("model.norm.weight", &[hidden]);
    groups.push(Group::new("final_norm", vec![norm]));
    if !model.tied_embeddings {
        let output = TensorInfo::new("lm_head.weight", &[vocabulary, hidden]);
        groups.push(Group::new("output", vec![output]));
    }
    groups
}

/// Number of parameters.
pub fn parameters(model: &ModelFields) -> u64 {
    groups(model)
        .iter()
        .flat_map(|group| &group.tensors)
        .map(|tensor| tensor.count() as u64)
        .sum()
}

#[derive(Serialize)]
struct Entry<'a> {
    dtype: &'static str,
    shape: &'a [usize],
    data_offsets: [usize; 2],
}

/// The header before the numbers of these tensors, which must be sorted by name.
pub fn header(tensors: &[TensorInfo]) -> Vec<u8> {
    let mut at = 0;
    let mut entries = BTreeMap::new();
    for tensor in tensors {
        let end = at + 4 * tensor.count();
        entries.insert(
            tensor.name.as_str(),
            Entry {
                dtype: "F32",
                shape: &tensor.shape,
                data_offsets: [at, end],
            },
        );
        at = end;
    }
    #[derive(Serialize)]
    struct Header<'a> {
        __metadata__: BTreeMap<&'static str, &'static str>,
        #[serde(flatten)]
        entries: BTreeMap<&'a str, Entry<'a>>,
    }
    let header = Header {
        __metadata__: BTreeMap::from([("format", "pt")]),
        entries,
    };
    let mut text = serde_json::to_vec(&header).expect("names and numbers are JSON");
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    bytes
}

/// Writes one file and syncs it. `numbers` are the tensors' numbers in the tensors' order, in any number of slices.
///
/// # Errors
/// [`CheckpointError::File`]; [`CheckpointError::Length`] if the slices have another length in total.
pub fn write<'a>(
    path: &Utf8Path,
    tensors: &[TensorInfo],
    numbers: impl IntoIterator<Item = &'a [f32]>,
) -> Result<(), CheckpointError> {
    let writing = FileError::writing(path);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(writing)?);
    file.write_all(&header(tensors)).map_err(writing)?;
    let mut found = 0;
    for piece in numbers {
        found += piece.len();
        file.write_all(&as_bytes(piece)).map_err(writing)?;
    }
    let expected: usize = tensors.iter().map(TensorInfo::count).sum();
    if found != expected {
        let tensor = tensors.first().map(|t| t.name.clone()).unwrap_or_default();
        return Err(CheckpointError::Length {
            tensor,
            found,
            shape: Vec::new(),
            expected,
        });
    }
    let file = file.into_inner().map_err(|error| writing(error.into_error()))?;
    Ok(file.sync_all().map_err(writing)?)
}

/// A range of a file's numbers: its offset after the header, in elements, and the numbers.
pub type FileRange<'a> = (usize, &'a [f32]);

/// Writes ranges of a file and syncs it; other processes may write the rest at the same time. The first one creates the
/// file with its full length; each writes the same header.
///
/// # Errors
/// [`CheckpointError::File`].
pub fn write_part<'a>(
    path: &Utf8Path,
    tensors: &[TensorInfo],
    ranges: impl IntoIterator<Item = FileRange<'a>>,
) -> Result<(), CheckpointError> {
    use std::os::unix::fs::FileExt;
    let writing = FileError::writing(path);
    let header = header(tensors);
    let count: usize = tensors.iter().map(TensorInfo::count).sum();
    let mut open = File::options();
    // Not truncated: other processes write other ranges.
    let file = open
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(writing)?;
    file.set_len((header.len() + 4 * count) as u64).map_err(writing)?;
    file.write_all_at(&header, 0).map_err(writing)?;
    for (at, numbers) in ranges {
        file.write_all_at(&as_bytes(numbers), (header.len() + 4 * at) as u64)
            .map_err(writing)?;
    }
    Ok(file.sync_all().map_err(writing)?)
}

/// Little-endian bytes of numbers, without a copy on a little-endian machine.
pub fn as_bytes(numbers: &[f32]) -> std::borrow::Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        // SAFETY: any f32 is four readable bytes; alignment of u8 is 1; the length is that of the slice in bytes.
        std::borrow::Cow::Borrowed(unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) })
    } else {
        std::borrow::Cow::Owned(numbers.iter().flat_map(|n| n.to_le_bytes()).collect())
    }
}

/// Reads the file `name` of a checkpoint and passes each of `tensors` to `take`, in their order.
///
/// # Errors
/// All of [`CheckpointError`] except `Length`: no tensor is passed before the names, shapes, types and lengths of the
/// complete file are checked.
pub fn read(
    files: &Files,
    name: &str,
    tensors: &[TensorInfo],
    mut take: impl FnMut(&TensorInfo, &[f32]),
) -> Result<(), CheckpointError> {
    let path = files
        .get(name)
        .ok_or_else(|| CheckpointError::NoFile { name: name.to_owned() })?;
    let reading = FileError::reading(path);
    let file = File::open(path).map_err(reading)?;
    // SAFETY: artifacts are written once, under a temporary name, and never changed.
    let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(reading)?;
    let damaged = |source| CheckpointError::Damaged {
        path: path.clone(),
        source,
    };
    let found = safetensors::SafeTensors::deserialize(&bytes).map_err(damaged)?;
    for tensor in tensors {
        let name = &tensor.name;
        let view = found.tensor(name).map_err(|_| CheckpointError::NoTensor {
            path: path.clone(),
            tensor: name.clone(),
        })?;
        if view.dtype() != safetensors::Dtype::F32 {
            let found = format!("{:?}", view.dtype());
            return Err(CheckpointError::Type {
                path: path.clone(),
                tensor: name.clone(),
                found,
            });
        }
        if view.shape() != tensor.shape {
            return Err(CheckpointError::Shape {
                path: path.clone(),
                tensor: name.clone(),
                found: view.shape().to_vec(),
                expected: tensor.shape.clone(),
            });
        }
    }
    if let Some(tensor) = found
        .names()
        .into_iter()
        .find(|name| tensors.iter().all(|t| t.name != **name))
    {
        return Err(CheckpointError::ForeignTensor {
            path: path.clone(),
            tensor: tensor.to_string(),
        });
    }
    let mut numbers = Vec::new();
    for tensor in tensors {
        let data = found.tensor(&tensor.name).map_err(damaged)?.data();
        // SAFETY: any four bytes are an f32; the slice is cut to aligned elements.
        let (before, aligned, after) = unsafe { data.align_to::<f32>() };
        if before.is_empty() && after.is_empty() && cfg!(target_endian = "little") {
            take(tensor, aligned);
            continue;
        }
        let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        numbers.clear();
        numbers.extend(data.chunks_exact(4).map(number));
        take(tensor, &numbers);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(kv_heads: u32) -> ModelFields {
        ModelFields {
            architecture: Architecture::GptBigcode,
            layers: 2,
            hidden: 8,
            heads: 2,
            kv_heads,
            feed_forward: 16,
            context: 4,
            vocabulary: 32,
            activation: aurora_compiler::fields::Activation::GeluTanh,
            norm_epsilon: "1e-5".parse().unwrap(),
            rotary_base: None,
            tied_embeddings: true,
        }
    }

    #[test]
    fn shapes_are_those_of_gpt_bigcode() {
        let of = |kv_heads: u32| {
            let groups = groups(&model(kv_heads));
            assert_eq!(
                groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(),
                ["embeddings", "layer.000", "layer.001", "final_norm"]
            );
            groups[1]
                .tensors
                .iter()
                .find(|t| t.name == "transformer.h.0.attn.c_attn.weight")
                .unwrap()
                .shape
                .clone()
        };
        assert_eq!(of(1), [16, 8]);
        assert_eq!(of(2), [24, 8]);
        // StarCoderPlus, as Aurora-M publishes it.
        let starcoder = ModelFields {
            layers: 40,
            hidden: 6144,
            heads: 48,
            feed_forward: 24576,
            context: 2048,
            vocabulary: 49152,
            ..model(1)
        };
        assert_eq!(parameters(&starcoder), 15_479_707_648);
    }

    fn fill(group: &Group) -> Vec<f32> {
        (0..group.tensors.iter().map(TensorInfo::count).sum::<usize>())
            .map(|i| i as f32 * 0.25 - 3.0)
            .collect()
    }

    #[test]
    fn a_file_reads_back_and_has_the_same_bytes_twice() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        let group = &groups(&model(1))[1];
        let numbers = fill(group);
        write(&folder.join("a"), &group.tensors, [&numbers[..]]).unwrap();
        write(&folder.join("b"), &group.tensors, numbers.chunks(7)).unwrap();
        let bytes = std::fs::read(folder.join("a")).unwrap();
        assert_eq!(bytes, std::fs::read(folder.join("b")).unwrap());
        assert_eq!(bytes.len() % 8, numbers.len() * 4 % 8);
        let files = Files::from([("x".to_owned(), folder.join("a"))]);
        let mut back = Vec::new();
        read(&files, "x", &group.tensors, |_, numbers| {
            back.extend_from_slice(numbers)
        })
        .unwrap();
        assert_eq!(back, numbers);
    }

    #[test]
    fn a_wrong_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        let all = groups(&model(1));
        let path = folder.join("layer");
        write(&path, &all[1].tensors, [&fill(&all[1])[..]]).unwrap();
        let files = Files::from([("x".to_owned(), path.clone())]);
        let refuse = |name: &str, tensors: &[TensorInfo]| {
            read(&files, name, tensors, |_, _| panic!("no tensor may be passed")).unwrap_err()
        };
        assert!(matches!(refuse("y", &all[1].tensors), CheckpointError::NoFile { .. }));
        assert!(matches!(refuse("x", &all[2].tensors), CheckpointError::NoTensor { .. }));
        assert!(matches!(
            refuse("x", &all[1].tensors[1..]),
            CheckpointError::ForeignTensor { .. }
        ));
        let mut other = all[1].tensors.clone();
        other[3].shape = vec![1, 2, 3];
        assert!(matches!(refuse("x", &other), CheckpointError::Shape { .. }));
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 4, 100, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let error = refuse("x", &all[1].tensors);
            assert!(
                matches!(error, CheckpointError::Damaged { .. } | CheckpointError::File { .. }),
                "{cut}: {error}"
            );
        }
    }
}
