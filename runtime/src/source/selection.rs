//! Which files below a source's root are meant.
//!
//! In: a pattern, and names relative to the root. Out: whether a file is read, is left out although the pattern matches it,
//! or is not meant. The same for folders of this machine, objects of a store, and repositories. Hidden files and folders are
//! left out unless the pattern names the dot, and temporary files unless the pattern is for them. Not here: finding files.

use globset::{GlobBuilder, GlobMatcher};

use super::FetchError;

/// What a source means below its root.
pub(super) struct Selection {
    /// Everything, if there is none.
    glob: Option<GlobMatcher>,
    /// Hidden folders are searched, because a part of the pattern names the dot.
    hidden_folders: bool,
    hidden_files: bool,
    temporary_files: bool,
}

impl Selection {
    pub fn everything() -> Self {
        Self {
            glob: None,
            hidden_folders: false,
            hidden_files: false,
            temporary_files: false,
        }
    }

    /// # Errors
    /// It is not a pattern.
    pub fn new(pattern: &str) -> Result<Self, FetchError> {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        let glob = glob.map_err(|source| FetchError::Pattern {
            pattern: pattern.to_owned(),
            source,
        })?;
        let (above, last) = pattern.rsplit_once('/').unwrap_or(("", pattern));
        Ok(Self {
            glob: Some(glob.compile_matcher()),
            hidden_folders: above.split('/').any(is_hidden),
            hidden_files: is_hidden(last),
            temporary_files: is_temporary(last),
        })
    }

    /// Whether a file is read; `None` if the pattern does not match it.
    pub fn of(&self, name: &str) -> Option<bool> {
        if self.glob.as_ref().is_some_and(|glob| !glob.is_match(name)) {
            return None;
        }
        let (above, own) = name.rsplit_once('/').unwrap_or(("", name));
        let own = match is_temporary(own) {
            true => self.temporary_files,
            false => self.hidden_files || !is_hidden(own),
        };
        Some(own && (self.hidden_folders || !above.split('/').any(is_hidden)))
    }

    /// Whether a folder of this name is searched.
    pub fn enters(&self, folder: &str) -> bool {
        self.hidden_folders || !is_hidden(folder)
    }

    /// Whether files in folders below the root can match.
    pub fn is_recursive(&self) -> bool {
        self.glob.as_ref().is_none_or(|glob| glob.glob().glob().contains('/'))
    }
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// Whether editors or macOS write files with this name, or a pattern is for such names.
fn is_temporary(name: &str) -> bool {
    name.ends_with('~')
        || name.ends_with(".swp")
        || name.starts_with(".#")
        || name.starts_with("._")
        || (name.len() > 1 && name.starts_with('#') && name.ends_with('#'))
        || matches!(name, ".DS_Store" | "Thumbs.db")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_and_temporary_files_are_read_only_if_the_pattern_names_them() {
        let all = Selection::everything();
        let left_out = [
            ".git/x",
            "a/.b/c",
            ".hidden",
            "a/x~",
            ".#x",
            "#x#",
            "x.swp",
            ".x.swp",
            ".DS_Store",
            "a/._x",
            "Thumbs.db",
        ];
        for name in left_out {
            assert_eq!(all.of(name), Some(false), "{name}");
        }
        for name in ["x", "a/b.c/d", "x#", "#", "swp", "a.DS_Store"] {
            assert_eq!(all.of(name), Some(true), "{name}");
        }
        for (pattern, name, is_read) in [
            ("*.txt", "a.txt", Some(true)),
            ("*.txt", "b/a.txt", None),
            ("*.txt", ".a.txt", Some(false)),
            (".*", ".a.txt", Some(true)),
            (".*", ".DS_Store", Some(false)),
            ("**/.a/*", "x/.a/y", Some(true)),
            ("**/*", "x/.a/y", Some(false)),
            ("*~", "x~", Some(true)),
            ("*.swp", ".x.swp", Some(true)),
        ] {
            let selection = Selection::new(pattern).expect("a pattern");
            assert_eq!(selection.of(name), is_read, "{pattern} {name}");
        }
    }
}
