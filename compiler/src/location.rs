//! Locations of sources on the network: addresses of the web, and objects of a store in a cloud.
//!
//! In: the text in a spec or a lock. Out: its parts, or what is wrong with it and the remedy. A password, a key or a
//! signature in it is an error: specs and locks are shared. Not here: files (`file_source`), packages and the hub (`check`).

/// Parts of the names of parameters that hold a secret, in lower case.
const SECRET: [&str; 9] = [
    "signature",
    "token",
    "secret",
    "password",
    "credential",
    "accesskey",
    "apikey",
    "api_key",
    "api-key",
];

/// Complete names of such parameters.
const SECRET_NAMES: [&str; 3] = ["sig", "key", "auth"];

/// What is wrong with a location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub message: String,
    pub help: &'static str,
    /// It has a password, a key or a signature.
    pub is_secret: bool,
}

impl Wrong {
    fn new(message: impl Into<String>, help: &'static str) -> Self {
        Self {
            message: message.into(),
            help,
            is_secret: false,
        }
    }
}

/// The error in an `https:` or `http:` address of a file, if any.
pub fn web_error(address: &str) -> Option<Wrong> {
    let wrong = |message: &str, help| Some(Wrong::new(message, help));
    const EXAMPLE: &str = "write the address of one file, such as `https://example.org/corpora/de.jsonl.zst`";
    let Some((_, rest)) = address.split_once("://") else {
        return wrong("it does not have the form `https://HOST/PATH`", EXAMPLE);
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    if address.contains('#') || address.contains(char::is_whitespace) {
        return wrong("an address has no `#` and no white space", EXAMPLE);
    }
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    if let Some(found) = credentials(host, query) {
        return Some(found);
    }
    if host.is_empty() || host.starts_with(':') {
        return wrong("it does not name a host", EXAMPLE);
    }
    match web_name(path) {
        Some(_) => None,
        None => wrong("it does not end in the name of a file", EXAMPLE),
    }
}

/// The name of the file at an address: the last part of its path, decoded. `None` if that is not a name.
pub fn web_name(address: &str) -> Option<String> {
    let path = address
        .split_once("://")
        .map_or(address, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let name = percent_decoded(path.rsplit('/').next()?)?;
    let is_name = !matches!(name.as_str(), "" | "." | "..") && !name.contains(['/', '\0']);
    is_name.then_some(name)
}

/// The bucket, and the path or pattern in it, of what follows `s3://`, `gs://` or `az://`.
///
/// # Errors
/// What is wrong, and the remedy.
pub fn object_parts(rest: &str) -> Result<(&str, &str), Wrong> {
    const EXAMPLE: &str = "write the bucket and a path or pattern, such as `s3://corpora/de/*.parquet`";
    let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
    // A `?` in a pattern is a wildcard; a signature has `=`.
    let query = path.split_once('?').map_or("", |(_, query)| query);
    if let Some(found) = credentials(bucket, query) {
        return Err(found);
    }
    let is_plain = |next: char| next.is_ascii_alphanumeric() || matches!(next, '.' | '-' | '_');
    if bucket.is_empty() || !bucket.chars().all(is_plain) || bucket.starts_with('.') {
        return Err(Wrong::new(format!("`{bucket}` is not the name of a bucket"), EXAMPLE));
    }
    match is_safe_path(path) {
        true => Ok((bucket, path)),
        false => Err(Wrong::new("it does not name an object, a prefix or a pattern", EXAMPLE)),
    }
}

/// Whether a path or pattern is relative and stays inside of its folder.
pub fn is_safe_path(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with('/')
        && !path.contains('\0')
        && path.split('/').all(|part| !matches!(part, "." | ".."))
}

/// The error of an address with a user name, a password or a signature.
fn credentials(host: &str, query: &str) -> Option<Wrong> {
    const HELP: &str = "write the address without it; credentials come from the environment, or from the files of the \
                        platform's own tools";
    let secret = |message: String| Wrong {
        message,
        help: HELP,
        is_secret: true,
    };
    if host.contains('@') {
        return Some(secret(
            "the location has a user name or a password: specs and locks are shared".to_owned(),
        ));
    }
    let mut names = query
        .split('&')
        .filter_map(|parameter| Some(parameter.split_once('=')?.0));
    let is_secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        SECRET_NAMES.contains(&name.as_str()) || SECRET.iter().any(|part| name.contains(part))
    };
    let name = names.find(|name| is_secret(name))?;
    Some(secret(format!(
        "the location has a secret in its parameter `{name}`: specs and locks are shared"
    )))
}

/// A text with its `%XX` decoded; `None` if a `%` has no two digits after it, or the bytes are not UTF-8.
pub fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_is_the_last_part_of_its_path() {
        for (address, name) in [
            ("https://example.org/a/de.jsonl.zst", Some("de.jsonl.zst")),
            ("http://example.org:8080/a%20b.txt?download=1", Some("a b.txt")),
            ("https://example.org/a/", None),
            ("https://example.org", None),
            ("https://example.org/a%2Fb", None),
            ("https://example.org/..", None),
            ("https://example.org/%zz", None),
        ] {
            assert_eq!(web_name(address).as_deref(), name, "{address}");
            assert_eq!(web_error(address).is_none(), name.is_some(), "{address}");
        }
    }

    #[test]
    fn an_address_has_no_secret() {
        for address in [
            "https://me:pass@example.org/x",
            "https://token@example.org/x",
            "https://example.org/x?a=1&X-Amz-Signature=abc",
            "https://example.org/x?X-Goog-Credential=abc",
            "https://example.org/x?sv=2024&sig=abc",
            "https://example.org/x?AWSAccessKeyId=abc",
            "https://example.org/x?access_token=abc",
        ] {
            let Wrong { message, is_secret, .. } = web_error(address).expect(address);
            assert!(is_secret);
            assert!(!message.contains("abc") && !message.contains("pass@"), "{message}");
        }
        for rest in ["me@bucket/x", "bucket/x?X-Amz-Signature=abc", "bucket/x?sig=abc"] {
            assert!(object_parts(rest).is_err(), "{rest}");
        }
        assert_eq!(object_parts("bucket/de/?.parquet"), Ok(("bucket", "de/?.parquet")));
    }
}
