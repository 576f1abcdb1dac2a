//! Records which objects were found undamaged, with the status of their files at that time.
//!
//! Writing to a file changes its status (the change time cannot be set back), so the same status means the same
//! bytes. Short lines are appended to the file, which is safe for several processes; a lost line only means that an object
//! is read once more.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use camino::{Utf8Path, Utf8PathBuf};

use crate::regular;

pub struct VerifiedFiles {
    path: Utf8PathBuf,
    file: Option<File>,
    known: HashMap<String, String>,
}

fn status_line(status: &Metadata) -> String {
    format!(
        "{} {} {} {}.{:09} {}.{:09}",
        status.dev(),
        status.ino(),
        status.len(),
        status.mtime(),
        status.mtime_nsec(),
        status.ctime(),
        status.ctime_nsec()
    )
}

impl VerifiedFiles {
    pub fn load(path: &Utf8Path) -> Self {
        let text = regular::read_to_string(path).unwrap_or_default();
        let known = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(content, status)| (content.to_string(), status.to_string()))
            .collect();
        Self {
            path: path.to_owned(),
            file: None,
            known,
        }
    }

    pub fn knows(&self, content: &str, status: &Metadata) -> bool {
        self.known
            .get(content)
            .is_some_and(|known| *known == status_line(status))
    }

    pub fn note(&mut self, content: &str, status: &Metadata) {
        let line = status_line(status);
        if self.file.is_none() {
            self.file = regular::open_to_append(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            // A read-only store still works: the line only saves time.
            drop(file.write_all(format!("{content} {line}\n").as_bytes()));
        }
        self.known.insert(content.to_string(), line);
    }
}
