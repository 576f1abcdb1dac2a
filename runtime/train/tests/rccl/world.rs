//! Builds the double, starts ranks, and passes values between them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use aurora_train::parallel::Mesh;

/// Long enough for any rank.
pub const PATIENT: Duration = Duration::from_secs(60);

/// The double, built as a new and an old library, and a folder for its files.
pub struct World {
    pub folder: tempfile::TempDir,
    /// Runs so far: each has a socket of its own.
    runs: AtomicUsize,
}

/// The lines that each rank printed.
pub type RankOutputs = Vec<Vec<String>>;

impl World {
    pub fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../rccl-sys/tests/double/double.c");
        for (name, age) in [("new.so", "-DNEW"), ("old.so", "-DOLD")] {
            let mut compiler = Command::new("cc");
            compiler.args([
                "-std=gnu11",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-O1",
                "-shared",
                "-fPIC",
                "-pthread",
                age,
                source,
                "-o",
            ]);
            let status = compiler.arg(folder.path().join(name)).status().ok()?;
            assert!(status.success());
        }
        Some(Self {
            folder,
            runs: AtomicUsize::new(0),
        })
    }

    /// Runs `scenario` with one process per rank, each with its own settings, and returns their output.
    pub fn run(
        &self,
        scenario: &str,
        mesh: Mesh,
        settings: impl Fn(usize) -> Vec<(&'static str, &'static str)>,
    ) -> RankOutputs {
        let store = {
            let run = self.runs.fetch_add(1, Ordering::Relaxed);
            Store::start(&self.folder.path().join(format!("store-{run}")))
        };
        let start = |rank: usize| {
            Command::new(std::env::current_exe().unwrap())
                .args(["rank", scenario])
                .env("DOUBLE", self.folder.path().join("new.so"))
                .env("STORE", &store)
                .env(
                    "MESH",
                    format!("{} {} {} {rank}", mesh.tensor, mesh.data, mesh.pipeline),
                )
                .envs(settings(rank))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let ranks: Vec<_> = (0..mesh.world()).map(start).collect();
        let outputs = ranks.into_iter().map(|rank| {
            let output = rank.wait_with_output().unwrap();
            assert!(output.status.success(), "{scenario}: {output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            text.lines().map(str::to_owned).collect()
        });
        let outputs = outputs.collect();
        // Ranks leave no files behind.
        std::fs::remove_file(store).unwrap();
        outputs
    }
}

/// Names and values for the ranks of one run, behind a socket: a line `name value` sets a value, a line `name` waits
/// for it and returns it.
struct Store;

impl Store {
    fn start(path: &Path) -> PathBuf {
        let listener = UnixListener::bind(path).unwrap();
        let values: Arc<(Mutex<BTreeMap<String, String>>, Condvar)> = Arc::default();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let values = Arc::clone(&values);
                std::thread::spawn(move || Self::serve(stream, &values.0, &values.1));
            }
        });
        path.to_owned()
    }

    fn serve(mut stream: UnixStream, values: &Mutex<BTreeMap<String, String>>, changed: &Condvar) {
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap())
            .read_line(&mut line)
            .unwrap();
        let mut values = values.lock().unwrap();
        match line.trim_end().split_once(' ') {
            Some((name, value)) => {
                values.insert(name.to_owned(), value.to_owned());
                changed.notify_all();
            }
            None => {
                let name = line.trim_end();
                let waited = changed.wait_timeout_while(values, PATIENT, |values| !values.contains_key(name));
                values = waited.unwrap().0;
                writeln!(stream, "{}", values[name]).unwrap();
            }
        }
    }
}
