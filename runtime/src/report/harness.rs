//! The results of evals in the format of lm-evaluation-harness.
//!
//! In: the results of a graph. Out: a folder for each evaluated checkpoint, with `results_aurora.json` and a
//! `samples_TASK_aurora.jsonl` for each task of items. A set of an eval is a separate task, `EVAL_SET`, in the group
//! `EVAL`. The files contain no times: the same results give the same files. Whether a choice is the greedy continuation is
//! unknown, and `null`.

use std::collections::BTreeMap;

use aurora_compiler::fields::JudgeFields;
use aurora_compiler::graph::{NodeId, NodeKind, Work};
use aurora_compiler::hash::{Keyed, encoded};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::errors::FileError;
use crate::job::Scores;
use crate::results;
use crate::store::StoreError;
use crate::task::ItemResult;

#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{path}` is damaged")]
    Damaged {
        path: Utf8PathBuf,
        source: serde_json::Error,
    },
    #[error("no eval of `{experiment}` has been built from the current spec")]
    Nothing { experiment: String },
}

/// The members of `results_*.json`.
#[derive(Default)]
struct Results {
    results: Map<String, Value>,
    groups: Map<String, Value>,
    configs: Map<String, Value>,
    versions: Map<String, Value>,
    shots: Map<String, Value>,
    better: Map<String, Value>,
    samples: Map<String, Value>,
    /// Lines of each task's items.
    items: BTreeMap<String, String>,
}

/// Writes the available results below `folder`, and returns the files.
///
/// # Errors
/// [`HarnessError`].
pub fn write(built: &results::Results<'_>, folder: &Utf8Path) -> Result<Vec<Utf8PathBuf>, HarnessError> {
    let results::Results {
        experiment,
        keyed,
        store,
        ..
    } = *built;
    let graph = &keyed.graph;
    let mut found: BTreeMap<String, Results> = BTreeMap::new();
    for id in graph
        .ids()
        .filter(|id| matches!(graph.node(*id).kind(), NodeKind::Eval | NodeKind::Judge))
    {
        let Some((eval, at)) = graph.node(id).origin.eval() else {
            continue;
        };
        let Some(record) = built.find(id)? else {
            continue;
        };
        let files = store.files(&record)?;
        let read = |name: &str| -> Result<Option<String>, HarnessError> {
            let Some(path) = files.get(name) else { return Ok(None) };
            let text = std::fs::read_to_string(path);
            Ok(text.map(Some).map_err(FileError::reading(path))?)
        };
        let damaged = |source: serde_json::Error| HarnessError::Damaged {
            path: files.values().next().cloned().unwrap_or_default(),
            source,
        };
        let scores: Scores = match read("scores.json")? {
            Some(text) => serde_json::from_str(&text).map_err(damaged)?,
            None => continue,
        };
        let results = found.entry(at.to_string()).or_default();
        add(results, eval, keyed, id, &scores);
        // Items of perplexity are documents, without prompts.
        if let (false, Some(text)) = (scores.measures.is_empty(), read("items.jsonl")?) {
            let items = text
                .lines()
                .map(serde_json::from_str)
                .collect::<Result<Vec<ItemResult>, _>>();
            let items = items.map_err(damaged)?;
            let lines = items.iter().enumerate().map(|(number, item)| sample(number, item));
            results
                .items
                .insert(eval.to_owned(), lines.map(|line| line.to_string() + "\n").collect());
        }
    }
    if found.is_empty() {
        let experiment = experiment.to_owned();
        return Err(HarnessError::Nothing { experiment });
    }
    let mut written = Vec::new();
    for (at, results) in found {
        let folder = folder.join(format!("{experiment}__{at}"));
        let mut put = |name: String, text: String| {
            let path = folder.join(name);
            let write = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, text));
            write.map_err(FileError::writing(&path))?;
            written.push(path);
            Ok::<_, HarnessError>(())
        };
        for (task, lines) in &results.items {
            put(format!("samples_{task}_aurora.jsonl"), lines.clone())?;
        }
        let text = serde_json::to_string_pretty(&json!({
            "results": results.results,
            "group_subtasks": results.groups,
            "configs": results.configs,
            "versions": results.versions,
            "n-shot": results.shots,
            "higher_is_better": results.better,
            "n-samples": results.samples,
            "config": { "model": "aurora", "model_args": format!("experiment={experiment},checkpoint={at}") },
            "model_name": format!("{experiment}/{at}"),
        }));
        put(
            "results_aurora.json".to_owned(),
            text.expect("names and numbers are JSON") + "\n",
        )?;
    }
    Ok(written)
}

/// The harness's name of a metric.
fn metric_name(metric: &str) -> &str {
    match metric {
        "accuracy" => "acc",
        "accuracy_norm" => "acc_norm",
        "accuracy_bytes" => "acc_bytes",
        other => other,
    }
}

