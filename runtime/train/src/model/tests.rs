//! The models against libtorch's autograd, and against themselves on other grids.

use aurora_compiler::fields::{Activation, Architecture, Contract, ModelFields, Numerics};
use aurora_runtime::job::Recompute;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::parallel::{Grid, Mesh, Peers};

/// Values that depend on `seed` and their index only.
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
        rotary_base: None,
        tied_embeddings: true,
    }
}

fn llama(heads: u32, kv_heads: u32, tied: bool) -> ModelFields {
    ModelFields {
        architecture: Architecture::Llama,
        rotary_base: Some("500".parse().unwrap()),
        tied_embeddings: tied,
        ..model(heads, kv_heads, Activation::SwiGlu)
    }
}

pub fn network(model: &ModelFields, tensor: u32, kernels: Kernels, kind: Kind) -> Network {
    let grid = Grid::new(&Numerics {
        contract: Contract::Invariant,
        tensor,
        lanes: 1,
        micro_batch: 3,
    });
    let shape = ModelShape::new(model, &grid).unwrap();
    Network {
        parameters: ParameterMap::new(shape, Holding::complete(&shape)),
        grid,
        mesh: Mesh::ONE,
        kernels,
        kind,
        device: Device::Cpu,
        sequence_parallel: false,
        fault: Fault::default(),
    }
}

