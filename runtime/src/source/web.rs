//! Files by HTTP.
//!
//! In: an address. Out: the file, under the last part of the address's path. A download that was interrupted continues where
//! it was, if the server still has the same bytes. A server may state a shorter length than the file has: only the content
//! that a lock pins shows it. Not here: transfers (`http`), the parts of an address (`aurora_compiler::location`).

use aurora_compiler::location::web_name;

use super::archive::InputFile;
use super::partial::Partial;
use super::{FetchError, SourceContext};
use crate::http::{Download, HttpError, Limits};
use crate::progress::ProgressReporter;

/// The largest file that is fetched, unless the spec states another limit; bytes.
const FILE_LIMIT: u64 = 2 << 40;

/// Fetches the file at an address.
///
/// # Errors
/// The server does not have it or cannot be reached; the file is too large or cannot be written.
pub(super) fn fetch(
    address: &str,
    context: SourceContext<'_>,
    progress: ProgressReporter<'_>,
) -> Result<InputFile, FetchError> {
    let name = web_name(address).ok_or_else(|| FetchError::Failed {
        reference: address.to_owned(),
        cause: "it does not end in the name of a file".to_owned(),
    })?;
    let limits = context.limits.map_or_else(
        || Limits::for_file(context.at_most.unwrap_or(FILE_LIMIT)),
        |limits| Limits {
            bytes: context.at_most.unwrap_or(FILE_LIMIT),
            ..*limits
        },
    );
    let partial = Partial::open(context.cache, address, context.scratch)?;
    let came = Download::new(address, None, &limits, progress).resume(partial.path());
    came.map_err(|error| match error {
        HttpError::TooLarge { limit, .. } => FetchError::TooLarge {
            reference: address.to_owned(),
            name: context.name.to_owned(),
            limit,
        },
        error => FetchError::of_transfer(address, error),
    })?;
    let path = context.scratch.join(&name);
    partial.finish(&path)?;
    Ok(InputFile::new(name, path))
}
