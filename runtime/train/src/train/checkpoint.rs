//! Checkpoints: copied at a step's boundary, written by a thread of their own while training goes on. Every rank writes
//! what it speaks for, into files that all ranks share.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use aurora_runtime::checkpoint::{CheckpointError, Run, STATE, STEP_LOG, TensorInfo, write_part};
use aurora_runtime::job;
use camino::{Utf8Path, Utf8PathBuf};

use super::TrainError;
use super::state::State;
use super::trail::Trail;
use crate::model::{Chunk, elements};

/// What this rank writes of one file, copied: runs of numbers in the order of the file.
#[derive(Debug)]
struct Copied {
    path: String,
    tensors: Vec<TensorInfo>,
    /// Place in the file (elements behind the header) and number of elements of each run.
    runs: Vec<(usize, usize)>,
    numbers: Vec<f32>,
}

/// What this rank writes of a checkpoint, in memory.
#[derive(Debug)]
pub struct Snapshot {
    files: Vec<Copied>,
    /// `state.json` and the trail, which rank 0 writes.
    state: Option<(job::State, Trail)>,
}

impl Snapshot {
    /// Copies what this rank writes of a checkpoint after `step` steps of the stage; `trail` on rank 0.
    ///
    /// # Errors
    /// [`TrainError::Model`].
    pub fn take(state: &State, step: u64, trail: Option<&Trail>) -> Result<Self, TrainError> {
        let (layout, master) = (&state.network.layout, elements::<f32>(&state.master)?);
        let [first, second] = &state.moments;
        let (first, second) = (elements::<f32>(first)?, elements::<f32>(second)?);
        let mut of_tensor: BTreeMap<&str, Vec<&Chunk>> = BTreeMap::new();
        for chunk in &state.reported {
            of_tensor
                .entry(&layout.parts[chunk.part].tensor)
                .or_default()
                .push(chunk);
        }
        let mut files = Vec::new();
        for group in &state.groups {
            let mut weights = Vec::new();
            let mut moments = Vec::new();
            let mut before = 0;
            for tensor in &group.tensors {
                for chunk in of_tensor.get(tensor.name.as_str()).into_iter().flatten() {
                    let own = &master[state.in_master(&chunk.range)];
                    let inside = state.kept.inside(&chunk.range);
                    for (at, run) in layout.parts[chunk.part].runs(chunk.shard, chunk.of_shard.clone()) {
                        let run = run.start - chunk.of_shard.start..run.end - chunk.of_shard.start;
                        weights.push((before + at, &own[run.clone()]));
                        moments.push((2 * before + at, &first[inside.clone()][run.clone()]));
                        moments.push((2 * before + tensor.count() + at, &second[inside.clone()][run]));
                    }
                }
                before += tensor.count();
            }
            if !weights.is_empty() {
                files.push(copied(group.weights(), group.tensors.clone(), weights));
                files.push(copied(group.optimizer(), group.moments(), moments));
            }
        }
        let updates = state.updates;
        Ok(Self {
            files,
            state: trail.map(|trail| (job::State { step, updates }, trail.clone())),
        })
    }

    /// Writes and syncs this rank's parts of the files below `out`.
    ///
    /// # Errors
    /// [`CheckpointError::Write`]; then `out` holds a part of the files.
    pub fn write(&self, out: &Utf8Path) -> Result<(), CheckpointError> {
        let wrap = |path: Utf8PathBuf| move |source: io::Error| CheckpointError::Write { path, source };
        for folder in ["weights", "optimizer"].map(|name| out.join(name)) {
            std::fs::create_dir_all(&folder).map_err(wrap(folder))?;
        }
        for file in &self.files {
            let mut rest = &file.numbers[..];
            let runs = file.runs.iter().map(|&(at, count)| {
                let (own, later) = rest.split_at(count);
                rest = later;
                (at, own)
            });
            write_part(&out.join(&file.path), &file.tensors, runs)?;
        }
        if let Some((state, trail)) = &self.state {
            let mut state = serde_json::to_string(state).expect("numbers are JSON");
            state.push('\n');
            for (name, text) in [(STATE, state), (STEP_LOG, trail.text())] {
                let path = out.join(name);
                let put = |path: &Utf8Path| -> io::Result<()> {
                    let mut file = File::create(path)?;
                    file.write_all(text.as_bytes())?;
                    file.sync_all()
                };
                put(&path).map_err(wrap(path.clone()))?;
            }
        }
        for folder in [out.to_owned(), out.join("weights"), out.join("optimizer")] {
            File::open(&folder)
                .and_then(|folder| folder.sync_all())
                .map_err(wrap(folder))?;
        }
        Ok(())
    }
}

/// Copies runs in the order of the file; those that touch become one.
fn copied(path: String, tensors: Vec<TensorInfo>, mut own: Vec<Run<'_>>) -> Copied {
    own.sort_unstable_by_key(|(at, _)| *at);
    let mut numbers = Vec::with_capacity(own.iter().map(|(_, run)| run.len()).sum());
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (at, run) in own {
        numbers.extend_from_slice(run);
        match runs.last_mut() {
            Some((start, count)) if *start + *count == at => *count += run.len(),
            _ => runs.push((at, run.len())),
        }
    }
    Copied {
        path,
        tensors,
        runs,
        numbers,
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