/// Weights drawn by checkpoint tensor: the same model on every grid.
pub fn weights(model: &ModelFields, parameters: &ParameterMap) -> Vec<f32> {
    let mut buffer = vec![0.0; parameters.length];
    for (seed, tensor) in aurora_runtime::checkpoint::groups(model)
        .iter()
        .flat_map(|g| &g.tensors)
        .enumerate()
    {
        let mut values = numbers(tensor.count(), seed as u64 + 1, 0.15);
        if (tensor.name.contains("ln_") || tensor.name.contains("norm")) && tensor.name.ends_with("weight") {
            values.iter_mut().for_each(|v| *v += 1.0);
        }
        parameters.copy_from_tensor(&tensor.name, &values, &mut buffer);
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
    run_on(model, network, recompute, batch(60, model.vocabulary).1)
}

fn run_on(
    model: &ModelFields,
    network: &Network,
    recompute: Recompute,
    targets: Tensor,
) -> (Vec<f64>, Vec<(String, Vec<f32>)>) {
    let _guard = tch::no_grad_guard();
    let (sequences, sequence) = (3, 20);
    let buffer = Tensor::from_slice(&weights(model, &network.parameters)).to_kind(network.kind);
    let views = Weights::new(&network.parameters, &buffer).unwrap();
    let gradients = Gradients::new(&network.parameters, Device::Cpu).unwrap();
    let (ids, _) = batch(sequences * sequence, model.vocabulary);
    let peers = Peers::alone();
    let forward = |under_way: usize, recompute: Recompute, gradients: Option<&Gradients>| {
        let mut workspace = Workspace::new(network, sequences, sequence, recompute, under_way).unwrap();
        let mut pass = PassContext {
            workspace: &mut workspace,
            peers: &peers,
            slot: 0,
            ids_t: &ids,
            positions: None,
            trace: None,
        };
        network.forward(&views, &mut pass).unwrap();
        let losses = network.head(&views, &mut pass, &targets, gradients).unwrap();
        if let Some(gradients) = gradients {
            network.backward(&views, &mut pass, gradients).unwrap();
        }
        to_host::<f64>(&losses).unwrap()
    };
    let losses = forward(1, recompute, Some(&gradients));
    let scored = forward(0, Recompute::None, None);
    assert_eq!(scored, losses, "the forward of scoring is that of training");
    let parameters = &network.parameters;
    let mut flat = Vec::<f32>::try_from(&gradients.buffer).unwrap();
    for i in 0..parameters.tied.len() {
        flat[i] += flat[parameters.tied.start + i];
    }
    for part in parameters.blocked() {
        for (i, at) in part.shard(0).enumerate() {
            let block = |block: usize| flat[part.gradients.range(block, part.shard_length()).start + i];
            flat[at] = part.gradients.held.clone().map(block).sum();
        }
    }
    let tensors = aurora_runtime::checkpoint::groups(model)
        .into_iter()
        .flat_map(|g| g.tensors);
    let by_name = tensors.map(|tensor| {
        let mut values = vec![f32::NAN; tensor.count()];
        parameters.copy_to_tensor(&tensor.name, &flat, &mut values);
        (tensor.name, values)
    });
    (losses, by_name.collect())
}

/// The same by autograd, from the definition of the architecture.
fn autograd(model: &ModelFields, targets: &Tensor) -> (Vec<f64>, Vec<(String, Vec<f32>)>) {
    let network = network(model, 1, Kernels::Aten, Kind::Float);
    let buffer = weights(model, &network.parameters);
    let tensors: Vec<_> = aurora_runtime::checkpoint::groups(model)
        .into_iter()
        .flat_map(|g| g.tensors)
        .collect();
    let parameters: Vec<Tensor> = tensors
        .iter()
        .map(|tensor| {
            let mut values = vec![f32::NAN; tensor.count()];
            network.parameters.copy_to_tensor(&tensor.name, &buffer, &mut values);
            let shape: Vec<i64> = tensor.shape.iter().map(|&n| n as i64).collect();
            Tensor::from_slice(&values)
                .view(shape.as_slice())
                .to_kind(Kind::Double)
                .set_requires_grad(true)
        })
        .collect();
    let get = |name: String| {
        let at = tensors.iter().position(|t| t.name == name).unwrap();
        parameters[at].shallow_clone()
    };
    let (ids, _) = batch(60, model.vocabulary);
    let logits = match model.architecture {
        Architecture::GptBigcode => bigcode_logits(model, &ids, &|name| get(format!("transformer.{name}"))),
        Architecture::Llama => llama_logits(model, &ids, &|name| get(name.to_owned())),
    };
    let losses = -logits
        .log_softmax(-1, Kind::Double)
        .gather(1, &targets.clamp_min(0).unsqueeze(1), false)
        .view([-1])
        * targets.ge(0).to_kind(Kind::Double);
    losses.sum(Kind::Double).backward();
    let gradients = tensors.iter().zip(&parameters).map(|(tensor, parameter)| {
        (
            tensor.name.clone(),
            Vec::<f32>::try_from(&parameter.grad().to_kind(Kind::Float).view([-1])).unwrap(),
        )
    });
    (Vec::<f64>::try_from(&losses).unwrap(), gradients.collect())
}

/// `[b, s, n·d]`-ordered result of causal attention over `[b, n, s, d]`.
fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let (s, d) = (q.size()[2], q.size()[3]);
    let scores = q.matmul(&k.transpose(2, 3)) / (d as f64).sqrt();
    let mask = Tensor::ones([s, s], (Kind::Bool, Device::Cpu)).triu(1);
    let probabilities = scores.masked_fill(&mask, f64::NEG_INFINITY).softmax(-1, Kind::Double);
    probabilities.matmul(v).transpose(1, 2)
}

fn bigcode_logits(model: &ModelFields, ids: &Tensor, get: &dyn Fn(&str) -> Tensor) -> Tensor {
    let linear =
        |x: &Tensor, name: &str| x.linear(&get(&format!("{name}.weight")), Some(&get(&format!("{name}.bias"))));
    let norm = |x: &Tensor, name: &str| {
        let (weight, bias) = (get(&format!("{name}.weight")), get(&format!("{name}.bias")));
        x.layer_norm([i64::from(model.hidden)], Some(weight), Some(bias), 1e-5, false)
    };
    let (b, s, h) = (3, 20, i64::from(model.hidden));
    let (n, d) = (i64::from(model.heads), h / i64::from(model.heads));
    let positions = Tensor::arange(s, (Kind::Int64, Device::Cpu));
    let word = get("wte.weight");
    let mut x = word.index_select(0, ids).view([b, s, h]) + get("wpe.weight").index_select(0, &positions);
    for layer in 0..model.layers {
        let name = |part: &str| format!("h.{layer}.{part}");
        let all = linear(&norm(&x, &name("ln_1")), &name("attn.c_attn"));
        let (q, k, v) = if model.kv_heads == 1 {
            let parts = all.split_with_sizes([h, d, d], 2);
            let repeat = |t: &Tensor| t.unsqueeze(1).expand([b, n, s, d], false);
            (
                parts[0].view([b, s, n, d]).transpose(1, 2),
                repeat(&parts[1]),
                repeat(&parts[2]),
            )
        } else {
            let parts = all.view([b, s, n, 3 * d]).transpose(1, 2).split(d, 3);
            (
                parts[0].shallow_clone(),
                parts[1].shallow_clone(),
                parts[2].shallow_clone(),
            )
        };
        let attended = attend(&q, &k, &v).reshape([b, s, h]);
        x = &x + linear(&attended, &name("attn.c_proj"));
        let inner = linear(&norm(&x, &name("ln_2")), &name("mlp.c_fc"));
        let form = if model.activation == Activation::Gelu {
            "none"
        } else {
            "tanh"
        };
        x = &x + linear(&inner.gelu(form), &name("mlp.c_proj"));
    }
    norm(&x, "ln_f").view([b * s, h]).matmul(&word.transpose(0, 1))
}

