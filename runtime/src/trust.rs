//! What judges outside of Aurora do for a spec, and the user's consent to it.
//!
//! In: a graph and its pins. Out: the actions that need consent, and the grants in the user's configuration folder. A grant
//! is for the digest of an action: of the command and its files, or of the address and the variable that is sent there.
//! After an edit there is none. No key depends on it. Not here: how the user is asked (`cli`), how a judge is run (`judge`).

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::time::Duration;

use aurora_compiler::fields::{Judge, JudgeFields, Need};
use aurora_compiler::graph::{Graph, NodeOrigin, Pins, Role, Work};
use camino::Utf8PathBuf;
use serde::Serialize;

use crate::errors::FileError;
use crate::{config_folder, content_of, write_atomically};

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("the judge of eval `{eval}` is a program in source `{source_name}`, which is not pinned")]
    NotPinned { eval: String, source_name: String },
    #[error("there is no folder for your consent: neither XDG_CONFIG_HOME nor HOME is an absolute path")]
    NoFolder,
    #[error(transparent)]
    File(#[from] FileError),
}

impl TrustError {
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NotPinned { .. } => Some("run `aurora lock SPEC` first: consent is for the content of its files"),
            Self::NoFolder => Some("set HOME"),
            Self::File(_) => None,
        }
    }
}

/// What a spec says about an eval's judge that cannot change a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgeOptions {
    /// The environment variable with the key of an endpoint.
    pub secret: Option<String>,
    /// How long a program may take.
    pub timeout: Duration,
}

/// What a judge does outside of Aurora.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Runs a program.
    Run {
        command: Vec<String>,
        /// Names of the program's files.
        files: Vec<String>,
        /// BLAKE3 of the file, or of the manifest of several, as in a pin.
        content: String,
        needs: Vec<Need>,
    },
    /// Sends the answers, and the value of a variable.
    Send { url: String, variable: Option<String> },
}

impl Action {
    /// The action of a judge; `None` for rules. `files` are the names and the content of its program's files.
    pub fn of(judge: &Judge, files: (Vec<String>, String), variable: Option<&str>) -> Option<Self> {
        match judge {
            Judge::Rules { .. } => None,
            Judge::Program { run, needs } => Some(Self::Run {
                command: run.clone(),
                files: files.0,
                content: files.1,
                needs: needs.clone(),
            }),
            Judge::Endpoint { url, .. } => Some(Self::Send {
                url: url.clone(),
                variable: variable.map(str::to_owned),
            }),
        }
    }

    /// What consent is for.
    pub fn digest(&self) -> String {
        content_of(self.text().as_bytes())
    }

    fn text(&self) -> String {
        serde_json::to_string(self).expect("texts are JSON")
    }
}

/// Completes "eval `x` …". Every text of the spec is quoted if it has anything but plain characters: it must not look like
/// another part of the question.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run {
                command, files, needs, ..
            } => {
                let shown: Vec<String> = files.iter().take(4).map(|name| quoted(name)).collect();
                let more = files.len() - shown.len();
                let more = if more > 0 {
                    format!(" and {more} more")
                } else {
                    String::new()
                };
                let network = if needs.contains(&Need::Network) {
                    "with the network of this machine"
                } else {
                    "without network"
                };
                let command: Vec<String> = command.iter().map(|word| quoted(word)).collect();
                write!(
                    f,
                    "runs the program `{}` with the files {}{more}, in a sandbox {network}",
                    command.join(" "),
                    shown.join(", ")
                )
            }
            Self::Send { url, variable } => {
                let variable = variable.as_ref();
                let variable = variable.map(|name| format!(" and the variable `{}`", quoted(name)));
                write!(
                    f,
                    "sends the answers{} to {}",
                    variable.unwrap_or_default(),
                    quoted(url)
                )
            }
        }
    }
}

fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "./_-=:,+%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("{text:?}")
}

/// An action, and the evals that need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    pub evals: Vec<String>,
    pub digest: String,
    pub action: Action,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let evals: Vec<String> = self.evals.iter().map(|eval| format!("`{eval}`")).collect();
        write!(f, "eval {} {}", evals.join(", "), self.action)
    }
}

