//! Tasks: from items to questions, from a model's answers to scores.
//!
//! In: a task's fields, the files of its items, a tokenizer; later the answers. Out: requests (token ids), then scores by
//! category and the result of each item. Every rank makes the same requests from the same files; the scores do not depend
//! on which rank answers which. Not here: how a model answers (`aurora-train`).

mod metrics;
mod pass;
mod read;
mod score;

use std::collections::BTreeSet;

use aurora_compiler::fields::{AnswerMode, Attack, TaskFields};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::encoder::{Encoder, EncoderError};
use crate::data::random::PhiloxKey;
use crate::data::template::{Template, TemplateError};
use crate::job::ItemFile;
use crate::source::archive::ArchiveError;

pub use metrics::Grams;
pub use pass::pass_at_k;
pub use read::{item_files, read};
pub use score::{ItemResult, JudgeVerdict, ScoringError, means, score};

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
    #[error("the items have two files `{file}`")]
    TwoFiles { file: String },
    #[error("line {line} of `{file}` is not a valid item: {cause}")]
    NoItem { file: String, line: u64, cause: String },
    #[error("no file of the items matches {}; there is for example `{}`", .patterns.join(", "), .example.as_deref().unwrap_or("none"))]
    NoFiles {
        patterns: Vec<String>,
        example: Option<String>,
    },
    #[error("the files that match {} have no items", .patterns.join(", "))]
    NoItems { patterns: Vec<String> },
    #[error("{item}")]
    Template {
        item: String,
        #[source]
        source: TemplateError,
    },
    #[error("{item}: the answer `{answer}` is not one of the choices {choices:?}, or the number or letter of one")]
    NoChoice {
        item: String,
        answer: String,
        choices: Vec<String>,
    },
    #[error("{item}: scores are grouped by `{member}`, but the item does not have a text with this name")]
    NoSet { item: String, member: String },
    #[error("{item}: its `{member}` is `{set}`, the name of an attack")]
    TwoSets { item: String, member: String, set: String },
    #[error("{shots} solved examples are needed, but there are only {found}")]
    FewShots { shots: u32, found: usize },
    #[error("{item}")]
    Encode {
        item: String,
        #[source]
        source: EncoderError,
    },
    #[error("the eval's `chat` does not contain `{{prompt}}`")]
    ChatWithoutPrompt,
    #[error("{item}: its answer of {answer} tokens does not fit into the window of {window}")]
    Long { item: String, answer: usize, window: usize },
}

/// The question of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    Choices {
        choices: Vec<String>,
        right: usize,
    },
    Text {
        expected: Vec<String>,
    },
    /// A judge scores the answer.
    Open,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// `FILE:LINE`, with the source or archive in front if an eval has several.
    pub name: String,
    /// The attack that rewrote its prompt.
    pub attack: Option<String>,
    /// Sets whose scores it counts for, besides that of all items: categories, the attack.
    pub sets: Vec<String>,
    /// Including solved examples.
    pub prompt: String,
    pub question: Question,
}

/// A request to a model, in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// ln p of `continuation` after `context`.
    Likelihood {
        item: usize,
        context: Vec<u32>,
        continuation: Vec<u32>,
    },
    /// The text after `prompt`; sampled with the random numbers of the item and the sample.
    Text { item: usize, sample: u32, prompt: Vec<u32> },
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

/// The templates of a task.
struct Templates {
    prompt: Template,
    answer: Option<Template>,
    choices: Vec<Template>,
}

impl Templates {
    fn new(fields: &TaskFields) -> Result<Self, TaskError> {
        let of_eval = |source| TaskError::Template {
            item: "the eval".to_owned(),
            source,
        };
        let choices = match &fields.asks {
            AnswerMode::Choices(choices) => choices.as_slice(),
            AnswerMode::Text { .. } => &[],
        };
        Ok(Self {
            prompt: Template::new(&fields.prompt).map_err(of_eval)?,
            answer: fields
                .answer
                .as_deref()
                .map(Template::new)
                .transpose()
                .map_err(of_eval)?,
            choices: choices
                .iter()
                .map(|choice| Template::new(choice))
                .collect::<Result<_, _>>()
                .map_err(of_eval)?,
        })
    }

