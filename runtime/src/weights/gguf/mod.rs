//! GGUF: llama.cpp's format for a model and its tokenizer.
//!
//! In: a file or a member of an archive. Out: [`PublishedWeights`] under Hugging Face's names, and the file's metadata for
//! `vocabulary`. Every length is compared with the available bytes before memory is allocated for it. llama.cpp stores the
//! rows of query and key heads in another order (for rotary positions that rotate neighbours); they are returned in Hugging
//! Face's order.
//!
//! Source: the GGUF specification of ggml, versions 2 and 3.

mod read;

use std::collections::BTreeMap;
use std::ops::Range;

use aurora_compiler::exact::Exact;
use aurora_compiler::fields::{Activation, Architecture, ModelFields};

pub(super) use read::Fact;
use read::{GgufTensor, Reader};

use super::bytes::WeightBytes;
use super::config::largest;
use super::import::PublishedWeights;
use super::{WeightsError, quantised};
use crate::checkpoint::TensorInfo;
use crate::source::archive::{InputFile, is_plain, read_member};
use crate::source::unpack::is_compressed;

/// The largest member of an archive that is read into memory.
const MEMBER_LIMIT: u64 = 32 << 30;
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    #[error("`{file}` is not a GGUF file: it does not begin with `GGUF`")]
    NoGguf { file: String },
    #[error("`{file}` has GGUF version {version}; supported are 2 and 3: convert it with a newer llama.cpp")]
    Version { file: String, version: u32 },
    #[error("`{file}` is damaged at byte {at}: {what}; fetch it again")]
    Damaged { file: String, at: usize, what: String },
    #[error("`{file}` does not have `{key}`, which is required")]
    NoKey { file: String, key: String },
    #[error("`{key}` of `{file}` is {found}, expected {expected}")]
    Value {
        file: String,
        key: String,
        found: String,
        expected: &'static str,
    },
    #[error(
        "`{key}` of `{file}` is {found}, expected a whole number from 1 to {most}, the most that a model of a spec may have"
    )]
    Count {
        file: String,
        key: String,
        found: String,
        most: u64,
    },
    #[error("`{file}` has a model of architecture `{found}`; only `llama` is supported in GGUF")]
    Architecture { file: String, found: String },
    #[error(
        "tensor `{tensor}` of `{file}` is stored as type {found}; supported are F32, F16, BF16, Q8_0, Q4_0 and Q4_1: \
         use a file with one of these"
    )]
    Type { file: String, tensor: String, found: u32 },
    #[error("`{file}` has scaled rotary positions (`{what}`), which Aurora does not support")]
    Scaled { file: String, what: String },
    #[error("cannot read `{file}`")]
    Read {
        file: String,
        #[source]
        source: std::io::Error,
    },
}

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q8_0,
}

impl Stored {
    fn of(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            30 => Self::BF16,
            _ => return None,
        })
    }

    /// Numbers and bytes of a block.
    fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::Q4_0 => (quantised::BLOCK, 18),
            Self::Q4_1 => (quantised::BLOCK, 20),
            Self::Q8_0 => (quantised::BLOCK, 34),
        }
    }

    fn numbers(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => quantised::f32(bytes),
            Self::F16 => quantised::f16(bytes),
            Self::BF16 => quantised::bf16(bytes),
            Self::Q4_0 => quantised::q4_0(bytes),
            Self::Q4_1 => quantised::q4_1(bytes),
            Self::Q8_0 => quantised::q8_0(bytes),
        }
    }
}

#[derive(Clone, Debug)]
struct Place {
    stored: Stored,
    /// In Hugging Face's order: the slowest dimension first.
    shape: Vec<usize>,
    range: Range<usize>,
}

/// A GGUF file, parsed up to its numbers.
#[derive(Debug)]
pub struct Gguf {
    file: String,
    bytes: WeightBytes,
    facts: BTreeMap<String, Fact>,
    model: ModelFields,
    /// By the names that checkpoints use.
    tensors: BTreeMap<String, Place>,
}

