//! Logits, losses and greedy continuations of a checkpoint, for a comparison with another implementation.
//!
//! `logits --shape NAME FOLDER` draws the weights of a small model into FOLDER (a checkpoint with its `model.json`, and
//! the same exported in `hf`), and prints its ids.
//! `logits CHECKPOINT IDS OUT [--generate N]` reads a folder that `aurora import` wrote and a JSON list of lists of
//! ids, writes all logits to OUT (f32, little-endian) and prints the mean loss of each list and N ids after it.

#[path = "shapes.rs"]
mod shapes;

use std::error::Error;

use aurora_compiler::fields::ModelFields;
use aurora_runtime::checkpoint::as_bytes;
use aurora_runtime::job::Recompute;
use aurora_runtime::weights::{Card, SHARD_BYTES, export, weights};
use aurora_train::model::{ComputeDevice, KvCache, NextToken, PassContext, Workspace, to_host};
use aurora_train::parallel::Peers;
use camino::Utf8Path;
use tch::{Kind, Tensor};

fn draw(shape: &str, folder: &Utf8Path) -> Result<(), Box<dyn Error>> {
    let model = shapes::model(shape).ok_or("an unknown shape")?;
    let fields = shapes::weights(&model).ok_or("no weights")?;
    weights(&fields, None, folder, &|_| {})?;
    std::fs::write(folder.join("model.json"), serde_json::to_string(&model)?)?;
    export(
        &model,
        &shapes::files(&model, folder),
        None,
        &Card::default(),
        SHARD_BYTES,
        &folder.join("hf"),
    )?;
    println!("{}", serde_json::to_string(&[shapes::ids(&model)])?);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    aurora_train::worker::settle()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, shape, folder] = &arguments[..]
        && flag == "--shape"
    {
        return draw(shape, Utf8Path::new(folder));
    }
    let [folder, ids, out, rest @ ..] = &arguments[..] else {
        return Err("logits CHECKPOINT IDS OUT [--generate N]".into());
    };
    let generate: usize = match rest {
        [flag, count] if flag == "--generate" => count.parse()?,
        _ => 0,
    };
    let folder = Utf8Path::new(folder);
    let model: ModelFields = serde_json::from_slice(&std::fs::read(folder.join("model.json"))?)?;
    let lists: Vec<Vec<i64>> = serde_json::from_slice(&std::fs::read(ids)?)?;
    let state = shapes::state(&model, folder, ComputeDevice::Cpu)?;
    let (network, weights) = (&state.network, state.weights()?);
    let _guard = tch::no_grad_guard();
    let peers = Peers::alone();
    let (mut bytes, mut losses, mut generated) = (Vec::new(), Vec::new(), Vec::new());
    for list in &lists {
        let ids = Tensor::f_from_slice(list)?;
        let mut workspace = Workspace::new(network, 1, list.len(), Recompute::None, 0)?;
        let mut pass = PassContext {
            workspace: &mut workspace,
            peers: &peers,
            slot: 0,
            ids_t: &ids,
            positions: None,
            trace: None,
        };
        network.forward(&weights, &mut pass)?;
        let rows: Vec<i64> = (0..list.len() as i64).collect();
        let logits = network.logits(&weights, &pass, &rows)?;
        let targets = list.iter().skip(1).copied().chain([0]).collect::<Vec<_>>();
        let each = to_host::<f64>(&network.head(&weights, &mut pass, &Tensor::f_from_slice(&targets)?, None)?)?;
        let scored = &each[..list.len() - 1];
        losses.push(scored.iter().sum::<f64>() / scored.len() as f64);
        bytes.extend_from_slice(&as_bytes(&Vec::<f32>::try_from(&logits.f_view([-1])?)?));
        if generate > 0 {
            let mut cache = KvCache::new(network, 2, list.len() + generate)?;
            let mut last = network.prefill(&weights, &mut pass, &mut cache, 1, list.len())?;
            let mut own = Vec::new();
            for step in 0..generate {
                let token = Tensor::f_from_slice(&last)?
                    .f_to_kind(Kind::Float)?
                    .f_argmax(0, false)?
                    .int64_value(&[]);
                own.push(token);
                let next = [
                    None,
                    Some(NextToken {
                        token,
                        position: list.len() + step,
                    }),
                ];
                last = cache.step(&weights, &peers, &next)?.remove(1);
            }
            generated.push(own);
        }
    }
    std::fs::write(out, bytes)?;
    println!("{}", serde_json::json!({ "losses": losses, "generated": generated }));
    Ok(())
}
