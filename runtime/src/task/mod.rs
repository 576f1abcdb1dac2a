//! Tasks: from items to questions, from a model's answers to scores.
//!
//! In: a task's fields, the files of its items, a tokenizer; later the answers. Out: requests (token ids), then scores by
//! category and what became of each item. Every rank makes the same requests from the same files; which rank answers
//! which is of no consequence. Not here: how a model answers (`aurora-train`).

mod metrics;
mod pass;
mod score;
mod template;

use std::collections::BTreeMap;

use aurora_compiler::fields::{Asks, TaskFields};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::encoder::Encoder;
use crate::data::random::Key;
use crate::progress::Watch;
use crate::source::archive::{ArchiveError, InputFile, Selection, walk};
use template::{Template, TemplateError};

pub use pass::pass_at_k;
pub use score::{ItemResult, score};

/// The longest line of an item's file.
const LINE_LIMIT: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("cannot read `{file}`")]
    Read {
        file: String,
        #[source]
        source: std::io::Error,
    },
    #[error("line {line} of `{file}` is no JSON object: {cause}")]
    NoItem { file: String, line: usize, cause: String },
    #[error("no file of the items matches {}; there is for example `{}`", .patterns.join(", "), .example.as_deref().unwrap_or("none"))]
    NoFiles {
        patterns: Vec<String>,
        example: Option<String>,
    },
    #[error("there is no item in the files that match {}", .patterns.join(", "))]
    NoItems { patterns: Vec<String> },
    #[error("{item}")]
    Template {
        item: String,
        #[source]
        source: TemplateError,
    },
    #[error("{item}: the answer `{answer}` is none of the choices {choices:?}, nor the number or letter of one")]
    NoChoice {
        item: String,
        answer: String,
        choices: Vec<String>,
    },
    #[error("{item}: `by = category`, and it has no text `category`")]
    NoCategory { item: String },
    #[error("{shots} solved examples are asked for, and there are {found} to choose from")]
    FewShots { shots: u32, found: usize },
    #[error("{item}: the tokenizer cannot encode it: {cause}")]
    Encode { item: String, cause: String },
    #[error("{item}: its answer of {answer} tokens does not fit into the window of {window}")]
    Long { item: String, answer: usize, window: usize },
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    Choices { choices: Vec<String>, right: usize },
    Text { expected: Vec<String> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// `FILE:LINE`.
    pub name: String,
    pub category: Option<String>,
    /// Solved examples and all.
    pub prompt: String,
    pub question: Question,
}

/// A question to a model, in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// ln p of `continuation` after `context`.
    Likelihood { context: Vec<u32>, continuation: Vec<u32> },
    /// The text after `prompt`, which random numbers of the item's own choose.
    Text { item: usize, prompt: Vec<u32> },
}

/// A model's answer to one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// Bits of ln p, nats.
    Likelihood(u64),
    Text(Vec<u32>),
}

struct Solved {
    name: String,
    value: Value,
    prompt: String,
    /// The prompt with its right answer.
    solved: String,
    question: Question,
}

fn read(files: &[InputFile], patterns: &[String]) -> Result<Vec<(String, Value)>, TaskError> {
    let selection = Selection::new(patterns, &[])?;
    let mut found = Vec::new();
    let walked = walk::<TaskError>(files, &selection, Watch::nobody(), &mut |_, path, reader| {
        let reading = |source| TaskError::Read {
            file: path.to_owned(),
            source,
        };
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(reader, LINE_LIMIT << 6), &mut text).map_err(reading)?;
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let value: Result<Value, _> = serde_json::from_str(line);
            let value = value.map_err(|error| error.to_string()).and_then(|value| {
                if value.is_object() {
                    Ok(value)
                } else {
                    Err("it is another kind of value".to_owned())
                }
            });
            let line = number + 1;
            let value = value.map_err(|cause| TaskError::NoItem {
                file: path.to_owned(),
                line,
                cause,
            })?;
            found.push((format!("{path}:{line}"), value));
        }
        Ok(())
    })?;
    if walked.matched == 0 {
        return Err(TaskError::NoFiles {
            patterns: patterns.to_vec(),
            example: walked.example,
        });
    }
    if found.is_empty() {
        return Err(TaskError::NoItems {
            patterns: patterns.to_vec(),
        });
    }
    Ok(found)
}