/// Whether more of a metric is better, as far as that is known.
fn is_higher_better(metric: &str, work: &Work) -> bool {
    match metric {
        "score" => match work {
            Work::Judge(JudgeFields::Score { better, .. }) => *better == aurora_compiler::spec::Better::Higher,
            _ => true,
        },
        "perplexity" | "byte_perplexity" | "bits_per_byte" | "refusal_rate" => false,
        other => !other.ends_with("attack_success_rate"),
    }
}

fn add(results: &mut Results, eval: &str, keyed: &Keyed, id: NodeId, scores: &Scores) {
    let node = keyed.graph.node(id);
    let fields = encoded(&node.work);
    let task = node.work.eval().and_then(|fields| fields.task.as_ref());
    let shots = task.map_or(0, |task| task.shots);
    let mut task = |set: &str, numbers: Vec<(&str, f64, Option<f64>)>, items: u64| {
        let name = if set.is_empty() {
            eval.to_owned()
        } else {
            format!("{eval}_{set}")
        };
        let mut own = Map::from_iter([("alias".to_owned(), json!(name))]);
        let mut better = Map::new();
        for (metric, value, error) in numbers {
            let error = error.map_or(json!("N/A"), |error| json!(error));
            own.insert(format!("{metric},none"), json!(value));
            own.insert(format!("{metric}_stderr,none"), error);
            better.insert(metric.to_owned(), json!(is_higher_better(metric, &node.work)));
        }
        results.results.insert(name.clone(), Value::Object(own));
        results.better.insert(name.clone(), Value::Object(better));
        results.configs.insert(
            name.clone(),
            json!({ "task": name, "aurora": fields, "key": keyed.key(id).to_hex() }),
        );
        results.versions.insert(name.clone(), json!(node.version));
        results.shots.insert(name.clone(), json!(shots));
        results
            .samples
            .insert(name.clone(), json!({ "original": items, "effective": items }));
        let group = results.groups.entry(eval).or_insert_with(|| json!([]));
        if let (Value::Array(group), false) = (group, set.is_empty()) {
            group.push(json!(name));
        }
    };
    for (set, score) in &scores.sets {
        let byte = libm::exp(score.negative_log_likelihood / score.bytes as f64);
        let numbers = vec![
            ("bits_per_byte", score.bits_per_byte, None),
            ("byte_perplexity", byte, None),
            ("perplexity", score.perplexity, None),
        ];
        task(set, numbers, score.documents);
    }
    for (set, measures) in &scores.measures {
        let numbers = measures.iter();
        let numbers = numbers.map(|(metric, measure)| (metric_name(metric), measure.value, measure.standard_error));
        let items = measures.values().map(|measure| measure.items).max().unwrap_or(0);
        task(set, numbers.collect(), items);
    }
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line of `samples_*.jsonl`.
fn sample(number: usize, item: &ItemResult) -> Value {
    let (arguments, responses): (Vec<Value>, Vec<Value>) = if item.choices.is_empty() {
        let texts = item.text.iter().chain(&item.answers);
        (vec![json!([item.prompt])], vec![json!(texts.collect::<Vec<_>>())])
    } else {
        let each = item.choices.iter();
        each.map(|(choice, ln)| (json!([item.prompt, choice]), json!([[ln, null]])))
            .unzip()
    };
    let filtered: Vec<Value> = responses
        .iter()
        .map(|own| own.get(0).cloned().unwrap_or_default())
        .collect();
    let target = match item.right {
        Some(right) => json!(right),
        None => json!(item.expected),
    };
    let doc = json!({ "item": item.item, "prompt": item.prompt, "sets": item.sets });
    let arguments = arguments.into_iter().enumerate().map(|(number, own)| {
        let own = own.as_array().cloned().unwrap_or_default().into_iter().enumerate();
        let own: Map<String, Value> = own.map(|(place, value)| (format!("arg_{place}"), value)).collect();
        (format!("gen_args_{number}"), Value::Object(own))
    });
    let arguments: Map<String, Value> = arguments.collect();
    let mut line = json!({
        "doc_id": number,
        "doc_hash": hash(&doc.to_string()),
        "doc": doc,
        "target": target,
        "target_hash": hash(&target.to_string()),
        "prompt_hash": hash(&item.prompt),
        "arguments": arguments,
        "resps": responses,
        "filtered_resps": filtered,
        "filter": "none",
        "metrics": item.scores.keys().map(|metric| metric_name(metric)).collect::<Vec<_>>(),
    });
    if let Value::Object(line) = &mut line {
        line.extend(
            item.scores
                .iter()
                .map(|(metric, value)| (metric_name(metric).to_owned(), json!(value))),
        );
        if !item.verdicts.is_empty() {
            line.insert("verdicts".to_owned(), json!(item.verdicts));
        }
    }
    line
}
