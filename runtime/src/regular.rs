//! Opens regular files only. A pipe, a device or a folder in place of a file is an error: it is not read, and opening
//! it does not wait.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use camino::Utf8Path;

use crate::progress::Cancelled;

/// Bytes that are hashed at once, on all threads.
const HASHED_AT_ONCE: usize = 8 << 20;

/// In place of a file there is something else.
#[derive(Debug, thiserror::Error)]
#[error("it is not a regular file")]
struct NotAFile;

/// A text has more bytes than its kind may have.
#[derive(Debug, thiserror::Error)]
#[error("it is larger than {0} bytes")]
struct TooLarge(u64);

/// Opens a file for reading.
///
/// # Errors
/// It cannot be opened, or [is not a file](is_not_a_file).
pub fn open(path: &Utf8Path) -> io::Result<File> {
    // Without `O_NONBLOCK`, opening a pipe waits for a writer. It changes nothing for files.
    match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(file),
        Ok(_) => Err(io::Error::other(NotAFile)),
        // A socket cannot be opened.
        Err(error) => Err(match fs::metadata(path) {
            Ok(status) if !status.is_file() => io::Error::other(NotAFile),
            _ => error,
        }),
    }
}

/// Opens a file for writing, and creates it if there is none. Does not truncate it.
///
/// # Errors
/// It cannot be opened, or it is a pipe that nothing reads.
pub fn open_to_append(path: &Utf8Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .append(true)
        .create(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

/// Reads a text.
///
/// # Errors
/// It cannot be read, [is not a file](is_not_a_file) or is not UTF-8.
pub fn read_to_string(path: &Utf8Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Reads a text of at most `limit` bytes.
///
/// # Errors
/// As [`read_to_string`]; or the file is larger.
pub fn read_text(path: &Utf8Path, limit: u64) -> io::Result<String> {
    let file = open(path)?;
    let mut text = String::new();
    // One byte more shows that there is more: a file can grow while it is read.
    file.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::other(TooLarge(limit)));
    }
    Ok(text)
}

/// Length and BLAKE3 of a file. It is read, not mapped: another process may shorten it meanwhile, or the disk may fail, and
/// access to a page that cannot be read would end this process.
///
/// # Errors
/// It cannot be read, or `check`, which is called again and again, cancels.
pub fn hash(mut file: &File, check: impl Fn() -> Result<(), Cancelled>) -> io::Result<(u64, blake3::Hash)> {
    let (mut hasher, mut length) = (blake3::Hasher::new(), 0);
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(HASHED_AT_ONCE);
    // One byte more: reading the end of a file that did not grow needs no second buffer.
    let mut buffer = vec![0; HASHED_AT_ONCE.min(size + 1)];
    loop {
        check().map_err(io::Error::other)?;
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled == 0 {
            return Ok((length, hasher.finalize()));
        }
        hasher.update_rayon(&buffer[..filled]);
        length += filled as u64;
    }
}

/// Whether an error of this module says that there is something else in place of a file.
pub fn is_not_a_file(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<NotAFile>())
}