/// Reads the items of a task and puts their questions into words.
///
/// # Errors
/// [`TaskError`]: the first item that is not as the templates need it, with its file and line.
pub fn items(fields: &TaskFields, files: &[InputFile]) -> Result<Vec<Item>, TaskError> {
    let whole = |source| TaskError::Template {
        item: "the eval".to_owned(),
        source,
    };
    let prompt = Template::new(&fields.prompt).map_err(whole)?;
    let answer = Template::new(&fields.answer).map_err(whole)?;
    let choices = match &fields.asks {
        Asks::Choices(choices) => choices
            .iter()
            .map(|choice| Template::new(choice))
            .collect::<Result<Vec<_>, _>>(),
        Asks::Text { .. } => Ok(Vec::new()),
    };
    let choices = choices.map_err(whole)?;
    let solve = |(name, value): (String, Value)| -> Result<Solved, TaskError> {
        let wrap = |source| TaskError::Template {
            item: name.clone(),
            source,
        };
        let prompt = prompt.fill(&value).map_err(wrap)?;
        let (question, right) = if choices.is_empty() {
            let expected = answer.fill_all(&value).map_err(wrap)?;
            let first = expected.first().cloned().unwrap_or_default();
            (Question::Text { expected }, first)
        } else {
            let mut all = Vec::new();
            for choice in &choices {
                all.extend(choice.fill_all(&value).map_err(wrap)?);
            }
            let answer = answer.fill(&value).map_err(wrap)?;
            let right = place(&answer, &all).ok_or_else(|| TaskError::NoChoice {
                item: name.clone(),
                answer,
                choices: all.clone(),
            })?;
            let text = all[right].clone();
            (Question::Choices { choices: all, right }, text)
        };
        Ok(Solved {
            solved: format!("{prompt}{}{right}", fields.delimiter),
            name,
            value,
            prompt,
            question,
        })
    };
    let own = read(files, &fields.files)?
        .into_iter()
        .map(solve)
        .collect::<Result<Vec<_>, _>>()?;
    let given = if fields.shot_files.is_empty() {
        None
    } else {
        Some(
            read(files, &fields.shot_files)?
                .into_iter()
                .map(solve)
                .collect::<Result<Vec<_>, _>>()?,
        )
    };
    let mut items = Vec::new();
    for (number, item) in own.iter().enumerate() {
        let mut text = String::new();
        for example in examples(fields, number, &own, given.as_deref())? {
            text.push_str(&example.solved);
            text.push_str(&fields.separator);
        }
        text.push_str(&item.prompt);
        let category = item.value.get("category").and_then(Value::as_str).map(str::to_owned);
        if fields.by_category && category.is_none() {
            let item = item.name.clone();
            return Err(TaskError::NoCategory { item });
        }
        items.push(Item {
            name: item.name.clone(),
            category: category.filter(|_| fields.by_category),
            prompt: text,
            question: item.question.clone(),
        });
    }
    Ok(items)
}

/// Which choice an answer names: by its text, its number or its letter.
fn place(answer: &str, choices: &[String]) -> Option<usize> {
    let by_text = choices.iter().position(|choice| choice == answer);
    let by_number = || answer.trim().parse::<usize>().ok();
    let by_letter = || match answer.trim().as_bytes() {
        [letter @ b'A'..=b'Z'] => Some(usize::from(letter - b'A')),
        _ => None,
    };
    by_text
        .or_else(by_number)
        .or_else(by_letter)
        .filter(|place| *place < choices.len())
}

