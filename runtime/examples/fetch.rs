//! Fetches one reference into a folder: `fetch REFERENCE FOLDER [CACHE]`.
use std::time::Instant;

use aurora_runtime::progress::ProgressReporter;
use aurora_runtime::source::{Folders, SourceContext, fetch};
use camino::Utf8PathBuf;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [reference, folder, rest @ ..] = arguments.as_slice() else {
        return eprintln!("fetch REFERENCE FOLDER [CACHE]");
    };
    let folder = Utf8PathBuf::from(folder);
    let cache = rest.first().map_or_else(|| folder.join("cache"), Utf8PathBuf::from);
    let context = SourceContext {
        name: "example",
        folders: &Folders::of(&folder, Default::default()),
        scratch: &folder,
        cache: &cache,
        offline: false,
        at_most: None,
        limits: None,
    };
    let start = Instant::now();
    let result = reference
        .parse()
        .map_err(Into::into)
        .and_then(|r| fetch(&r, None, context, ProgressReporter::none()));
    match result {
        Ok(fetched) => println!(
            "{} {} {} {:?}",
            fetched.reference,
            fetched.bytes,
            fetched.content,
            start.elapsed()
        ),
        Err(error) => println!("error: {error} {:?}", start.elapsed()),
    }
}
