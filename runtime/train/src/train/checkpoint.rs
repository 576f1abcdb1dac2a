//! Checkpoints: copied at a step's boundary, written by a thread of their own while training goes on.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use aurora_runtime::checkpoint::{CheckpointError, Group, STATE, TRAIL, write};
use aurora_runtime::job;
use camino::{Utf8Path, Utf8PathBuf};

use super::TrainError;
use super::state::State;
use super::trail::Trail;

/// A checkpoint in memory, in the order of its files.
#[derive(Debug)]
pub struct Snapshot {
    groups: Vec<(Group, Vec<f32>, Vec<f32>)>,
    state: job::State,
    trail: Trail,
}

impl Snapshot {
    /// Copies what a checkpoint after `step` steps of the stage holds.
    ///
    /// # Errors
    /// [`TrainError::Model`].
    pub fn take(state: &State, step: u64, trail: &Trail) -> Result<Self, TrainError> {
        let group = |group: &Group| Ok((group.clone(), state.group_weights(group)?, state.group_moments(group)?));
        Ok(Self {
            groups: state.groups.iter().map(group).collect::<Result<_, TrainError>>()?,
            state: job::State {
                step,
                updates: state.updates,
            },
            trail: trail.clone(),
        })
    }

    /// Writes and syncs all files below `out`.
    ///
    /// # Errors
    /// [`CheckpointError::Write`]; then `out` holds a part of the files.
    pub fn write(&self, out: &Utf8Path) -> Result<(), CheckpointError> {
        let wrap = |path: Utf8PathBuf| move |source: io::Error| CheckpointError::Write { path, source };
        for folder in ["weights", "optimizer"].map(|name| out.join(name)) {
            std::fs::create_dir_all(&folder).map_err(wrap(folder))?;
        }
        for (group, weights, moments) in &self.groups {
            write(&out.join(group.weights()), &group.tensors, [&weights[..]])?;
            write(&out.join(group.optimizer()), &group.moments(), [&moments[..]])?;
        }
        let mut state = serde_json::to_string(&self.state).expect("numbers are JSON");
        state.push('\n');
        for (name, text) in [(STATE, state), (TRAIL, self.trail.text())] {
            let path = out.join(name);
            let put = |path: &Utf8Path| -> io::Result<()> {
                let mut file = File::create(path)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()
            };
            put(&path).map_err(wrap(path.clone()))?;
        }
        for folder in [out.to_owned(), out.join("weights"), out.join("optimizer")] {
            File::open(&folder)
                .and_then(|folder| folder.sync_all())
                .map_err(wrap(folder))?;
        }
        Ok(())
    }
}

/// Reads the step count of a checkpoint.
///
/// # Errors
/// [`TrainError::Checkpoint`] without the file, [`TrainError::State`] if it is not what it should be.
pub fn read_state(files: &job::Files) -> Result<job::State, TrainError> {
    let text = read_text(files, STATE)?;
    serde_json::from_str(&text).map_err(|error| TrainError::State {
        file: STATE,
        cause: error.to_string(),
    })
}

/// Reads a text file of a checkpoint.
///
/// # Errors
/// [`TrainError::Checkpoint`].
pub fn read_text(files: &job::Files, name: &str) -> Result<String, TrainError> {
    let path = files
        .get(name)
        .ok_or_else(|| CheckpointError::NoFile { name: name.to_owned() })?;
    Ok(std::fs::read_to_string(path).map_err(|source| CheckpointError::Read {
        path: path.clone(),
        source,
    })?)
}

/// What is called when a snapshot has been written, or could not be.
pub type Report = Box<dyn FnOnce(Result<(), CheckpointError>) + Send>;

enum Task {
    Write {
        snapshot: Box<Snapshot>,
        out: Utf8PathBuf,
        report: Report,
    },
    /// Answered when all before it is done.
    Settle(Sender<()>),
}

/// The writing thread. At most one snapshot waits while another is being written, so that memory is bounded.
pub struct Writer {
    tasks: Option<SyncSender<Task>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// # Errors
    /// [`TrainError::Thread`].
    pub fn new() -> Result<Self, TrainError> {
        let (tasks, inbox): (SyncSender<Task>, Receiver<Task>) = sync_channel(1);
        let run = move || {
            for task in inbox {
                match task {
                    Task::Write { snapshot, out, report } => report(snapshot.write(&out)),
                    Task::Settle(answer) => {
                        let _ = answer.send(());
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("checkpoints".to_owned()).spawn(run);
        let thread = thread.map_err(|source| TrainError::Thread { index: 0, source })?;
        Ok(Self {
            tasks: Some(tasks),
            thread: Some(thread),
        })
    }

    /// Writes in the background; waits only if two are being written already.
    pub fn write(&self, snapshot: Snapshot, out: Utf8PathBuf, report: Report) {
        if let Some(tasks) = &self.tasks {
            let _ = tasks.send(Task::Write {
                snapshot: Box::new(snapshot),
                out,
                report,
            });
        }
    }

    /// Waits until everything handed over has been written.
    pub fn settle(&self) {
        let (answer, done) = channel();
        if let Some(tasks) = &self.tasks
            && tasks.send(Task::Settle(answer)).is_ok()
        {
            let _ = done.recv();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
