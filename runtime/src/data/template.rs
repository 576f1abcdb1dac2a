//! Templates: text with an item's members in braces.
//!
//! `{question}` is a member, `{choices.0}` one of a list, `{{` and `}}` are braces. A template that consists of
//! one member represents all elements if that is a list.

use std::borrow::Cow;

use serde_json::Value;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("`{template}` has a `{{` without its `}}`")]
    Open { template: String },
    #[error("`{template}` has a `}}` without its `{{`: write `}}}}` for a brace")]
    Close { template: String },
    #[error("the item does not have `{path}`; it has {}", .members.join(", "))]
    Missing { path: String, members: Vec<String> },
    #[error("`{path}` of the item is {found}, expected a text or a number")]
    NoText { path: String, found: &'static str },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Member(String),
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl Template {
    /// # Errors
    /// [`TemplateError::Open`], [`TemplateError::Close`].
    pub fn new(template: &str) -> Result<Self, TemplateError> {
        let whole = || template.to_owned();
        let (mut parts, mut text) = (Vec::new(), String::new());
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            text.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                text.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(TemplateError::Close { template: whole() });
            }
            let (member, after) = after
                .split_once('}')
                .ok_or_else(|| TemplateError::Open { template: whole() })?;
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(Part::Member(member.trim().to_owned()));
            rest = after;
        }
        text.push_str(rest);
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(Self(parts))
    }

    /// The members that it names, in their order.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Member(path) => Some(path.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The member whose text it is, if it is nothing else.
    pub fn only_member(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Member(path)] => Some(path),
            _ => None,
        }
    }

    /// Fills in the members that `text_of` returns.
    ///
    /// # Errors
    /// The first error of `text_of`.
    pub fn fill_with<'t, E>(&self, mut text_of: impl FnMut(&str) -> Result<Cow<'t, str>, E>) -> Result<String, E> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(own) => text.push_str(own),
                Part::Member(path) => text.push_str(&text_of(path)?),
            }
        }
        Ok(text)
    }

    /// Fills in an item's members.
    ///
    /// # Errors
    /// [`TemplateError::Missing`], [`TemplateError::NoText`].
    pub fn fill(&self, item: &Value) -> Result<String, TemplateError> {
        self.fill_with(|path| plain(path, member(item, path)?).map(Cow::Owned))
    }

    /// All texts of the template: one for each element if it is a single member that is a list, else one.
    ///
    /// # Errors
    /// As [`Template::fill`].
    pub fn fill_all(&self, item: &Value) -> Result<Vec<String>, TemplateError> {
        if let [Part::Member(path)] = self.0.as_slice()
            && let Value::Array(elements) = member(item, path)?
        {
            return elements.iter().map(|element| plain(path, element)).collect();
        }
        Ok(vec![self.fill(item)?])
    }
}

/// The member of an item at a path: the member with that name, or one of a member.
///
/// # Errors
/// [`TemplateError::Missing`].
pub(super) fn member<'v>(item: &'v Value, path: &str) -> Result<&'v Value, TemplateError> {
    if let Some(found) = item.get(path) {
        return Ok(found);
    }
    let mut at = item;
    for name in path.split('.') {
        let found = match at {
            Value::Array(elements) => name.parse::<usize>().ok().and_then(|index| elements.get(index)),
            other => other.get(name),
        };
        at = found.ok_or_else(|| TemplateError::Missing {
            path: path.to_owned(),
            members: item
                .as_object()
                .map(|object| object.keys().cloned().collect())
                .unwrap_or_default(),
        })?;
    }
    Ok(at)
}

fn plain(path: &str, value: &Value) -> Result<String, TemplateError> {
    let found = match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Number(number) => return Ok(number.to_string()),
        Value::Bool(flag) => return Ok(flag.to_string()),
        Value::Null => "null",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    let path = path.to_owned();
    Err(TemplateError::NoText { path, found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_take_their_places() {
        let item = json!({"q": "Why?", "n": 3, "c": ["a", "b"], "o": {"x": true}});
        let fill = |template: &str| Template::new(template).expect("a template").fill(&item);
        assert_eq!(
            fill("Q: {q} {{{n}}} {c.1} { o.x }").expect("filled"),
            "Q: Why? {3} b true"
        );
        assert_eq!(fill("").expect("filled"), "");
        let all = |template: &str| {
            Template::new(template)
                .expect("a template")
                .fill_all(&item)
                .expect("filled")
        };
        assert_eq!(all("{c}"), ["a", "b"]);
        assert_eq!(all("{q}!"), ["Why?!"]);
        assert!(matches!(
            fill("{c}"),
            Err(TemplateError::NoText { found: "a list", .. })
        ));
        let error = fill("{c.7}").expect_err("no such element").to_string();
        assert_eq!(error, "the item does not have `c.7`; it has c, n, o, q");
        for (wrong, message) in [("{q", "without its `}`"), ("q}", "without its `{`")] {
            let error = Template::new(wrong).expect_err("malformed").to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