impl Gguf {
    /// Opens the member `member` of a source.
    ///
    /// # Errors
    /// [`WeightsError::Member`], [`WeightsError::Gguf`].
    pub fn open(files: &[InputFile], member: &str) -> Result<Self, WeightsError> {
        let plain = files
            .iter()
            .find(|file| file.name == member && is_plain(&file.name) && !is_compressed(member));
        let bytes = match plain {
            Some(file) => {
                let reading = |source| GgufError::Read {
                    file: member.to_owned(),
                    source,
                };
                WeightBytes::open(&file.path).map_err(reading)?
            }
            None => WeightBytes::Memory(read_member(files, member, MEMBER_LIMIT)?),
        };
        Ok(Self::parse(member, bytes)?)
    }

    fn parse(file: &str, bytes: WeightBytes) -> Result<Self, GgufError> {
        let mut reader = bytes.reader();
        let mut read = Reader::new(file, &mut reader, bytes.length());
        let (facts, infos) = read.head()?;
        let alignment = match facts.get("general.alignment") {
            None => 32,
            Some(Fact::Integer(alignment))
                if *alignment > 0 && alignment.count_ones() == 1 && *alignment <= 1 << 20 =>
            {
                usize::try_from(*alignment).unwrap_or(32)
            }
            Some(other) => {
                return Err(GgufError::Value {
                    file: file.to_owned(),
                    key: "general.alignment".to_owned(),
                    found: other.describe(),
                    expected: "a power of two",
                });
            }
        };
        let start = read.at().next_multiple_of(alignment);
        drop(reader);
        let facts_of = Facts { file, facts: &facts };
        let model = facts_of.model(&infos)?;
        let tensors = places(file, &infos, start, alignment, bytes.length())?;
        Ok(Self {
            file: file.to_owned(),
            facts,
            model,
            tensors,
            bytes,
        })
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    pub(super) fn fact(&self, key: &str) -> Option<&Fact> {
        self.facts.get(key)
    }
}

/// The location of each tensor's numbers: inside the file, without overlaps.
fn places(
    file: &str,
    infos: &[GgufTensor],
    start: usize,
    alignment: usize,
    length: usize,
) -> Result<BTreeMap<String, Place>, GgufError> {
    let mut found = BTreeMap::new();
    let mut taken: Vec<(Range<usize>, &str)> = Vec::new();
    for info in infos {
        let damaged = |what: String| GgufError::Damaged {
            file: file.to_owned(),
            at: info.at,
            what: format!("tensor `{}` {what}", info.name),
        };
        let stored = Stored::of(info.code).ok_or_else(|| GgufError::Type {
            file: file.to_owned(),
            tensor: info.name.clone(),
            found: info.code,
        })?;
        let (numbers, bytes) = stored.block();
        let shape: Option<Vec<usize>> = info
            .dimensions
            .iter()
            .rev()
            .map(|&n| usize::try_from(n).ok().filter(|n| *n > 0))
            .collect();
        let shape = shape.ok_or_else(|| damaged(format!("has shape {:?}", info.dimensions)))?;
        let count = shape.iter().try_fold(1usize, |count, n| count.checked_mul(*n));
        let row = shape.last().copied().unwrap_or(0);
        if row % numbers != 0 {
            return Err(damaged(format!("has rows of {row} numbers, and blocks of {numbers}")));
        }
        let size = count.and_then(|count| (count / numbers).checked_mul(bytes));
        let begin = usize::try_from(info.offset)
            .ok()
            .and_then(|offset| start.checked_add(offset));
        let range = begin
            .zip(size)
            .and_then(|(begin, size)| Some(begin..begin.checked_add(size)?));
        let range = range.filter(|range| range.end <= length);
        let range = range.ok_or_else(|| damaged(format!("extends beyond the {length} bytes of the file")))?;
        if !(range.start - start).is_multiple_of(alignment) {
            return Err(damaged(format!(
                "begins at {}, which is not aligned to {alignment}",
                info.offset
            )));
        }
        taken.push((range.clone(), &info.name));
        let Some(name) = name(&info.name) else {
            return Err(match info.name.as_str() {
                "rope_freqs.weight" => GgufError::Scaled {
                    file: file.to_owned(),
                    what: info.name.clone(),
                },
                _ => damaged("does not belong to a llama model".to_owned()),
            });
        };
        if found.insert(name, Place { stored, shape, range }).is_some() {
            return Err(damaged("is listed twice".to_owned()));
        }
    }
    taken.sort_by_key(|(range, _)| range.start);
    if let Some([(_, first), (_, second)]) = taken.array_windows().find(|[a, b]| a.0.end > b.0.start) {
        return Err(GgufError::Damaged {
            file: file.to_owned(),
            at: start,
            what: format!("tensors `{first}` and `{second}` overlap"),
        });
    }
    Ok(found)
}

/// Hugging Face's name of a llama tensor.
fn name(theirs: &str) -> Option<String> {
    let plain = match theirs {
        "token_embd.weight" => "model.embed_tokens.weight",
        "output_norm.weight" => "model.norm.weight",
        "output.weight" => "lm_head.weight",
        _ => {
            let (layer, part) = theirs.strip_prefix("blk.")?.split_once('.')?;
            let layer: u32 = layer.parse().ok()?;
            let part = match part.strip_suffix(".weight")? {
                "attn_norm" => "input_layernorm",
                "ffn_norm" => "post_attention_layernorm",
                "attn_q" => "self_attn.q_proj",
                "attn_k" => "self_attn.k_proj",
                "attn_v" => "self_attn.v_proj",
                "attn_output" => "self_attn.o_proj",
                "ffn_gate" => "mlp.gate_proj",
                "ffn_up" => "mlp.up_proj",
                "ffn_down" => "mlp.down_proj",
                _ => return None,
            };
            return Some(format!("model.layers.{layer}.{part}.weight"));
        }
    };
    Some(plain.to_owned())
}

struct Facts<'a> {
    file: &'a str,
    facts: &'a BTreeMap<String, Fact>,
}

