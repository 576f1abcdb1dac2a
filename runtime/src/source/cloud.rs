//! Objects of S3, Google Cloud Storage and Azure, and of servers with the same interface.
//!
//! In: a bucket and a path or pattern. Out: the objects as files, by their names below the root. Credentials and addresses
//! come from the variables and files of the platform's own tools ([`Settings`]). An object is read in ranges of one version
//! (`If-Match`), and a range that was cut is asked for again. Not here: signatures (`object_store`), transfers (`http`).

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aurora_compiler::file_source;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};

use super::archive::InputFile;
use super::files::Found;
use super::parallel::{Meter, each};
use super::partial::Partial;
use super::reference::Objects;
use super::selection::Selection;
use super::{FetchError, SourceContext};
use crate::errors::FileError;
use crate::http::{Connector, Limits};
use crate::progress::ProgressReporter;
use crate::redact;
pub(super) use settings::Settings;

mod settings;

/// Bytes that are asked for at once; tests have several ranges of small objects.
const RANGE: u64 = if cfg!(test) { 64 << 10 } else { 16 << 20 };

/// What the objects of a source may have, unless the spec states it; bytes.
const SOURCE_LIMIT: u64 = 2 << 40;

/// The largest answer, bytes: a range, or a page of a list.
const ANSWER_LIMIT: u64 = RANGE + (1 << 20);

/// How often a page of a list is asked for, the first time included.
const LIST_TRIES: u32 = 4;

/// How often a wait is interrupted to look whether the work is cancelled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What is used of a store.
pub(super) trait Bucket: ObjectStore + PaginatedListStore {}

impl<T: ObjectStore + PaginatedListStore> Bucket for T {}

/// Fetches the objects of a source; only those in `pinned`, if a lock pins them.
///
/// # Errors
/// The store cannot be reached or refuses; no object matches; one changes meanwhile, or is no longer there.
pub(super) fn fetch(
    objects: &Objects,
    settings: &Settings,
    pinned: Option<&[String]>,
    context: SourceContext<'_>,
    progress: ProgressReporter<'_>,
) -> Result<Found, FetchError> {
    let cancel = Arc::new(AtomicBool::new(false));
    let limits = Limits {
        bytes: ANSWER_LIMIT,
        ..context.limits.copied().unwrap_or(Limits::for_file(0))
    };
    let done = AtomicBool::new(false);
    let fetcher = Fetcher {
        objects,
        reference: format!("{}://{}/{}", objects.cloud.scheme(), objects.bucket, objects.pattern),
        bucket: settings.bucket(objects, Connector::new(limits, Arc::clone(&cancel)))?,
        context,
        progress,
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if progress.is_cancelled() {
                    cancel.store(true, Ordering::Relaxed);
                }
                std::thread::park_timeout(POLL_INTERVAL);
            }
        });
        let found = fetcher.fetch(pinned);
        done.store(true, Ordering::Relaxed);
        found
    })
}

struct Fetcher<'a> {
    objects: &'a Objects,
    /// For messages.
    reference: String,
    bucket: Box<dyn Bucket>,
    context: SourceContext<'a>,
    progress: ProgressReporter<'a>,
}

/// An object that is meant, by its name below the root.
struct Wanted {
    name: String,
    object: ObjectMeta,
}

