//! The digests of a run's files, which are written when it ends, so that damage is found.

use std::collections::BTreeMap;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};

use super::{FACTS, LOCK, METRICS, REPORT, RunFacts, Status, facts, folders};
use crate::errors::{FileError, chain};
use crate::job::StepMetrics;
use crate::regular;
use crate::store::hash_file;
use crate::store::sealed::{self, Address, RecordKind, Unusable};

/// The files that commands read.
const FILES: [&str; 4] = [FACTS, METRICS, LOCK, REPORT];
const CHECKSUMS: &str = "checksums";

/// Writes the digests of a run's files; `facts` is the text that `run.json` is about to get.
///
/// # Errors
/// A file cannot be read, or the digests cannot be written.
pub(super) fn seal(store: &Utf8Path, run: &str, facts: &str) -> io::Result<()> {
    let folder = store.join("runs").join(run);
    let mut digests = BTreeMap::from([(FACTS.to_owned(), crate::content_of(facts.as_bytes()))]);
    for name in FILES.into_iter().filter(|name| *name != FACTS) {
        match hash_file(&folder.join(name)) {
            Ok(digest) => drop(digests.insert(name.to_owned(), digest)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    sealed::write(store, &Address::new(RecordKind::Run, run), &digests)
}

/// What is wrong with the files of a run, by their names.
pub fn problems(store: &Utf8Path, run: &str) -> Vec<(String, String)> {
    let folder = store.join("runs").join(run);
    let digests = match sealed::read::<BTreeMap<String, String>>(store, &Address::new(RecordKind::Run, run)) {
        Ok(Some(digests)) => digests,
        Ok(None) => return problems_before_end(&folder, run),
        Err(unusable) => {
            let cause = match unusable {
                Unusable::Damaged(cause) => cause,
                Unusable::Format(found) => {
                    format!(
                        "it has version {found} of the store's format; this Aurora reads version {}",
                        sealed::FORMAT
                    )
                }
                Unusable::Unreadable(error) => error.to_string(),
            };
            return vec![(CHECKSUMS.to_owned(), cause)];
        }
    };
    let mut found = Vec::new();
    for (name, digest) in digests {
        let cause = match hash_file(&folder.join(&name)) {
            Ok(actual) if actual == digest => continue,
            // The run was killed after the digests were written, and before `run.json` was.
            Ok(_) if name == FACTS && is_running(&folder, run) => continue,
            Ok(actual) => format!("its bytes hash to {actual}"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => "it is missing".to_owned(),
            Err(error) => error.to_string(),
        };
        found.push((name, cause));
    }
    found
}

fn is_running(folder: &Utf8Path, run: &str) -> bool {
    let found = facts(folder).ok().flatten();
    found.is_some_and(|facts| facts.status == Status::Running && facts.id == run)
}

/// The problems of a run that is running or was interrupted. Digests are written at its end, so only the texts are checked.
fn problems_before_end(folder: &Utf8Path, run: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut problem = |name: &str, cause: String| found.push((name.to_owned(), cause));
    match facts(folder) {
        Ok(Some(RunFacts { id, .. })) if id != run => problem(FACTS, format!("it is the record of run {id}")),
        Ok(Some(RunFacts { status, .. })) if status != Status::Running => {
            problem(CHECKSUMS, "it is missing".to_owned());
        }
        // A run that was killed before it wrote its record has none.
        Ok(_) => {}
        Err(error) => problem(FACTS, chain(&error.source)),
    }
    match regular::read_to_string(&folder.join(METRICS)) {
        Ok(text) => {
            // The last line may be incomplete.
            let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
            for (index, line) in complete.lines().enumerate() {
                if let Err(error) = serde_json::from_str::<StepMetrics>(line) {
                    problem(METRICS, format!("line {}: {error}", index + 1));
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => problem(METRICS, error.to_string()),
    }
    found
}

/// Verifies the runs of a store. Returns what is wrong, by paths inside the store.
///
/// # Errors
/// The folder of the runs cannot be listed.
pub fn verify(store: &Utf8Path) -> io::Result<Vec<(Utf8PathBuf, String)>> {
    let mut found = Vec::new();
    for folder in folders(store)? {
        let run = folder.file_name().unwrap_or_default();
        let inside = Utf8Path::new("runs").join(run);
        let problems = problems(store, run).into_iter();
        found.extend(problems.map(|(name, cause)| (inside.join(name), cause)));
    }
    Ok(found)
}

/// The run that began first of those that may be running: its process runs, or it is a process of another host.
///
/// # Errors
/// The record of a run cannot be read.
pub fn oldest_running(store: &Utf8Path) -> Result<Option<RunFacts>, FileError> {
    let root = store.join("runs");
    let mut found: Vec<RunFacts> = Vec::new();
    for folder in folders(store).map_err(FileError::reading(&root))? {
        found.extend(facts(&folder)?);
    }
    found.retain(|facts| facts.status == Status::Running && facts.process.is_running() != Some(false));
    Ok(found.into_iter().min_by_key(|facts| facts.started))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::record::RunRecord;

    #[test]
    fn damage_of_ended_and_of_interrupted_runs_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Utf8Path::from_path(folder.path()).expect("UTF-8");
        let mut record = RunRecord::begin(store, "small", "small.aur", "small.lock").expect("a record");
        let (run, own) = (record.id().to_owned(), record.folder().to_owned());
        assert_eq!(problems(store, &run), []);
        assert_eq!(
            oldest_running(store).expect("runs").map(|facts| facts.id),
            Some(run.clone())
        );
        fs::write(own.join(METRICS), "{}\n{").expect("a file");
        assert_eq!(problems(store, &run).len(), 1, "a line without its values");
        fs::write(own.join(METRICS), "{").expect("a file");
        assert_eq!(problems(store, &run), [], "an incomplete last line");
        let running = fs::read(own.join(FACTS)).expect("a file");
        record.end(Status::Finished, None).expect("it ends");
        assert_eq!(problems(store, &run), []);
        assert_eq!(oldest_running(store).expect("runs").map(|facts| facts.id), None);
        let finished = fs::read(own.join(FACTS)).expect("a file");
        fs::write(own.join(FACTS), running).expect("a file");
        assert_eq!(problems(store, &run), [], "killed while it ended");
        fs::write(own.join(FACTS), finished).expect("a file");
        fs::remove_file(own.join(CHECKSUMS)).expect("a file");
        assert_eq!(
            problems(store, &run),
            [(CHECKSUMS.to_owned(), "it is missing".to_owned())]
        );
        fs::write(own.join(FACTS), "{}").expect("a file");
        assert!(oldest_running(store).is_err());
        assert_eq!(verify(store).expect("runs").len(), 1);
    }
}
