//! Paths of `file:` sources: their root, and the names that their files have.
//!
//! In: what follows `file:`. Out: its parts. The names of a source's files are relative to its root, the folder before the
//! first part with a wildcard or, for one file, the file's folder: where the files are is not part of their identity.
//! Not here: which files there are (this crate reads none), the checks of a reference (`check`).

use globset::GlobBuilder;

/// The characters that make a path a pattern.
const WILDCARDS: [char; 4] = ['*', '?', '[', '{'];

pub fn is_pattern(path: &str) -> bool {
    path.contains(WILDCARDS)
}

/// The name of a root and the path below it, of `NAME:PATH`. A name has two characters at least: one would be a drive.
pub fn named_root(path: &str) -> Option<(&str, &str)> {
    let (name, path) = path.split_once(':')?;
    let is_plain = |next: char| next.is_ascii_alphanumeric() || matches!(next, '_' | '-');
    let is_name = name.len() > 1 && name.starts_with(|first: char| first.is_ascii_alphabetic());
    (is_name && name.chars().all(is_plain)).then(|| (name, path.trim_start_matches('/')))
}

/// One spelling of a path: without empty parts and `.`.
pub fn plain(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    parts.join("/")
}

/// The beginning of a pattern that is not a wildcard.
pub fn before_wildcard(pattern: &str) -> &str {
    pattern.find(WILDCARDS).map_or(pattern, |at| &pattern[..at])
}

/// Whether a name stays inside of the folder that a file of this name is written to.
pub fn is_safe(name: &str) -> bool {
    !name.contains('\0') && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The root of a path or pattern, and the rest of it.
pub fn split(pattern: &str) -> (&str, &str) {
    match before_wildcard(pattern).rfind('/') {
        Some(at) => (&pattern[..at], &pattern[at + 1..]),
        None => ("", pattern),
    }
}

/// The name that a source's own file has, if `text` is its complete path, as the source's reference has it:
/// `data/hf/config.json` is `config.json` of `file:data/hf/*`. Any other text is left as it is.
pub fn own_name(from: &str, text: &str) -> Option<String> {
    let pattern = from.strip_prefix("file:")?;
    let pattern = plain(pattern.strip_prefix("//").unwrap_or(pattern));
    let (folder, rest) = split(&pattern);
    let name = text.strip_prefix("./").unwrap_or(text);
    let name = name.strip_prefix(folder)?.strip_prefix('/')?;
    let is_own = match is_pattern(rest) {
        true => {
            let glob = GlobBuilder::new(rest).literal_separator(true).build().ok()?;
            glob.compile_matcher().is_match(name)
        }
        false => rest == name,
    };
    is_own.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_ends_before_the_first_part_with_a_wildcard() {
        for (pattern, parts) in [
            ("data/x.jsonl", ("data", "x.jsonl")),
            ("corpora/de/*.jsonl", ("corpora/de", "*.jsonl")),
            ("corpora/d?/a.jsonl", ("corpora", "d?/a.jsonl")),
            ("a/b{c,d/e}/f", ("a", "b{c,d/e}/f")),
            ("**/*.txt", ("", "**/*.txt")),
            ("x.txt", ("", "x.txt")),
        ] {
            assert_eq!(split(pattern), parts, "{pattern}");
        }
        assert_eq!(named_root("scratch:/corpora/*.gz"), Some(("scratch", "corpora/*.gz")));
        assert_eq!(named_root("big-disk:x"), Some(("big-disk", "x")));
        for path in ["c:/x", "data/a:b.txt", "1a:x", ":x", "data/x"] {
            assert_eq!(named_root(path), None, "{path}");
        }
    }

    #[test]
    fn a_complete_path_is_the_name_of_that_file() {
        for (from, text, name) in [
            ("file:data/tok.json", "data/tok.json", Some("tok.json")),
            ("file:./data/tok.json", "./data/tok.json", Some("tok.json")),
            ("file:data/hf/*", "data/hf/config.json", Some("config.json")),
            ("file:data/**", "data/a/b.txt", Some("a/b.txt")),
            ("file:data/*.jsonl", "data/*.jsonl", Some("*.jsonl")),
            // A member of an archive, not a file of the project.
            ("file:data/x.zip", "data/tok.json", None),
            ("file:data/*.zip", "data/tok.json", None),
            ("file:data/hf/*", "config.json", None),
            ("file:tok.json", "tok.json", None),
            ("pkg:pypi/x@1", "data/tok.json", None),
        ] {
            assert_eq!(own_name(from, text).as_deref(), name, "{from} {text}");
        }
    }
}
