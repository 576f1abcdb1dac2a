//! Losses of the first steps against Hugging Face transformers, which `tests/peers/train_speed.py` wrote to
//! `tests/peers/losses.json`: same initial weights, batches and optimizer. And logits, which `tests/peers/weights.py`
//! wrote to `tests/peers/logits.json`. Both with the kernels for CPUs and with the code for devices.

#[path = "../examples/logits/shapes.rs"]
mod models;
#[path = "../examples/speed/shapes.rs"]
mod shapes;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::AtomicBool;

use aurora_compiler::fields::{Contract, Numerics, Precision};
use aurora_runtime::job::{Layout, Recompute};
use aurora_train::model::{ComputeDevice, PassContext, Workspace};
use aurora_train::parallel::Peers;
use aurora_train::train::TrainError;
use aurora_train::train::step::Trainer;
use aurora_train::train::thread_pool::ThreadPool;
use aurora_train::train::train_state::{TrainState, network};
use camino::Utf8Path;
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    micro_batch: u32,
    micro_batches: usize,
    learning_rate: f64,
    losses: BTreeMap<String, Vec<f64>>,
}

/// Where the losses and logits are computed.
const DEVICES: [ComputeDevice; 2] = [ComputeDevice::Cpu, ComputeDevice::Simulated];

fn losses(name: &str, reference: &Reference, steps: usize, device: ComputeDevice) -> Result<Vec<f64>, Box<dyn Error>> {
    let mut shape = shapes::shape(name)?;
    shape.micro_batch = reference.micro_batch;
    let folder = tempfile::tempdir()?;
    let folder = Utf8Path::from_path(folder.path()).ok_or("a path that is not UTF-8")?;
    let files = shape.draw(folder)?;
    let numerics = Numerics {
        contract: Contract::Invariant,
        tensor: 2,
        lanes: 2,
        micro_batch: shape.micro_batch,
    };
    let layout = Layout::one(2, Recompute::None);
    let network = network(&shape.model, &numerics, Precision::F32, &layout, 0, device)?;
    let mut state = TrainState::new(network, &shape.model, 0, true, false)?;
    state.load_weights(&files)?;
    let optimizer = shapes::optimizer()?;
    let (pool, peers) = (ThreadPool::new(2)?, vec![Peers::alone(), Peers::alone()]);
    let count = reference.micro_batches;
    let mut trainer = Trainer::new(state, peers, &optimizer, shape.sequence, count, Recompute::None)?;
    let mut step = |step: u64| -> Result<f64, Box<dyn Error>> {
        let (mut batch, _) = shapes::batch(&shape, count, step)?;
        let not_finite = |what, value| TrainError::NotFinite {
            what,
            step,
            value,
            batch: String::new(),
        };
        let stop = AtomicBool::new(false);
        let outcome = trainer.step(
            &pool,
            &mut batch,
            &optimizer,
            reference.learning_rate,
            &stop,
            not_finite,
        )?;
        Ok(outcome.loss)
    };
    (0..steps as u64).map(&mut step).collect()
}

#[derive(Deserialize)]
struct Logits {
    shapes: BTreeMap<String, Rows>,
}

#[derive(Deserialize)]
struct Rows {
    /// Every fifth row, every fortieth logit.
    logits: Vec<Vec<f64>>,
}

/// Logits of one of the models that `tests/peers/weights.py` exported, by row.
fn logits(shape: &str, device: ComputeDevice) -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
    let model = models::model(shape).ok_or("an unknown shape")?;
    let folder = tempfile::tempdir()?;
    let folder = Utf8Path::from_path(folder.path()).ok_or("not UTF-8")?;
    let fields = models::weights(&model).ok_or("no weights")?;
    aurora_runtime::weights::weights(&fields, None, folder, &|_| {})?;
    let state = models::state(&model, folder, device)?;
    let ids = models::ids(&model);
    let rows: Vec<i64> = (0..ids.len() as i64).collect();
    let _guard = tch::no_grad_guard();
    let mut workspace = Workspace::new(&state.network, 1, ids.len(), Recompute::None, 0)?;
    let mut pass = PassContext {
        workspace: &mut workspace,
        peers: &Peers::alone(),
        slot: 0,
        ids_t: &tch::Tensor::f_from_slice(&ids)?,
        positions: None,
        trace: None,
    };
    let weights = state.weights()?;
    state.network.forward(&weights, &mut pass)?;
    let logits = state.network.logits(&weights, &pass, &rows)?;
    let flat = Vec::<f32>::try_from(&logits.f_view([-1])?)?;
    Ok(flat
        .chunks_exact(model.vocabulary as usize)
        .map(<[f32]>::to_vec)
        .collect())
}

#[test]
fn logits_match_transformers() {
    let reference: Logits = serde_json::from_str(include_str!("../../../tests/peers/logits.json")).unwrap();
    assert_eq!(reference.shapes.len(), 5);
    let cases = DEVICES
        .iter()
        .flat_map(|device| reference.shapes.iter().map(move |shape| (*device, shape)));
    for (device, (shape, theirs)) in cases {
        let ours = logits(shape, device).unwrap();
        assert_eq!(ours.len().div_ceil(5), theirs.logits.len());
        for (row, theirs) in theirs.logits.iter().enumerate() {
            for (column, theirs) in theirs.iter().enumerate() {
                let ours = f64::from(ours[5 * row][40 * column]);
                assert!(
                    (ours - theirs).abs() < 1e-4,
                    "{device:?}, {shape}, row {row}: {ours}, not {theirs}"
                );
            }
        }
    }
}

#[test]
fn losses_match_transformers() {
    let reference: Reference = serde_json::from_str(include_str!("../../../tests/peers/losses.json")).unwrap();
    assert_eq!(reference.losses.keys().collect::<Vec<_>>(), ["llama", "small"]);
    let cases = DEVICES
        .iter()
        .flat_map(|device| reference.losses.iter().map(move |losses| (*device, losses)));
    for (device, (name, theirs)) in cases {
        let ours = losses(name, &reference, theirs.len(), device).unwrap();
        assert_eq!(ours.len(), 20);
        for (step, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            // f32 sums in another order, over as many updates.
            assert!(
                (ours / theirs - 1.0).abs() < 1e-4,
                "{device:?}, {name}, step {step}: {ours}, not {theirs}"
            );
        }
    }
}
