//! Reads the members of archives, one at a time.
//!
//! In: files by name and path, glob patterns. Out: each matching member's path and bytes, in the archive's own order.
//! Nothing is unpacked to disk, so a member's path is only a name; memory holds one member, never an archive. What all
//! members unpack to has a limit, and so have their headers (`limits`). The name
//! of an archive determines its kind: `.deb`, `.whl` and `.zip`, `.tar`, `.tar.gz`, `.tgz`, `.crate`, `.tar.xz`,
//! `.tar.zst`; any other file is its own only member. A member `.gz` is decompressed and named without that extension.
//! Links are skipped. Not here: what the bytes mean (`data::extract`).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use aurora_compiler::graph::is_archive;
use camino::{Utf8Path, Utf8PathBuf};
use flate2::read::MultiGzDecoder;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::limits::{Budget, Counted, Fence};
use crate::progress::{Cancelled, ProgressReporter, ProgressUnit};
use crate::regular;

/// Memory that an xz stream may use; the largest preset needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

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
        "`{name}` compresses its data as `{member}`, which is not supported; supported are .xz, .zst, .gz and none"
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

#[derive(Clone, Copy)]
enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
}

/// Whether a file with this name is not an archive, but its own only member.
pub fn is_plain(name: &str) -> bool {
    !is_archive(name)
}

fn kind(name: &str) -> Kind {
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    match () {
        () if ends(&[".deb"]) => Kind::Deb,
        () if ends(&[".whl", ".zip"]) => Kind::Zip,
        () if ends(&[".tar"]) => Kind::Tar(Compression::None),
        () if ends(&[".tar.gz", ".tgz", ".crate"]) => Kind::Tar(Compression::Gzip),
        () if ends(&[".tar.xz"]) => Kind::Tar(Compression::Xz),
        () if ends(&[".tar.zst"]) => Kind::Tar(Compression::Zstd),
        () => Kind::Plain,
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
                let mut reader = decompress(BufReader::new(open), compression).map_err(reading)?;
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
            let mut reader = decompress(reader.take(size), compression).map_err(reading)?;
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
        match path.strip_suffix(".gz") {
            Some(path) => {
                let reader = MultiGzDecoder::new(BufReader::new(reader));
                (self.visit)(self.file, path, &mut name(&mut Counted::new(reader, self.delivered)))
            }
            None => (self.visit)(self.file, path, &mut name(&mut Counted::new(reader, self.delivered))),
        }
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

fn decompress<'a>(reader: impl Read + 'a, compression: Compression) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(MultiGzDecoder::new(reader)),
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::read::XzDecoder::new_stream(reader, stream))
        }
        // The library itself refuses windows above 128 MiB.
        Compression::Zstd => Box::new(zstd::Decoder::new(reader)?),
    })
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
mod tests {
    use std::io::Write;