/// The solved examples in front of an item: given ones from the first on, or other items in an order of its own.
fn examples<'s>(
    fields: &TaskFields,
    number: usize,
    own: &'s [Solved],
    given: Option<&'s [Solved]>,
) -> Result<Vec<&'s Solved>, TaskError> {
    let shots = fields.shots as usize;
    if shots == 0 {
        return Ok(Vec::new());
    }
    let few = |found| TaskError::FewShots {
        shots: fields.shots,
        found,
    };
    if let Some(given) = given {
        return given
            .get(..shots)
            .map(|given| given.iter().collect())
            .ok_or_else(|| few(given.len()));
    }
    if own.len() <= shots {
        return Err(few(own.len().saturating_sub(1)));
    }
    let key = Key::derive(fields.seed, "solved examples");
    // Distinct others, drawn one after another; few are drawn of many.
    let mut chosen: Vec<usize> = Vec::new();
    let mut counter = 0u32;
    while chosen.len() < shots {
        let [low, high, ..] = key.lanes([counter, number as u32, (number as u64 >> 32) as u32, 0]);
        let random = u64::from(high) << 32 | u64::from(low);
        let place = ((u128::from(random) * own.len() as u128) >> 64) as usize;
        counter = counter.wrapping_add(1);
        if place != number && !chosen.contains(&place) {
            chosen.push(place);
        }
    }
    Ok(chosen.into_iter().map(|place| &own[place]).collect())
}

/// The requests of a task, those of an item side by side, in the items' order. `end` ends a document: an empty prompt
/// stands after it. `window` is the most that a model reads; of a longer prompt the end counts.
///
/// # Errors
/// [`TaskError::Encode`], [`TaskError::Long`].
pub fn requests(
    fields: &TaskFields,
    items: &[Item],
    encoder: &Encoder,
    end: u32,
    window: usize,
) -> Result<Vec<Request>, TaskError> {
    let mut all = Vec::new();
    for (number, item) in items.iter().enumerate() {
        let encode = |text: &str| {
            encoder.encode(text).map_err(|cause| TaskError::Encode {
                item: item.name.clone(),
                cause,
            })
        };
        let cut = |ids: &[u32], answer: usize| -> Result<Vec<u32>, TaskError> {
            let ids = if ids.is_empty() { &[end] } else { ids };
            let room = window.checked_sub(answer).filter(|room| *room > 0);
            let room = room.ok_or_else(|| TaskError::Long {
                item: item.name.clone(),
                answer,
                window,
            })?;
            Ok(ids[ids.len().saturating_sub(room)..].to_vec())
        };
        match (&item.question, &fields.asks) {
            (Question::Choices { choices, .. }, _) => {
                for choice in choices {
                    // White space between the two belongs to the answer, as tokens begin with it.
                    let context = item.prompt.trim_end();
                    let between = &item.prompt[context.len()..];
                    let whole = encode(&format!("{context}{between}{}{choice}", fields.delimiter))?;
                    let alone = encode(context)?;
                    let continuation = whole.get(alone.len()..).unwrap_or_default().to_vec();
                    // The last token of a continuation is never read, only predicted.
                    let context = cut(&alone, continuation.len().saturating_sub(1))?;
                    all.push(Request::Likelihood { context, continuation });
                }
            }
            (Question::Text { .. }, Asks::Text { maximum, .. }) => {
                let prompt = cut(&encode(&item.prompt)?, *maximum as usize)?;
                all.push(Request::Text { item: number, prompt });
            }
            (Question::Text { .. }, Asks::Choices(_)) => {}
        }
    }
    Ok(all)
}

/// The text of generated tokens up to where it ends, and whether it has ended.
///
/// # Errors
/// The tokenizer cannot decode them.
pub fn text(encoder: &Encoder, ids: &[u32], stop: &[String]) -> Result<(String, bool), String> {
    let text = encoder
        .tokenizer()
        .decode(ids, true)
        .map_err(|error| error.to_string())?;
    let first = stop.iter().filter_map(|stop| text.find(stop.as_str())).min();
    Ok(match first {
        Some(end) => (text[..end].to_owned(), true),
        None => (text, false),
    })
}

/// The mean of some numbers and its standard error, if there are enough for one.
fn mean(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    let error = (values.len() > 1).then(|| libm::sqrt(squares / (count - 1.0)) / libm::sqrt(count));
    (mean, error)
}

/// Items by category, and all of them under the empty name.
fn by_category(items: &[Item]) -> BTreeMap<String, Vec<usize>> {
    let mut found: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (number, item) in items.iter().enumerate() {
        found.entry(String::new()).or_default().push(number);
        if let Some(category) = &item.category {
            found.entry(category.clone()).or_default().push(number);
        }
    }
    found
}

#[cfg(test)]
mod tests;