impl Fetcher<'_> {
    fn fetch(&self, pinned: Option<&[String]>) -> Result<Found, FetchError> {
        let (mut wanted, skipped) = self.list()?;
        if let Some(pinned) = pinned {
            let meant: BTreeSet<&String> = pinned.iter().collect();
            wanted.retain(|one| meant.contains(&one.name));
            let there: BTreeSet<&String> = wanted.iter().map(|one| &one.name).collect();
            if let Some(missing) = pinned.iter().find(|name| !there.contains(name)) {
                return Err(FetchError::Failed {
                    reference: self.reference.clone(),
                    cause: format!("the store does not have `{missing}` any more, which the lock pins"),
                });
            }
        }
        if wanted.is_empty() {
            return Err(FetchError::NoObject {
                reference: self.reference.clone(),
                skipped,
            });
        }
        let limit = self.context.at_most.unwrap_or(SOURCE_LIMIT);
        let total = wanted
            .iter()
            .try_fold(0u64, |sum, one| sum.checked_add(one.object.size));
        if total.is_none_or(|total| total > limit) {
            return Err(FetchError::TooLarge {
                reference: self.reference.clone(),
                name: self.context.name.to_owned(),
                limit,
            });
        }
        let meter = Meter::new(total, self.progress);
        let files = each(&wanted, |one| self.object(one, &meter))?;
        Ok(Found { files, skipped })
    }

    /// Waits for an answer of the store on this thread.
    fn wait<T>(&self, answer: impl Future<Output = object_store::Result<T>>) -> Result<T, FetchError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| FetchError::Failed {
            reference: self.reference.clone(),
            cause: error.to_string(),
        })?;
        let answer = runtime.block_on(answer);
        self.progress.check()?;
        answer.map_err(|error| FetchError::Store {
            reference: self.reference.clone(),
            remedy: settings::remedy(self.objects.cloud, &error),
            cause: redact::message(&error.to_string()).into_owned(),
            is_cut: settings::is_cut(&error),
        })
    }

    /// The objects that are meant, sorted by name, and the number of those that are left out.
    fn list(&self) -> Result<(Vec<Wanted>, u64), FetchError> {
        let pattern = self.objects.pattern.trim_end_matches('/');
        let is_pattern = file_source::is_pattern(pattern);
        let (root, selection) = match is_pattern {
            true => {
                let (root, rest) = file_source::split(pattern);
                (root, Selection::new(rest)?)
            }
            false => (pattern, Selection::everything()),
        };
        let below = if root.is_empty() {
            String::new()
        } else {
            format!("{root}/")
        };
        let prefix = match is_pattern {
            true => file_source::before_wildcard(pattern),
            false => pattern,
        };
        let mut options = PaginatedListOptions::default();
        let (mut wanted, mut skipped) = (Vec::new(), 0);
        loop {
            let page = self.page(prefix, &options)?;
            for object in page.result.objects {
                let key = object.location.as_ref();
                if !is_pattern && key == pattern && object.size > 0 {
                    // The object itself: it is named explicitly.
                    let name = key.rsplit('/').next().unwrap_or(key).to_owned();
                    return Ok((vec![Wanted { name, object }], 0));
                }
                let Some(name) = key.strip_prefix(&below) else { continue };
                match selection.of(name) {
                    Some(true) if file_source::is_safe(name) => wanted.push(Wanted {
                        name: name.to_owned(),
                        object,
                    }),
                    Some(_) => skipped += 1,
                    None => {}
                }
            }
            options.page_token = page.page_token;
            if options.page_token.is_none() {
                break;
            }
        }
        wanted.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        // Consoles mark folders with empty objects.
        let is_marker = |one: &Wanted| {
            let folder = format!("{}/", one.name);
            let first_below = wanted.partition_point(|other| other.name < folder);
            one.object.size == 0
                && wanted
                    .get(first_below)
                    .is_some_and(|other| other.name.starts_with(&folder))
        };
        let mut markers = wanted.iter().map(is_marker).collect::<Vec<bool>>().into_iter();
        let all = wanted.len();
        wanted.retain(|_| !markers.next().unwrap_or(false));
        skipped += (all - wanted.len()) as u64;
        Ok((wanted, skipped))
    }

    /// A page of a list. A list that was cut is not XML: it is asked for again.
    fn page(&self, prefix: &str, options: &PaginatedListOptions) -> Result<PaginatedListResult, FetchError> {
        let mut tries = 1;
        loop {
            match self.wait(self.bucket.list_paginated(Some(prefix), options.clone())) {
                Err(FetchError::Store { is_cut: true, .. }) if tries < LIST_TRIES => tries += 1,
                page => return page,
            }
        }
    }

    fn object(&self, wanted: &Wanted, meter: &Meter<'_>) -> Result<InputFile, FetchError> {
        let Wanted { name, object } = wanted;
        let ObjectMeta {
            location,
            size,
            e_tag,
            version,
            ..
        } = object;
        let (scheme, bucket) = (self.objects.cloud.scheme(), &self.objects.bucket);
        let identity = format!("{scheme}://{bucket}/{location} {size} {e_tag:?} {version:?}");
        let partial = Partial::open(self.context.cache, &identity, self.context.scratch)?;
        let writing = FileError::writing(partial.path());
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(partial.path());
        let mut file = file.map_err(writing)?;
        let mut there = file.seek(SeekFrom::End(0)).map_err(writing)?;
        // Without a name of its version, the bytes of an earlier process may be of another one.
        if there > *size || (e_tag.is_none() && version.is_none()) {
            there = 0;
            file.set_len(0).map_err(writing)?;
            file.rewind().map_err(writing)?;
        }
        meter.add(there);
        // The tag of the first range, if the list has none: all ranges are of one version.
        let mut tag = e_tag.clone();
        while there < *size {
            let end = size.min(&(there + RANGE)).to_owned();
            let options = GetOptions {
                range: Some(GetRange::Bounded(there..end)),
                if_match: tag.clone(),
                version: version.clone(),
                ..GetOptions::default()
            };
            let (bytes, found) = self.wait(async {
                let answer = self.bucket.get_opts(location, options).await?;
                let found = answer.meta.e_tag.clone();
                Ok((answer.bytes().await?, found))
            })?;
            tag = tag.or(found);
            if bytes.len() as u64 != end - there {
                return Err(FetchError::Failed {
                    reference: self.reference.clone(),
                    cause: format!("`{name}`: {} bytes came of the range {there}-{end}", bytes.len()),
                });
            }
            file.write_all(&bytes).map_err(writing)?;
            there = end;
            meter.add(bytes.len() as u64);
        }
        file.sync_all().map_err(writing)?;
        drop(file);
        let path = self.context.scratch.join(name);
        partial.finish(&path)?;
        Ok(InputFile::new(name.clone(), path))
    }
}