/// The actions of a graph's judges, each once.
///
/// # Errors
/// A program's source has no pin.
pub fn requests(
    graph: &Graph,
    pins: &Pins,
    options: &BTreeMap<String, JudgeOptions>,
) -> Result<Vec<Request>, TrustError> {
    let mut found: BTreeMap<String, Request> = BTreeMap::new();
    for id in graph.ids() {
        let node = graph.node(id);
        let (Work::Judge(fields), Some((eval, _))) = (&node.work, node.origin.eval()) else {
            continue;
        };
        let Some(judge) = judge_of(fields) else { continue };
        let program = graph.inputs(id).find(|input| input.role == Role::Judge);
        let mut files = (Vec::new(), String::new());
        if let Some(input) = program
            && let NodeOrigin::Source { source } = &graph.node(input.node).origin
        {
            let pin = pins.get(source).ok_or_else(|| TrustError::NotPinned {
                eval: eval.to_owned(),
                source_name: source.clone(),
            })?;
            files = (pin.files.clone(), pin.content.clone());
        }
        let variable = options.get(eval).and_then(|options| options.secret.as_deref());
        let Some(action) = Action::of(judge, files, variable) else {
            continue;
        };
        let digest = action.digest();
        let request = found.entry(digest.clone()).or_insert_with(|| Request {
            evals: Vec::new(),
            digest,
            action,
        });
        if !request.evals.iter().any(|known| known == eval) {
            request.evals.push(eval.to_owned());
        }
    }
    Ok(found.into_values().collect())
}

/// The sources with programs of a graph's judges.
pub fn program_sources(graph: &Graph) -> Vec<String> {
    let judges = graph.ids().filter(|id| matches!(graph.node(*id).work, Work::Judge(_)));
    let programs = judges.flat_map(|id| graph.inputs(id).filter(|input| input.role == Role::Judge));
    let sources = programs.filter_map(|input| match &graph.node(input.node).origin {
        NodeOrigin::Source { source } => Some(source.clone()),
        _ => None,
    });
    sources.collect()
}

fn judge_of(fields: &JudgeFields) -> Option<&Judge> {
    match fields {
        JudgeFields::Programs { .. } => None,
        JudgeFields::Attacks(judge) | JudgeFields::Refusals(judge) | JudgeFields::Score { judge, .. } => Some(judge),
    }
}

/// What the user has consented to: a folder with one file per digest, whose text is the action.
pub struct Grants {
    folder: Utf8PathBuf,
}

impl Grants {
    /// # Errors
    /// [`TrustError::NoFolder`].
    pub fn of_user() -> Result<Self, TrustError> {
        let folder = config_folder().ok_or(TrustError::NoFolder)?.join("trust");
        Ok(Self { folder })
    }

    pub fn has(&self, action: &Action) -> bool {
        self.folder.join(action.digest()).is_file()
    }

    /// # Errors
    /// The folder cannot be written.
    pub fn grant(&self, action: &Action) -> Result<(), TrustError> {
        let writing = FileError::writing(&self.folder);
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.folder).map_err(writing)?;
        let path = self.folder.join(action.digest());
        let text = action.text() + "\n";
        write_atomically(&path, text.as_bytes()).map_err(FileError::writing(&path))?;
        Ok(())
    }

    /// Withdraws consent; `false` if there was none.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn revoke(&self, action: &Action) -> Result<bool, TrustError> {
        let path = self.folder.join(action.digest());
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(FileError::writing(&path)(error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: &[&str], files: &[&str], content: &str, needs: &[Need]) -> Action {
        Action::Run {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            files: files.iter().map(|name| (*name).to_owned()).collect(),
            content: content.to_owned(),
            needs: needs.to_vec(),
        }
    }

    fn send(url: &str, variable: Option<&str>) -> Action {
        let (url, variable) = (url.to_owned(), variable.map(str::to_owned));
        Action::Send { url, variable }
    }

    #[test]
    fn consent_is_for_every_part_of_an_action() {
        let all = [
            run(&["python3", "a.py"], &["a.py"], "1", &[]),
            run(&["python3", "a.py", ""], &["a.py"], "1", &[]),
            run(&["python3 a.py"], &["a.py"], "1", &[]),
            run(&["python3", "a.py"], &["a.py", "b.py"], "1", &[]),
            run(&["python3", "a.py"], &["a.py"], "2", &[]),
            run(&["python3", "a.py"], &["a.py"], "1", &[Need::Network]),
            send("https://a.example", None),
            send("https://a.example", Some("KEY")),
            send("https://a.example", Some("OTHER")),
            send("https://b.example", Some("KEY")),
        ];
        let digests: std::collections::BTreeSet<String> = all.iter().map(Action::digest).collect();
        assert_eq!(digests.len(), all.len());
    }

    #[test]
    fn a_question_cannot_be_forged() {
        let action = run(
            &["sh", "-c", "x\n[sandbox]\u{1b}[2J` without network"],
            &["a b"],
            "1",
            &[Need::Network],
        );
        assert_eq!(
            action.to_string(),
            "runs the program `sh -c \"x\\n[sandbox]\\u{1b}[2J` without network\"` with the files \"a b\", in a sandbox with \
             the network of this machine"
        );
        let action = send("https://a.example/v1", Some("KEY"));
        assert_eq!(
            action.to_string(),
            "sends the answers and the variable `KEY` to https://a.example/v1"
        );
    }
}
