//! Compression: which one a name states, and the bytes that a compressed stream unpacks to.
//!
//! In: the name of a file or member, and its bytes. Out: its name without the extension of the compression, and a
//! reader of the unpacked bytes. A stream may consist of several parts, one after the other, as the usual tools write
//! and read them: members of gzip, frames of zstd, streams of xz and bzip2. A stream that is cut off, damaged, or
//! followed by other bytes is an error. Not here: archives (`archive`), how much may be unpacked (`limits`).

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// Memory that an xz stream may use; the largest preset needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

/// Each extension of a compressed file, with its compression.
const EXTENSIONS: [(&str, Compression); 5] = [
    (".gz", Compression::Gzip),
    (".zst", Compression::Zstd),
    (".zstd", Compression::Zstd),
    (".xz", Compression::Xz),
    (".bz2", Compression::Bzip2),
];

impl Compression {
    /// The compression that the last extension of a path states, and the path without this extension.
    pub fn of(path: &str) -> (Self, &str) {
        EXTENSIONS
            .iter()
            .find_map(|(extension, compression)| {
                let stem = path.strip_suffix(extension)?;
                // A hidden file `.gz` has a name and no extension.
                (!stem.is_empty() && !stem.ends_with('/')).then_some((*compression, stem))
            })
            .unwrap_or((Self::None, path))
    }

    /// The compression of a tar archive with this name; `None` if it is not a tar archive.
    pub fn of_tar(name: &str) -> Option<Self> {
        let short = [
            (".tgz", Self::Gzip),
            (".crate", Self::Gzip),
            (".tzst", Self::Zstd),
            (".txz", Self::Xz),
            (".tbz2", Self::Bzip2),
        ];
        let found = short.iter().find(|(ending, _)| name.ends_with(ending));
        found.map(|(_, compression)| *compression).or_else(|| {
            let (compression, stem) = Self::of(name);
            stem.ends_with(".tar").then_some(compression)
        })
    }

    /// The bytes that a stream unpacks to.
    ///
    /// # Errors
    /// If the decoder cannot be set up; the reader's errors say what is wrong with the stream.
    pub fn unpack<'a>(self, mut reader: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        let name = match self {
            Self::None => return Ok(Box::new(reader)),
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        };
        // No tool writes such a file. An error here comes again when it is read.
        let is_empty = reader.fill_buf().is_ok_and(<[u8]>::is_empty);
        let reader: Box<dyn Read + 'a> = match self {
            _ if is_empty => Box::new(Nothing),
            Self::None | Self::Gzip => Box::new(Gzip {
                member: Some(GzDecoder::new(reader)),
            }),
            // The library itself refuses windows above 128 MiB.
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(reader)?),
            Self::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(reader, stream))
            }
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
        };
        Ok(Box::new(Explained { name, reader }))
    }
}

/// Whether the bytes of a file or member with this name are unpacked before they are read.
pub fn is_compressed(name: &str) -> bool {
    Compression::of(name).0 != Compression::None
}

/// The members of a gzip stream. Zeros after a member are padding, as gzip(1) and Python's gzip take them; a member
/// after the padding is read, as Python does. gzip(1) ignores any other bytes with a warning; here they are an error,
/// because they may be a member that was damaged.
struct Gzip<R> {
    /// `None` after the end.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(member) = &mut self.member else { return Ok(0) };
            let count = member.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            let Some(mut reader) = self.member.take().map(GzDecoder::into_inner) else {
                return Ok(0);
            };
            let next = loop {
                let bytes = reader.fill_buf()?;
                let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
                let next = bytes.get(zeros).copied();
                let at_end = bytes.is_empty();
                reader.consume(zeros);
                if next.is_some() || at_end {
                    break next;
                }
            };
            match next {
                None => return Ok(0),
                Some(0x1f) => self.member = Some(GzDecoder::new(reader)),
                Some(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, Trailing)),
            }
        }
    }
}

/// A stream of 0 bytes.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has 0 bytes"))
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "after its last member come bytes that are neither padding nor another member: the file is damaged, or something was \
     appended to it; `gzip -dc` prints what is before them"
)]
struct Trailing;

/// Adds to the errors of a decoder what was read, and whether it is cut off.
struct Explained<'a> {
    name: &'static str,
    reader: Box<dyn Read + 'a>,
}

