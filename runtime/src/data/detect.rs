//! What a file looks like, for messages: a source that yields no document names the format that its file seems to have.
//!
//! In: the first bytes of a file (4 KiB are enough) and its name. Out: words for a message. Nothing is decided by it:
//! which format a file is read in is what the spec states. Not here: reading.

/// Bytes that are looked at.
pub const LOOKED_AT: usize = 4096;

/// Formats that begin with these bytes. Sources: the formats' own specifications, and file(1).
const MAGIC: [(&[u8], &str); 33] = [
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\xff\x06\0\0sNaPpY", "snappy"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "a zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a rar archive"),
    (b"!<arch>\n", "an ar archive"),
    (b"PAR1", "Parquet"),
    (b"PARE", "encrypted Parquet"),
    (b"ARROW1", "Arrow"),
    (b"FEA1", "Feather of version 1"),
    (b"ORC", "ORC"),
    (b"Obj\x01", "Avro"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"\x93NUMPY", "NumPy"),
    (b"GGUF", "GGUF"),
    (b"SQLite format 3\0", "SQLite"),
    (b"%PDF-", "PDF"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document"),
    (b"{\\rtf", "RTF"),
    (b"MMIDIDX\0\0", "a Megatron index"),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x7fELF", "a program"),
    (b"\xde\x12\x04\x95", "a GNU .mo catalogue"),
    (b"\x95\x04\x12\xde", "a GNU .mo catalogue"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
];

/// What a file looks like; `None` if it is like none of the known formats, or like plain text.
pub fn detect(first_bytes: &[u8], name: &str) -> Option<&'static str> {
    let bytes = &first_bytes[..first_bytes.len().min(LOOKED_AT)];
    let magic = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic));
    if let Some((magic, format)) = magic {
        // A text may begin with these letters.
        let is_word = magic.len() <= 4 && magic.iter().all(u8::is_ascii_alphanumeric);
        if !is_word || text(bytes).is_none() {
            return Some(format);
        }
    }
    // A skippable frame of zstd, which parallel tools write first.
    if matches!(bytes, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]) {
        return Some("zstd");
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return Some("a tar archive");
    }
    if is_arrow_stream(bytes) {
        return Some("an Arrow stream");
    }
    if let Some(format) = wide(bytes) {
        return Some(format);
    }
    let text = text(bytes)?;
    of_text(text.strip_prefix('\u{feff}').unwrap_or(text), name)
}

/// A continuation mark, the length of the schema's description, and the offset of its root.
fn is_arrow_stream(bytes: &[u8]) -> bool {
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let (Some(u32::MAX), Some(length), Some(root)) = (word(0), word(4), word(8)) else {
        return false;
    };
    (16..1 << 26).contains(&length) && length.is_multiple_of(8) && root < length && root.is_multiple_of(4)
}

/// Text in UTF-16 or UTF-32, by its mark, or by the zeros that letters of ASCII have in it.
fn wide(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => return Some("UTF-32 text"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Some("UTF-16 text"),
        _ => {}
    }
    let pairs = bytes.chunks_exact(2);
    let (all, mut first, mut second) = (pairs.len(), 0, 0);
    for pair in pairs {
        first += usize::from(pair[0] == 0 && pair[1] != 0);
        second += usize::from(pair[0] != 0 && pair[1] == 0);
    }
    let most = |count: usize| all >= 8 && count * 10 >= all * 9;
    (most(first) || most(second)).then_some("UTF-16 text without a byte-order mark")
}

/// The bytes as text without control characters, up to a character that is cut off.
fn text(bytes: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let is_control = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\x0c' | '\x1b');
    (!text.contains(is_control)).then_some(text)
}

fn of_text(text: &str, name: &str) -> Option<&'static str> {
    let start = text.trim_start();
    let begins = |word: &str| {
        let first = start.as_bytes().get(..word.len());
        first.is_some_and(|first| first.eq_ignore_ascii_case(word.as_bytes()))
    };
    match start.chars().next()? {
        '[' => {
            let inner = start[1..].trim_start();
            // A link of Markdown and a section of a configuration begin with `[`, too.
            let value = inner.starts_with(['{', '"', '[', ']', '-', 't', 'f', 'n']) || starts_with_digit(inner);
            let is_word = inner.starts_with(['t', 'f', 'n']);
            let is_json = value && (!is_word || ["true", "false", "null"].iter().any(|word| inner.starts_with(word)));
            return is_json.then_some("a JSON array");
        }
        '{' => return of_object(start),
        _ => {}
    }
    if begins("<?xml") {
        return Some(if start.contains("<html") { "HTML" } else { "XML" });
    }
    if begins("<!doctype html") || begins("<html") || begins("<head") || begins("<body") {
        return Some("HTML");
    }
    // Prose and source code have commas, too.
    let is_other = [".txt", ".md", ".py", ".c", ".h", ".js", ".rs"]
        .iter()
        .any(|end| name.ends_with(end));
    if is_other { None } else { of_lines(text) }
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// Text that begins with `{`.
fn of_object(text: &str) -> Option<&'static str> {
    let inner = text[1..].trim_start();
    if !inner.starts_with(['"', '}']) {
        return None;
    }
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    if serde_json::from_str::<serde::de::IgnoredAny>(first).is_err() {
        // The first line may be longer than what is looked at.
        return Some(if rest.is_empty() && text.len() > LOOKED_AT / 2 {
            "JSON lines"
        } else {
            "a JSON object"
        });
    }
    Some(if rest.trim().is_empty() {
        "a JSON object"
    } else {
        "JSON lines"
    })
}

