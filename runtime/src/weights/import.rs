//! Converts published weights to a checkpoint's files.
//!
//! In: tensors under the names of Hugging Face's models, and the model that their file describes. Out: the same numbers
//! in `f32`, group by group. Everything is compared with the spec's model before a byte is written.

use std::fmt;

use aurora_compiler::fields::{Architecture, ModelFields};
use camino::Utf8Path;

use super::{WeightsError, weights_folder};
use crate::checkpoint::{TensorInfo, groups, write};

/// Weights that others have published.
pub trait PublishedWeights {
    /// Their origin, for messages.
    fn place(&self) -> String;

    /// The model that they describe.
    fn model(&self) -> &ModelFields;

    /// All tensors, by the names that checkpoints use.
    fn tensors(&self) -> Vec<TensorInfo>;

    /// The numbers of one of the tensors.
    ///
    /// # Errors
    /// It cannot be read.
    fn numbers(&self, name: &str) -> Result<Vec<f32>, WeightsError>;
}

/// A field in which a file and a spec differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigDifference {
    pub field: &'static str,
    pub file: String,
    pub spec: String,
}

impl fmt::Display for ConfigDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, file, spec } = self;
        write!(f, "`{field}` is {file} in the file and {spec} in the spec")
    }
}

/// The text of a plain value in a spec.
fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => other.map(|value| value.to_string()).unwrap_or_default(),
    }
}

/// The fields in which the two differ, by their names in a spec, except for the activation.
pub(super) fn differences(file: &ModelFields, spec: &ModelFields) -> Vec<ConfigDifference> {
    let mut found = Vec::new();
    let mut compare = |field: &'static str, equal: bool, file: String, spec: String| {
        if !equal {
            found.push(ConfigDifference { field, file, spec });
        }
    };
    let same = file.architecture == spec.architecture;
    compare("architecture", same, word(&file.architecture), word(&spec.architecture));
    let counts = [
        ("layers", file.layers, spec.layers),
        ("hidden", file.hidden, spec.hidden),
        ("heads", file.heads, spec.heads),
        ("kv_heads", file.kv_heads, spec.kv_heads),
        ("feed_forward", file.feed_forward, spec.feed_forward),
        ("vocabulary", file.vocabulary, spec.vocabulary),
    ];
    for (field, file, spec) in counts {
        compare(field, file == spec, file.to_string(), spec.to_string());
    }
    // A shorter context reads fewer positions of the same model.
    let fits = spec.context <= file.context;
    compare("context", fits, file.context.to_string(), spec.context.to_string());
    // Files have these as f32.
    let single = |exact: aurora_compiler::exact::Exact| exact.to_f64() as f32;
    let same = single(file.norm_epsilon) == single(spec.norm_epsilon);
    compare(
        "norm_epsilon",
        same,
        file.norm_epsilon.to_string(),
        spec.norm_epsilon.to_string(),
    );
    let base = |model: &ModelFields| model.rotary_base.map_or("none".to_owned(), |base| base.to_string());
    let same = file.rotary_base.map(single) == spec.rotary_base.map(single);
    compare("rotary_base", same, base(file), base(spec));
    let tied = |model: &ModelFields| model.tied_embeddings.to_string();
    compare(
        "tied_embeddings",
        file.tied_embeddings == spec.tied_embeddings,
        tied(file),
        tied(spec),
    );
    found
}

/// Compares the files with the model, and writes `weights/<group>.safetensors` below `out`.
pub(super) fn import(
    model: &ModelFields,
    published: &dyn PublishedWeights,
    out: &Utf8Path,
    note: &dyn Fn(&str),
) -> Result<(), WeightsError> {
    let place = published.place();
    let differences = differences(published.model(), model);
    if !differences.is_empty() {
        return Err(WeightsError::OtherModel { place, differences });
    }
    // Published configurations may be wrong (StarCoder's has `gelu`, but `gelu_tanh` was trained): the spec decides.
    let (file, spec) = (published.model().activation, model.activation);
    if file != spec {
        let (file, spec) = (word(&file), word(&spec));
        note(&format!(
            "{place} has activation `{file}`, the spec `{spec}`: the spec's is used"
        ));
    }
    let groups = groups(model);
    let found = published.tensors();
    for tensor in groups.iter().flat_map(|group| &group.tensors) {
        let theirs = found.iter().find(|theirs| theirs.name == tensor.name);
        let theirs = theirs.ok_or_else(|| WeightsError::NoTensor {
            place: place.clone(),
            tensor: tensor.name.clone(),
        })?;
        let cut = is_positions(model, tensor) && theirs.shape.len() == 2 && theirs.shape[0] >= tensor.shape[0];
        let same = if cut {
            theirs.shape[1..] == tensor.shape[1..]
        } else {
            theirs.shape == tensor.shape
        };
        if !same {
            return Err(WeightsError::Shape {
                place,
                tensor: tensor.name.clone(),
                found: theirs.shape.clone(),
                expected: tensor.shape.clone(),
            });
        }
    }
    let known = |name: &str| {
        groups
            .iter()
            .flat_map(|group| &group.tensors)
            .any(|tensor| tensor.name == name)
    };
    if let Some(published) = found.iter().find(|tensor| !known(&tensor.name)) {
        let tensor = published.name.clone();
        return Err(WeightsError::ForeignTensor { place, tensor });
    }
    if model.context < published.model().context {
        let (all, used) = (published.model().context, model.context);
        note(&format!("{place} has {all} positions, the model uses the first {used}"));
    }
    weights_folder(out)?;
    for group in &groups {
        let mut numbers = Vec::new();
        for tensor in &group.tensors {
            let mut own = published.numbers(&tensor.name)?;
            own.truncate(tensor.count());
            if own.iter().any(|number| !number.is_finite()) {
                let tensor = tensor.name.clone();
                return Err(WeightsError::NotFinite { place, tensor });
            }
            numbers.push(own);
        }
        write(
            &out.join(group.weights()),
            &group.tensors,
            numbers.iter().map(Vec::as_slice),
        )?;
    }
    Ok(())
}

/// Learned positions; a model with a shorter context uses the first ones.
fn is_positions(model: &ModelFields, tensor: &TensorInfo) -> bool {
    model.architecture == Architecture::GptBigcode && tensor.name == "transformer.wpe.weight"
}