fn llama_logits(model: &ModelFields, ids: &Tensor, get: &dyn Fn(&str) -> Tensor) -> Tensor {
    let linear = |x: &Tensor, name: &str| x.linear(&get(&format!("{name}.weight")), None::<Tensor>);
    let norm = |x: &Tensor, name: &str| {
        let square = (x * x).mean_dim(&[-1i64][..], true, Kind::Double);
        x * (square + 1e-5).rsqrt() * get(&format!("{name}.weight"))
    };
    let (b, s, h) = (3, 20, i64::from(model.hidden));
    let (n, g) = (i64::from(model.heads), i64::from(model.kv_heads));
    let d = h / n;
    let angles = {
        let steps = Tensor::arange_start_step(0, d, 2, (Kind::Double, Device::Cpu)) / d as f64;
        let base = model.rotary_base.unwrap().to_f64();
        let rates = (steps * -base.ln()).exp();
        let positions = Tensor::arange(s, (Kind::Double, Device::Cpu)).unsqueeze(1);
        Tensor::cat(&[&positions * &rates, &positions * &rates], 1)
    };
    let rotate = |x: &Tensor| {
        let halves = x.split(d / 2, 3);
        x * angles.cos() + Tensor::cat(&[-&halves[1], halves[0].shallow_clone()], 3) * angles.sin()
    };
    let mut x = get("model.embed_tokens.weight").index_select(0, ids).view([b, s, h]);
    for layer in 0..model.layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let normed = norm(&x, &name("input_layernorm"));
        let heads = |part: &str, count: i64| {
            let heads = linear(&normed, &name(part)).view([b, s, count, d]).transpose(1, 2);
            if part.contains("v_proj") { heads } else { rotate(&heads) }
        };
        let each = |heads: Tensor| {
            heads
                .unsqueeze(2)
                .expand([b, g, n / g, s, d], false)
                .reshape([b, n, s, d])
        };
        let (q, k, v) = (
            heads("self_attn.q_proj", n),
            each(heads("self_attn.k_proj", g)),
            each(heads("self_attn.v_proj", g)),
        );
        let attended = attend(&q, &k, &v).reshape([b, s, h]);
        x = &x + linear(&attended, &name("self_attn.o_proj"));
        let normed = norm(&x, &name("post_attention_layernorm"));
        let inner = linear(&normed, &name("mlp.gate_proj")).silu() * linear(&normed, &name("mlp.up_proj"));
        x = &x + linear(&inner, &name("mlp.down_proj"));
    }
    let output = if model.tied_embeddings {
        "model.embed_tokens.weight"
    } else {
        "lm_head.weight"
    };
    norm(&x, "model.norm")
        .view([b * s, h])
        .matmul(&get(output).transpose(0, 1))
}

/// The largest difference relative to the largest element.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

fn compare(what: &str, model: &ModelFields, network: &Network, bound: f32) {
    compare_on(what, model, network, bound, &batch(60, model.vocabulary).1);
}

