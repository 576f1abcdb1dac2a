//! Runs sources through extraction, filter, tokenizer and token files, and says what each step gave and took:
//! `corpus PLAN.json FOLDER`. Sources that lie in the folder are not fetched again.
use std::collections::BTreeMap;
use std::error::Error;
use std::time::Instant;

use aurora_compiler::fields::{ExtractFields, FilterFields, Split, TokenizerFields, TokensFields};
use aurora_runtime::data::extract::extract;
use aurora_runtime::data::filter::filter;
use aurora_runtime::data::tokenizer::{TokenizerInput, load, tokenizer, tokens};
use aurora_runtime::progress::ProgressReporter;
use aurora_runtime::source::archive::InputFile;
use aurora_runtime::source::{Folders, SourceContext, fetch};
use camino::{Utf8Path, Utf8PathBuf};

#[derive(serde::Deserialize)]
struct Plan {
    sources: BTreeMap<String, String>,
    corpora: Vec<Corpus>,
    vocabulary: u32,
}

#[derive(serde::Deserialize)]
struct Corpus {
    name: String,
    from: Vec<From>,
    filter: FilterFields,
}

#[derive(serde::Deserialize)]
struct From {
    source: String,
    #[serde(flatten)]
    fields: ExtractFields,
}

fn empty(folder: &Utf8Path) -> Result<&Utf8Path, Box<dyn Error>> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder)?;
    Ok(folder)
}

fn source(name: &str, reference: &str, root: &Utf8Path) -> Result<InputFile, Box<dyn Error>> {
    let folder = root.join("sources").join(name);
    let note = root.join("sources").join(format!("{name}.name"));
    if let Ok(file) = std::fs::read_to_string(&note) {
        return Ok(InputFile::new(file.clone(), folder.join(&file)));
    }
    let start = Instant::now();
    let cache = root.join("cache");
    let context = SourceContext {
        name,
        folders: &Folders::of(root, Default::default()),
        scratch: empty(&folder)?,
        cache: &cache,
        at_most: None,
        limits: None,
        offline: false,
    };
    let fetched = fetch(&reference.parse()?, None, context, ProgressReporter::none())?;
    println!(
        "{:>10} B {:>6.2} s  {}  {}",
        fetched.bytes,
        start.elapsed().as_secs_f64(),
        fetched.reference,
        fetched.content
    );
    let file = fetched.files.into_iter().next().ok_or("no file")?;
    std::fs::write(note, &file.name)?;
    Ok(file)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [plan, root] = arguments.as_slice() else {
        return Err("corpus PLAN.json FOLDER".into());
    };
    let plan: Plan = serde_json::from_slice(&std::fs::read(plan)?)?;
    let root = Utf8PathBuf::from(root);
    let start = Instant::now();
    let mut files = BTreeMap::new();
    for (name, reference) in &plan.sources {
        files.insert(name.clone(), source(name, reference, &root)?);
    }
    println!("sources: {:.2} s", start.elapsed().as_secs_f64());
    let mut kept = Vec::new();
    let start = Instant::now();
    for corpus in &plan.corpora {
        let mut inputs = Vec::new();
        for (at, from) in corpus.from.iter().enumerate() {
            let out = root.join("extract").join(format!("{}-{at}", corpus.name));
            let report = extract(
                &from.fields,
                std::slice::from_ref(files.get(&from.source).ok_or("no such source")?),
                None,
                empty(&out)?,
                ProgressReporter::none(),
            )?;
            println!(
                "  {:<22} {:>6} members {:>6} documents {:>9} B {:?}",
                from.source, report.matched, report.documents, report.bytes, report.skipped
            );
            inputs.push(out.join("documents.jsonl"));
        }
        let out = root.join("filter").join(&corpus.name);
        let report = filter(&corpus.filter, &inputs, empty(&out)?, ProgressReporter::none())?;
        println!(
            "{:<12} train {:?} held out {:?}",
            corpus.name, report.train, report.held_out
        );
        println!(
            "{:<12} dropped {:?}",
            "",
            report
                .dropped
                .iter()
                .map(|(why, units)| (why, units.units, units.bytes))
                .collect::<Vec<_>>()
        );
        kept.push(out.join("train.jsonl"));
    }
    println!("extract and filter: {:.2} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let out = root.join("tokenizer");
    let fields = TokenizerFields::TrainBpe {
        vocabulary: plan.vocabulary,
        minimum_frequency: 2,
        special: vec!["<|endoftext|>".into()],
    };
    let meta = tokenizer(
        &fields,
        TokenizerInput::Documents(&kept),
        empty(&out)?,
        ProgressReporter::none(),
    )?;
    println!(
        "tokenizer: {} entries, {:.2} s",
        meta.vocabulary,
        start.elapsed().as_secs_f64()
    );
    let json = out.join("tokenizer.json");
    let fields = TokensFields {
        split: Split::Train,
        vocabulary: plan.vocabulary,
    };
    let start = Instant::now();
    let mut bytes = 0;
    for (corpus, documents) in plan.corpora.iter().zip(&kept) {
        let out = root.join("tokens").join(&corpus.name);
        let meta = tokens(
            &fields,
            std::slice::from_ref(documents),
            &json,
            meta.end_of_document_id,
            empty(&out)?,
            ProgressReporter::none(),
        )?;
        println!(
            "{:<12} {:>9} tokens {:>9} B, {:.2} bytes a token",
            corpus.name,
            meta.tokens,
            meta.bytes,
            meta.bytes as f64 / meta.tokens as f64
        );
        bytes += meta.bytes;
    }
    let ours = start.elapsed().as_secs_f64();
    // The crate called directly, with the texts in memory already.
    let direct = load(&json)?;
    let mut texts = Vec::new();
    for path in &kept {
        for line in std::fs::read_to_string(path)?.lines() {
            texts.push(serde_json::from_str::<aurora_runtime::data::documents::Document>(line)?.text);
        }
    }
    let start = Instant::now();
    let mut count = 0;
    for batch in texts.chunks(1000) {
        let batch: Vec<&str> = batch.iter().map(String::as_str).collect();
        count += direct
            .tokenizer()
            .encode_batch_fast(batch, false)
            .map_err(|error| error.to_string())?
            .iter()
            .map(|e| e.len())
            .sum::<usize>();
    }
    let theirs = start.elapsed().as_secs_f64();
    println!(
        "tokens: {:.1} MB/s with reading and writing; the crate alone {:.1} MB/s ({count} tokens)",
        bytes as f64 / 1e6 / ours,
        bytes as f64 / 1e6 / theirs
    );
    Ok(())
}
