//! Reads the members of archives, one at a time.
//!
//! In: files by name and path, glob patterns. Out: each matching member's path and bytes, in the archive's own order.
//! Nothing is unpacked to disk, so a member's path is only a name; memory holds one member, never an archive. What all
//! members unpack to has a limit, and so have their headers (`limits`). The name of an archive determines its kind:
//! `.deb`, `.whl` and `.zip`, `.tar` with any compression, `.tgz`, `.crate`, `.tbz2`, `.txz`, `.tzst`; any other file
//! is its own only member. A member that is compressed itself is unpacked and named without the extension of its
//! compression. Links are skipped. Not here: compression (`unpack`), what the bytes mean (`data::extract`).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use aurora_compiler::graph::is_archive;
use camino::{Utf8Path, Utf8PathBuf};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::unpack::Compression;
use crate::limits::{Budget, Counted, Fence};
use crate::progress::{Cancelled, ProgressReporter, ProgressUnit};
use crate::regular;

/// A file of a source: its name in the source, and its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    pub name: String,
    pub path: Utf8PathBuf,
    /// The bytes that its source may unpack to, if the spec states them.
    pub at_most: Option<u64>,
}

impl InputFile {
    pub fn new(name: String, path: Utf8PathBuf) -> Self {
        Self {
            name,
            path,
            at_most: None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("`{pattern}` is not a pattern for member paths")]
    Pattern {
        pattern: String,
        #[source]
        source: globset::Error,
    },
    #[error("cannot read `{name}`")]
    Read {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("`{name}` is not a Debian package: it has no member data.tar")]
    NoData { name: String },
    #[error(
        "`{name}` compresses its data as `{member}`, which is not supported; supported are .xz, .zst, .gz, .bz2 and none"
    )]
    UnknownCompression { name: String, member: String },
    #[error("cannot read `{name}` as a zip archive")]
    Zip {
        name: String,
        #[source]
        source: zip::result::ZipError,
    },
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Selects members by their paths.
#[derive(Clone, Debug)]
pub struct MemberSelection {
    patterns: Vec<String>,
    include: GlobSet,
    exclude: GlobSet,
}

impl MemberSelection {
    /// Patterns as in ripgrep: `*` stays inside one path segment, `**` does not. Without `files` all members match.
    ///
    /// # Errors
    /// If a pattern is malformed.
    pub fn new(files: &[String], exclude: &[String]) -> Result<Self, ArchiveError> {
        Ok(Self {
            patterns: files.to_vec(),
            include: globs(files)?,
            exclude: globs(exclude)?,
        })
    }

    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    fn matches(&self, path: &str, hits: &mut [u64]) -> bool {
        let included = self.include.matches(path);
        for &pattern in &included {
            hits[pattern] += 1;
        }
        (self.patterns.is_empty() || !included.is_empty()) && !self.exclude.is_match(path)
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet, ArchiveError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let error = |source| ArchiveError::Pattern {
            pattern: pattern.clone(),
            source,
        };
        set.add(
            GlobBuilder::new(pattern)
                .literal_separator(true)
                .build()
                .map_err(error)?,
        );
    }
    set.build().map_err(|source| ArchiveError::Pattern {
        pattern: patterns.join(" "),
        source,
    })
}

/// The counts of a walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Regular members, selected or not.
    pub members: u64,
    pub matched: u64,
    /// Symbolic and hard links, not followed.
    pub links: u64,
    /// Skipped members whose path is not UTF-8.
    pub unreadable_names: u64,
    /// How many members each pattern of the selection matched.
    pub hits: Vec<u64>,
    /// The first member that was not selected: an example of a path.
    pub example: Option<String>,
}

/// Called with the index of a file, the path of a member and its bytes.
pub type Visit<'a, E> = dyn FnMut(usize, &str, &mut dyn Read) -> Result<(), E> + 'a;

/// Calls `visit` with the file's index, the path and the bytes of every selected member.
///
/// # Errors
/// Errors of `visit`; a file is damaged, or `progress` cancels the walk.
pub fn walk<E: From<ArchiveError>>(
    files: &[InputFile],
    selection: &MemberSelection,
    progress: ProgressReporter<'_>,
    visit: &mut Visit<'_, E>,
) -> Result<Walked, E> {
    let mut packed = 0u64;
    for file in files {
        // A file that is not there is an error where it is opened.
        packed = packed.saturating_add(std::fs::metadata(&file.path).map_or(0, |status| status.len()));
    }
    let at_most = files.iter().map(|file| file.at_most).max().flatten();
    let (unpacked, delivered) = (Budget::new(at_most, packed), Budget::new(at_most, packed));
    let mut walker = Walker {
        selection,
        progress,
        visit,
        walked: Walked::default(),
        file: 0,
        unpacked: &unpacked,
        delivered: &delivered,
    };
    walker.walked.hits = vec![0; selection.patterns.len()];
    for (number, file) in files.iter().enumerate() {
        walker.file = number;
        walker.walk(file)?;
    }
    Ok(walker.walked)
}

