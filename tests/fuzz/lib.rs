//! What the fuzzers share: input as a file of a source, in one folder that is used again.

use std::sync::OnceLock;

use aurora_compiler::fields::ExtractFields;
use aurora_runtime::data::extract::{ExtractLimits, extract};
use aurora_runtime::progress::ProgressReporter;
use aurora_runtime::source::archive::InputFile;
use camino::{Utf8Path, Utf8PathBuf};

fn folder() -> &'static Utf8Path {
    static FOLDER: OnceLock<Utf8PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder").keep();
        Utf8PathBuf::try_from(folder).expect("UTF-8")
    })
}

/// Writes the input to a file of this name. The name decides how it is read.
pub fn file(name: &str, bytes: &[u8]) -> InputFile {
    let path = folder().join(name);
    std::fs::write(&path, bytes).expect("written");
    InputFile::new(name.to_owned(), path)
}

/// Extracts documents from a file; `format` is the JSON of the format's fields.
pub fn documents(input: InputFile, format: &str) {
    let fields = format!("{{\"files\":[],\"format\":{format}}}");
    let fields: ExtractFields = serde_json::from_str(&fields).expect("fields");
    let out = folder().join("out");
    drop(std::fs::remove_dir_all(&out));
    std::fs::create_dir(&out).expect("created");
    let limits = ExtractLimits::default();
    drop(extract(&fields, &[input], None, limits, &out, ProgressReporter::none()));
}
