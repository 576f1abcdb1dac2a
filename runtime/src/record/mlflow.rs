//! Sends a run's metrics to an MLflow tracking server over REST.
//!
//! In: the record of a run and the report of its experiment. Out: a run on the server, with every step's metrics and every
//! score at its tokens, on one common axis. They are sent after the run, so that training never waits for a server.

use serde_json::{Value, json};

use super::RunFacts;
use crate::http::{self, HttpError, Limits};
use crate::job::StepMetrics;
use crate::progress::{ProgressReporter, ProgressUnit};
use crate::redact::{self, Secret};
use crate::report::ReportContent;

/// Metrics of one request: the server's limit.
const BATCH: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub enum MlflowError {
    #[error(transparent)]
    Server(#[from] HttpError),
    #[error("the answer of `{url}` does not have `{member}`: is it an MLflow tracking server?")]
    Answer { url: String, member: &'static str },
    #[error(transparent)]
    Cancelled(#[from] crate::progress::Cancelled),
}

/// A tracking server.
pub struct MlflowServer<'a> {
    /// Its address, without `/api`.
    pub url: &'a str,
    /// A token for its requests.
    pub token: Option<&'a Secret>,
    pub progress: ProgressReporter<'a>,
}

impl MlflowServer<'_> {
    fn post(&self, path: &str, body: &Value) -> Result<Value, MlflowError> {
        let url = format!("{}/api/2.0/mlflow/{path}", self.url.trim_end_matches('/'));
        Ok(http::post(&url, self.token, body, &Limits::for_reply(), self.progress)?)
    }

    fn text(&self, answer: &Value, pointer: &str, member: &'static str) -> Result<String, MlflowError> {
        let found = answer.pointer(pointer).and_then(Value::as_str);
        found.map(str::to_owned).ok_or_else(|| MlflowError::Answer {
            url: redact::message(self.url).into_owned(),
            member,
        })
    }

    /// The experiment of this name, created if it is missing.
    fn experiment(&self, name: &str) -> Result<String, MlflowError> {
        let search = json!({ "max_results": 1, "filter": format!("name = '{name}'") });
        let found = self.post("experiments/search", &search)?;
        if let Some(id) = found.pointer("/experiments/0/experiment_id").and_then(Value::as_str) {
            return Ok(id.to_owned());
        }
        let made = self.post("experiments/create", &json!({ "name": name }))?;
        self.text(&made, "/experiment_id", "experiment_id")
    }

    /// Sends a run; returns its identifier there. Each step is given with the name of its stage.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses something.
    pub fn send(
        &self,
        facts: &RunFacts,
        steps: &[(&str, &StepMetrics)],
        story: &ReportContent,
    ) -> Result<String, MlflowError> {
        let experiment = self.experiment(&facts.experiment)?;
        let started = facts.started.saturating_mul(1000);
        let tag = |key: &str, value: &str| json!({ "key": key, "value": value });
        let made = self.post(
            "runs/create",
            &json!({
                "experiment_id": experiment,
                "run_name": facts.id,
                "start_time": started,
                "tags": [
                    tag("aurora.run", &facts.id),
                    tag("aurora.spec", &facts.spec),
                    tag("aurora.lock", facts.lock.as_deref().unwrap_or_default()),
                ],
            }),
        )?;
        let run = self.text(&made, "/run/info/run_id", "run_id")?;
        let params: Vec<Value> = params(story)
            .iter()
            .map(|(key, value)| json!({ "key": key, "value": value }))
            .collect();
        self.post("runs/log-batch", &json!({ "run_id": run, "params": params }))?;
        let metrics = metrics(started, steps, story);
        let total = metrics.len() as u64;
        for (number, batch) in metrics.chunks(BATCH).enumerate() {
            self.progress.check()?;
            self.post("runs/log-batch", &json!({ "run_id": run, "metrics": batch }))?;
            let done = (number * BATCH + batch.len()) as u64;
            self.progress.report(done, Some(total), ProgressUnit::Samples);
        }
        let status = match facts.state() {
            "finished" => "FINISHED",
            "running" => "RUNNING",
            "stopped" | "interrupted" => "KILLED",
            _ => "FAILED",
        };
        let mut update = json!({ "run_id": run, "status": status });
        if let Some(ended) = facts.ended {
            update["end_time"] = json!(ended.saturating_mul(1000));
        }
        self.post("runs/update", &update)?;
        Ok(run)
    }
}

fn params(story: &ReportContent) -> Vec<(String, String)> {
    let mut params = vec![("parameters".to_owned(), story.parameters.to_string())];
    for stage in &story.stages {
        params.push((format!("{}.steps", stage.name), stage.steps.to_string()));
        params.push((
            format!("{}.tokens_per_step", stage.name),
            stage.tokens_per_step.to_string(),
        ));
    }
    params
}

/// A name with `_` for every character that the server does not allow.
fn key(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-. :/".contains(c);
    name.chars().map(|c| if allowed(c) { c } else { '_' }).collect()
}

/// Metrics by tokens trained.
fn metrics(started: u64, steps: &[(&str, &StepMetrics)], story: &ReportContent) -> Vec<Value> {
    let mut metrics = Vec::new();
    let mut time = started as f64;
    let mut add = |name: &str, value: f64, time: f64, tokens: u64| {
        if value.is_finite() {
            metrics.push(json!({ "key": key(name), "value": value, "timestamp": time as u64, "step": tokens }));
        }
    };
    for (stage, step) in steps {
        time += step.seconds * 1000.0;
        let Some(stage) = story.stages.iter().find(|known| known.name == *stage) else {
            continue;
        };
        let tokens = step
            .step
            .saturating_mul(stage.tokens_per_step)
            .saturating_add(stage.tokens_before);
        add("train/loss", step.loss, time, tokens);
        add("train/grad_norm", step.grad_norm, time, tokens);
        add("train/learning_rate", step.learning_rate, time, tokens);
        add("perf/step_seconds", step.seconds, time, tokens);
    }
    for eval in &story.evals {
        for point in &eval.points {
            for (set, score) in &point.sets {
                add(
                    &format!("eval/{}/bits_per_byte/{set}", eval.name),
                    score.bits_per_byte,
                    time,
                    point.tokens,
                );
                add(
                    &format!("eval/{}/perplexity/{set}", eval.name),
                    score.perplexity,
                    time,
                    point.tokens,
                );
            }
            for (set, measures) in &point.measures {
                for (metric, measure) in measures {
                    let set = if set.is_empty() {
                        String::new()
                    } else {
                        format!("/{set}")
                    };
                    add(
                        &format!("eval/{}/{metric}{set}", eval.name),
                        measure.value,
                        time,
                        point.tokens,
                    );
                }
            }
        }
    }
    metrics
}