enum Kind {
    Deb,
    Zip,
    Tar(Compression),
    Plain,
}

/// Whether a file with this name is not an archive, but its own only member.
pub fn is_plain(name: &str) -> bool {
    !is_archive(name)
}

fn kind(name: &str) -> Kind {
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    match Compression::of_tar(name) {
        Some(compression) => Kind::Tar(compression),
        None if ends(&[".deb"]) => Kind::Deb,
        None if ends(&[".whl", ".zip"]) => Kind::Zip,
        None => Kind::Plain,
    }
}

struct Walker<'a, 'v, 'w, E> {
    selection: &'a MemberSelection,
    progress: ProgressReporter<'w>,
    visit: &'a mut Visit<'v, E>,
    walked: Walked,
    file: usize,
    /// What the streams of compressed archives unpack to.
    unpacked: &'w Budget,
    /// What the selected members have, after their own compression.
    delivered: &'w Budget,
}

impl<E: From<ArchiveError>> Walker<'_, '_, '_, E> {
    fn walk(&mut self, file: &InputFile) -> Result<(), E> {
        let reading = |source| ArchiveError::Read {
            name: file.name.clone(),
            source,
        };
        let open = regular::open(&file.path).map_err(reading)?;
        match kind(&file.name) {
            Kind::Plain => self.member(&file.name, file.name.as_bytes(), &mut BufReader::new(open)),
            Kind::Tar(compression) => {
                let mut reader = compression.unpack(BufReader::new(open)).map_err(reading)?;
                self.tar(&file.name, &mut reader)
            }
            Kind::Zip => self.zip(&file.name, open),
            Kind::Deb => self.deb(&file.name, open),
        }
    }

    fn deb(&mut self, name: &str, file: File) -> Result<(), E> {
        let reading = |source| ArchiveError::Read {
            name: name.to_owned(),
            source,
        };
        let mut reader = BufReader::new(file);
        let mut magic = [0; AR_MAGIC.len()];
        reader.read_exact(&mut magic).map_err(reading)?;
        if magic != *AR_MAGIC {
            return Err(reading(damaged("it does not begin as an ar archive")).into());
        }
        while let Some((member, size)) = ar_header(&mut reader).map_err(reading)? {
            let compression = match member.as_str() {
                "data.tar" => Compression::None,
                "data.tar.gz" => Compression::Gzip,
                "data.tar.xz" => Compression::Xz,
                "data.tar.zst" => Compression::Zstd,
                "data.tar.bz2" => Compression::Bzip2,
                other if other.starts_with("data.tar") => {
                    return Err(ArchiveError::UnknownCompression {
                        name: name.to_owned(),
                        member,
                    }
                    .into());
                }
                _ => {
                    // Members begin at even bytes.
                    let skipped = size + size % 2;
                    io::copy(&mut (&mut reader).take(skipped), &mut io::sink()).map_err(reading)?;
                    continue;
                }
            };
            let mut reader = compression.unpack(reader.take(size)).map_err(reading)?;
            return self.tar(name, &mut reader);
        }
        Err(ArchiveError::NoData { name: name.to_owned() }.into())
    }

    fn tar(&mut self, name: &str, reader: &mut dyn Read) -> Result<(), E> {
        let reading = |source| ArchiveError::Read {
            name: name.to_owned(),
            source,
        };
        let fence = Fence::default();
        fence.allow(0);
        let mut archive = tar::Archive::new(fence.around(Counted::new(reader, self.unpacked)));
        // Archives that were concatenated are read to the last one, and a compressed stream to its checksum.
        archive.set_ignore_zeros(true);
        for entry in archive.entries().map_err(reading)? {
            let mut entry = entry.map_err(reading)?;
            let kind = entry.header().entry_type();
            // What a sparse file has in the archive is less than what it reads as.
            let stored = match kind.is_gnu_sparse() {
                true => entry.header().entry_size().map_err(reading)?,
                false => entry.size(),
            };
            fence.allow(stored);
            if kind.is_symlink() || kind.is_hard_link() {
                self.walked.links += 1;
            } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
                let path = entry.path_bytes().into_owned();
                self.member(name, &path, &mut entry)?;
            }
        }
        Ok(())
    }

    fn zip(&mut self, name: &str, file: File) -> Result<(), E> {
        let zipping = |source| ArchiveError::Zip {
            name: name.to_owned(),
            source,
        };
        let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(zipping)?;
        for at in 0..archive.len() {
            let mut entry = archive.by_index(at).map_err(zipping)?;
            if entry.is_symlink() {
                self.walked.links += 1;
            } else if entry.is_file() {
                let path = entry.name_raw().to_vec();
                self.member(name, &path, &mut entry)?;
            }
        }
        Ok(())
    }

    fn member(&mut self, name: &str, path: &[u8], reader: &mut dyn Read) -> Result<(), E> {
        self.progress.check().map_err(ArchiveError::from)?;
        self.walked.members += 1;
        if self.walked.members.is_multiple_of(64) {
            self.progress.report(self.walked.members, None, ProgressUnit::Members);
        }
        let Ok(path) = std::str::from_utf8(path) else {
            self.walked.unreadable_names += 1;
            return Ok(());
        };
        let path = path.trim_start_matches("./").trim_start_matches('/');
        if !self.selection.matches(path, &mut self.walked.hits) {
            self.walked.example.get_or_insert_with(|| path.to_owned());
            return Ok(());
        }
        self.walked.matched += 1;
        let whole = path;
        let name = |reader| Named {
            name,
            member: whole,
            reader,
        };
        let (compression, path) = Compression::of(path);
        let setting_up = |source| ArchiveError::Read {
            name: whole.to_owned(),
            source,
        };
        let unpacked = compression.unpack(BufReader::new(reader)).map_err(setting_up)?;
        let counted = &mut Counted::new(unpacked, self.delivered);
        (self.visit)(self.file, path, &mut name(counted))
    }
}

