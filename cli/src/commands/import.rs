//! `aurora import`: reads a published model or a launch script, and prints it as a spec.

use aurora_compiler::fields::{ModelFields, TokenizerFields};
use aurora_compiler::megatron::{FindingKind, TranslateOptions, import};
use aurora_runtime::data::tokenizer::{TokenizerInput, tokenizer};
use aurora_runtime::progress::ProgressReporter;
use aurora_runtime::source::archive::InputFile;
use aurora_runtime::weights::{Gguf, HuggingFace, PublishedWeights, convert, published_tokenizer};
use camino::Utf8Path;
use serde_json::json;

use crate::arguments::ImportArguments;
use crate::checkpoint::MODEL;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::stdio::{errln, out_text};

fn failure(error: impl std::error::Error + 'static) -> Failure {
    Failure::from_error(&error)
}

pub fn hf(context: &Context, path: &Utf8Path, into: &ImportArguments) -> Result<Exit, Failure> {
    let reading = |error| Failure::error(format!("cannot read `{path}`: {error}"));
    let mut files = Vec::new();
    for entry in path.read_dir_utf8().map_err(reading)? {
        let entry = entry.map_err(reading)?;
        if entry.path().is_file() {
            files.push(InputFile::from(entry.path()));
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let model = HuggingFace::open(&files).map_err(failure)?;
    let member = files
        .iter()
        .any(|file| file.name == "tokenizer.json")
        .then_some("tokenizer.json");
    finish(context, &model, &files, member, "safetensors(SOURCE)", into)
}

pub fn gguf(context: &Context, path: &Utf8Path, into: &ImportArguments) -> Result<Exit, Failure> {
    let file = InputFile::from(path);
    let member = file.name.clone();
    let files = [file];
    let model = Gguf::open(&files, &member).map_err(failure)?;
    let member = member.ends_with(".gguf").then_some(member.as_str());
    let call = format!("gguf(SOURCE, member = {:?})", path.file_name().unwrap_or_default());
    finish(context, &model, &files, member, &call, into)
}

/// Prints or writes the spec of a launch script, and prints what the spec leaves out.
pub fn megatron(
    context: &Context,
    script: &Utf8Path,
    output: Option<&Utf8Path>,
    vocabulary: Option<u64>,
) -> Result<Exit, Failure> {
    let bytes = std::fs::read(script).map_err(|error| Failure::error(format!("cannot read `{script}`: {error}")))?;
    let text = String::from_utf8_lossy(&bytes);
    let imported = import(script.as_str(), &text, TranslateOptions { vocabulary }).map_err(|error| {
        let failure = Failure::from_error(&error);
        Failure {
            message: format!("{script}: {}", failure.message),
            ..failure
        }
    })?;
    if let Some(path) = output {
        if path.exists() {
            return Err(Failure::error(format!("`{path}` already exists")).help("name another file, or delete it"));
        }
        aurora_runtime::write_atomically(path, imported.spec.as_bytes())
            .map_err(|error| Failure::error(format!("cannot write `{path}`: {error}")))?;
    }
    if context.json {
        output::json(json!({ "spec": imported.spec, "findings": imported.findings, "file": output }))?;
        return Ok(Exit::Done);
    }
    if output.is_none() {
        out_text(&imported.spec)?;
    }
    for kind in FindingKind::ALL {
        let mut of_kind = imported
            .findings
            .iter()
            .filter(|finding| finding.kind == kind)
            .peekable();
        if of_kind.peek().is_some() {
            errln!("{}:", kind.heading());
        }
        of_kind.for_each(|finding| errln!("  {finding}"));
    }
    Ok(Exit::Done)
}

/// Writes the model if a folder is given, and prints it as a block of a spec.
fn finish(
    context: &Context,
    published: &dyn PublishedWeights,
    files: &[InputFile],
    member: Option<&str>,
    call: &str,
    into: &ImportArguments,
) -> Result<Exit, Failure> {
    let model = published.model();
    if let Some(folder) = &into.folder {
        let wrap = |error| Failure::error(format!("cannot write `{folder}`: {error}"));
        if folder.read_dir_utf8().is_ok_and(|mut listing| listing.next().is_some()) {
            return Err(Failure::error(format!("`{folder}` is not empty")).help("name another folder"));
        }
        convert(published, folder).map_err(failure)?;
        if let Some(member) = member {
            let fields = TokenizerFields::Load {
                member: member.to_owned(),
                end_of_document: into.end_of_document.clone(),
            };
            let json = published_tokenizer(files, member).map_err(failure)?;
            tokenizer(&fields, TokenizerInput::Json(&json), folder, ProgressReporter::none())
                .map_err(|error| failure(error).help("name the token that ends a document with `--end-of-document`"))?;
        }
        // Last: a folder without this file is not a checkpoint.
        let text = serde_json::to_string_pretty(model).expect("names and numbers are JSON") + "\n";
        aurora_runtime::write_atomically(&folder.join(MODEL), text.as_bytes()).map_err(wrap)?;
    }
    if context.json {
        output::json(json!({ "model": model, "parameters": model.parameters(), "folder": into.folder }))?;
        return Ok(Exit::Done);
    }
    out_text(&block(model, call))?;
    let written = into
        .folder
        .as_ref()
        .map(|folder| format!(", written to {folder}"))
        .unwrap_or_default();
    errln!("{} parameters{written}", output::grouped(model.parameters()));
    Ok(Exit::Done)
}

/// The name of an enum value in the language.
fn word(value: &impl serde::Serialize) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    json.as_str().unwrap_or_default().to_owned()
}

/// The model as a block of a spec.
fn block(model: &ModelFields, weights: &str) -> String {
    let mut rows = vec![
        ("architecture", word(&model.architecture)),
        ("layers", model.layers.to_string()),
        ("hidden", model.hidden.to_string()),
        ("heads", model.heads.to_string()),
        ("kv_heads", model.kv_heads.to_string()),
        ("feed_forward", model.feed_forward.to_string()),
        ("context", format!("{} tokens", model.context)),
        ("vocabulary", model.vocabulary.to_string()),
        ("activation", word(&model.activation)),
        ("norm_epsilon", model.norm_epsilon.to_string()),
    ];
    if let Some(base) = model.rotary_base {
        rows.push(("rotary_base", base.to_string()));
        rows.push(("tied_embeddings", model.tied_embeddings.to_string()));
    }
    rows.push(("tokenizer", "TOKENIZER".to_owned()));
    rows.push(("weights", weights.to_owned()));
    let lines = rows.iter().map(|(name, value)| format!("  {name:<15} = {value}\n"));
    format!("model imported {{\n{}}}\n", lines.collect::<String>())
}
