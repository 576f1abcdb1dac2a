//! Writing of checkpoints: copied between two steps, and written by a separate thread while training continues. Every
//! rank writes the chunks that it reports, into files that all ranks write to.
//!
//! Not here: which chunks (`parameter_map::reported`), the format of the files (`aurora_runtime::checkpoint`), which
//! checkpoint a command names (`cli/src/checkpoint.rs`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use aurora_runtime::checkpoint::{CheckpointError, FileRange, STATE, STEP_LOG, TensorInfo, write_part};
use aurora_runtime::errors::FileError;
use aurora_runtime::job;
use aurora_runtime::make_below;
use camino::{Utf8Path, Utf8PathBuf};

use super::TrainError;
use super::step_log::StepLog;
use super::train_state::TrainState;
use crate::model::{Chunk, HostAccess};

/// This rank's part of one file, copied: ranges of elements in the order of the file.
#[derive(Debug)]
struct FilePart {
    path: String,
    tensors: Vec<TensorInfo>,
    /// Offset in the file (elements after the header) and number of elements of each range.
    file_ranges: Vec<(usize, usize)>,
    values: Vec<f32>,
}

/// This rank's part of a checkpoint, in memory.
#[derive(Debug)]
pub struct Snapshot {
    files: Vec<FilePart>,
    /// `state.json` and the step log, which rank 0 writes.
    state: Option<(job::CheckpointState, StepLog)>,
}

impl Snapshot {
    /// Copies this rank's part of a checkpoint after `step` steps of the training stage; with the step log on rank 0.
    ///
    /// # Errors
    /// [`TrainError::Model`].
    pub fn take(state: &TrainState, step: u64, step_log: Option<&StepLog>) -> Result<Self, TrainError> {
        let parameters = &state.network.parameters;
        let [first, second] = &state.moments;
        // SAFETY: no thread computes while a snapshot is taken, and this is the only access.
        let host = unsafe { HostAccess::new() };
        let on_host = |tensor| state.on_host(&host, tensor);
        let (master, first, second) = (on_host(&state.master)?, on_host(first)?, on_host(second)?);
        let mut of_tensor: BTreeMap<&str, Vec<&Chunk>> = BTreeMap::new();
        for chunk in &state.reported {
            of_tensor
                .entry(&parameters.parts[chunk.part].tensor)
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
                    let local = state.kept.local(&chunk.range);
                    let part = &parameters.parts[chunk.part];
                    for (at, range) in part.tensor_ranges(chunk.shard, chunk.of_shard.clone()) {
                        let range = range.start - chunk.of_shard.start..range.end - chunk.of_shard.start;
                        weights.push((before + at, &own[range.clone()]));
                        moments.push((2 * before + at, &first[local.clone()][range.clone()]));
                        moments.push((2 * before + tensor.count() + at, &second[local.clone()][range]));
                    }
                }
                before += tensor.count();
            }
            if !weights.is_empty() {
                files.push(file_part(group.weights(), group.tensors.clone(), weights));
                files.push(file_part(group.optimizer(), group.moments(), moments));
            }
        }
        let updates = state.updates;
        Ok(Self {
            files,
            state: step_log.map(|step_log| (job::CheckpointState { step, updates }, step_log.clone())),
        })
    }

    /// Writes and syncs this rank's parts of the files in `out`.
    ///
    /// # Errors
    /// [`CheckpointError::File`]; `out` then contains incomplete files.
    pub fn write(&self, out: &Utf8Path) -> Result<(), CheckpointError> {
        for folder in ["weights", "optimizer"].map(|name| out.join(name)) {
            make_below(out, &folder).map_err(FileError::writing(&folder))?;
        }
        for file in &self.files {
            let mut rest = &file.values[..];
            let ranges = file.file_ranges.iter().map(|&(at, count)| {
                let (own, later) = rest.split_at(count);
                rest = later;
                (at, own)
            });
            write_part(&out.join(&file.path), &file.tensors, ranges)?;
        }
        if let Some((state, step_log)) = &self.state {
            let mut state = serde_json::to_string(state).expect("numbers are JSON");
            state.push('\n');
            for (name, text) in [(STATE, state), (STEP_LOG, step_log.text())] {
                let path = out.join(name);
                let put = |path: &Utf8Path| -> io::Result<()> {
                    let mut file = File::create(path)?;
                    file.write_all(text.as_bytes())?;
                    file.sync_all()
                };
                put(&path).map_err(FileError::writing(&path))?;
            }
        }
        for folder in [out.to_owned(), out.join("weights"), out.join("optimizer")] {
            File::open(&folder)
                .and_then(|folder| folder.sync_all())
                .map_err(FileError::writing(&folder))?;
        }
        Ok(())
    }
}

