//! What errors of this crate have in common: printing with all causes, and errors of files.

use std::error::Error;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};

/// Any error, as the source of another one.
pub type BoxedError = Box<dyn Error + Send + Sync>;

/// The text of an error and of every error that caused it.
///
/// Nothing is dropped: an error must not repeat its source in its own text.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error)
        .map(|error| error.to_string())
        .collect::<Vec<_>>()
        .join(": ")
}

/// An error, then its source, the source of that one, and so on.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The I/O errors among an error and its causes, outermost first.
pub fn io_errors<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a io::Error> + 'a {
    causes(error).filter_map(|error| error.downcast_ref())
}

/// The code of the operating system behind an error, for a process that gets the error as text.
pub fn os_error(error: &(dyn Error + 'static)) -> Option<i32> {
    causes(error).find_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error())
}

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{path}`")]
pub struct FileError {
    /// What was tried: `read`, `write`, …
    pub action: &'static str,
    pub path: Utf8PathBuf,
    pub source: io::Error,
}

impl FileError {
    /// Turns the I/O error of reading `path` into this one.
    pub fn reading(path: &Utf8Path) -> impl Fn(io::Error) -> Self + Copy {
        Self::of("read", path)
    }

    /// Turns the I/O error of writing `path` into this one.
    pub fn writing(path: &Utf8Path) -> impl Fn(io::Error) -> Self + Copy {
        Self::of("write", path)
    }

    fn of(action: &'static str, path: &Utf8Path) -> impl Fn(io::Error) -> Self + Copy {
        move |source| Self {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Caused {
        text: &'static str,
        source: Option<Box<Caused>>,
    }

    #[test]
    fn a_cause_is_printed_even_if_its_text_occurs_in_an_earlier_one() {
        let source = Some(Box::new(Caused {
            text: "no file",
            source: None,
        }));
        let error = Caused {
            text: "no file of the items matches",
            source,
        };
        assert_eq!(chain(&error), "no file of the items matches: no file");
    }

    #[test]
    fn io_errors_are_found_below_others() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let error = FileError::writing(Utf8Path::new("x"))(full());
        assert_eq!(chain(&error), format!("cannot write `x`: {}", full()));
        let wrapped = io::Error::other(error);
        let kinds: Vec<_> = io_errors(&wrapped).map(io::Error::kind).collect();
        assert_eq!(kinds, [io::ErrorKind::Other, io::ErrorKind::StorageFull]);
    }
}