impl Facts<'_> {
    fn get(&self, key: &str) -> Result<&Fact, GgufError> {
        self.facts.get(key).ok_or_else(|| GgufError::NoKey {
            file: self.file.to_owned(),
            key: key.to_owned(),
        })
    }

    fn wrong(&self, key: &str, found: &Fact, expected: &'static str) -> GgufError {
        GgufError::Value {
            file: self.file.to_owned(),
            key: key.to_owned(),
            found: found.describe(),
            expected,
        }
    }

    /// A count, at most what the field `own` of a spec's model may be.
    fn count(&self, key: &str, own: &str) -> Result<u32, GgufError> {
        let fact = self.get(key)?;
        let most = largest(own);
        let is_count = |count: &u32| (1..=most).contains(&u64::from(*count));
        let count = match fact {
            Fact::Integer(count) => u32::try_from(*count).ok().filter(is_count),
            _ => None,
        };
        count.ok_or_else(|| GgufError::Count {
            file: self.file.to_owned(),
            key: key.to_owned(),
            found: fact.describe(),
            most,
        })
    }

    fn exact(&self, key: &str) -> Result<Exact, GgufError> {
        let fact = self.get(key)?;
        let exact = match fact {
            Fact::Number(number) if *number > 0.0 => number.to_string().parse().ok(),
            _ => None,
        };
        exact.ok_or_else(|| self.wrong(key, fact, "a number above zero"))
    }

    fn model(&self, tensors: &[GgufTensor]) -> Result<ModelFields, GgufError> {
        match self.get("general.architecture")? {
            Fact::Text(text) if text == "llama" => {}
            other => {
                return Err(GgufError::Architecture {
                    file: self.file.to_owned(),
                    found: other.describe().trim_matches('`').to_owned(),
                });
            }
        }
        let scaling = self
            .facts
            .iter()
            .find(|(key, _)| key.starts_with("llama.rope.scaling."));
        if let Some((key, fact)) = scaling
            && *fact != Fact::Text("none".to_owned())
        {
            return Err(GgufError::Scaled {
                file: self.file.to_owned(),
                what: key.clone(),
            });
        }
        let (hidden, heads) = (
            self.count("llama.embedding_length", "hidden")?,
            self.count("llama.attention.head_count", "heads")?,
        );
        let key = "llama.rope.dimension_count";
        if let Some(fact) = self.facts.get(key)
            && *fact != Fact::Integer(i128::from(hidden / heads))
        {
            return Err(self.wrong(key, fact, "the width of a head, `embedding_length` ÷ `head_count`"));
        }
        let rows = |info: &GgufTensor| {
            info.dimensions
                .last()
                .copied()
                .and_then(|rows| u32::try_from(rows).ok())
        };
        let words = tensors
            .iter()
            .find(|info| info.name == "token_embd.weight")
            .and_then(rows);
        let vocabulary = match words {
            Some(rows) => rows,
            None => self.count("llama.vocab_size", "vocabulary")?,
        };
        let base = "llama.rope.freq_base";
        Ok(ModelFields {
            architecture: Architecture::Llama,
            layers: self.count("llama.block_count", "layers")?,
            hidden,
            heads,
            kv_heads: match self.facts.get("llama.attention.head_count_kv") {
                Some(_) => self.count("llama.attention.head_count_kv", "kv_heads")?,
                None => heads,
            },
            feed_forward: self.count("llama.feed_forward_length", "feed_forward")?,
            context: self.count("llama.context_length", "context")?,
            vocabulary,
            activation: Activation::SwiGlu,
            norm_epsilon: self.exact("llama.attention.layer_norm_rms_epsilon")?,
            // Files of llama 1 and 2 omit it.
            rotary_base: Some(match self.facts.get(base) {
                Some(_) => self.exact(base)?,
                None => Exact::new(10_000.into()),
            }),
            tied_embeddings: tensors.iter().all(|info| info.name != "output.weight"),
        })
    }
}