/// Rows of the same number of columns, of which there are at least two.
fn of_lines(text: &str) -> Option<&'static str> {
    let is_cut = text.len() + 4 > LOOKED_AT;
    for (delimiter, format) in [
        (b'\t', "CSV with tabs"),
        (b';', "CSV with `;`"),
        (b',', "CSV with `,`"),
        (b'|', "CSV with `|`"),
    ] {
        let mut reader = csv::ReaderBuilder::new();
        let mut reader = reader
            .delimiter(delimiter)
            .flexible(true)
            .has_headers(false)
            .from_reader(text.as_bytes());
        let mut rows: Vec<csv::StringRecord> = reader.records().map_while(Result::ok).collect();
        if is_cut && rows.len() > 2 {
            rows.pop();
        }
        let columns = rows.first().map_or(0, csv::StringRecord::len);
        let same = rows.iter().all(|row| row.len() == columns);
        // Sentences with one comma each are not a table.
        let names = rows.first().is_some_and(|row| {
            row.iter()
                .all(|name| name.len() < 64 && !name.ends_with(['.', '!', '?']))
        });
        let spaced = delimiter == b',' && rows.iter().flatten().skip(1).all(|field| field.starts_with(' '));
        if columns >= 2 && rows.len() >= 2 && same && names && !spaced {
            return Some(format);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files that the usual programs wrote: their first bytes.
    #[test]
    fn formats_are_recognised_by_their_first_bytes() {
        let tar = [&[0; 257][..], b"ustar\0", &[0; 249]].concat();
        let utf16: Vec<u8> = "some text in lines\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let big: Vec<u8> = "some text in lines\n"
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect();
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/columns");
        let file = |name: &str| std::fs::read(folder.join(name)).expect("a file of the tests");
        let long = format!("{{\"text\": \"{}", "x".repeat(5000));
        for (bytes, format) in [
            (&b"\x1f\x8b\x08\0\0\0"[..], "gzip"),
            (b"\x28\xb5\x2f\xfd\x04", "zstd"),
            (b"\x50\x2a\x4d\x18\x04\0\0\0", "zstd"),
            (b"\xfd7zXZ\0\0\x04", "xz"),
            (b"BZh91AY&SY\xff", "bzip2"),
            (b"PK\x03\x04\x14\0", "a zip archive"),
            (&tar, "a tar archive"),
            (&file("plain.parquet"), "Parquet"),
            (&file("lz4.arrow"), "Arrow"),
            (&file("plain.arrows"), "an Arrow stream"),
            (b"SQLite format 3\0\x10", "SQLite"),
            (b"%PDF-1.7\n", "PDF"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:",
                "a Git LFS pointer",
            ),
            (b"\xff\xfea\0", "UTF-16 text"),
            (b"\xfe\xff\0a", "UTF-16 text"),
            (&utf16, "UTF-16 text without a byte-order mark"),
            (&big, "UTF-16 text without a byte-order mark"),
            (b"\xff\xfe\0\0a\0\0\0", "UTF-32 text"),
            (b"[\n  {\"text\": \"a\"},\n", "a JSON array"),
            (b"\xef\xbb\xbf [1, 2]", "a JSON array"),
            (b"[]", "a JSON array"),
            (b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n", "JSON lines"),
            (long.as_bytes(), "JSON lines"),
            (b"{\"text\": \"a\"}", "a JSON object"),
            (b"{\n  \"text\": \"a\"\n}\n", "a JSON object"),
            (b"id,text\n1,\"a, b\"\n2,c\n", "CSV with `,`"),
            (b"id;text\n1;\"a; b\"\n2;c, d\n", "CSV with `;`"),
            (b"id\ttext\n1\ta, b\n2\tc\n", "CSV with tabs"),
            (b"<!DOCTYPE html>\n<html>", "HTML"),
            (b"\n<HTML lang=en>", "HTML"),
            (b"<?xml version=\"1.0\"?>\n<feed/>", "XML"),
            (b"MMIDIDX\0\0\x01\0", "a Megatron index"),
        ] {
            assert_eq!(
                detect(bytes, "x"),
                Some(format),
                "{}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(40)])
            );
        }
    }

    #[test]
    fn plain_text_and_unknown_bytes_are_nothing() {
        for bytes in [
            &b""[..],
            b"A line.\nAnother line.\n",
            b"Well, a sentence with one comma.\nSo, another sentence.\n",
            b"ORC and elves\n",
            b"BZh is not a word\n",
            b"[link](https://example.org)\n",
            b"[section]\nkey = value\n",
            b"{curly} text\n",
            b"\x00\x01\x02\x03\x04\x05\x06\x07",
            b"caf\xe9\n",
        ] {
            assert_eq!(detect(bytes, "x.txt"), None, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn no_bytes_panic() {
        let mut state = 7u64;
        for length in 0..3000 {
            let mut bytes = vec![0; length % 600];
            for byte in &mut bytes {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                *byte = (state >> 56) as u8 & if length % 2 == 0 { 0x7f } else { 0xff };
            }
            for (magic, _) in MAGIC.iter().take(length % 3) {
                bytes.splice(0..0, magic.iter().copied());
            }
            let _ = detect(&bytes, "x");
        }
    }
}
