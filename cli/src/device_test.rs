//! The worker's test of a device, as `aurora doctor` reports it: every kernel against its reference.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use aurora_runtime::engine::workers::{LIBRARY_PATH, WorkerProgram};
use serde::{Deserialize, Serialize};

/// How long a test may take, with the compilation of the kernels: a device that hangs must not hang `doctor`.
const LIMIT: Duration = Duration::from_secs(60);

/// What the worker found on one device.
#[derive(Debug, Default, Serialize)]
pub struct DeviceTest {
    /// Name, architecture, versions of driver and compiler.
    pub device: Option<String>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Comparisons of kernels with their references.
    pub comparisons: usize,
    /// Why the device cannot be used.
    pub error: Option<String>,
}

/// The first line of the worker's report.
#[derive(Deserialize)]
struct Head {
    device: Option<String>,
    memory: Option<u64>,
}

/// Tests the device with an index.
pub fn test_device(program: &WorkerProgram, index: usize) -> DeviceTest {
    let child = Command::new(&program.path)
        .arg(format!("--test-device={index}"))
        .env(LIBRARY_PATH, program.library_path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let failed = |error: String| DeviceTest {
        error: Some(error),
        ..DeviceTest::default()
    };
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return failed(format!("the worker does not start: {error}")),
    };
    let (sender, receiver) = channel();
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    // The thread ends with the worker, whose pipes close then.
    std::thread::spawn(move || {
        let (mut report, mut messages) = (String::new(), String::new());
        if let Some(out) = &mut out {
            let _ = out.read_to_string(&mut report);
        }
        if let Some(err) = &mut err {
            let _ = err.read_to_string(&mut messages);
        }
        let _ = sender.send((report, messages));
    });
    let Ok((report, messages)) = receiver.recv_timeout(LIMIT) else {
        let _ = child.kill();
        let _ = child.wait();
        return failed(format!("no answer within {} seconds", LIMIT.as_secs()));
    };
    let succeeded = child.wait().is_ok_and(|status| status.success());
    let mut lines = report.lines();
    let head = lines.next().and_then(|line| serde_json::from_str::<Head>(line).ok());
    let head = head.unwrap_or(Head {
        device: None,
        memory: None,
    });
    let last = messages
        .lines()
        .next_back()
        .unwrap_or("the worker ended without a message");
    DeviceTest {
        device: head.device,
        memory: head.memory,
        comparisons: lines.count(),
        error: (!succeeded).then(|| last.strip_prefix("error: ").unwrap_or(last).to_owned()),
    }
}