impl PublishedWeights for Gguf {
    fn place(&self) -> String {
        format!("`{}`", self.file)
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
        let bytes = self.bytes.read(place.range.clone()).map_err(|source| GgufError::Read {
            file: self.file.clone(),
            source,
        })?;
        let numbers = place.stored.numbers(&bytes);
        let heads = match name {
            _ if name.ends_with(".q_proj.weight") => self.model.heads,
            _ if name.ends_with(".k_proj.weight") => self.model.kv_heads,
            _ => return Ok(numbers),
        };
        Ok(halves(
            &numbers,
            heads as usize,
            place.shape.last().copied().unwrap_or(0),
        ))
    }
}

/// Reorders the rows of each head from rotated pairs of neighbours to first and second halves.
fn halves(numbers: &[f32], heads: usize, columns: usize) -> Vec<f32> {
    let rows = numbers.len().checked_div(columns).unwrap_or(0);
    let width = rows.checked_div(heads).unwrap_or(0);
    let mut turned = Vec::with_capacity(numbers.len());
    for head in 0..heads {
        for half in 0..2 {
            for pair in 0..width / 2 {
                let row = head * width + 2 * pair + half;
                turned.extend_from_slice(&numbers[row * columns..(row + 1) * columns]);
            }
        }
    }
    // Rows that cannot be split into pairs belong to another model; the check of the shape reports that.
    if turned.len() == numbers.len() {
        turned
    } else {
        numbers.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_halves() {
        // Two heads of four rows, one column: adjacent rows 0 1, 2 3 become halves 0 2, 1 3.
        let numbers = [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0];
        assert_eq!(halves(&numbers, 2, 1), [0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0]);
    }

    #[test]
    fn blocks_are_read_as_ggml_writes_them() {
        let half = |value: f32| half::f16::from_f32(value).to_le_bytes();
        let mut q8 = half(0.5).to_vec();
        q8.extend((0..32u8).map(|i| i.wrapping_sub(16)));
        let expected: Vec<f32> = (-16i8..16).map(|i| 0.5 * f32::from(i)).collect();
        assert_eq!(Stored::Q8_0.numbers(&q8), expected);
        let packed: Vec<u8> = (0..16u8).map(|i| i | (15 - i) << 4).collect();
        let mut q4 = half(2.0).to_vec();
        q4.extend(&packed);
        let low = |i: u8| f32::from(i);
        let expected: Vec<f32> = (0..16).map(low).chain((0..16).map(|i| low(15 - i))).collect();
        let zero: Vec<f32> = expected.iter().map(|n| 2.0 * (n - 8.0)).collect();
        assert_eq!(Stored::Q4_0.numbers(&q4), zero);
        let mut q4 = half(2.0).to_vec();
        q4.extend(half(-3.0));
        q4.extend(&packed);
        let one: Vec<f32> = expected.iter().map(|n| 2.0 * n - 3.0).collect();
        assert_eq!(Stored::Q4_1.numbers(&q4), one);
    }
}
