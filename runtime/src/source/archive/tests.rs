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

fn read_named(file: InputFile) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
    let selection = MemberSelection::new(&[], &[]).expect("no pattern");
    let mut members = Vec::new();
    walk::<ArchiveError>(&[file], &selection, ProgressReporter::none(), &mut |_, path, reader| {
        let mut bytes = Vec::new();
        let reading = |source| ArchiveError::Read {
            name: path.to_owned(),
            source,
        };
        reader.read_to_end(&mut bytes).map_err(reading)?;
        members.push((path.to_owned(), bytes));
        Ok(())
    })?;
    Ok(members)
}

fn packed(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut bzip2 = bzip2::read::BzEncoder::new(bytes, bzip2::Compression::fast());
    let mut xz = liblzma::read::XzEncoder::new(bytes, 1);
    match compression {
        Compression::None => return bytes.to_vec(),
        Compression::Gzip => return gzip(bytes),
        Compression::Zstd => return zstd::encode_all(bytes, 1).expect("in memory"),
        Compression::Xz => xz.read_to_end(&mut packed),
        Compression::Bzip2 => bzip2.read_to_end(&mut packed),
    }
    .expect("in memory");
    packed
}

#[test]
fn tar_archives_and_members_may_have_each_compression() {
    let place = Place::new();
    for (name, compression) in [
        ("x.tar", Compression::None),
        ("x.tar.gz", Compression::Gzip),
        ("x.tgz", Compression::Gzip),
        ("x.crate", Compression::Gzip),
        ("x.tar.zst", Compression::Zstd),
        ("x.tar.zstd", Compression::Zstd),
        ("x.tzst", Compression::Zstd),
        ("x.tar.xz", Compression::Xz),
        ("x.txz", Compression::Xz),
        ("x.tar.bz2", Compression::Bzip2),
        ("x.tbz2", Compression::Bzip2),
    ] {
        let mut members = vec![("a.txt".to_owned(), b"plain".to_vec())];
        for (extension, compression) in [
            ("gz", Compression::Gzip),
            ("zst", Compression::Zstd),
            ("zstd", Compression::Zstd),
            ("xz", Compression::Xz),
            ("bz2", Compression::Bzip2),
        ] {
            members.push((format!("a.jsonl.{extension}"), packed(compression, b"line")));
        }
        let all: Vec<(&str, &[u8])> = members.iter().map(|(name, bytes)| (&name[..], &bytes[..])).collect();
        let bytes = packed(compression, &tar(&all));
        let read = read_named(place.file(name, &bytes)).expect("read");
        let line = ("a.jsonl".to_owned(), b"line".to_vec());
        let expected = [vec![("a.txt".to_owned(), b"plain".to_vec())], vec![line; 5]].concat();
        assert_eq!(read, expected, "{name}");
        if compression != Compression::None {
            // Also when only the checksum at the end is missing, after the last member.
            for end in [bytes.len() - 1, bytes.len() / 2, 0] {
                let error = chain(&read_named(place.file(name, &bytes[..end])).expect_err("cut off"));
                assert!(error.contains(&format!("`{name}`")), "{error}");
            }
        }
    }
}

#[test]
fn a_member_that_is_cut_off_is_named() {
    let place = Place::new();
    for extension in ["gz", "zst", "xz", "bz2"] {
        let compression = Compression::of(&format!("x.{extension}")).0;
        let mut inner = packed(compression, &b"text".repeat(100));
        inner.truncate(inner.len() - 5);
        let name = format!("in/a.jsonl.{extension}");
        let error = chain(&read_named(place.file("x.zip", &zip(&[(&name, &inner)]))).expect_err("cut off"));
        assert!(error.contains(&format!("`{name}` of `x.zip`")), "{error}");
        let error = chain(&read_named(place.file(&format!("b.{extension}"), &inner)).expect_err("cut off"));
        assert!(error.contains(&format!("`b.{extension}`")), "{error}");
        assert!(
            error.contains("cut off") || error.contains("cannot be unpacked"),
            "{error}"
        );
    }
}

/// `cat a.tar b.tar`, and the zeros that tar fills its last record with.
#[test]
fn concatenated_tar_archives_are_read_to_the_end() {
    let place = Place::new();
    let both = [
        tar(&[("a", b"one")]),
        vec![0; 9 * 1024],
        tar(&[("b", b"two")]),
        vec![0; 512],
    ]
    .concat();
    let expected = [("a", "one"), ("b", "two")].map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
    assert_eq!(read_named(place.file("x.tar", &both)).expect("read"), expected);
    let damaged = [&both[..], &[b'x'; 512]].concat();
    assert!(read_named(place.file("y.tar", &damaged)).is_err());
}

#[test]
fn zip_members_may_have_each_method() {
    use zip::CompressionMethod as Method;
    let place = Place::new();
    for method in [Method::Stored, Method::Deflated, Method::Bzip2, Method::Zstd] {
        let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        writer.start_file("a.txt", options).expect("in memory");
        writer.write_all(&b"text".repeat(100)).expect("in memory");
        let bytes = writer.finish().expect("in memory").into_inner();
        let read = read_named(place.file("x.zip", &bytes)).expect("read");
        assert_eq!(read, [("a.txt".to_owned(), b"text".repeat(100))], "{method:?}");
    }
}
