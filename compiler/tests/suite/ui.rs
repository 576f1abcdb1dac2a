//! Malformed specs with one error each: the rendered diagnostics are golden.

use aurora_compiler::check::check;
use aurora_compiler::compose::Choice;
use aurora_lang::diagnostics::{Source, render_text};

/// Files that have several errors on purpose.
const SEVERAL: [&str; 2] = ["many_errors", "more_than_twenty"];

#[test]
fn ui() {
    let mut several: Vec<String> = Vec::new();
    insta::glob!("../ui", "*.aur", |path| {
        let text = std::fs::read_to_string(path).expect("a file of the folder");
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let name = format!("{stem}.aur");
        let bundle = crate::bundle_in("compiler/tests/ui", &name, &text);
        let diagnostics = match bundle.check(&Choice::default()) {
            Ok(spec) => spec.warnings,
            Err(errors) => errors,
        };
        if !SEVERAL.contains(&stem) && diagnostics.len() != 1 {
            let codes: Vec<&str> = diagnostics.iter().map(|diagnostic| diagnostic.code.as_str()).collect();
            several.push(format!("{stem}: {codes:?}"));
        }
        insta::assert_snapshot!(render_text(&diagnostics, bundle.sources().view(), false));
    });
    assert!(several.is_empty(), "one cause, one diagnostic: {several:#?}");
}

#[test]
fn an_unknown_profile_is_named() {
    let text = crate::read("specs/tiny.aur");
    let errors = check("tiny.aur", &text, Some("smoek")).expect_err("no such profile");
    insta::assert_snapshot!(render_text(&errors, Source::new("tiny.aur", &text), false));
}

#[test]
fn json_has_lines_columns_and_edits() {
    let text = crate::read("compiler/tests/ui/name_unknown_field.aur");
    let errors = check("spec.aur", &text, None).expect_err("a misspelt field");
    let json = aurora_lang::diagnostics::to_json(&errors, Source::new("spec.aur", &text));
    insta::assert_snapshot!(serde_json::to_string_pretty(&json).expect("plain data"));
}

#[test]
fn colour_changes_nothing_but_colour() {
    let text = crate::read("compiler/tests/ui/many_errors.aur");
    let errors = check("spec.aur", &text, None).expect_err("errors");
    let plain = render_text(&errors, Source::new("spec.aur", &text), false);
    let coloured = render_text(&errors, Source::new("spec.aur", &text), true);
    let mut stripped = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        stripped.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    stripped.push_str(rest);
    let trim = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    assert_eq!(trim(&stripped), trim(&plain));
    assert!(coloured.contains('\u{1b}'));
    assert!(!plain.contains('\u{1b}'));
}
