//! The model against libtorch's own autograd, and against itself on other grids.

use aurora_compiler::fields::{Activation, Architecture, ModelFields, Numerics};
use aurora_runtime::job::Recompute;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::parallel::Grid;

/// Numbers that depend on nothing but `seed` and their place.
pub fn numbers(count: usize, seed: u64, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 16_777_216.0 - 0.5
    };
    (0..count).map(|_| (next() + next() + next()) * 2.0 * scale).collect()
}

pub fn model(heads: u32, kv_heads: u32, activation: Activation) -> ModelFields {
    ModelFields {
        architecture: Architecture::GptBigcode,
        layers: 2,
        hidden: 16 * heads,
        heads,
        kv_heads,
        feed_forward: 56 * heads,
        context: 24,
        vocabulary: 96,
        activation,
        norm_epsilon: "1e-5".parse().unwrap(),
    }
}

pub fn network(model: &ModelFields, tensor: u32, kernels: Kernels, kind: Kind) -> Network {
    let grid = Grid::new(
        &Numerics::Invariant {
            tensor,
            lanes: 1,
            micro_batch: 3,
        },
        1,
    );
    let layout = Layout::new(Shape::new(model, &grid).unwrap());
    Network {
        layout,
        grid,
        kernels,
        kind,
        device: Device::Cpu,
    }
}

/// Weights by checkpoint tensor, drawn for that tensor: the same model on every grid.
pub fn weights(model: &ModelFields, layout: &Layout) -> Vec<f32> {
    let mut buffer = vec![0.0; layout.length];
    for (seed, tensor) in aurora_runtime::checkpoint::groups(model)
        .iter()
        .flat_map(|g| &g.tensors)
        .enumerate()
    {
        let mut values = numbers(tensor.count(), seed as u64 + 1, 0.15);
        if tensor.name.contains("ln_") && tensor.name.ends_with("weight") {
            values.iter_mut().for_each(|v| *v += 1.0);
        }
        layout.scatter(&tensor.name, &values, &mut buffer);
    }
    buffer
}

pub fn batch(rows: usize, vocabulary: u32) -> (Tensor, Tensor) {
    let ids: Vec<i64> = (0..=rows as i64)
        .map(|i| (i * i * 7 + i * 3 + 1) % i64::from(vocabulary))
        .collect();
    (Tensor::from_slice(&ids[..rows]), Tensor::from_slice(&ids[1..]))
}

/// Losses and gradients (by checkpoint tensor, tied parts joined) of one micro-batch.
pub fn run(model: &ModelFields, network: &Network, recompute: Recompute) -> (Vec<f64>, Vec<(String, Vec<f32>)>) {
    let _guard = tch::no_grad_guard();
    let (sequences, sequence) = (3, 20);
    let buffer = Tensor::from_slice(&weights(model, &network.layout)).to_kind(network.kind);
    let views = Weights::new(&network.layout, &buffer).unwrap();
    let mut gradients = Gradients::new(&network.layout, Device::Cpu).unwrap();
    let mut workspace = Workspace::new(network, sequences, sequence, recompute, true).unwrap();
    let (ids, targets) = batch(sequences * sequence, model.vocabulary);
    let mut losses = vec![0.0; sequences * sequence];
    network
        .train(&views, &mut workspace, &ids, &targets, &mut losses, &mut gradients)
        .unwrap();
    let mut scored = vec![0.0; losses.len()];
    let mut forward_only = Workspace::new(network, sequences, sequence, Recompute::None, false).unwrap();
    network
        .score(&views, &mut forward_only, &ids, &targets, &mut scored)
        .unwrap();
    assert_eq!(scored, losses, "the forward of scoring is that of training");
    let mut flat = elements::<f32>(&gradients.buffer).unwrap().to_vec();
    let word = network.layout.parts[network.layout.word].clone();
    for i in 0..word.shards * word.stride {
        flat[word.offset + i] += flat[network.layout.tied + i];
    }
    let tensors = aurora_runtime::checkpoint::groups(model)
        .into_iter()
        .flat_map(|g| g.tensors);
    let by_name = tensors.map(|tensor| {
        let mut values = Vec::new();
        network.layout.gather(&tensor.name, &flat, &mut values);
        assert_eq!(values.len(), tensor.count());
        (tensor.name, values)
    });
    (losses, by_name.collect())
}

