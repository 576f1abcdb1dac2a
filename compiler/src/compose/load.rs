//! Reads the files of a spec, each once, and reports import cycles.

use std::collections::BTreeMap;

use aurora_lang::ast::{Quoted, Span, StatementKind};
use aurora_lang::diagnostics::{Code, Diagnostic, Sources};
use aurora_lang::parse::{Previous, parse};

use super::remote;
use super::{Bundle, Loaded, MOST_FILES};

pub(super) fn load(
    name: &str,
    text: &str,
    read: &mut dyn FnMut(&str) -> Result<String, String>,
    previous: Option<&Bundle>,
) -> Bundle {
    let mut loading = Loading {
        read,
        previous,
        bundle: Bundle {
            sources: Sources::default(),
            files: Vec::new(),
            errors: Vec::new(),
            settings: Vec::new(),
        },
        known: BTreeMap::new(),
        open: Vec::new(),
    };
    loading.file(name, text);
    loading.bundle
}

struct Loading<'r> {
    read: &'r mut dyn FnMut(&str) -> Result<String, String>,
    previous: Option<&'r Bundle>,
    bundle: Bundle,
    /// Files by name. `None` for a file that could not be read.
    known: BTreeMap<String, Option<usize>>,
    /// The chain of imports from the spec to the current file.
    open: Vec<String>,
}

impl<'r> Loading<'r> {
    fn file(&mut self, name: &str, text: &str) -> usize {
        let start = self.bundle.sources.add(name, text);
        let parsed = parse(text, self.previous(name)).moved(start);
        let index = self.bundle.files.len();
        self.known.insert(name.to_owned(), Some(index));
        let paths: Vec<Option<Quoted>> = parsed
            .file
            .statements
            .iter()
            .map(|statement| match &statement.kind {
                StatementKind::Import { path, .. } | StatementKind::Extends { path, .. } => Some(path.clone()),
                StatementKind::Let { .. } | StatementKind::Param { .. } => None,
            })
            .collect();
        self.bundle.files.push(Loaded {
            parsed,
            span: Span::new(start, start + text.len()),
            targets: Vec::new(),
        });
        self.open.push(name.to_owned());
        let targets = paths
            .into_iter()
            .map(|path| path.and_then(|path| self.import(name, &path)))
            .collect();
        self.open.pop();
        self.bundle.files[index].targets = targets;
        index
    }

    /// The same file in the earlier version of the bundle.
    fn previous(&self, name: &str) -> Option<Previous<'r>> {
        let bundle = self.previous?;
        let index = bundle.file_names().position(|known| known == name)?;
        Some(Previous {
            text: bundle.sources.text(),
            parsed: &bundle.files[index].parsed,
        })
    }

    fn import(&mut self, from: &str, path: &Quoted) -> Option<usize> {
        let name = match resolve(from, &path.text) {
            Ok(name) => name,
            Err(error) => {
                self.bundle.errors.push(error(path.span));
                return None;
            }
        };
        if let Some(at) = self.open.iter().position(|open| *open == name) {
            let mut chain: Vec<&str> = self.open[at..].iter().map(String::as_str).collect();
            chain.push(&name);
            let message = if chain.len() == 2 {
                format!("`{name}` imports itself")
            } else {
                "these files import each other in a cycle".to_owned()
            };
            self.bundle.errors.push(
                Diagnostic::new(Code::IMPORT_CYCLE, message)
                    .label(path.span, "closes the cycle")
                    .note(chain.join(" → "))
                    .help("move what both need to another file"),
            );
            return None;
        }
        if let Some(known) = self.known.get(&name) {
            return *known;
        }
        let text = if self.bundle.files.len() < MOST_FILES {
            (self.read)(&name)
        } else {
            Err(format!("a spec can read at most {MOST_FILES} files"))
        };
        match text {
            Ok(text) => Some(self.file(&name, &text)),
            Err(why) => {
                self.bundle.errors.push(
                    Diagnostic::new(Code::IMPORT_NOT_READ, format!("cannot import `{}`: {why}", path.text))
                        .label(path.span, format!("this is `{name}`"))
                        .help(match remote::is_remote(&name) {
                            true => "the lock pins the content of an address",
                            false => "a path is relative to the importing file",
                        }),
                );
                self.known.insert(name, None);
                None
            }
        }
    }
}