fn compare_on(what: &str, model: &ModelFields, network: &Network, bound: f32, targets: &Tensor) {
    let (losses, gradients) = run_on(model, network, Recompute::None, targets.shallow_clone());
    let (expected_losses, expected) = autograd(model, targets);
    for (loss, expected) in losses.iter().zip(&expected_losses) {
        assert!(
            (loss - expected).abs() <= f64::from(bound) * expected,
            "{what}: loss {loss}, autograd: {expected}"
        );
    }
    for ((name, values), (_, expected)) in gradients.iter().zip(&expected) {
        let distance = distance(values, expected);
        assert!(distance < bound, "{what}: {name} is {distance:e} off");
    }
}

#[test]
fn losses_and_gradients_match_autograd() {
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
fn losses_and_gradients_of_llama_match_autograd() {
    for (heads, kv_heads) in [(4, 1), (4, 2), (4, 4), (8, 2)] {
        for tensor in [1, 2, 4] {
            for kernels in [Kernels::Own, Kernels::Aten] {
                let model = llama(heads, kv_heads, tensor == 2);
                let network = network(&model, tensor, kernels, Kind::Float);
                compare(
                    &format!("llama {heads} {kv_heads} {tensor} {kernels:?}"),
                    &model,
                    &network,
                    1e-5,
                );
            }
        }
    }
}

/// Masked targets do not contribute to losses and gradients.
#[test]
fn masked_targets_have_no_gradient() {
    let targets = batch(60, 48).1;
    let kept = Tensor::from_slice(&(0..60).map(|i| i64::from(i % 3 > 0 && i < 50)).collect::<Vec<_>>());
    let targets = &targets * &kept + (&kept - 1);
    for tensor in [1, 2, 4] {
        for kernels in [Kernels::Own, Kernels::Aten] {
            for model in [model(4, 1, Activation::Gelu), llama(4, 2, true)] {
                assert!(model.vocabulary >= 48);
                let network = network(&model, tensor, kernels, Kind::Float);
                compare_on("answers only", &model, &network, 1e-5, &targets);
                let (losses, _) = run_on(&model, &network, Recompute::None, targets.shallow_clone());
                assert!(
                    losses
                        .iter()
                        .enumerate()
                        .all(|(i, loss)| (*loss == 0.0) != (i % 3 > 0 && i < 50))
                );
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
            let model = llama(4, kv_heads, false);
            let network = self::network(&model, 2, kernels, Kind::BFloat16);
            // Gates and rotations add one rounding each.
            compare(&format!("bf16 llama {kv_heads} {kernels:?}"), &model, &network, 6e-2);
        }
    }
}

/// Logits after each token: of a complete sequence at once, and token by token in a slot of a cache.
#[test]
fn a_cache_gives_the_logits_of_the_complete_sequence() {
    let _guard = tch::no_grad_guard();
    let (length, prompt) = (20, 7);
    let models = [
        model(4, 1, Activation::GeluTanh),
        model(4, 4, Activation::Gelu),
        llama(4, 2, false),
        llama(4, 1, true),
    ];
    for (number, model) in models.iter().enumerate() {
        for (tensor, kind, near) in [
            (1, Kind::Float, 2e-5),
            (2, Kind::Float, 2e-5),
            (1, Kind::BFloat16, 0.15),
        ] {
            let network = network(model, tensor, Kernels::Own, kind);
            let buffer = Tensor::from_slice(&weights(model, &network.parameters)).to_kind(kind);
            let views = Weights::new(&network.parameters, &buffer).unwrap();
            let peers = Peers::alone();
            let tokens: Vec<i64> = (0..length).map(|i| (i * i * 5 + i + 3) % 96).collect();
            let pass_of = |workspace: &mut Workspace, ids: &Tensor, work: &mut dyn FnMut(&mut PassContext<'_>)| {
                let mut pass = PassContext {
                    workspace,
                    peers: &peers,
                    slot: 0,
                    ids_t: ids,
                    positions: None,
                    trace: None,
                };
                work(&mut pass);
            };
            let mut complete = Vec::new();
            let mut workspace = Workspace::new(&network, 1, length as usize, Recompute::None, 0).unwrap();
            pass_of(&mut workspace, &Tensor::from_slice(&tokens), &mut |pass| {
                network.forward(&views, pass).unwrap();
                let rows: Vec<i64> = (0..length).collect();
                let logits = network.logits(&views, pass, &rows).unwrap().to_kind(Kind::Float);
                complete = Vec::<f32>::try_from(&logits.view([-1])).unwrap();
            });
            let of = |row: usize| &complete[row * 96..(row + 1) * 96];
            // The same sequence in several slots of equal caches, with other sequences or alone.
            let mut found: Vec<Vec<Vec<f32>>> = Vec::new();
            for (slot, with_others) in [(2, false), (0, true), (3, true)] {
                let mut cache = KvCache::new(&network, 4, 24).unwrap();
                let mut workspace = Workspace::new(&network, 1, 16, Recompute::None, 0).unwrap();
                let mut padded = tokens[..prompt].to_vec();
                padded.resize(16, 9);
                let mut own = Vec::new();
                pass_of(&mut workspace, &Tensor::from_slice(&padded), &mut |pass| {
                    if with_others {
                        network.prefill(&views, pass, &mut cache, 1, 11).unwrap();
                    }
                    own.push(network.prefill(&views, pass, &mut cache, slot, prompt).unwrap());
                });
                for (position, token) in tokens.iter().copied().enumerate().skip(prompt) {
                    let mut next = [None; 4];
                    if with_others {
                        next[1] = Some(NextToken {
                            token: position as i64,
                            position: (position + 4).min(23),
                        });
                    }
                    next[slot] = Some(NextToken { token, position });
                    own.push(cache.step(&views, &peers, &next).unwrap().remove(slot));
                }
                found.push(own);
                if with_others {
                    // A copied prompt continues like the one that was read.
                    let to = if slot == 0 { 3 } else { 0 };
                    cache.copy(slot, to, prompt).unwrap();
                    let mut next = [None; 4];
                    next[to] = Some(NextToken {
                        token: tokens[prompt],
                        position: prompt,
                    });
                    let copied = cache.step(&views, &peers, &next).unwrap().remove(to);
                    assert_eq!(Some(&copied), found.last().map(|own| &own[1]), "a copied prompt");
                }
            }
            assert!(
                found.iter().all(|own| *own == found[0]),
                "model {number}, {tensor} shards, {kind:?}: bits"
            );
            for (step, logits) in found[0].iter().enumerate() {
                for (own, complete) in logits.iter().zip(of(prompt - 1 + step)) {
                    let apart = (own - complete).abs();
                    assert!(
                        apart < near,
                        "model {number}, {tensor} shards, {kind:?}, step {step}: {own}, not {complete}"
                    );
                }
            }
        }
    }
}

/// Branches of one context have the likelihoods of separate sequences; their bits do not depend on other sequences or
/// on the other requested pairs.
#[test]
fn branches_match_separate_sequences() {
    let _guard = tch::no_grad_guard();
    let models = [model(4, 1, Activation::GeluTanh), llama(4, 2, false), llama(4, 1, true)];
    let token = |at: usize| ((at * at * 5 + at + 3) % 96) as i64;
    let context: Vec<i64> = (0..7).map(token).collect();
    let continuations: Vec<Vec<i64>> = [(20, 4), (40, 1), (60, 6)]
        .map(|(start, length)| (start..start + length).map(token).collect())
        .to_vec();
    let branches = Branches {
        context: context.len(),
        lengths: continuations.iter().map(|own| own.len() - 1).collect(),
    };
    let cases = [Kernels::Own, Kernels::Portable]
        .into_iter()
        .flat_map(|kernels| [(Kind::Float, 2e-5), (Kind::BFloat16, 0.15)].map(|(kind, near)| (kernels, kind, near)));
    for (number, (model, (kernels, kind, near))) in models
        .iter()
        .flat_map(|model| cases.clone().map(move |case| (model, case)))
        .enumerate()
    {
        let network = network(model, 2, kernels, kind);
        let buffer = Tensor::from_slice(&weights(model, &network.parameters)).to_kind(kind);
        let views = Weights::new(&network.parameters, &buffer).unwrap();
        let peers = Peers::alone();
        // −ln p of the requested pairs for sequences of 20 tokens that branch.
        let losses = |ids: &[i64], sequences: &[Branches], pairs: &[(i64, i64)]| {
            let mut workspace = Workspace::new(&network, ids.len() / 20, 20, Recompute::None, 0).unwrap();
            let positions = network.branches(&workspace, sequences).unwrap();
            let mut pass = PassContext {
                workspace: &mut workspace,
                peers: &peers,
                slot: 0,
                ids_t: &Tensor::from_slice(ids),
                positions: Some(&positions),
                trace: None,
            };
            network.forward(&views, &mut pass).unwrap();
            network.losses(&views, &pass, pairs).unwrap()
        };
        let sequence = |parts: &[&[i64]]| {
            let mut ids = parts.concat();
            ids.resize(20, 11);
            ids
        };
        let read: Vec<&[i64]> = continuations.iter().map(|own| &own[..own.len() - 1]).collect();
        let complete = sequence(&[&[&context[..]], &read[..]].concat());
        let (mut pairs, mut at) = (Vec::new(), context.len());
        for own in &continuations {
            let rows = std::iter::once(context.len() - 1).chain(at..);
            pairs.extend(rows.map(|row| row as i64).zip(own.iter().copied()));
            at += own.len() - 1;
        }
        let found = losses(
            &[&complete[..], &complete].concat(),
            std::slice::from_ref(&branches),
            &pairs,
        );
        let mut expected = Vec::new();
        for own in &continuations {
            let alone = Branches {
                context: context.len(),
                lengths: vec![own.len() - 1],
            };
            let ids = sequence(&[&context, &own[..own.len() - 1]]);
            let pairs: Vec<_> = (context.len() as i64 - 1..).zip(own.iter().copied()).collect();
            let with_others = sequence(&[]);
            expected.extend(losses(&[ids, with_others].concat(), &[alone], &pairs));
        }
        for (own, alone) in found.iter().zip(&expected) {
            assert!((own - alone).abs() < near, "case {number}: {own}, not {alone}");
        }
        // As the second of two sequences, one pair at a time.
        let other = Branches {
            context: 3,
            lengths: vec![5, 5],
        };
        let ids = [sequence(&[&continuations[2]]), complete].concat();
        for (question, expected) in pairs.iter().zip(&found) {
            let own = losses(
                &ids,
                &[other.clone(), branches.clone()],
                &[(question.0 + 20, question.1)],
            );
            assert_eq!(own[0].to_bits(), expected.to_bits(), "case {number}: bits");
        }
    }
}

#[test]
fn recomputing_gives_the_same_bits() {
    let models = [model(4, 1, Activation::GeluTanh), llama(4, 2, false)];
    for (model, kind) in models
        .iter()
        .flat_map(|model| [(model, Kind::Float), (model, Kind::BFloat16)])
    {
        let network = network(model, 2, Kernels::Own, kind);
        let kept = run(model, &network, Recompute::None);
        assert!(
            kept == run(model, &network, Recompute::Selective),
            "selective, {kind:?}"
        );
        assert!(kept == run(model, &network, Recompute::Full), "full, {kind:?}");
    }
}

#[test]
fn a_model_that_the_grid_does_not_divide_is_refused() {
    let refuse = |change: fn(&mut ModelFields), tensor: u32| {
        let mut model = model(4, 1, Activation::Gelu);
        change(&mut model);
        let grid = Grid::new(&Numerics {
            contract: Contract::Invariant,
            tensor,
            lanes: 1,
            micro_batch: 1,
        });
        ModelShape::new(&model, &grid).unwrap_err().to_string()
    };
    assert_eq!(refuse(|_| (), 8), "heads 4 does not divide by 8 logical tensor shards");
    assert_eq!(refuse(|_| (), 3), "3 logical tensor shards: not a power of two");
    assert_eq!(
        refuse(|m| m.kv_heads = 2, 1),
        "gpt_bigcode has 1 or 4 key and value heads, not 2"
    );
    assert_eq!(
        refuse(|m| m.vocabulary = 97, 2),
        "vocabulary 97 does not divide by 2 logical tensor shards"
    );
}