/// The same by autograd, written down from the architecture's definition.
fn autograd(model: &ModelFields) -> (Vec<f64>, Vec<(String, Vec<f32>)>) {
    let network = network(model, 1, Kernels::Aten, Kind::Float);
    let buffer = weights(model, &network.layout);
    let tensors: Vec<_> = aurora_runtime::checkpoint::groups(model)
        .into_iter()
        .flat_map(|g| g.tensors)
        .collect();
    let parameters: Vec<Tensor> = tensors
        .iter()
        .map(|tensor| {
            let mut values = Vec::new();
            network.layout.gather(&tensor.name, &buffer, &mut values);
            let shape: Vec<i64> = tensor.shape.iter().map(|&n| n as i64).collect();
            Tensor::from_slice(&values)
                .view(shape.as_slice())
                .to_kind(Kind::Double)
                .set_requires_grad(true)
        })
        .collect();
    let get = |name: &str| {
        let at = tensors
            .iter()
            .position(|t| t.name == format!("transformer.{name}"))
            .unwrap();
        parameters[at].shallow_clone()
    };
    let linear =
        |x: &Tensor, name: &str| x.linear(&get(&format!("{name}.weight")), Some(&get(&format!("{name}.bias"))));
    let norm = |x: &Tensor, name: &str| {
        let (weight, bias) = (get(&format!("{name}.weight")), get(&format!("{name}.bias")));
        x.layer_norm([i64::from(model.hidden)], Some(weight), Some(bias), 1e-5, false)
    };
    let (b, s, h) = (3, 20, i64::from(model.hidden));
    let (n, d) = (i64::from(model.heads), h / i64::from(model.heads));
    let (ids, targets) = batch((b * s) as usize, model.vocabulary);
    let places = Tensor::arange(s, (Kind::Int64, Device::Cpu));
    let word = get("wte.weight");
    let mut x = word.index_select(0, &ids).view([b, s, h]) + get("wpe.weight").index_select(0, &places);
    for layer in 0..model.layers {
        let name = |part: &str| format!("h.{layer}.{part}");
        let all = linear(&norm(&x, &name("ln_1")), &name("attn.c_attn"));
        let (q, k, v) = if model.kv_heads == 1 {
            let parts = all.split_with_sizes([h, d, d], 2);
            let share = |t: &Tensor| t.unsqueeze(1).expand([b, n, s, d], false);
            (
                parts[0].view([b, s, n, d]).transpose(1, 2),
                share(&parts[1]),
                share(&parts[2]),
            )
        } else {
            let parts = all.view([b, s, n, 3 * d]).transpose(1, 2).split(d, 3);
            (
                parts[0].shallow_clone(),
                parts[1].shallow_clone(),
                parts[2].shallow_clone(),
            )
        };
        let scores = q.matmul(&k.transpose(2, 3)) / (d as f64).sqrt();
        let mask = Tensor::ones([s, s], (Kind::Bool, Device::Cpu)).triu(1);
        let share = scores.masked_fill(&mask, f64::NEG_INFINITY).softmax(-1, Kind::Double);
        let attended = share.matmul(&v).transpose(1, 2).reshape([b, s, h]);
        x = &x + linear(&attended, &name("attn.c_proj"));
        let inner = linear(&norm(&x, &name("ln_2")), &name("mlp.c_fc"));
        let form = if model.activation == Activation::Gelu {
            "none"
        } else {
            "tanh"
        };
        x = &x + linear(&inner.gelu(form), &name("mlp.c_proj"));
    }
    let logits = norm(&x, "ln_f").view([b * s, h]).matmul(&word.transpose(0, 1));
    let losses = -logits
        .log_softmax(-1, Kind::Double)
        .gather(1, &targets.unsqueeze(1), false)
        .view([-1]);
    losses.sum(Kind::Double).backward();
    let gradients = tensors.iter().zip(&parameters).map(|(tensor, parameter)| {
        (
            tensor.name.clone(),
            Vec::<f32>::try_from(&parameter.grad().to_kind(Kind::Float).view([-1])).unwrap(),
        )
    });
    (Vec::<f64>::try_from(&losses).unwrap(), gradients.collect())
}