    use super::*;
    use crate::errors::chain;
    use crate::limits::{self, is_unpacked_limit};

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a temporary folder"))
        }

        fn file(&self, name: &str, bytes: &[u8]) -> InputFile {
            let path = Utf8PathBuf::try_from(self.0.path().join(name)).expect("UTF-8");
            std::fs::write(&path, bytes).expect("written");
            InputFile::from(path.as_path())
        }
    }

    /// Reads every member and returns the sum of their lengths.
    fn read_all(files: &[InputFile]) -> Result<u64, ArchiveError> {
        let mut bytes = 0;
        let selection = MemberSelection::new(&[], &[]).expect("no pattern");
        walk::<ArchiveError>(files, &selection, ProgressReporter::none(), &mut |_, path, reader| {
            bytes += io::copy(reader, &mut io::sink()).map_err(|source| ArchiveError::Read {
                name: path.to_owned(),
                source,
            })?;
            Ok(())
        })?;
        Ok(bytes)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("in memory");
        encoder.finish().expect("in memory")
    }

    fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, *bytes).expect("in memory");
        }
        builder.into_inner().expect("in memory")
    }

    fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for (name, bytes) in members {
            let options = zip::write::SimpleFileOptions::default();
            writer.start_file(*name, options).expect("in memory");
            writer.write_all(bytes).expect("in memory");
        }
        writer.finish().expect("in memory").into_inner()
    }

    /// Each kind of archive, and members that are compressed themselves: the sum of all members counts, not each one.
    #[test]
    fn all_members_together_have_a_limit() {
        let place = Place::new();
        let member = vec![0; 1 << 20];
        let twice = [("a", &member[..]), ("b", &member[..])];
        let inner = gzip(&member);
        let nested = [("a.gz", &inner[..]), ("b.gz", &inner[..])];
        let archives = [
            place.file("x.zip", &zip(&twice)),
            place.file("y.zip", &zip(&nested)),
            place.file("x.tar.gz", &gzip(&tar(&twice))),
            place.file("y.tar", &tar(&nested)),
        ];
        for archive in archives {
            let name = archive.name.clone();
            let with = |at_most: u64| {
                read_all(&[InputFile {
                    at_most: Some(at_most),
                    ..archive.clone()
                }])
            };
            let error = with(3 << 19).expect_err("too much");
            assert!(is_unpacked_limit(&error), "{name}: {}", chain(&error));
            let error = chain(&error);
            assert!(error.contains("unpacks to more than 1572864 bytes"), "{error}");
            assert_eq!(with(3 << 20).expect("enough"), 2 << 20, "{name}");
        }
        // Two files of one source.
        let both = ["x.gz", "y.gz"].map(|name| InputFile {
            at_most: Some(3 << 19),
            ..place.file(name, &inner)
        });
        assert!(read_all(&both[..1]).is_ok());
        assert!(is_unpacked_limit(&read_all(&both).expect_err("too much")));
    }

    /// Without a statement of the spec, the limit follows from what the files have.
    #[test]
    fn what_unpacks_to_a_hundred_times_its_size_is_refused() {
        assert_eq!(
            limits::Budget::new(None, 1 << 30),
            limits::Budget::new(Some(100 << 30), 0)
        );
        assert_eq!(limits::Budget::new(None, 7), limits::Budget::new(Some(1 << 30), 0));
    }

    #[test]
    fn long_names_between_members_have_a_limit() {
        let place = Place::new();
        let name = "n".repeat(2 << 20);
        let mut header = tar::Header::new_gnu();
        header.set_path("././@LongLink").expect("short");
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(name.len() as u64);
        header.set_cksum();
        for (before, kind) in [(0, b'L'), (1 << 20, b'L'), (1 << 20, b'K'), (0, b'x')] {
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_cksum();
            let mut builder = tar::Builder::new(Vec::new());
            let mut first = tar::Header::new_gnu();
            first.set_size(before);
            builder
                .append_data(&mut first, "first", io::repeat(b'x').take(before))
                .expect("in memory");
            builder.append(&header, name.as_bytes()).expect("in memory");
            let archive = place.file("x.tar", &builder.into_inner().expect("in memory"));
            let error = chain(&read_all(&[archive]).expect_err("a long name"));
            assert!(error.contains("names and attributes"), "{error}");
        }
    }

    #[test]
    fn damaged_debian_packages_are_errors() {
        let place = Place::new();
        let member = |name: &str, size: &str, bytes: &[u8]| {
            let mut all = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 644).into_bytes();
            all.extend_from_slice(bytes);
            all
        };
        let data = tar(&[("a", b"text")]);
        let size = data.len().to_string();
        let good = |name: &str| [&member("debian-binary", "3", b"2.0\n")[..], &member(name, &size, &data)].concat();
        let read = |members: &[u8]| read_all(&[place.file("x.deb", &[AR_MAGIC, members].concat())]);
        for name in ["data.tar", "data.tar/"] {
            assert_eq!(read(&good(name)).expect("read"), 4);
        }
        for members in [
            // A name in a table that is not there, or that is as large as the address space.
            member("/123456789", "0", b""),
            [member("//", "4294967295", b"x/"), member("/9", "0", b"")].concat(),
            member("//", "9999999999", b""),
            member("#1/9999999999", "9999999999", b""),
            member("data.tar", "-1", b""),
            member("data.tar", "", b""),
            good("other"),
            good("data.tar")[..100].to_vec(),
            b"too short".to_vec(),
        ] {
            let error = read(&members).expect_err("damaged");
            assert!(!chain(&error).is_empty());
        }
        assert!(read_all(&[place.file("y.deb", b"!<arch")]).is_err());
    }

    #[test]
    fn one_member_by_its_path() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = Utf8PathBuf::try_from(folder.path().join("x.tar")).expect("UTF-8");
        let mut builder = tar::Builder::new(Vec::new());
        for name in ["a[1].json", "twice", "twice"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(4);
            builder.append_data(&mut header, name, &b"text"[..]).expect("in memory");
        }
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        builder.append_link(&mut link, "link", "a[1].json").expect("in memory");
        std::fs::write(&path, builder.into_inner().expect("in memory")).expect("written");
        let files = [InputFile::from(path.as_path())];
        assert_eq!(read_member(&files, "a[1].json", 4).expect("read"), b"text");
        assert!(matches!(
            read_member(&files, "a[1].json", 3),
            Err(MemberError::Large { .. })
        ));
        assert!(matches!(read_member(&files, "a", 4), Err(MemberError::Missing { .. })));
        assert!(matches!(
            read_member(&files, "link", 4),
            Err(MemberError::Missing { .. })
        ));
        assert!(matches!(
            read_member(&files, "twice", 4),
            Err(MemberError::Twice { .. })
        ));
    }
}
