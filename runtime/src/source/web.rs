//! Bytes over HTTP, transferred by `curl`, because it supports proxies and certificates.
//!
//! In: an address. Out: a file, or the answer to a POST. Not here: which address, and what the bytes mean.

use std::io::Write;
use std::process::Command;

use camino::Utf8Path;
use serde_json::Value;

use super::client::{self, ClientError, Output};
use crate::progress::ProgressReporter;

const CURL: &str = "on Debian, run `apt-get install curl`";

#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{cause}")]
    Refused { cause: String },
}

/// `curl` for addresses of these protocols, redirects included.
fn curl(protocols: &str) -> Command {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--proto",
        protocols,
        "--proto-redir",
        protocols,
    ]);
    command
}

/// Downloads an address to a file. The client's output is the HTTP status. An encrypted address redirects to encrypted ones
/// only, and none redirects to a local file. More than `limit` bytes are refused if the server states their number.
///
/// # Errors
/// [`ClientError`]; a server that refuses is an [`Output`].
pub fn get(
    address: &str,
    to: &Utf8Path,
    limit: Option<u64>,
    progress: ProgressReporter<'_>,
) -> Result<Output, ClientError> {
    let protocols = if address.starts_with("https:") {
        "=https"
    } else {
        "=http,https"
    };
    let mut command = curl(protocols);
    command.args(["--location", "--fail", "--retry", "2", "--max-redirs", "10"]);
    command.args(["--write-out", "%{http_code}"]);
    if let Some(limit) = limit {
        command.args(["--max-filesize", &limit.to_string()]);
    }
    command.args(["--output", to.as_str(), "--", address]);
    client::run(&mut command, CURL, progress)
}

/// Posts JSON and reads the JSON answer. The client reads a key from its input, so that process lists do not show it.
///
/// # Errors
/// `curl` is missing, or the server cannot be reached, refuses, or answers something else.
pub fn post(url: &str, key: Option<&str>, body: &Value, progress: ProgressReporter<'_>) -> Result<Value, PostError> {
    let refused = |cause: String| PostError::Refused { cause };
    let mut file = tempfile::NamedTempFile::new().map_err(|error| refused(error.to_string()))?;
    file.write_all(body.to_string().as_bytes())
        .map_err(|error| refused(error.to_string()))?;
    let mut config = String::from("header = \"Content-Type: application/json\"\n");
    if let Some(key) = key {
        let quoted = key.trim().replace('\\', "\\\\").replace('"', "\\\"");
        config.push_str(&format!("header = \"Authorization: Bearer {quoted}\"\n"));
    }
    let mut command = curl("=http,https");
    command.args(["--fail-with-body", "--config", "-", "--retry", "3", "--max-time", "300"]);
    command.arg("--data-binary").arg(format!("@{}", file.path().display()));
    command.arg("--").arg(url);
    let output = client::run_fed(&mut command, &config, CURL, progress)?;
    if !output.status.success() {
        let cause = [output.error.trim(), output.out.trim()].join(" ");
        return Err(refused(cause.trim().to_owned()));
    }
    serde_json::from_str(&output.out).map_err(|error| refused(format!("its answer is not JSON: {error}")))
}
