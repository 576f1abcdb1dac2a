//! A judge behind an OpenAI-compatible interface: `POST URL/chat/completions`, at temperature 0.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;
use serde_json::json;

use super::Inputs;
use super::external::ExternalJudgeError;
use crate::data::template::Template;
use crate::errors::chain;
use crate::http::{HttpError, Limits, post};
use crate::progress::ProgressUnit;
use crate::redact;
use crate::task::{ItemResult, JudgeVerdict};

/// Requests under way at a time.
const REQUESTS: usize = 8;

pub(super) struct Endpoint<'a> {
    pub url: &'a str,
    pub model: &'a str,
    pub question: &'a str,
    pub yes: &'a str,
}

#[derive(Deserialize)]
struct Reply {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: String,
}

pub(super) fn judge(
    endpoint: &Endpoint<'_>,
    results: &[ItemResult],
    inputs: &Inputs<'_>,
) -> Result<Vec<JudgeVerdict>, ExternalJudgeError> {
    let question = Template::new(endpoint.question)?;
    let mut questions = Vec::new();
    for result in results {
        for response in &result.answers {
            let members = json!({ "prompt": result.prompt, "response": response });
            questions.push(question.fill(&members)?);
        }
    }
    let next = AtomicUsize::new(0);
    let one_thread = || -> Result<Vec<(usize, JudgeVerdict)>, ExternalJudgeError> {
        let mut own = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(question) = questions.get(number) else {
                return Ok(own);
            };
            let reply = ask(endpoint, question, inputs);
            // One error stops the other threads.
            let words = reply.inspect_err(|_| next.store(questions.len(), Ordering::Relaxed))?;
            let first = words.split_whitespace().next().unwrap_or_default();
            let first = first.trim_matches(|c: char| !c.is_alphanumeric());
            let score = f64::from(u8::from(first.eq_ignore_ascii_case(endpoint.yes)));
            own.push((number, JudgeVerdict { score, words }));
            inputs
                .progress
                .report(number as u64 + 1, Some(questions.len() as u64), ProgressUnit::Answers);
        }
    };
    let mut verdicts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..REQUESTS.min(questions.len()))
            .map(|_| scope.spawn(one_thread))
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok::<_, ExternalJudgeError>(all)
    })?;
    verdicts.sort_unstable_by_key(|(number, _)| *number);
    Ok(verdicts.into_iter().map(|(_, verdict)| verdict).collect())
}

/// The reply to one question.
fn ask(endpoint: &Endpoint<'_>, question: &str, inputs: &Inputs<'_>) -> Result<String, ExternalJudgeError> {
    let failed = |cause: String| ExternalJudgeError::Endpoint {
        url: redact::message(endpoint.url).into_owned(),
        cause: redact::message(&cause).into_owned(),
    };
    let body = json!({
        "model": endpoint.model,
        "messages": [{ "role": "user", "content": question }],
        "temperature": 0,
        "seed": 0,
    });
    let url = format!("{}/chat/completions", endpoint.url.trim_end_matches('/'));
    let limits = Limits::for_reply();
    let reply = post(&url, inputs.secret, &body, &limits, inputs.progress).map_err(|error| match error {
        HttpError::Cancelled(cancelled) => cancelled.into(),
        error => failed(chain(&error)),
    })?;
    let reply: Reply = serde_json::from_value(reply).map_err(|error| failed(format!("its reply: {error}")))?;
    let first = reply.choices.into_iter().next();
    first
        .map(|choice| choice.message.content)
        .ok_or_else(|| failed("its reply is empty".to_owned()))
}