/// The path of an imported file, relative to where the path of the importing one starts.
fn resolve(from: &str, path: &str) -> Result<String, Box<dyn FnOnce(Span) -> Diagnostic>> {
    if remote::is_remote(path) {
        let (message, help) = match remote::normal(path) {
            Ok(name) => return Ok(name),
            Err(error) => error,
        };
        return Err(Box::new(move |span| {
            Diagnostic::new(Code::IMPORT_NOT_READ, message)
                .label(span, "not a valid address")
                .help(help)
        }));
    }
    if path.contains("://") {
        let message =
            format!("`{path}` is not supported yet: import from the project, from `https://` or from a package");
        return Err(Box::new(move |span| {
            Diagnostic::new(Code::NOT_SUPPORTED, message)
                .label(span, "unsupported scheme")
                .help("copy the file to the project and import it by its path")
        }));
    }
    if path.starts_with('/') || path.contains('\\') || !path.ends_with(".aur") {
        let message = format!("`{path}` is not the relative path of an .aur file");
        return Err(Box::new(move |span| {
            Diagnostic::new(Code::IMPORT_NOT_READ, message)
                .label(span, "not a valid path")
                .help("write a path such as `\"lib/corpora.aur\"`, relative to this file, with `/`")
        }));
    }
    if let Some((root, inside)) = remote::split(from) {
        let joined = resolve(inside, path)?;
        if joined.starts_with("..") {
            let message = format!("`{path}` is outside `{root}`");
            return Err(Box::new(move |span| {
                Diagnostic::new(Code::IMPORT_NOT_READ, message)
                    .label(span, "outside")
                    .help("a path is relative to the importing file")
            }));
        }
        return Ok(format!("{root}/{joined}"));
    }
    let folder = from.rsplit_once('/').map(|(folder, _)| folder);
    let is_absolute = from.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in folder
        .into_iter()
        .flat_map(|folder| folder.split('/'))
        .chain(path.split('/'))
    {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let root = if is_absolute { "/" } else { "" };
    Ok(format!("{root}{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::resolve;

    #[test]
    fn paths_are_relative_to_the_importing_file() {
        let path = |from: &str, path: &str| resolve(from, path).ok();
        assert_eq!(path("specs/a.aur", "lib/b.aur").as_deref(), Some("specs/lib/b.aur"));
        assert_eq!(path("specs/lib/b.aur", "../c.aur").as_deref(), Some("specs/c.aur"));
        assert_eq!(path("a.aur", "../c.aur").as_deref(), Some("../c.aur"));
        assert_eq!(path("../x/a.aur", "../../c.aur").as_deref(), Some("../../c.aur"));
        assert_eq!(path("/x/a.aur", "./b.aur").as_deref(), Some("/x/b.aur"));
        let remote = "https://example.org/specs/lib/b.aur";
        assert_eq!(path("a.aur", remote).as_deref(), Some(remote));
        assert_eq!(
            path(remote, "../c.aur").as_deref(),
            Some("https://example.org/specs/c.aur")
        );
        assert_eq!(
            path("pkg:npm/@me/specs@1.0/lib/b.aur", "c.aur").as_deref(),
            Some("pkg:npm/@me/specs@1.0/lib/c.aur")
        );
        assert_eq!(path(remote, "../../../c.aur"), None);
        for refused in [
            "/b.aur",
            "b.txt",
            "https://example.org/b.txt",
            "https://me@example.org/b.aur",
            "https://example.org/b.aur?token=1",
            "https://example.org/../b.aur",
            "http://example.org/b.aur",
            "ftp://example.org/b.aur",
            "pkg:pypi/b",
            "pkg:pypi/b/c.aur",
            "pkg:pypi/b@1.0",
            "a\\b.aur",
            "",
        ] {
            assert_eq!(path("a.aur", refused), None, "{refused}");
        }
    }
}
