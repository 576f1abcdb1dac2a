//! Downloads a file, in several requests if the transfer is cut.
//!
//! In: an address and a path. Out: all bytes at the path. The server's name of the bytes (a strong `ETag`) decides whether a
//! beginning can be used: of an earlier try, or with [`Download::resume`] of an earlier process.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};

use camino::{Utf8Path, Utf8PathBuf};

use super::exchange::{Exchange, Request};
use super::{Failure, HttpError, Limits, Tries, WORTH_RESUMING, basic, refused};
use crate::errors::FileError;
use crate::progress::{ProgressReporter, ProgressUnit};
use crate::redact::Secret;

/// The longest name of bytes that is kept for a later process.
const LONGEST_TAG: usize = 1 << 10;

/// What to download.
pub struct Download<'a> {
    address: String,
    authorization: Option<Secret>,
    limits: &'a Limits,
    progress: ProgressReporter<'a>,
}

impl<'a> Download<'a> {
    /// `key` is sent as a bearer token to the server that the address names, and to no other one.
    pub fn new(address: &str, key: Option<&Secret>, limits: &'a Limits, progress: ProgressReporter<'a>) -> Self {
        let (address, basic) = basic(address);
        let bearer = key.map(|key| Secret::new(&format!("Bearer {}", key.reveal())));
        Self {
            address,
            authorization: bearer.or(basic),
            limits,
            progress,
        }
    }

    /// Downloads all bytes to a new file, and returns their number.
    ///
    /// # Errors
    /// [`HttpError`]. The file may then have the beginning of the bytes, never more than the limit.
    pub fn to(&self, path: &Utf8Path) -> Result<u64, HttpError> {
        let file = File::create(path).map_err(FileError::writing(path))?;
        self.fill(file, path, None, None)
    }

    /// As [`to`](Self::to), but uses the bytes that an earlier process has left at the path, if they are still the server's.
    /// The name of the bytes is kept in a file beside it until all of them are there.
    ///
    /// # Errors
    /// [`HttpError`]. The bytes that came stay for the next process.
    pub fn resume(&self, path: &Utf8Path) -> Result<u64, HttpError> {
        let beside = tag_file(path);
        let writing = FileError::writing(path);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(writing)?;
        let there = file.seek(SeekFrom::End(0)).map_err(writing)?;
        let tag = fs::read_to_string(&beside).ok().filter(|tag| tag.len() <= LONGEST_TAG);
        let start = tag.filter(|_| there > 0).map(|tag| (there, tag));
        let length = self.fill(file, path, start, Some(&beside))?;
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(FileError::writing(&beside)(error).into())
            }
            _ => Ok(length),
        }
    }

    fn fill(
        &self,
        file: File,
        to: &Utf8Path,
        start: Option<(u64, String)>,
        keep_tag: Option<&Utf8Path>,
    ) -> Result<u64, HttpError> {
        let (received, validator) = start.map_or((0, None), |(received, tag)| (received, Some(tag)));
        let mut transfer = Transfer {
            download: self,
            file,
            to,
            received,
            validator,
            keep_tag,
        };
        let mut tries = Tries::new(self.limits);
        loop {
            let before = transfer.received;
            match transfer.attempt() {
                Ok(()) => {
                    let synced = transfer.file.sync_all();
                    return synced
                        .map(|()| transfer.received)
                        .map_err(|error| FileError::writing(to)(error).into());
                }
                Err(failure) => {
                    if transfer.received.saturating_sub(before) >= WORTH_RESUMING {
                        tries = Tries::new(self.limits);
                    }
                    tries.wait(failure, &self.address, self.progress)?;
                }
            }
        }
    }
}

/// The file beside a partial one that has the name of its bytes.
fn tag_file(path: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{path}.etag"))
}

/// A download and what has come of it.
struct Transfer<'a> {
    download: &'a Download<'a>,
    file: File,
    to: &'a Utf8Path,
    received: u64,
    /// The server's name of these bytes (a strong `ETag`): only with one can the rest be asked for.
    validator: Option<String>,
    /// Where the name is kept for a later process.
    keep_tag: Option<&'a Utf8Path>,
}

impl Transfer<'_> {
    fn attempt(&mut self) -> Result<(), Failure> {
        let Download {
            address,
            authorization,
            limits,
            progress,
        } = self.download;
        let (limits, progress) = (*limits, *progress);
        let from = self.validator.as_ref().map_or(0, |_| self.received);
        let request = Request {
            resume: self.validator.clone().filter(|_| from > 0).map(|tag| (from, tag)),
            ..Request::get(address, authorization.clone())
        };
        let exchange = Exchange::start(request, limits, progress)?;
        // A server that stalls may answer another connection.
        let head = exchange.head().map_err(Failure::may_pass)?;
        let total = match head.status {
            206 if from > 0 && head.start == Some(from) => head.length.map(|rest| from.saturating_add(rest)),
            // The bytes have not changed, and there are no more of them.
            416 if from > 0 && head.complete == Some(from) => return Ok(()),
            // The bytes have changed, or the server does not resume.
            206 | 416 if from > 0 => {
                self.validator = None;
                let cause = "the server does not resume it".to_owned();
                return Err(exchange.cut(self.received, cause));
            }
            200..300 => {
                self.restart()?;
                head.length
            }
            _ => return Err(refused(exchange, &head)),
        };
        if head.status != 206 || head.etag.is_some() {
            self.validator = head.etag;
        }
        let limit = limits.bytes;
        if total.is_some_and(|total| total > limit) {
            return Err(exchange.too_large().into());
        }
        self.keep_tag()?;
        let writing = FileError::writing(self.to);
        self.file.seek(SeekFrom::Start(self.received)).map_err(writing)?;
        let (file, received) = (&mut self.file, &mut self.received);
        let body = exchange.body(&mut |bytes| {
            if bytes.len() as u64 > limit - (*received).min(limit) {
                // The disk gets the space back at once.
                file.set_len(0).map_err(writing)?;
                return Err(exchange.too_large());
            }
            file.write_all(bytes).map_err(writing)?;
            *received += bytes.len() as u64;
            progress.report(*received, total, ProgressUnit::Bytes);
            Ok(())
        });
        body.map_err(Failure::may_pass)?;
        if let Some(total) = total.filter(|total| *total != self.received) {
            if self.received > total {
                // These are not the bytes that were asked for.
                self.validator = None;
            }
            return Err(exchange.cut(self.received, format!("it states {total} bytes")));
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), FileError> {
        self.file.set_len(0).map_err(FileError::writing(self.to))?;
        self.received = 0;
        Ok(())
    }

    /// Keeps the name of the bytes before they come, or removes one that is no longer theirs.
    fn keep_tag(&self) -> Result<(), FileError> {
        let Some(path) = self.keep_tag else { return Ok(()) };
        match &self.validator {
            Some(tag) if tag.len() <= LONGEST_TAG => {
                crate::write_atomically(path, tag.as_bytes()).map_err(FileError::writing(path))
            }
            _ => match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(FileError::writing(path)(error)),
                _ => Ok(()),
            },
        }
    }
}
