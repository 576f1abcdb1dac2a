//! The book's `console` blocks, run page by page.
//!
//! A page is a project of its own: a fence such as ```` ```aur file=specs/first.aur ```` writes that file, a `$ aurora …`
//! line runs the binary, and what follows is what it must print. `[..]` stands for any text within a line, a line `...`
//! for any lines; `? 5` after the output is the exit code, 0 if it is not said. The specs of the repository are there.

use std::path::{Path, PathBuf};

use crate::project::Project;

/// One command of a page, and what the page says of it.
struct Said {
    line: usize,
    command: String,
    output: Vec<String>,
    code: i32,
}

enum Step {
    File { path: String, text: String },
    Command(Said),
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

fn commands(body: &[(usize, &str)]) -> Vec<Said> {
    let mut found: Vec<Said> = Vec::new();
    for (number, line) in body {
        if let Some(command) = line.strip_prefix("$ ") {
            found.push(Said {
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

fn check(page: &Path) -> usize {
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
    let mut run = 0;
    for step in steps(&text) {
        let said = match step {
            Step::File { path, text } => {
                project.write(&path, &text);
                continue;
            }
            Step::Command(said) => said,
        };
        let words: Vec<&str> = said.command.split_whitespace().collect();
        let (&program, arguments) = words.split_first().expect("a command");
        assert_eq!(
            program,
            "aurora",
            "{}:{}: pages run `aurora` alone",
            page.display(),
            said.line
        );
        let done = project.aurora(arguments);
        let all = done.out() + &done.err();
        let lines: Vec<&str> = all.lines().collect();
        let place = format!("{}:{}: $ {}", page.display(), said.line, said.command);
        assert_eq!(done.0.status.code(), Some(said.code), "{place}\nprints\n{all}");
        assert!(
            matches(&said.output, &lines),
            "{place}\nprints\n{all}\nthe page says\n{}",
            said.output.join("\n")
        );
        run += 1;
    }
    run
}

#[test]
fn the_pages_say_what_the_commands_print() {
    let mut found = Vec::new();
    pages(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../book/src"), &mut found);
    found.sort();
    let run: usize = found.iter().map(|page| check(page)).sum();
    assert!(run >= 8, "the book runs commands, {run} of them");
}
