//! Keeps secrets out of messages, records and reports, by their values.
//!
//! In: every secret that this process reads from its environment ([`Secret::new`]). Out: texts without them. A server, a
//! package client or a judge may repeat a key in its own words, so texts from outside are redacted where they enter, and
//! all messages and run records once more where they leave. Passwords in addresses are removed from messages too. Not
//! here: which variables hold secrets.

use std::borrow::Cow;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use serde_json::Value;

/// What is printed in place of a secret.
const REMOVED: &str = "***";

/// The shortest value that is redacted, bytes. Keys are longer; a placeholder such as `none` is an ordinary word.
const SHORTEST: usize = 6;

/// Secrets of this process in every spelling, the longest first.
static KNOWN: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// A secret. It has no text form other than [`Secret::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Removes white space around the value, as a file with a key often has some. From now on no text that this module
    /// redacts has the value.
    pub fn new(value: &str) -> Self {
        let value = value.trim();
        if value.len() >= SHORTEST {
            let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
            for spelling in spellings(value) {
                if !known.contains(&spelling) {
                    known.push(spelling);
                }
            }
            known.sort_by_key(|text| std::cmp::Reverse(text.len()));
        }
        Self(value.to_owned())
    }

    /// The value, to send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REMOVED)
    }
}

/// A value as it is, inside JSON, and inside an address.
fn spellings(value: &str) -> [String; 3] {
    let json = Value::from(value).to_string();
    let address = value.bytes().map(|byte| match byte {
        byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    [value.to_owned(), json[1..json.len() - 1].to_owned(), address.collect()]
}

/// A text without the secrets of this process.
pub fn secrets(text: &str) -> Cow<'_, str> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let mut redacted = Cow::Borrowed(text);
    for secret in known.iter() {
        if redacted.contains(secret) {
            redacted = Cow::Owned(redacted.replace(secret, REMOVED));
        }
    }
    redacted
}

/// A message without the secrets of this process, and without user names and passwords in addresses.
pub fn message(text: &str) -> Cow<'_, str> {
    match secrets(text) {
        Cow::Borrowed(text) => addresses(text),
        Cow::Owned(text) => Cow::Owned(addresses(&text).into_owned()),
    }
}

/// Removes the secrets of this process from every text of a JSON value, keys included.
pub fn json(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(redacted) = secrets(text) {
                *text = redacted;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(json),
        Value::Object(members) => {
            for (key, mut value) in std::mem::take(members) {
                json(&mut value);
                members.insert(secrets(&key).into_owned(), value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `https://USER:PASSWORD@HOST` becomes `https://***@HOST`.
fn addresses(text: &str) -> Cow<'_, str> {
    let mut redacted = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("://").map(|at| at + 3) {
        let (before, after) = rest.split_at(start);
        let is_end = |character: char| character.is_whitespace() || "/?#\"'`<>\\".contains(character);
        let host = &after[..after.find(is_end).unwrap_or(after.len())];
        redacted.push_str(before);
        rest = after;
        if let Some(at) = host.rfind('@') {
            redacted.push_str(REMOVED);
            rest = &after[at..];
        }
    }
    if redacted.is_empty() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(redacted + rest)
}

/// Separates an address from its user name and password (`USER:PASSWORD`).
pub fn split_credentials(address: &str) -> (String, Option<Secret>) {
    let Some(start) = address.find("://").map(|at| at + 3) else {
        return (address.to_owned(), None);
    };
    let end = address[start..]
        .find(['/', '?', '#'])
        .map_or(address.len(), |at| start + at);
    match address[start..end].rfind('@') {
        Some(at) => {
            let credentials = &address[start..start + at];
            (
                format!("{}{}", &address[..start], &address[start + at + 1..]),
                Some(Secret::new(credentials)),
            )
        }
        None => (address.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_removed_in_every_spelling() {
        let secret = Secret::new(" k\"y/of the judge+1\n");
        assert_eq!(secret.reveal(), "k\"y/of the judge+1");
        assert_eq!(format!("{secret:?}"), "***");
        for text in [
            "key k\"y/of the judge+1.",
            r#"key k\"y/of the judge+1."#,
            "key k%22y%2Fof%20the%20judge%2B1.",
        ] {
            assert_eq!(secrets(text), "key ***.");
        }
        let mut value = serde_json::json!({"k\"y/of the judge+1": ["a k\"y/of the judge+1", 1, null]});
        json(&mut value);
        assert_eq!(value, serde_json::json!({"***": ["a ***", 1, null]}));
        // A word that serves as a key where none is needed.
        Secret::new("none");
        assert_eq!(secrets("none of them"), "none of them");
    }

    #[test]
    fn addresses_lose_user_names_and_passwords() {
        for (text, redacted) in [
            (
                "cannot reach https://me:pass@host/x?y, nor http://token@host:1",
                "cannot reach https://***@host/x?y, nor http://***@host:1",
            ),
            ("socks5h://a:b@c@host", "socks5h://***@host"),
            (
                "https://host/path@version `pkg:npm/@scope/name@1`",
                "https://host/path@version `pkg:npm/@scope/name@1`",
            ),
            ("a://b", "a://b"),
            ("://", "://"),
        ] {
            assert_eq!(message(text), redacted);
        }
        let (address, credentials) = split_credentials("https://me:pass@host/a@b");
        assert_eq!(address, "https://host/a@b");
        assert_eq!(credentials.as_ref().map(Secret::reveal), Some("me:pass"));
        assert_eq!(
            split_credentials("https://host/a@b"),
            ("https://host/a@b".to_owned(), None)
        );
    }
}