/// Adds the names of the archive and the member to read errors.
struct Named<'a> {
    name: &'a str,
    member: &'a str,
    reader: &'a mut dyn Read,
}

impl Read for Named<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            let (member, name) = (self.member.to_owned(), self.name.to_owned());
            io::Error::new(error.kind(), InMember { member, name, error })
        })
    }
}

/// A read error of a member.
#[derive(Debug, thiserror::Error)]
#[error("`{member}`{}", if name == member { String::new() } else { format!(" of `{name}`") })]
struct InMember {
    member: String,
    name: String,
    #[source]
    error: io::Error,
}

/// How an ar archive begins.
const AR_MAGIC: &[u8; 8] = b"!<arch>\n";

/// Name and length of the next member of an ar archive. Long names, which no Debian package has, are not looked up.
/// Source: deb(5), ar(5).
fn ar_header(reader: &mut impl BufRead) -> io::Result<Option<(String, u64)>> {
    if reader.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut header = [0; 60];
    reader.read_exact(&mut header)?;
    let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim_end().to_owned();
    if &header[58..] != b"`\n" {
        return Err(damaged("a member does not begin with a header of ar"));
    }
    let size = text(48..58);
    let size: u32 = size
        .parse()
        .map_err(|_| damaged(&format!("`{size}` is not the length of a member")))?;
    Ok(Some((text(0..16).trim_end_matches('/').to_owned(), size.into())))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads a complete member of up to `limit` bytes; `None` if it is larger.
///
/// # Errors
/// If it cannot be read.
pub fn read_whole(reader: &mut dyn Read, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// Reads one complete member of a source by its path.
///
/// # Errors
/// If no member, or more than one, has that path; or it is larger than `limit` or cannot be read.
pub fn read_member(files: &[InputFile], path: &str, limit: u64) -> Result<Vec<u8>, MemberError> {
    let selection = MemberSelection::new(&[globset::escape(path)], &[])?;
    let mut found = None;
    walk::<MemberError>(files, &selection, ProgressReporter::none(), &mut |_, _, reader| {
        let reading = |source| MemberError::Read {
            member: path.to_owned(),
            source,
        };
        let bytes = read_whole(reader, limit).map_err(reading)?;
        let bytes = bytes.ok_or_else(|| MemberError::Large {
            member: path.to_owned(),
            limit,
        })?;
        if found.replace(bytes).is_some() {
            return Err(MemberError::Twice {
                member: path.to_owned(),
            });
        }
        Ok(())
    })?;
    found.ok_or_else(|| MemberError::Missing {
        member: path.to_owned(),
    })
}

#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("cannot read `{member}`")]
    Read {
        member: String,
        #[source]
        source: io::Error,
    },
    #[error("`{member}` is larger than {limit} bytes")]
    Large { member: String, limit: u64 },
    #[error("the source does not have a member `{member}`")]
    Missing { member: String },
    #[error("the source has more than one member `{member}`")]
    Twice { member: String },
}

/// A file is named by its last path segment.
impl From<&Utf8Path> for InputFile {
    fn from(path: &Utf8Path) -> Self {
        let name = path.file_name().unwrap_or(path.as_str());
        Self::new(name.to_owned(), path.to_owned())
    }
}

#[cfg(test)]
mod tests;