    /// Fills in an item's question and its right answer.
    fn solve(&self, fields: &TaskFields, name: String, value: Value) -> Result<Solved, TaskError> {
        let wrap = |source| TaskError::Template {
            item: name.clone(),
            source,
        };
        let prompt = self.prompt.fill(&value).map_err(wrap)?;
        let Some(answer) = &self.answer else {
            return Ok(Solved {
                solved: prompt.clone(),
                question: Question::Open,
                name,
                value,
                prompt,
            });
        };
        let (question, right) = if self.choices.is_empty() {
            let expected = answer.fill_all(&value).map_err(wrap)?;
            let first = expected.first().cloned().unwrap_or_default();
            (Question::Text { expected }, first)
        } else {
            let mut choices = Vec::new();
            for choice in &self.choices {
                choices.extend(choice.fill_all(&value).map_err(wrap)?);
            }
            let answer = answer.fill(&value).map_err(wrap)?;
            let right = choice_index(&answer, &choices).ok_or_else(|| TaskError::NoChoice {
                item: name.clone(),
                answer,
                choices: choices.clone(),
            })?;
            let text = choices[right].clone();
            (Question::Choices { choices, right }, text)
        };
        Ok(Solved {
            solved: format!("{prompt}{}{right}", fields.delimiter),
            name,
            value,
            prompt,
            question,
        })
    }
}

/// Reads the items of a task and makes their questions.
///
/// # Errors
/// [`TaskError`]: the first item that does not fit the templates, with its file and line.
pub fn items(fields: &TaskFields, files: &[ItemFile]) -> Result<Vec<Item>, TaskError> {
    let templates = Templates::new(fields)?;
    let solve = |items: Vec<(String, Value)>| -> Result<Vec<Solved>, TaskError> {
        let solved = items
            .into_iter()
            .map(|(name, value)| templates.solve(fields, name, value));
        solved.collect()
    };
    let mut wanted = read(files, &fields.files)?;
    if let Some(limit) = fields.limit {
        keep(&mut wanted, limit as usize);
    }
    let own = solve(wanted)?;
    let given = if fields.shot_files.is_empty() {
        None
    } else {
        Some(solve(read(files, &fields.shot_files)?)?)
    };
    let attacks = attacks(fields)?;
    let mut items = Vec::new();
    for (number, item) in own.iter().enumerate() {
        let mut before = String::new();
        for example in examples(fields, number, &own, given.as_deref())? {
            before.push_str(&example.solved);
            before.push_str(&fields.separator);
        }
        let sets = sets_of(fields, item)?;
        for (attack, template) in &attacks {
            let prompt = match template {
                None => item.prompt.clone(),
                Some(template) => rewritten(template, item)?,
            };
            items.push(Item {
                name: item.name.clone(),
                attack: attack.map(str::to_owned),
                sets: sets.iter().cloned().chain(attack.map(str::to_owned)).collect(),
                prompt: format!("{before}{prompt}"),
                question: item.question.clone(),
            });
        }
    }
    Ok(items)
}

/// The name and the template of an attack; none of either for a prompt as it is.
type AttackTemplate<'a> = (Option<&'a str>, Option<Template>);

/// The attacks with their templates; without attacks, each item has one unchanged prompt.
fn attacks(fields: &TaskFields) -> Result<Vec<AttackTemplate<'_>>, TaskError> {
    if fields.attacks.is_empty() {
        return Ok(vec![(None, None)]);
    }
    let attack = |attack: &'_ Attack| {
        Template::new(&attack.template).map_err(|source| TaskError::Template {
            item: "the eval".to_owned(),
            source,
        })
    };
    let attacks = fields
        .attacks
        .iter()
        .map(|own| Ok((Some(own.name.as_str()), Some(attack(own)?))));
    attacks.collect()
}

