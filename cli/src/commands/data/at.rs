//! `aurora data at`: the documents that a step reads.

use std::collections::BTreeMap;

use aurora_compiler::graph::NodeId;
use aurora_runtime::data::encoder::Encoder;
use aurora_runtime::data::uses::{DocumentSpan, SampleDocuments};
use aurora_runtime::lookup::{self, CorpusTokens, OpenStage, Stage, open, stages};
use aurora_runtime::results::Results;
use aurora_runtime::store::Store;
use serde_json::{Value, json};

use super::{listed, no_stage};
use crate::arguments::ExperimentArgument;
use crate::context::Context;
use crate::experiment::Experiment;
use crate::failure::{Exit, Failure};
use crate::output::{self, grouped};
use crate::stdio::{out_text, outln};

pub fn run(
    context: &Context,
    of: &ExperimentArgument,
    step: u64,
    stage: Option<&str>,
    sample: Option<u64>,
) -> Result<Exit, Failure> {
    let experiment = Experiment::named(context, &of.name, &of.selection)?;
    let store = Store::open_read_only(&experiment.project.store)?;
    let results = experiment.results(&store)?;
    let all = stages(&results).map_err(|error| experiment.failure(error))?;
    let stage = chosen(&experiment, &all, stage, step)?;
    let batch = u64::from(stage.global_batch);
    if let Some(sample) = sample.filter(|sample| *sample >= batch) {
        return Err(Failure::error(format!(
            "a step of stage `{}` does not have sample {sample}",
            stage.name
        ))
        .help(format!("its samples are 0 to {}", batch - 1)));
    }
    let opened = open(&results, stage).map_err(|error| experiment.failure(error))?;
    let mut at = Printed {
        experiment: &experiment,
        results: &results,
        opened: &opened,
        tokenizers: BTreeMap::new(),
    };
    let first = (step - 1) * batch;
    let positions = match sample {
        Some(sample) => first + sample..first + sample + 1,
        None => first..first + batch,
    };
    if !context.json {
        outln!(
            "step {} of {} of stage `{}`: positions {} to {} of {}, {} tokens each",
            grouped(step),
            grouped(stage.steps),
            stage.name,
            grouped(positions.start),
            grouped(positions.end - 1),
            grouped(stage.steps * batch),
            grouped(u64::from(stage.sequence)),
        )?;
    }
    let mut rows = vec![HEADINGS.map(str::to_owned).to_vec()];
    let mut texts = Vec::new();
    let samples = opened.data.samples_at(positions);
    let samples = samples.map_err(|error| Failure::from_error(&error).help("`aurora verify` lists what is damaged"))?;
    for found in samples {
        let (position, index) = (found.position, found.position - first);
        let mut documents = Vec::new();
        let tokens = match sample {
            Some(_) => Some(
                opened
                    .data
                    .tokens(found.sample)
                    .map_err(|error| Failure::from_error(&error))?,
            ),
            None => None,
        };
        for span in &found.spans {
            let document = at.document(&found, span)?;
            let text = tokens
                .as_ref()
                .map(|tokens| at.text(&found, span, tokens))
                .transpose()?;
            if !context.json {
                rows.push(row(index, &found, &opened, &document, span));
            }
            texts.extend(text.clone().map(|text| (document.label(span), text)));
            documents.push(document.json(span, text.as_deref()));
        }
        if context.json {
            output::json(json!({
                "stage": stage.name,
                "step": step,
                "sample": index,
                "position": position,
                "component": opened.components[found.sample.component].name,
                "index": found.sample.index,
                "epoch": found.sample.epoch + 1,
                "documents": documents,
            }))?;
        }
    }
    if !context.json {
        out_text(&output::table(&rows))?;
        for (label, text) in texts {
            outln!("{label}:\n{text}")?;
        }
    }
    Ok(Exit::Done)
}

const HEADINGS: [&str; 8] = [
    "sample",
    "component",
    "epoch",
    "document",
    "source",
    "licence",
    "tokens of the document",
    "tokens of the sample",
];

