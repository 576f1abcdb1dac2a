//! `aurora data where`: the steps and checkpoints that contain a document or a source.

use std::collections::BTreeSet;
use std::ops::Range;

use aurora_runtime::data::uses::{StepRanges, Use};
use aurora_runtime::lookup::{CorpusTokens, OpenStage, Stage, open, stages};
use aurora_runtime::results::Results;
use aurora_runtime::store::Store;
use serde_json::{Value, json};

use super::no_stage;
use crate::arguments::{ExperimentArgument, Sought};
use crate::context::Context;
use crate::experiment::Experiment;
use crate::failure::{Exit, Failure};
use crate::output::{self, grouped};
use crate::stdio::{out_text, outln};

/// What the command is limited to.
#[derive(Clone, Copy)]
pub struct Only<'a> {
    pub corpus: Option<&'a str>,
    pub stage: Option<&'a str>,
}

/// Ranges of steps that a row of the table has at most.
const SHOWN: usize = 8;

pub fn run(
    context: &Context,
    of: &ExperimentArgument,
    sought: &Sought,
    only: Only<'_>,
    list: bool,
) -> Result<Exit, Failure> {
    let experiment = Experiment::named(context, &of.name, &of.selection)?;
    let store = Store::open_read_only(&experiment.project.store)?;
    let results = experiment.results(&store)?;
    let all = stages(&results).map_err(|error| experiment.failure(error))?;
    if let Some(name) = only.stage.filter(|name| all.iter().all(|stage| stage.name != *name)) {
        return Err(no_stage(&experiment, &all, name));
    }
    let mut search = Search {
        experiment: &experiment,
        results: &results,
        sought,
        only,
        list,
        found: Vec::new(),
        corpora: BTreeSet::new(),
        example: None,
    };
    for stage in all
        .iter()
        .filter(|stage| only.stage.is_none_or(|name| stage.name == name))
    {
        let opened = open(&results, stage).map_err(|error| experiment.failure(error))?;
        search.stage(stage, &opened)?;
    }
    if search.found.is_empty() {
        return Err(search.nothing());
    }
    if context.json {
        for found in &search.found {
            output::json(found.json(&experiment, sought, list))?;
        }
    } else {
        print(&search.found, &experiment, sought, list)?;
    }
    Ok(Exit::Done)
}

/// A document or a source in a component of a stage.
struct Found {
    stage: String,
    component: String,
    corpus: String,
    source: Option<String>,
    /// The number of the document, or of documents of the source.
    documents: Range<u64>,
    /// In the stream of the component.
    tokens: Vec<Range<u64>>,
    samples: Vec<Range<u64>>,
    ranges: StepRanges,
    /// Of a document, if they are listed.
    uses: Option<Vec<Use>>,
    /// The first that contains it, and all after it.
    checkpoints: Vec<String>,
}

struct Search<'a> {
    experiment: &'a Experiment,
    results: &'a Results<'a>,
    sought: &'a Sought,
    only: Only<'a>,
    list: bool,
    found: Vec<Found>,
    /// The corpora that were searched.
    corpora: BTreeSet<String>,
    /// An id that exists.
    example: Option<String>,
}

