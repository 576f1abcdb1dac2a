//! Prompts with their answers, from items.

use aurora_compiler::fields::MemberFilter;
use serde_json::Value;

use super::{Extracted, Skip};
use crate::data::items;
use crate::data::template::{Template, TemplateError};

/// How an item becomes a document.
pub(super) struct Pairs {
    prompt: Template,
    answer: Template,
    only: Option<MemberFilter>,
}

impl Pairs {
    /// # Errors
    /// A template is malformed.
    pub fn new(prompt: &str, answer: &str, only: Option<&MemberFilter>) -> Result<Self, TemplateError> {
        Ok(Self {
            prompt: Template::new(prompt)?,
            answer: Template::new(answer)?,
            only: only.cloned(),
        })
    }

    /// The documents of a file; items with an empty answer are left out.
    pub fn read(&self, member: &str, text: &str) -> Extracted {
        let mut extracted = Extracted::default();
        for item in items::parse(member, text) {
            let Ok((_, item)) = item else {
                extracted.skip(Skip::Malformed);
                continue;
            };
            if !self.wants(&item) {
                extracted.skip(Skip::Unwanted);
                continue;
            }
            let (Ok(prompt), Ok(answer)) = (self.prompt.fill(&item), self.answer.fill(&item)) else {
                extracted.skip(Skip::NoSuchField);
                continue;
            };
            if answer.trim().is_empty() {
                extracted.skip(Skip::Empty);
                continue;
            }
            extracted.answers.push(prompt.len());
            extracted.texts.push(prompt + &answer);
        }
        extracted
    }

    fn wants(&self, item: &Value) -> bool {
        self.only.as_ref().is_none_or(|only| match item.get(&only.member) {
            Some(Value::String(text)) => text.trim() == only.text,
            // A number or a truth value, as JSON spells it.
            Some(other) => serde_json::from_str(&only.text).is_ok_and(|wanted: Value| wanted == *other),
            None => false,
        })
    }
}