/// The stage that is meant, if it has the step.
fn chosen<'a>(experiment: &Experiment, all: &'a [Stage], name: Option<&str>, step: u64) -> Result<&'a Stage, Failure> {
    let stage = match (name, all) {
        (Some(name), _) => all.iter().find(|stage| stage.name == name),
        (None, [only]) => Some(only),
        (None, []) => None,
        (None, several) => {
            let name = &experiment.loaded.spec.name;
            return Err(Failure::error(format!("`{name}` has {} stages", several.len()))
                .help(format!("name one with `--stage`: {}", listed(several))));
        }
    };
    let stage = stage.ok_or_else(|| match name {
        Some(name) => no_stage(experiment, all, name),
        None => Failure::error(format!("`{}` does not train a stage", experiment.loaded.spec.name)),
    })?;
    if !(1..=stage.steps).contains(&step) {
        return Err(
            Failure::error(format!("stage `{}` does not have step {step}", stage.name))
                .help(format!("steps are counted from 1 in each stage: {}", listed(all))),
        );
    }
    Ok(stage)
}

/// What is printed about a document.
struct Described<'a> {
    id: Option<String>,
    corpus: &'a str,
    source: Option<&'a str>,
    licence: Option<&'a str>,
}

impl Described<'_> {
    fn name(&self, span: &DocumentSpan) -> String {
        match &self.id {
            Some(id) => id.clone(),
            None => format!("document {} of {}", span.document, self.corpus),
        }
    }

    fn label(&self, span: &DocumentSpan) -> String {
        format!("{}, tokens {}", self.name(span), range(&span.in_document))
    }

    fn json(&self, span: &DocumentSpan, text: Option<&str>) -> Value {
        let mut json = json!({
            "id": self.id,
            "number": span.document,
            "corpus": self.corpus,
            "source": self.source,
            "licence": self.licence,
            "tokens": { "start": span.in_document.start, "end": span.in_document.end },
            "document_tokens": span.length,
            "sample_tokens": { "start": span.in_sample.start, "end": span.in_sample.end },
        });
        if let (Some(text), Some(members)) = (text, json.as_object_mut()) {
            members.insert("text".to_owned(), Value::from(text));
        }
        json
    }
}

fn range(tokens: &std::ops::Range<u64>) -> String {
    format!("{}..{}", tokens.start, tokens.end)
}

fn row(
    index: u64,
    found: &SampleDocuments,
    opened: &OpenStage,
    document: &Described<'_>,
    span: &DocumentSpan,
) -> Vec<String> {
    vec![
        index.to_string(),
        opened.components[found.sample.component].name.clone(),
        (found.sample.epoch + 1).to_string(),
        document.name(span),
        document.source.unwrap_or("-").to_owned(),
        document.licence.unwrap_or("not stated").to_owned(),
        format!("{} of {}", range(&span.in_document), span.length),
        range(&span.in_sample),
    ]
}

struct Printed<'a> {
    experiment: &'a Experiment,
    results: &'a Results<'a>,
    opened: &'a OpenStage,
    /// By the node of the tokens.
    tokenizers: BTreeMap<NodeId, Encoder>,
}

impl<'a> Printed<'a> {
    fn corpus(&self, found: &SampleDocuments, span: &DocumentSpan) -> &'a CorpusTokens {
        &self.opened.components[found.sample.component].corpora[span.file]
    }

    fn document(&self, found: &SampleDocuments, span: &DocumentSpan) -> Result<Described<'a>, Failure> {
        let corpus = self.corpus(found, span);
        let source = corpus.source(span.document);
        Ok(Described {
            id: corpus.id(span.document).map_err(|error| Failure::from_error(&error))?,
            corpus: &corpus.corpus,
            source,
            licence: source.and_then(|source| self.experiment.licence(source)),
        })
    }

    /// The text of a span, decoded from its tokens.
    fn text(&mut self, found: &SampleDocuments, span: &DocumentSpan, tokens: &[i64]) -> Result<String, Failure> {
        let node = self.corpus(found, span).node;
        if !self.tokenizers.contains_key(&node) {
            let path = lookup::tokenizer(self.results, node).map_err(|error| self.experiment.failure(error))?;
            let encoder = aurora_runtime::data::tokenizer::load(&path);
            let encoder = encoder.map_err(|error| Failure::from_error(&error))?;
            self.tokenizers.insert(node, encoder);
        }
        let part = span.in_sample.start as usize..span.in_sample.end as usize;
        let ids: Vec<u32> = tokens[part].iter().map(|token| *token as u32).collect();
        let decoded = self.tokenizers[&node].decode(&ids);
        decoded.map_err(|error| Failure::from_error(&error))
    }
}
