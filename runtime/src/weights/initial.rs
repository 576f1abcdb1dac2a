//! Initial weights of a model.
//!
//! In: a model, a seed, a standard deviation. Out: `weights/<group>.safetensors`, the format of a checkpoint. Every
//! number depends only on the seed, its tensor's name and its position in the complete tensor, so that splitting the model
//! does not change it. Not here: imported weights.

use aurora_compiler::exact::Exact;
use aurora_compiler::fields::ModelFields;
use camino::Utf8Path;
use rayon::prelude::*;

use super::{WeightsError, weights_folder};
use crate::checkpoint::{TensorInfo, groups, write};
use crate::data::random::{PhiloxKey, normal};

/// Writes the initial weights below `out`.
///
/// # Errors
/// [`WeightsError`]; then `out` has some of the files.
pub(super) fn initial_weights(
    model: &ModelFields,
    seed: u64,
    deviation: Exact,
    out: &Utf8Path,
) -> Result<(), WeightsError> {
    weights_folder(out)?;
    let deviation = deviation.to_f64();
    for group in groups(model) {
        let numbers: Vec<_> = group
            .tensors
            .iter()
            .map(|tensor| initial(tensor, seed, deviation, model.layers))
            .collect();
        write(
            &out.join(group.weights()),
            &group.tensors,
            numbers.iter().map(Vec::as_slice),
        )?;
    }
    Ok(())
}

/// The numbers of one tensor, row by row.
fn initial(tensor: &TensorInfo, seed: u64, deviation: f64, layers: u32) -> Vec<f32> {
    let count = tensor.count();
    if tensor.shape.len() == 1 {
        // Vectors are biases and the weights of norms.
        let norm_weight = tensor.name.ends_with(".weight");
        return vec![if norm_weight { 1.0 } else { 0.0 }; count];
    }
    let into_residual = [".c_proj.weight", ".o_proj.weight", ".down_proj.weight"]
        .iter()
        .any(|end| tensor.name.ends_with(end));
    let scale = if into_residual {
        deviation / (2.0 * f64::from(layers)).sqrt()
    } else {
        deviation
    };
    let key = PhiloxKey::derive(seed, &tensor.name);
    let mut numbers = vec![0.0f32; count];
    numbers.par_chunks_mut(16_384).enumerate().for_each(|(chunk, numbers)| {
        for (at, number) in numbers.iter_mut().enumerate() {
            *number = (normal(key, (chunk * 16_384 + at) as u64) * scale) as f32;
        }
    });
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::read;
    use crate::job::Files;
    use aurora_compiler::fields::{Activation, Architecture};

    fn model() -> ModelFields {
        ModelFields {
            architecture: Architecture::GptBigcode,
            layers: 2,
            hidden: 64,
            heads: 4,
            kv_heads: 1,
            feed_forward: 256,
            context: 32,
            vocabulary: 512,
            activation: Activation::GeluTanh,
            norm_epsilon: "1e-5".parse().unwrap(),
            rotary_base: None,
            tied_embeddings: true,
        }
    }

    #[test]
    fn weights_are_normal_and_repeat() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        for (name, seed) in [("a", 7), ("b", 7), ("c", 8)] {
            initial_weights(&model(), seed, "0.02".parse().unwrap(), &folder.join(name)).unwrap();
        }
        for group in groups(&model()) {
            let bytes = |name: &str| std::fs::read(folder.join(name).join(group.weights())).unwrap();
            assert_eq!(bytes("a"), bytes("b"));
            assert_eq!(bytes("a") == bytes("c"), group.name == "final_norm", "{}", group.name);
            let files = Files::from([("w".to_owned(), folder.join("a").join(group.weights()))]);
            read(&files, "w", &group.tensors, |tensor, numbers| {
                let count = numbers.len() as f64;
                let mean = numbers.iter().map(|&n| f64::from(n)).sum::<f64>() / count;
                let deviation = (numbers.iter().map(|&n| (f64::from(n) - mean).powi(2)).sum::<f64>() / count).sqrt();
                let (expected_mean, expected) = match tensor.name.as_str() {
                    name if tensor.shape.len() == 1 && name.contains("ln_") && name.ends_with("weight") => (1.0, 0.0),
                    _ if tensor.shape.len() == 1 => (0.0, 0.0),
                    name if name.ends_with("c_proj.weight") => (0.0, 0.01),
                    _ => (0.0, 0.02),
                };
                let name = &tensor.name;
                assert!((mean - expected_mean).abs() < 0.001, "{name}: mean {mean}");
                assert!(
                    (deviation - expected).abs() <= 0.06 * expected,
                    "{name}: deviation {deviation}"
                );
            })
            .unwrap();
        }
    }
}
