//! Messages of the protocol over standard input and output.
//!
//! In: bytes of the editor. Out: a connection of `lsp-server`. The lengths that the editor states are compared with limits
//! before memory is used for them. Not here: what the messages mean.

use std::io::{self, BufRead, Read};
use std::thread::{self, JoinHandle};

use crossbeam_channel::bounded;
use lsp_server::{Connection, Message};

/// The longest message, bytes: it has the text of one file.
const LONGEST_MESSAGE: u64 = 64 << 20;

/// The headers of a message, bytes.
const LONGEST_HEADERS: u64 = 8 << 10;

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("the headers of a message have more than {LONGEST_HEADERS} bytes")]
    Headers,
    #[error("a message has the header `{0}`, which is not valid")]
    Header(String),
    #[error("a message has no valid header `Content-Length`")]
    NoLength,
    #[error("a message has {0} bytes, more than the limit of {LONGEST_MESSAGE}")]
    Long(u64),
    #[error("a message ends after {found} of {expected} bytes")]
    Cut { found: u64, expected: u64 },
    #[error("a message is not valid: {0}")]
    Message(#[from] serde_json::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The threads that read and write.
pub struct Threads {
    reader: JoinHandle<Result<(), TransportError>>,
    writer: JoinHandle<io::Result<()>>,
}

impl Threads {
    /// Waits until the editor has closed its side and everything is written.
    ///
    /// # Errors
    /// The first error of reading, else of writing.
    pub fn join(self) -> Result<(), TransportError> {
        let resume = |panic| -> ! { std::panic::resume_unwind(panic) };
        self.reader.join().unwrap_or_else(|panic| resume(panic))?;
        Ok(self.writer.join().unwrap_or_else(|panic| resume(panic))?)
    }
}

/// Connects to the editor that started this process.
///
/// # Errors
/// A thread cannot be started.
pub fn connect() -> io::Result<(Connection, Threads)> {
    let (sender, to_write) = bounded::<Message>(0);
    let (read, receiver) = bounded(0);
    let writer = thread::Builder::new().spawn(move || {
        let mut output = io::stdout().lock();
        to_write.into_iter().try_for_each(|message| message.write(&mut output))
    })?;
    let reader = thread::Builder::new().spawn(move || {
        let mut input = io::stdin().lock();
        while let Some(message) = read_message(&mut input)? {
            let is_exit = matches!(&message, Message::Notification(exit) if exit.method == "exit");
            // After the session has ended, there is no receiver.
            if read.send(message).is_err() || is_exit {
                break;
            }
        }
        Ok(())
    })?;
    Ok((Connection { sender, receiver }, Threads { reader, writer }))
}

/// The next message; none at the end of the input.
fn read_message(input: &mut impl BufRead) -> Result<Option<Message>, TransportError> {
    let mut headers = input.by_ref().take(LONGEST_HEADERS);
    let mut length: Option<u64> = None;
    loop {
        let mut line = Vec::new();
        headers.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return match (headers.limit(), line.is_empty()) {
                (0, _) => Err(TransportError::Headers),
                (_, true) => Ok(None),
                (_, false) => Err(TransportError::Header(String::from_utf8_lossy(&line).into_owned())),
            };
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| TransportError::Header(line.to_owned()))?;
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse().map_err(|_| TransportError::NoLength)?);
        }
    }
    let expected = length.ok_or(TransportError::NoLength)?;
    if expected > LONGEST_MESSAGE {
        return Err(TransportError::Long(expected));
    }
    let mut text = Vec::new();
    let found = input.take(expected).read_to_end(&mut text)? as u64;
    if found < expected {
        return Err(TransportError::Cut { found, expected });
    }
    Ok(Some(serde_json::from_slice(&text)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &str) -> Result<Option<Message>, TransportError> {
        read_message(&mut input.as_bytes())
    }

    #[test]
    fn lengths_are_not_believed() {
        let exit = r#"{"jsonrpc":"2.0","method":"exit"}"#;
        let length = exit.len();
        for headers in [
            format!("Content-Length: {length}\r\n\r\n"),
            format!("content-length:{length}\nContent-Type: x\n\n"),
        ] {
            assert!(matches!(read(&(headers + exit)), Ok(Some(Message::Notification(_)))));
        }
        assert!(matches!(read(""), Ok(None)));
        for (input, error) in [
            (
                "Content-Length: 18446744073709551615\r\n\r\n{}".to_owned(),
                "a message has 18446744073709551615 bytes, more than the limit of 67108864",
            ),
            (
                "Content-Length: 67108864\r\n\r\n{}".to_owned(),
                "a message ends after 2 of 67108864 bytes",
            ),
            (
                "Content-Length: -1\r\n\r\n{}".to_owned(),
                "a message has no valid header `Content-Length`",
            ),
            (
                "Content-Length: 99999999999999999999\r\n\r\n{}".to_owned(),
                "a message has no valid header `Content-Length`",
            ),
            ("\r\n{}".to_owned(), "a message has no valid header `Content-Length`"),
            (
                "x".repeat(1 << 20),
                "the headers of a message have more than 8192 bytes",
            ),
            (
                "x: y\r\n".repeat(10_000),
                "the headers of a message have more than 8192 bytes",
            ),
            (
                "what\r\n\r\n".to_owned(),
                "a message has the header `what`, which is not valid",
            ),
        ] {
            assert_eq!(read(&input).expect_err("refused").to_string(), error);
        }
        let deep = "[".repeat(100_000);
        let error = read(&format!("Content-Length: {}\r\n\r\n{deep}", deep.len())).expect_err("refused");
        assert!(matches!(error, TransportError::Message(_)), "{error}");
    }
}
