//! What of a row becomes a document: its text, its identifier, and where its answer starts.
//!
//! In: the values of the wanted members of a row. Out: a document, or why the row is none. Not here: how the values are read.

use std::borrow::Cow;

use aurora_compiler::fields::{MemberFilter, RowDocument};

use super::counts::Skip;
use crate::data::template::{Template, TemplateError};

/// The value of a wanted member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    /// The row does not have the member.
    Missing,
    Null,
    Text(String),
    /// A number or a truth value, as JSON writes it.
    Scalar(String),
    /// A list or an object.
    Other(&'static str),
}

/// A document that was made of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Made {
    pub id: Option<String>,
    pub text: String,
    /// The start of the answer in the text.
    pub answer: Option<usize>,
}

/// Why a row is not a document, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    pub why: Skip,
    pub cause: String,
}

impl Dropped {
    pub fn new(why: Skip, cause: impl Into<String>) -> Self {
        Self {
            why,
            cause: cause.into(),
        }
    }
}

/// Which members are read, and what they become.
pub(super) struct Selection {
    /// The paths of the members, without repeats.
    pub wanted: Vec<String>,
    text: Text,
    /// Positions in `wanted`.
    id: Option<usize>,
    only: Option<(usize, String)>,
}

enum Text {
    Whole(Template),
    Pair { prompt: Template, answer: Template },
}

impl Selection {
    /// # Errors
    /// A template is malformed.
    pub fn of_document(document: &RowDocument) -> Result<Self, TemplateError> {
        Self::new(
            Text::Whole(Template::new(&document.text)?),
            document.id.as_deref(),
            None,
        )
    }

    /// # Errors
    /// A template is malformed.
    pub fn of_pairs(
        prompt: &str,
        answer: &str,
        only: Option<&MemberFilter>,
        id: Option<&str>,
    ) -> Result<Self, TemplateError> {
        let text = Text::Pair {
            prompt: Template::new(prompt)?,
            answer: Template::new(answer)?,
        };
        Self::new(text, id, only)
    }

    fn new(text: Text, id: Option<&str>, only: Option<&MemberFilter>) -> Result<Self, TemplateError> {
        let mut wanted: Vec<String> = Vec::new();
        let mut add = |path: &str| {
            wanted.iter().position(|known| known == path).unwrap_or_else(|| {
                wanted.push(path.to_owned());
                wanted.len() - 1
            })
        };
        let templates = match &text {
            Text::Whole(template) => vec![template],
            Text::Pair { prompt, answer } => vec![prompt, answer],
        };
        for template in templates {
            for path in template.members() {
                add(path);
            }
        }
        let id = id.map(&mut add);
        let only = only.map(|only| (add(&only.member), only.text.clone()));
        Ok(Self { wanted, text, id, only })
    }

    /// The member whose text the document is, if it is not composed.
    pub fn only_member(&self) -> Option<&str> {
        match &self.text {
            Text::Whole(template) => template.only_member(),
            Text::Pair { .. } => None,
        }
    }

    /// The document of a row. `cells` are the values of the wanted members; `members` names those that the row has.
    pub fn document(&self, mut cells: Vec<Cell>, members: &dyn Fn() -> String) -> Result<Made, Dropped> {
        if let Some((at, wanted)) = &self.only {
            let is_wanted = match &cells[*at] {
                Cell::Text(text) => text.trim() == wanted,
                Cell::Scalar(text) => text == wanted,
                Cell::Missing => return Err(self.missing(&self.wanted[*at], members)),
                Cell::Null | Cell::Other(_) => false,
            };
            if !is_wanted {
                return Err(Dropped::new(Skip::NotWanted, ""));
            }
        }
        let id = match self.id.map(|at| (&self.wanted[at], &cells[at])) {
            None => None,
            Some((_, Cell::Text(text) | Cell::Scalar(text))) => Some(text.clone()),
            Some((name, Cell::Missing)) => return Err(self.missing(name, members)),
            Some((name, Cell::Null)) => return Err(Dropped::new(Skip::Null, format!("`{name}` is null"))),
            Some((name, Cell::Other(found))) => {
                return Err(Dropped::new(
                    Skip::Malformed,
                    format!("`{name}` is {found}, expected a text or a number"),
                ));
            }
        };
        // The usual case: the text is not copied.
        if let Some(only) = self.only_member()
            && let Some(at) = self.wanted.iter().position(|path| path == only)
        {
            return match std::mem::replace(&mut cells[at], Cell::Null) {
                Cell::Text(text) if text.is_empty() => Err(Dropped::new(Skip::Empty, "")),
                Cell::Text(text) => Ok(Made { id, text, answer: None }),
                Cell::Scalar(found) => Err(Dropped::new(
                    Skip::Malformed,
                    format!("`{only}` is {found}, expected a text"),
                )),
                Cell::Other(found) => Err(Dropped::new(
                    Skip::Malformed,
                    format!("`{only}` is {found}, expected a text"),
                )),
                Cell::Null => Err(Dropped::new(Skip::Null, format!("`{only}` is null"))),
                Cell::Missing => Err(self.missing(only, members)),
            };
        }
        let fill = |template: &Template| template.fill_with(|path| self.part(path, &cells, members));
        match &self.text {
            Text::Whole(template) => match fill(template)? {
                text if text.is_empty() => Err(Dropped::new(Skip::Empty, "")),
                text => Ok(Made { id, text, answer: None }),
            },
            Text::Pair { prompt, answer } => {
                let (mut text, answer) = (fill(prompt)?, fill(answer)?);
                if answer.trim().is_empty() {
                    return Err(Dropped::new(Skip::Empty, "the answer is empty"));
                }
                let start = text.len();
                text.push_str(&answer);
                Ok(Made {
                    id,
                    text,
                    answer: Some(start),
                })
            }
        }
    }

    fn part<'c>(&self, path: &str, cells: &'c [Cell], members: &dyn Fn() -> String) -> Result<Cow<'c, str>, Dropped> {
        let at = self.wanted.iter().position(|known| known == path);
        match at.map_or(&Cell::Missing, |at| &cells[at]) {
            Cell::Text(text) | Cell::Scalar(text) => Ok(Cow::Borrowed(text)),
            Cell::Null => Err(Dropped::new(Skip::Null, format!("`{path}` is null"))),
            Cell::Missing => Err(self.missing(path, members)),
            Cell::Other(found) => Err(Dropped::new(
                Skip::Malformed,
                format!("`{path}` is {found}, expected a text or a number"),
            )),
        }
    }

    fn missing(&self, path: &str, members: &dyn Fn() -> String) -> Dropped {
        Dropped::new(
            Skip::MissingField,
            format!("there is no `{path}`; there is {}", members()),
        )
    }
}

/// "`a`, `b` and 3 others"; at most 12 are named.
pub(super) fn listed<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> String {
    const NAMED: usize = 12;
    let count = names.len();
    let named: Vec<String> = names.take(NAMED).map(|name| format!("`{name}`")).collect();
    match count {
        0 => "nothing".to_owned(),
        _ if count > NAMED => format!("{} and {} others", named.join(", "), count - NAMED),
        _ => named.join(", "),
    }
}
