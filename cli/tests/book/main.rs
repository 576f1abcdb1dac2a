//! The book's `console` blocks: one test per page.
//!
//! Each page has its own project: a fence such as ```` ```aur file=specs/first.aur ```` writes that file, a `$ aurora …`
//! line runs the binary, and the following lines are the expected output. `[..]` matches any text within a line, a line
//! `...` any lines; `? 5` after the output is the expected exit code, 0 by default. The project has the specs of the
//! repository.

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Trial};

#[allow(dead_code, reason = "shared with the end-to-end tests, which use the rest")]
#[path = "../whole/project.rs"]
mod project;

use project::Project;

/// One command of a page, with the expected output.
struct Command {
    line: usize,
    command: String,
    output: Vec<String>,
    code: i32,
}

enum Step {
    File { path: String, text: String },
    Command(Command),
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = page.lines().enumerate().peekable();
    while let Some((_, line)) = lines.next() {
        let Some(fence) = line.strip_prefix("```") else {
            continue;
        };
        let mut body = Vec::new();
        for (number, line) in lines.by_ref() {
            if line.starts_with("```") {
                break;
            }
            body.push((number + 1, line));
        }
        if let Some(path) = fence.split_whitespace().find_map(|word| word.strip_prefix("file=")) {
            let text = body.iter().map(|(_, line)| format!("{line}\n")).collect();
            steps.push(Step::File {
                path: path.to_string(),
                text,
            });
        } else if fence.trim() == "console" {
            steps.extend(commands(&body).into_iter().map(Step::Command));
        }
    }
    steps
}

fn commands(body: &[(usize, &str)]) -> Vec<Command> {
    let mut found: Vec<Command> = Vec::new();
    for (number, line) in body {
        if let Some(command) = line.strip_prefix("$ ") {
            found.push(Command {
                line: *number,
                command: command.to_string(),
                output: Vec::new(),
                code: 0,
            });
        } else if let Some(last) = found.last_mut() {
            match line.strip_prefix("? ").and_then(|code| code.parse().ok()) {
                Some(code) => last.code = code,
                None => last.output.push((*line).to_string()),
            }
        }
    }
    found
}

fn line_matches(pattern: &str, line: &str) -> bool {
    let mut rest = line;
    let mut parts = pattern.split("[..]");
    let first = parts.next().unwrap_or_default();
    let Some(after) = rest.strip_prefix(first) else {
        return false;
    };
    rest = after;
    let parts: Vec<&str> = parts.collect();
    for (index, part) in parts.iter().enumerate() {
        if index + 1 == parts.len() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

fn matches(pattern: &[String], lines: &[&str]) -> bool {
    match pattern.split_first() {
        None => lines.is_empty(),
        Some((first, rest)) if first == "..." => (0..=lines.len()).any(|skip| matches(rest, &lines[skip..])),
        Some((first, rest)) => lines
            .split_first()
            .is_some_and(|(line, more)| line_matches(first, line) && matches(rest, more)),
    }
}

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the book").flatten() {
        let path = entry.path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// Runs the commands of a page.
///
/// # Panics
/// A command prints something else than the page.
fn check(page: &Path) {
    let text = std::fs::read_to_string(page).expect("a page");
    let project = Project::new();
    let specs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../specs");
    for folder in ["", "lib/", "snapshots/"] {
        let entries = std::fs::read_dir(specs.join(folder)).expect("specs").flatten();
        for entry in entries.filter(|entry| entry.path().is_file()) {
            let spec = std::fs::read_to_string(entry.path()).expect("a spec");
            project.write(&format!("specs/{folder}{}", entry.file_name().to_string_lossy()), &spec);
        }
    }
    for entry in std::fs::read_dir(page.parent().expect("a folder"))
        .expect("pages")
        .flatten()
    {
        if entry.path().is_file() {
            let text = std::fs::read_to_string(entry.path()).expect("a page");
            project.write(&format!("book/src/{}", entry.file_name().to_string_lossy()), &text);
        }
    }
    for step in steps(&text) {
        let expected = match step {
            Step::File { path, text } => {
                project.write(&path, &text);
                continue;
            }
            Step::Command(command) => command,
        };
        let words: Vec<&str> = expected.command.split_whitespace().collect();
        let (&program, arguments) = words.split_first().expect("a command");
        assert_eq!(
            program,
            "aurora",
            "{}:{}: pages run `aurora` alone",
            page.display(),
            expected.line
        );
        let done = project.aurora(arguments);
        let all = done.out() + &done.err();
        let lines: Vec<&str> = all.lines().collect();
        let place = format!("{}:{}: $ {}", page.display(), expected.line, expected.command);
        assert_eq!(done.0.status.code(), Some(expected.code), "{place}\nprints\n{all}");
        assert!(
            matches(&expected.output, &lines),
            "{place}\nprints\n{all}\nthe page expects\n{}",
            expected.output.join("\n")
        );
    }
}

fn main() {
    let arguments = Arguments::from_args();
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("../book/src");
    let mut found = Vec::new();
    pages(&book, &mut found);
    found.sort();
    let with_commands = found.into_iter().filter(|page| {
        let text = std::fs::read_to_string(page).expect("a page");
        steps(&text).iter().any(|step| matches!(step, Step::Command(_)))
    });
    let tests = with_commands.map(|page| {
        let name = page.strip_prefix(&book).unwrap_or(&page).display().to_string();
        Trial::test(name, move || {
            check(&page);
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, tests.collect()).exit();
}