impl Read for Explained<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            let kind = error.kind();
            // The caller repeats an interrupted read.
            if kind == io::ErrorKind::Interrupted {
                return error;
            }
            let name = self.name;
            let found = match kind {
                io::ErrorKind::UnexpectedEof => "ends before it is complete: the file was cut off",
                _ => "cannot be unpacked",
            };
            io::Error::new(kind, Unpacking { name, found, error })
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the {name} stream {found}")]
struct Unpacking {
    name: &'static str,
    found: &'static str,
    #[source]
    error: io::Error,
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};

    use super::*;
    use crate::errors::chain;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("in memory");
        encoder.finish().expect("in memory")
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).expect("in memory")
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        let mut encoder = liblzma::read::XzEncoder::new(bytes, 1);
        encoder.read_to_end(&mut packed).expect("in memory");
        packed
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        let mut encoder = bzip2::read::BzEncoder::new(bytes, bzip2::Compression::fast());
        encoder.read_to_end(&mut packed).expect("in memory");
        packed
    }

    type Pack = fn(&[u8]) -> Vec<u8>;

    const ALL: [(Compression, Pack); 4] = [
        (Compression::Gzip, gzip),
        (Compression::Zstd, zstd),
        (Compression::Xz, xz),
        (Compression::Bzip2, bzip2),
    ];

    /// With buffers of one byte and of many: what follows a part may be in the same buffer or in the next one.
    fn read(compression: Compression, packed: &[u8]) -> io::Result<Vec<u8>> {
        let read = |capacity| {
            let mut bytes = Vec::new();
            let mut reader = compression.unpack(BufReader::with_capacity(capacity, packed))?;
            reader.read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        let (one, many) = (read(1), read(1 << 16));
        assert_eq!(one.is_ok(), many.is_ok());
        let (one, many) = (one?, many?);
        assert_eq!(one, many);
        Ok(many)
    }

    #[test]
    fn the_last_extension_states_the_compression() {
        for (path, compression, stem) in [
            ("a/b.jsonl.gz", Compression::Gzip, "a/b.jsonl"),
            ("b.zst", Compression::Zstd, "b"),
            ("b.txt.zstd", Compression::Zstd, "b.txt"),
            ("b.gz.xz", Compression::Xz, "b.gz"),
            ("b.bz2", Compression::Bzip2, "b"),
            ("b.bz2.txt", Compression::None, "b.bz2.txt"),
            ("a/.gz", Compression::None, "a/.gz"),
            (".xz", Compression::None, ".xz"),
        ] {
            assert_eq!(Compression::of(path), (compression, stem));
        }
        for (name, compression) in [
            ("x.tar", Some(Compression::None)),
            ("x.tgz", Some(Compression::Gzip)),
            ("x.tar.bz2", Some(Compression::Bzip2)),
            ("x.tbz2", Some(Compression::Bzip2)),
            ("x.txz", Some(Compression::Xz)),
            ("x.tar.zstd", Some(Compression::Zstd)),
            ("x.tzst", Some(Compression::Zstd)),
            ("tar.gz", None),
            ("x.jsonl.gz", None),
        ] {
            assert_eq!(Compression::of_tar(name), compression, "{name}");
            let archive = aurora_compiler::graph::is_archive(name);
            assert_eq!(archive, compression.is_some(), "{name}");
        }
    }

    #[test]
    fn parts_one_after_the_other_are_one_stream() {
        for (compression, pack) in ALL {
            let packed = [pack(b"one\n"), pack(b""), pack(b"two\n")].concat();
            assert_eq!(
                read(compression, &packed).expect("read"),
                b"one\ntwo\n",
                "{compression:?}"
            );
        }
        // A skippable frame of zstd (RFC 8878, 3.1.2), and the padding of xz: a multiple of four zeros.
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"any"].concat();
        let packed = [&skipped[..], &zstd(b"one"), &skipped, &zstd(b"two"), &skipped].concat();
        assert_eq!(read(Compression::Zstd, &packed).expect("read"), b"onetwo");
        let packed = [&xz(b"one")[..], &[0; 8], &xz(b"two"), &[0; 4]].concat();
        assert_eq!(read(Compression::Xz, &packed).expect("read"), b"onetwo");
        let packed = [&xz(b"one")[..], &[0; 3]].concat();
        assert!(read(Compression::Xz, &packed).is_err());
    }

    /// gzip(1) 1.12 and Python 3.11 read these; on the last one gzip(1) prints the first member only.
    #[test]
    fn zeros_after_gzip_members_are_padding() {
        for zeros in [1, 512, 100_000] {
            let padding = vec![0; zeros];
            let packed = [&gzip(b"one")[..], &gzip(b"two"), &padding].concat();
            assert_eq!(read(Compression::Gzip, &packed).expect("read"), b"onetwo", "{zeros}");
            let packed = [&gzip(b"one")[..], &padding, &gzip(b"two"), &padding].concat();
            assert_eq!(read(Compression::Gzip, &packed).expect("read"), b"onetwo", "{zeros}");
        }
    }

    #[test]
    fn other_bytes_after_a_stream_are_an_error() {
        for (compression, pack) in ALL {
            for trailing in [&b"garbage"[..], b"\0\0\0\0garbage", b"\x1f"] {
                let packed = [&pack(b"text"), trailing].concat();
                assert!(read(compression, &packed).is_err(), "{compression:?}");
            }
        }
        let error = read(Compression::Gzip, &[&gzip(b"text"), &b"x"[..]].concat()).expect_err("trailing");
        assert!(chain(&error).contains("neither padding nor another member"), "{error}");
    }

    /// At every byte.
    #[test]
    fn a_stream_that_is_cut_off_is_an_error() {
        let text: Vec<u8> = (0..2000u32)
            .flat_map(|number| (number * number).to_le_bytes())
            .collect();
        for (compression, pack) in ALL {
            let packed = pack(&text);
            assert_eq!(read(compression, &packed).expect("complete"), text);
            for end in 0..packed.len() {
                let mut bytes = Vec::new();
                let unpacked = compression.unpack(&packed[..end]);
                let error = unpacked.and_then(|mut reader| reader.read_to_end(&mut bytes));
                let error = error.expect_err("cut off");
                let (found, name) = (chain(&error), format!("{compression:?}").to_lowercase());
                assert!(found.contains(&name), "{end} of {name}: {found}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_changes_nothing() {
        let text = b"the same text, the same text, the same text".repeat(20);
        for (compression, pack) in ALL {
            let packed = pack(&text);
            for bit in 0..packed.len() * 8 {
                let mut packed = packed.clone();
                packed[bit / 8] ^= 1 << (bit % 8);
                if let Ok(read) = read(compression, &packed) {
                    // The default of the zstd library has no checksum; the others have one.
                    assert!(
                        read == text || compression == Compression::Zstd,
                        "{compression:?} {bit}"
                    );
                }
            }
        }
    }
}