impl Search<'_> {
    fn stage(&mut self, stage: &Stage, opened: &OpenStage) -> Result<(), Failure> {
        for (component, part) in opened.components.iter().enumerate() {
            for (file, corpus) in part.corpora.iter().enumerate() {
                self.corpora.insert(corpus.corpus.clone());
                if self.only.corpus.is_some_and(|only| only != corpus.corpus) {
                    continue;
                }
                for documents in self.documents(corpus)? {
                    let found = self.located(stage, opened, (component, file), &documents)?;
                    self.found.push(found);
                }
            }
        }
        Ok(())
    }

    /// The documents that are looked for in the tokens of a corpus: each document alone, or all of a source.
    fn documents(&mut self, corpus: &CorpusTokens) -> Result<Vec<Vec<Range<u64>>>, Failure> {
        if let Some(source) = &self.sought.source {
            let ranges = corpus.sources.iter().filter(|range| range.source == *source);
            let ranges: Vec<Range<u64>> = ranges.map(|range| range.documents.clone()).collect();
            return Ok(if ranges.is_empty() { Vec::new() } else { vec![ranges] });
        }
        let id = self.sought.document.as_deref().unwrap_or_default();
        let damaged = |error| Failure::from_error(&error).help("`aurora verify` lists what is damaged");
        if self.example.is_none() && corpus.sources.iter().any(|range| !range.documents.is_empty()) {
            self.example = corpus.id(0).map_err(damaged)?;
        }
        let numbers = corpus.find(id).map_err(damaged)?;
        Ok(numbers
            .into_iter()
            .map(|number| Vec::from_iter([number].map(|one| one..one + 1)))
            .collect())
    }

    fn located(
        &self,
        stage: &Stage,
        opened: &OpenStage,
        (component, file): (usize, usize),
        documents: &[Range<u64>],
    ) -> Result<Found, Failure> {
        let (data, corpus) = (&opened.data, &opened.components[component].corpora[file]);
        let stream = &data.streams()[component];
        let mut tokens = Vec::new();
        for range in documents.iter().filter(|range| !range.is_empty()) {
            let document = |number| {
                let tokens = stream.files()[file].document(number);
                tokens.map_err(|error| Failure::from_error(&error))
            };
            let (first, last) = (document(range.start)?, document(range.end - 1)?);
            let start = stream.start(file);
            tokens.push(start + first.start..start + last.end);
        }
        let samples = tokens.iter().map(|tokens| data.samples_of(component, tokens.clone()));
        let samples: Vec<Range<u64>> = samples.filter(|samples| !samples.is_empty()).collect();
        let ranges = data.step_ranges(component, &samples);
        let is_document = self.sought.document.is_some();
        let first_step = ranges.steps.first().map(|(first, _)| *first);
        let after = first_step.map(|step| stage.checkpoints_after(step, self.results));
        let names = after.unwrap_or_default().into_iter();
        let first = documents.first().map_or(0, |range| range.start);
        let source = self.sought.source.clone();
        Ok(Found {
            stage: stage.name.clone(),
            component: opened.components[component].name.clone(),
            corpus: corpus.corpus.clone(),
            source: source.or_else(|| corpus.source(first).map(str::to_owned)),
            documents: first..first + documents.iter().map(|range| range.end - range.start).sum::<u64>(),
            uses: (is_document && self.list).then(|| data.uses(component, &samples)),
            tokens,
            samples,
            ranges,
            checkpoints: names.map(|id| self.results.node(id).name().to_owned()).collect(),
        })
    }

    /// The failure of a search without a result.
    fn nothing(&self) -> Failure {
        let name = &self.experiment.loaded.spec.name;
        let corpora: Vec<&str> = self.corpora.iter().map(String::as_str).collect();
        let listed = corpora.join(", ");
        if let Some(corpus) = self.only.corpus.filter(|only| !self.corpora.contains(*only)) {
            return Failure::error(format!("no stage of `{name}` trains on a corpus `{corpus}`"))
                .help(format!("the corpora that are trained on: {listed}"));
        }
        let of = self
            .only
            .corpus
            .map_or_else(String::new, |corpus| format!(" of corpus `{corpus}`"));
        if let Some(source) = &self.sought.source {
            let failure = Failure::error(format!(
                "no stage of `{name}` trains on documents{of} from a source `{source}`"
            ));
            return match aurora_compiler::names::nearest(source, self.experiment.sources()) {
                Some(near) if near != source => failure.help(format!("a source with a similar name exists: `{near}`")),
                _ => failure.help(format!("the corpora that are trained on: {listed}")),
            };
        }
        let id = self.sought.document.as_deref().unwrap_or_default();
        let failure = Failure::error(format!(
            "no stage of `{name}` trains on a document{of} with the id `{id}`"
        ));
        let example = self
            .example
            .as_ref()
            .map_or_else(String::new, |id| format!("; an id of one is `{id}`"));
        failure.help(format!(
            "searched are the training documents of {listed}, without those that a filter drops or holds out{example}"
        ))
    }
}

fn ranges(of: &[Range<u64>]) -> Vec<Value> {
    let range = |range: &Range<u64>| json!({ "start": range.start, "end": range.end });
    of.iter().map(range).collect()
}

