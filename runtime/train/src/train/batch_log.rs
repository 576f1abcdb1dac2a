//! A log of the samples that a worker trains on, for the test that compares it with `aurora data at` and `where`. Compiled in
//! for tests only.

#[cfg(any(test, feature = "batch-log"))]
use std::io::Write;

/// The file that the log is appended to, if there is one: that of the environment variable `AURORA_TEST_BATCHES`. Each sample is
/// one line, which is written at once, so that several workers can write to one file.
#[derive(Debug, Default)]
pub struct BatchLog {
    #[cfg(any(test, feature = "batch-log"))]
    file: Option<std::fs::File>,
}

/// A sample as it was read from the token files of its component. Without the log nothing reads it.
#[cfg_attr(not(any(test, feature = "batch-log")), allow(dead_code))]
pub struct LoggedSample<'a> {
    pub node: &'a str,
    /// Counted from 1.
    pub step: u64,
    /// In the global batch.
    pub sample: u64,
    pub component: &'a str,
    pub epoch: u64,
    /// Position of the first token in the stream of the component.
    pub start: u64,
    pub tokens: &'a [i64],
}

impl BatchLog {
    #[cfg(any(test, feature = "batch-log"))]
    pub fn open() -> Self {
        let path = std::env::var_os("AURORA_TEST_BATCHES");
        let open = |path| std::fs::File::options().create(true).append(true).open(path);
        let file = path.map(open).transpose();
        Self {
            file: file.expect("the log of a test can be written"),
        }
    }

    #[cfg(not(any(test, feature = "batch-log")))]
    pub fn open() -> Self {
        Self::default()
    }

    /// Records a sample that this worker trains on.
    #[cfg(any(test, feature = "batch-log"))]
    pub fn record(&self, sample: &LoggedSample<'_>) {
        let Some(mut file) = self.file.as_ref() else { return };
        let line = serde_json::json!({
            "node": sample.node,
            "step": sample.step,
            "sample": sample.sample,
            "component": sample.component,
            "epoch": sample.epoch,
            "start": sample.start,
            "tokens": sample.tokens,
        });
        let written = file.write_all(format!("{line}\n").as_bytes());
        written.expect("the log of a test can be written");
    }

    #[cfg(not(any(test, feature = "batch-log")))]
    pub fn record(&self, _sample: &LoggedSample<'_>) {}
}