/// Copies ranges in the order of the file and merges adjacent ones.
fn file_part(path: String, tensors: Vec<TensorInfo>, mut own: Vec<FileRange<'_>>) -> FilePart {
    own.sort_unstable_by_key(|(at, _)| *at);
    let mut values = Vec::with_capacity(own.iter().map(|(_, numbers)| numbers.len()).sum());
    let mut file_ranges: Vec<(usize, usize)> = Vec::new();
    for (at, numbers) in own {
        values.extend_from_slice(numbers);
        match file_ranges.last_mut() {
            Some((start, count)) if *start + *count == at => *count += numbers.len(),
            _ => file_ranges.push((at, numbers.len())),
        }
    }
    FilePart {
        path,
        tensors,
        file_ranges,
        values,
    }
}

/// Reads the step count of a checkpoint.
///
/// # Errors
/// [`TrainError::Checkpoint`] without the file, [`TrainError::StateSyntax`] if it is not valid.
pub fn read_state(files: &job::Files) -> Result<job::CheckpointState, TrainError> {
    let text = read_text(files, STATE)?;
    serde_json::from_str(&text).map_err(|source| TrainError::StateSyntax { file: STATE, source })
}

/// Reads a text file of a checkpoint.
///
/// # Errors
/// [`TrainError::Checkpoint`].
pub fn read_text(files: &job::Files, name: &str) -> Result<String, TrainError> {
    let path = files
        .get(name)
        .ok_or_else(|| CheckpointError::NoFile { name: name.to_owned() })?;
    Ok(std::fs::read_to_string(path).map_err(FileError::reading(path))?)
}

/// Called when a snapshot has been written, or could not be.
pub type WriteCallback = Box<dyn FnOnce(Result<(), CheckpointError>) + Send>;

enum WriterTask {
    Write {
        snapshot: Box<Snapshot>,
        out: Utf8PathBuf,
        report: WriteCallback,
    },
    /// Answered when all earlier tasks are done.
    Flush(Sender<()>),
}

/// The writer thread. At most one snapshot waits while another is written, which bounds memory.
pub struct Writer {
    tasks: Option<SyncSender<WriterTask>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// # Errors
    /// [`TrainError::Thread`].
    pub fn new() -> Result<Self, TrainError> {
        let (tasks, inbox): (SyncSender<WriterTask>, Receiver<WriterTask>) = sync_channel(1);
        let run = move || {
            for task in inbox {
                match task {
                    WriterTask::Write { snapshot, out, report } => report(snapshot.write(&out)),
                    WriterTask::Flush(answer) => {
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

    /// Writes in the background; blocks only if two snapshots are being written.
    pub fn write(&self, snapshot: Snapshot, out: Utf8PathBuf, report: WriteCallback) {
        if let Some(tasks) = &self.tasks {
            let _ = tasks.send(WriterTask::Write {
                snapshot: Box::new(snapshot),
                out,
                report,
            });
        }
    }

    /// Waits until all snapshots have been written.
    pub fn flush(&self) {
        let (answer, done) = channel();
        if let Some(tasks) = &self.tasks
            && tasks.send(WriterTask::Flush(answer)).is_ok()
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
