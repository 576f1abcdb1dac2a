//! Tests of the compiler: messages, explanations, reference, keys, locks, and invalid input.

// The crate reads no files, but its tests do.
#![allow(clippy::disallowed_methods)]

mod compose;
mod explanations;
mod fuzz;
mod keys;
mod lock;
mod reference;
mod specs;
mod ui;

use aurora_compiler::compose::{Bundle, Choice};
use aurora_compiler::spec::Spec;
use aurora_lang::diagnostics::Diagnostic;

/// The text of a file of this repository.
fn read(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// The bundle of a text in a folder of this repository, with its imports.
fn bundle_in(folder: &str, name: &str, text: &str) -> Bundle {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    Bundle::read(name, text, &mut |path| {
        std::fs::read_to_string(root.join(path)).map_err(|_| "there is no such file".to_owned())
    })
}

fn check_in(folder: &str, name: &str, text: &str) -> Result<Spec, Vec<Diagnostic>> {
    bundle_in(folder, name, text).check(&Choice::default())
}

/// Compares a generated page of the book. With `AURORA_UPDATE_BOOK` set, writes it.
fn assert_page(path: &str, expected: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    if std::env::var_os("AURORA_UPDATE_BOOK").is_some() {
        std::fs::create_dir_all(file.parent().expect("a page is in a folder")).expect("the folder of the page");
        std::fs::write(&file, expected).expect("the page can be written");
    }
    assert_eq!(
        read(path),
        expected,
        "{path} is out of date; set AURORA_UPDATE_BOOK=1 to write it"
    );
}
