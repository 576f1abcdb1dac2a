//! The encoding of a page of HTML.
//!
//! In: a complete page. Out: its encoding. The first that is found counts: the byte-order mark, the declaration of the
//! spec, `<meta charset>` or `<meta http-equiv="Content-Type" content="…; charset=…">` that begins in the first 1024
//! bytes, the XML declaration. Source: HTML Standard, 13.2.3.2, "prescan a byte stream to determine its encoding".
//! Without any of these, a page that is valid UTF-8 is read as this, and any other as windows-1252, where the standard
//! asks the user's locale.

use super::{Encoding, EncodingError, of_label, sniff};

/// Bytes that are searched for a declaration.
const SEARCHED: usize = 1024;

/// The encoding of a page, and the length of its byte-order mark.
///
/// # Errors
/// If the mark contradicts the declared encoding.
pub fn of_html(bytes: &[u8], declared: Option<Encoding>) -> Result<(Encoding, usize), EncodingError> {
    let (encoding, mark) = sniff(bytes, declared)?;
    if mark > 0 || declared.is_some() {
        return Ok((encoding, mark));
    }
    let first = &bytes[..bytes.len().min(SEARCHED)];
    let stated = prescan(first).or_else(|| xml_declaration(first));
    let windows = || of_label("windows-1252").unwrap_or(Encoding::Utf8);
    let found = match stated {
        // Bytes in which ASCII letters could be read are not UTF-16.
        Some(Encoding::Utf16 | Encoding::Utf16Le | Encoding::Utf16Be) => Encoding::Utf8,
        Some(Encoding::Utf32 | Encoding::Utf32Le | Encoding::Utf32Be) => Encoding::Utf8,
        Some(other) if other.name() == "x-user-defined" => windows(),
        Some(other) => other,
        None if std::str::from_utf8(bytes).is_ok() => Encoding::Utf8,
        None => windows(),
    };
    Ok((found, 0))
}

/// The encoding that a `<meta>` states.
fn prescan(bytes: &[u8]) -> Option<Encoding> {
    let mut rest = bytes;
    while let Some(start) = rest.iter().position(|&byte| byte == b'<') {
        rest = &rest[start..];
        if rest.starts_with(b"<!--") {
            // `<!-->` is a complete comment.
            let end = find(&rest[2..], b"-->")?;
            rest = &rest[2 + end + 3..];
        } else if let Some(attributes) = tag(rest, b"meta") {
            let (encoding, after) = meta(attributes);
            if encoding.is_some() {
                return encoding;
            }
            rest = after;
        } else if rest.get(1).is_some_and(u8::is_ascii_alphabetic)
            || (rest.starts_with(b"</") && rest.get(2).is_some_and(u8::is_ascii_alphabetic))
        {
            // A `<meta` inside of an attribute is not one.
            let end = rest
                .iter()
                .position(|byte| byte.is_ascii_whitespace() || *byte == b'>')?;
            rest = &rest[end..];
            while let (Some(_), after) = attribute(rest) {
                rest = after;
            }
        } else if rest.len() > 1 && matches!(rest[1], b'!' | b'/' | b'?') {
            let end = rest.iter().position(|&byte| byte == b'>')?;
            rest = &rest[end..];
        } else {
            rest = &rest[1..];
        }
    }
    None
}

/// What follows the name of a tag, if it has this one.
fn tag<'a>(bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let found = bytes.get(1..=name.len())?.eq_ignore_ascii_case(name);
    let after = bytes.get(1 + name.len()..)?;
    (found
        && after
            .first()
            .is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b'/'))
    .then_some(after)
}

/// The encoding that the attributes of a `<meta>` state, and what follows them.
fn meta(mut rest: &[u8]) -> (Option<Encoding>, &[u8]) {
    let (mut names, mut is_content_type, mut charset, mut content) = (Vec::new(), false, None, None);
    while let (Some((name, value)), after) = attribute(rest) {
        rest = after;
        // The first of several attributes with one name counts.
        if names.contains(&name) {
            continue;
        }
        match name.as_str() {
            "http-equiv" => is_content_type = value.eq_ignore_ascii_case("content-type"),
            "content" => content = in_content(&value).and_then(of_label),
            "charset" => charset = of_label(&value),
            _ => {}
        }
        names.push(name);
    }
    (charset.or(content.filter(|_| is_content_type)), rest)
}

/// The next attribute of a tag, its name in small letters, and what follows it; `None` at the end of the tag.
fn attribute(bytes: &[u8]) -> (Option<(String, String)>, &[u8]) {
    let skip = |bytes: &[u8], also: u8| {
        let skipped = |byte: &u8| byte.is_ascii_whitespace() || *byte == also;
        bytes.iter().take_while(|byte| skipped(byte)).count()
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let bytes = &bytes[skip(bytes, b'/')..];
    if bytes.first().is_none_or(|&byte| byte == b'>') {
        return (None, bytes);
    }
    let ends_name = |byte: &u8| matches!(byte, b'=' | b'>' | b'/') || byte.is_ascii_whitespace();
    // A name may begin with `=`.
    let length = 1 + bytes[1..].iter().take_while(|byte| !ends_name(byte)).count();
    let (name, rest) = bytes.split_at(length);
    let name = text(name).to_ascii_lowercase();
    let after = &rest[skip(rest, b' ')..];
    let Some(after) = after.strip_prefix(b"=") else {
        return (Some((name, String::new())), after);
    };
    let after = &after[skip(after, b' ')..];
    let (value, rest) = match after.first() {
        Some(quote @ (b'"' | b'\'')) => {
            let inner = &after[1..];
            let length = inner.iter().take_while(|byte| *byte != quote).count();
            (&inner[..length], inner.get(length + 1..).unwrap_or_default())
        }
        _ => {
            let ends = |byte: &u8| *byte == b'>' || byte.is_ascii_whitespace();
            after.split_at(after.iter().take_while(|byte| !ends(byte)).count())
        }
    };
    (Some((name, text(value))), rest)
}

/// The label after `charset=` in the `content` of a `<meta>`.
fn in_content(content: &str) -> Option<&str> {
    let mut rest = content;
    loop {
        let start = find_ignoring_case(rest.as_bytes(), b"charset")?;
        rest = &rest[start + "charset".len()..];
        let after = rest.trim_start();
        let Some(value) = after.strip_prefix('=') else { continue };
        let value = value.trim_start();
        return match value.chars().next()? {
            quote @ ('"' | '\'') => value[1..].split_once(quote).map(|(label, _)| label),
            _ => value.split(|c: char| c == ';' || c.is_ascii_whitespace()).next(),
        };
    }
}

/// The encoding that an XML declaration at the start states.
fn xml_declaration(bytes: &[u8]) -> Option<Encoding> {
    let declaration = bytes.strip_prefix(b"<?xml")?;
    let declaration = &declaration[..declaration.iter().position(|&byte| byte == b'>')?];
    let after = &declaration[find(declaration, b"encoding")? + "encoding".len()..];
    let value = after.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let quote = value.first().filter(|byte| matches!(byte, b'"' | b'\''))?;
    let label = value[1..].split(|byte| byte == quote).next()?;
    of_label(std::str::from_utf8(label).ok()?)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn find_ignoring_case(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window.eq_ignore_ascii_case(wanted))
}
