//! Tokenizes this repository's own texts on all cores, in turn with Aurora's encoder and with the `tokenizers` crate
//! called directly, and prints both rates and their ratio.
use std::error::Error;
use std::time::Instant;

use aurora_compiler::fields::TokenizerFields;
use aurora_runtime::data::tokenizer::{TokenizerInput, load, tokenizer};
use aurora_runtime::progress::ProgressReporter;
use camino::{Utf8Path, Utf8PathBuf};
use rayon::prelude::*;

const ROUNDS: usize = 7;

fn texts(folder: &Utf8Path, found: &mut Vec<String>) -> Result<(), Box<dyn Error>> {
    let mut entries: Vec<Utf8PathBuf> = folder
        .read_dir_utf8()?
        .map(|entry| entry.map(|entry| entry.into_path()))
        .collect::<Result<_, _>>()?;
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            texts(&path, found)?;
        } else if matches!(path.extension(), Some("rs" | "md" | "aur")) {
            found.push(std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut all = Vec::new();
    texts(&Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut all)?;
    let folder = tempfile::tempdir()?;
    let folder = Utf8Path::from_path(folder.path()).ok_or("the folder's path is not UTF-8")?;
    let documents = folder.join("documents.jsonl");
    let lines = all
        .iter()
        .enumerate()
        .map(|(n, text)| format!("{}\n", serde_json::json!({ "id": n.to_string(), "text": text })));
    std::fs::write(&documents, lines.collect::<String>())?;
    let out = folder.join("tokenizer");
    std::fs::create_dir(&out)?;
    let special = vec!["<|endoftext|>".to_string()];
    let fields = TokenizerFields::TrainBpe {
        vocabulary: 8192,
        minimum_frequency: 2,
        special,
    };
    tokenizer(
        &fields,
        TokenizerInput::Documents(&[documents]),
        &out,
        ProgressReporter::none(),
    )?;
    let ours = load(&out.join("tokenizer.json"))?;
    let bytes: usize = all.iter().map(String::len).sum();
    let rate = |seconds: f64| bytes as f64 / seconds / 1e6;
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let own: usize = all
            .par_iter()
            .map(|text| ours.encode(text).map_or(0, |ids| ids.len()))
            .sum();
        let own_seconds = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let batch = ours
            .tokenizer()
            .encode_batch_fast(all.clone(), false)
            .map_err(|error| error.to_string())?;
        let crate_seconds = began.elapsed().as_secs_f64();
        let theirs: usize = batch.iter().map(|encoding| encoding.get_ids().len()).sum();
        if own != theirs {
            return Err(format!("{own} tokens against the crate's {theirs}").into());
        }
        ratios.push((crate_seconds / own_seconds, rate(own_seconds), rate(crate_seconds)));
    }
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (low, middle, high) = (ratios[0], ratios[ROUNDS / 2], ratios[ROUNDS - 1]);
    println!(
        "{:.2} × the crate's speed ({:.2} to {:.2}); {:.1} MB/s against {:.1} MB/s, {bytes} bytes; target ≥ 0.95",
        middle.0, low.0, high.0, middle.1, middle.2
    );
    Ok(())
}