/// The largest difference, against the largest number of the tensor.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

fn compare(what: &str, model: &ModelFields, network: &Network, bound: f32) {
    let (losses, gradients) = run(model, network, Recompute::None);
    let (expected_losses, expected) = autograd(model);
    for (loss, expected) in losses.iter().zip(&expected_losses) {
        assert!(
            (loss - expected).abs() < f64::from(bound) * expected,
            "{what}: loss {loss}, autograd says {expected}"
        );
    }
    for ((name, values), (_, expected)) in gradients.iter().zip(&expected) {
        let distance = distance(values, expected);
        assert!(distance < bound, "{what}: {name} is {distance:e} off");
    }
}

#[test]
fn losses_and_gradients_are_those_of_autograd() {
    for (heads, kv_heads) in [(4, 1), (4, 4), (1, 1), (8, 1)] {
        for activation in [Activation::Gelu, Activation::GeluTanh] {
            for tensor in [1, 2, 4] {
                if heads % tensor != 0 {
                    continue;
                }
                for kernels in [Kernels::Own, Kernels::Aten] {
                    let model = model(heads, kv_heads, activation);
                    let network = network(&model, tensor, kernels, Kind::Float);
                    compare(
                        &format!("{heads} {kv_heads} {tensor} {kernels:?}"),
                        &model,
                        &network,
                        1e-5,
                    );
                }
            }
        }
    }
}

#[test]
fn bf16_stays_near_autograd() {
    for kv_heads in [1, 4] {
        for kernels in [Kernels::Own, Kernels::Aten] {
            let model = model(4, kv_heads, Activation::GeluTanh);
            let network = network(&model, 2, kernels, Kind::BFloat16);
            compare(&format!("bf16 {kv_heads} {kernels:?}"), &model, &network, 4e-2);
        }
    }
}

#[test]
fn recomputing_gives_the_same_bits() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let model = model(4, 1, Activation::GeluTanh);
        let network = network(&model, 2, Kernels::Own, kind);
        let kept = run(&model, &network, Recompute::None);
        assert!(
            kept == run(&model, &network, Recompute::Selective),
            "selective, {kind:?}"
        );
        assert!(kept == run(&model, &network, Recompute::Full), "full, {kind:?}");
    }
}

#[test]
fn a_model_that_does_not_fit_the_grid_is_refused() {
    let refuse = |change: fn(&mut ModelFields), tensor: u32| {
        let mut model = model(4, 1, Activation::Gelu);
        change(&mut model);
        let grid = Grid::new(
            &Numerics::Invariant {
                tensor,
                lanes: 1,
                micro_batch: 1,
            },
            1,
        );
        Shape::new(&model, &grid).unwrap_err().to_string()
    };
    assert_eq!(refuse(|_| (), 8), "heads 4 does not divide by 8 logical tensor shards");
    assert_eq!(refuse(|_| (), 3), "3 logical tensor shards are no power of two");
    assert_eq!(
        refuse(|m| m.kv_heads = 2, 1),
        "gpt_bigcode has 1 or 4 key and value heads, not 2"
    );
    assert_eq!(
        refuse(|m| m.vocabulary = 97, 2),
        "vocabulary 97 does not divide by 2 logical tensor shards"
    );
}