impl Found {
    fn json(&self, experiment: &Experiment, sought: &Sought, list: bool) -> Value {
        let steps = |(first, last): &(u64, u64)| json!({ "first": first, "last": last });
        let mut json = json!({
            "stage": self.stage,
            "component": self.component,
            "corpus": self.corpus,
            "source": self.source,
            "licence": self.source.as_deref().and_then(|source| experiment.licence(source)),
            "documents": self.documents.end - self.documents.start,
            "tokens": ranges(&self.tokens),
            "samples": ranges(&self.samples),
            "epochs": self.ranges.epochs.map(|(first, last)| json!({ "first": first + 1, "last": last + 1 })),
            "checkpoints": self.checkpoints,
            "steps": self.ranges.steps.iter().map(steps).collect::<Vec<_>>(),
        });
        let Some(members) = json.as_object_mut() else {
            return json;
        };
        if let Some(id) = &sought.document {
            members.insert("id".to_owned(), json!(id));
            members.insert("number".to_owned(), json!(self.documents.start));
        }
        if let Some(uses) = &self.uses {
            let used = |at: &Use| json!({ "step": at.step, "sample": at.sample, "epoch": at.epoch + 1, "position": at.position });
            members.insert("uses".to_owned(), uses.iter().map(used).collect());
        } else if list {
            members.insert("all_steps".to_owned(), self.all_steps().map(Value::from).collect());
        }
        json
    }

    fn all_steps(&self) -> impl Iterator<Item = u64> + '_ {
        self.ranges.steps.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// The steps as text, shortened.
    fn steps(&self) -> String {
        let one = |(first, last): &(u64, u64)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        let steps = &self.ranges.steps;
        let mut shown: Vec<String> = steps.iter().take(SHOWN).map(one).collect();
        if steps.len() > SHOWN {
            shown.push(format!("… ({} ranges)", grouped(steps.len() as u64)));
        }
        if shown.is_empty() {
            "none".to_owned()
        } else {
            shown.join(", ")
        }
    }

    fn epochs(&self) -> String {
        match self.ranges.epochs {
            None => "none".to_owned(),
            Some((first, last)) if first == last => (first + 1).to_string(),
            Some((first, last)) => format!("{} to {}", first + 1, last + 1),
        }
    }

    fn title(&self, experiment: &Experiment, sought: &Sought) -> String {
        let tokens: u64 = self.tokens.iter().map(|range| range.end - range.start).sum();
        let licence = self.source.as_deref().and_then(|source| experiment.licence(source));
        let licence = licence.map_or_else(
            || "licence not stated".to_owned(),
            |licence| format!("licence {licence}"),
        );
        let source = self.source.as_deref().unwrap_or("unknown");
        match &sought.document {
            Some(id) => format!(
                "{id}: document {} of corpus `{}`, source `{source}` ({licence}), {} tokens",
                self.documents.start,
                self.corpus,
                grouped(tokens)
            ),
            None => format!(
                "source `{source}` ({licence}): corpus `{}`, {} documents, {} tokens",
                self.corpus,
                grouped(self.documents.end - self.documents.start),
                grouped(tokens)
            ),
        }
    }
}

fn print(all: &[Found], experiment: &Experiment, sought: &Sought, list: bool) -> Result<(), Failure> {
    let mut titled = BTreeSet::new();
    for found in all {
        if titled.insert((&found.corpus, found.documents.start)) {
            outln!("{}", found.title(experiment, sought))?;
        }
    }
    let headings: &[&str] = match (list, &sought.document) {
        (true, Some(_)) => &["stage", "component", "corpus", "document", "step", "sample", "epoch"],
        (true, None) => &["stage", "component", "corpus", "step"],
        (false, Some(_)) => &[
            "stage",
            "component",
            "corpus",
            "document",
            "epochs",
            "first checkpoint",
            "steps",
        ],
        (false, None) => &["stage", "component", "corpus", "epochs", "first checkpoint", "steps"],
    };
    let mut rows = vec![headings.iter().map(|heading| (*heading).to_owned()).collect::<Vec<_>>()];
    for found in all {
        let mut start = vec![found.stage.clone(), found.component.clone(), found.corpus.clone()];
        if sought.document.is_some() {
            start.push(found.documents.start.to_string());
        }
        let row = |rest: &[String]| [&start[..], rest].concat();
        match (&found.uses, list) {
            (Some(uses), _) => rows.extend(uses.iter().map(|at| {
                let numbers = [at.step, at.sample, at.epoch + 1];
                row(&numbers.map(|number| number.to_string()))
            })),
            (None, true) => rows.extend(found.all_steps().map(|step| row(&[step.to_string()]))),
            (None, false) => {
                let checkpoint = found.checkpoints.first().map_or("none", String::as_str);
                rows.push(row(&[found.epochs(), checkpoint.to_owned(), found.steps()]));
            }
        }
    }
    Ok(out_text(&output::table(&rows))?)
}
