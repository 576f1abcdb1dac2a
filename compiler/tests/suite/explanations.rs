//! The wrong example of every code gives that code, and its right example does not.

use aurora_compiler::names::nearest;
use aurora_lang::ast::{Block, Body, Entry};
use aurora_lang::diagnostics::{Code, Severity, TABLE, explain};
use aurora_lang::parse;

/// Codes that no spec alone can show.
const WITHOUT_EXAMPLE: [Code; 11] = [
    Code::FILE_TOO_LARGE,
    Code::UNKNOWN_PROFILE,
    Code::UNKNOWN_POINT,
    Code::LOCK_MALFORMED,
    Code::LOCK_CONFLICT,
    Code::LOCK_TOO_NEW,
    Code::LOCK_OF_ANOTHER_SPEC,
    Code::LOCK_ENTRY_DISAGREES,
    Code::LOCK_WOULD_CHANGE,
    Code::LOCK_CLAIMED_TWICE,
    Code::SOURCE_NOT_PINNED,
];

/// Completes an example with `specs/tiny.aur`: the blocks of the example replace those of the same kind and name. A block
/// with a line `// …` keeps the fields that the example does not have.
fn complete(example: &str) -> String {
    let base = crate::read("specs/tiny.aur");
    let (old, new) = (parse(&base, None).file.items, parse(example, None).file.items);
    let same = |a: &Block, b: &Block| a.keyword.text == b.keyword.text && a.name.text == b.name.text;
    let mut completed = example.to_owned();
    for item in new.iter().rev() {
        let Some(at) = example[item.span.start..item.span.end]
            .find("// …")
            .map(|at| item.span.start + at)
        else {
            continue;
        };
        let Some(old) = old.iter().find(|old| same(old, item)) else {
            continue;
        };
        let (Body::Entries(old), Body::Entries(written)) = (&old.body, &item.body) else {
            continue;
        };
        let names: Vec<&str> = written.iter().filter_map(name_of).collect();
        let old_names: Vec<&str> = old.iter().filter_map(name_of).collect();
        // A misspelt field of an example replaces the field that it means.
        let misspelt = |name: &str| {
            names
                .iter()
                .any(|new| !old_names.contains(new) && nearest(new, [name].into_iter()).is_some())
        };
        let kept: Vec<&str> = old
            .iter()
            .filter(|entry| name_of(entry).is_none_or(|name| !names.contains(&name) && !misspelt(name)))
            .map(|entry| &base[entry.span().start..entry.span().end])
            .collect();
        completed.replace_range(at..at + "// …".len(), &kept.join("\n  "));
    }
    let untouched = old.iter().filter(|old| !new.iter().any(|new| same(old, new)));
    let blocks: Vec<&str> = untouched.map(|block| &base[block.span.start..block.span.end]).collect();
    // Statements of the example are in `completed` already.
    format!("{}\n\n{completed}\n", blocks.join("\n\n"))
}

fn name_of(entry: &Entry) -> Option<&str> {
    match entry {
        Entry::Field(field) => field.path.first().map(|name| name.text.as_str()),
        Entry::Component(component) => Some(&component.name.text),
        Entry::Block(_) => None,
    }
}

fn codes(text: &str) -> Vec<Code> {
    match crate::check_in("compiler/tests/ui", "example.aur", text) {
        Ok(spec) => spec.warnings.iter().map(|warning| warning.code).collect(),
        Err(errors) => errors.iter().map(|error| error.code).collect(),
    }
}

#[test]
fn examples_show_their_code() {
    let mut failures: Vec<String> = Vec::new();
    for entry in TABLE {
        if WITHOUT_EXAMPLE.contains(&entry.code) {
            assert!(
                entry.wrong.is_empty() && entry.right.is_empty(),
                "{} has an example",
                entry.code
            );
            continue;
        }
        // A text that does not parse cannot be completed.
        let wrong = if entry.code.as_str().starts_with("E01") {
            entry.wrong.to_owned()
        } else {
            complete(entry.wrong)
        };
        if !codes(&wrong).contains(&entry.code) {
            failures.push(format!("{}: the wrong example gives {:?}", entry.code, codes(&wrong)));
        }
        let right = complete(entry.right);
        let errors: Vec<Code> = codes(&right)
            .into_iter()
            .filter(|code| code.severity() == Severity::Error || *code == entry.code)
            .collect();
        if !errors.is_empty() {
            failures.push(format!("{}: the right example gives {errors:?}", entry.code));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn codes_are_unique_sorted_and_explained() {
    for pair in TABLE.windows(2) {
        assert!(
            pair[0].code < pair[1].code,
            "{} is before {}",
            pair[0].code,
            pair[1].code
        );
    }
    for entry in TABLE {
        assert!(entry.text.len() > 40, "{} has no explanation", entry.code);
        assert_eq!(
            explain(&entry.code.as_str().to_lowercase()).map(|found| found.code),
            Some(entry.code)
        );
    }
    assert!(explain("E9999").is_none());
}

#[test]
fn the_book_explains_every_code() {
    let mut page = String::from(
        "# Diagnostics\n\nEvery error and warning has a code. `aurora explain CODE` prints the same explanations.\n\n| Code | Meaning |\n|---|---|\n",
    );
    for entry in TABLE {
        let (code, title) = (entry.code, entry.title);
        page.push_str(&format!("| [{code}](#{code}) | {title} |\n"));
    }
    for entry in TABLE {
        page.push_str(&format!("\n<a id=\"{}\"></a>\n\n#{}", entry.code, entry.page()));
    }
    crate::assert_page("book/src/diagnostics/index.md", &page);
}