/// Keeps the `limit` items with the smallest content hashes, in file order, so that the choice does not depend on position.
/// Of items with the same content, the first ones are kept.
fn keep(items: &mut Vec<(String, Value)>, limit: usize) {
    let hash = |(_, value): &(String, Value)| crate::content_of(value.to_string().as_bytes());
    let mut order: Vec<(String, usize)> = items.iter().map(hash).zip(0..).collect();
    order.sort_unstable();
    let kept: BTreeSet<usize> = order.into_iter().take(limit).map(|(_, position)| position).collect();
    let mut position = 0..;
    items.retain(|_| position.next().is_some_and(|position| kept.contains(&position)));
}

/// The sets that an item's members put it into.
fn sets_of(fields: &TaskFields, item: &Solved) -> Result<Vec<String>, TaskError> {
    let set = |member: &String| {
        let found = item.value.get(member).and_then(Value::as_str);
        let set = found.ok_or_else(|| TaskError::NoSet {
            item: item.name.clone(),
            member: member.clone(),
        })?;
        if fields.attacks.iter().any(|attack| attack.name == set) {
            return Err(TaskError::TwoSets {
                item: item.name.clone(),
                member: member.clone(),
                set: set.to_owned(),
            });
        }
        Ok(set.to_owned())
    };
    fields.by.iter().map(set).collect()
}

/// A prompt, rewritten by an attack.
fn rewritten(template: &Template, item: &Solved) -> Result<String, TaskError> {
    let mut members = item.value.clone();
    if let Value::Object(members) = &mut members {
        members.insert("prompt".to_owned(), Value::String(item.prompt.clone()));
    }
    template.fill(&members).map_err(|source| TaskError::Template {
        item: item.name.clone(),
        source,
    })
}

/// Which choice an answer names: by its text, its number or its letter.
fn choice_index(answer: &str, choices: &[String]) -> Option<usize> {
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

/// The solved examples before an item: the first given ones, or other items in a random order.
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
    let key = PhiloxKey::derive(fields.seed, "solved examples");
    // Distinct other items, drawn one by one; only few of many are drawn.
    let mut chosen: Vec<usize> = Vec::new();
    let mut counter = 0u32;
    while chosen.len() < shots {
        let [low, high, ..] = key.words([counter, number as u32, (number as u64 >> 32) as u32, 0]);
        let random = u64::from(high) << 32 | u64::from(low);
        let place = ((u128::from(random) * own.len() as u128) >> 64) as usize;
        counter = counter.wrapping_add(1);
        if place != number && !chosen.contains(&place) {
            chosen.push(place);
        }
    }
    Ok(chosen.into_iter().map(|place| &own[place]).collect())
}

/// The requests of a task, in the order of the items; requests of one item are adjacent. `end` ends a document and precedes
/// an empty prompt. `window` is the most tokens that a model reads; only the end of a longer prompt is used.
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
            encoder.encode(text).map_err(|source| TaskError::Encode {
                item: item.name.clone(),
                source,
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
                    all.push(Request::Likelihood {
                        item: number,
                        context,
                        continuation,
                    });
                }
            }
            (Question::Text { .. } | Question::Open, AnswerMode::Text { maximum, samples, .. }) => {
                let mut ids = encode(&item.prompt)?;
                if let Some(chat) = &fields.chat {
                    ids = in_turn(chat, &ids, encoder)?;
                }
                let prompt = cut(&ids, *maximum as usize)?;
                all.extend((0..*samples).map(|sample| Request::Text {
                    item: number,
                    sample,
                    prompt: prompt.clone(),
                }));
            }
            (Question::Text { .. } | Question::Open, AnswerMode::Choices(_)) => {}
        }
    }
    Ok(all)
}

/// A prompt's ids in a turn of a conversation. Only the turn's own text has special tokens: text of a special token in the
/// prompt does not end the turn.
fn in_turn(chat: &str, prompt: &[u32], encoder: &Encoder) -> Result<Vec<u32>, TaskError> {
    let (before, after) = chat.split_once("{prompt}").ok_or(TaskError::ChatWithoutPrompt)?;
    let markup = |text: &str| {
        encoder.encode_markup(text).map_err(|source| TaskError::Encode {
            item: "the eval's `chat`".to_owned(),
            source,
        })
    };
    Ok([&markup(before)?, prompt, &markup(after)?].concat())
}

#[cfg(test)]
mod tests;
