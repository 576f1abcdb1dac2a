//! Imports a launch script of Megatron-LM as a spec.
//!
//! In: the text of a shell script that starts `pretrain_gpt.py`, of BigCode's fork or of Megatron-Core. Out: a spec in which
//! every value has its origin as a comment, and a list of what the spec does not express. Nothing is executed, and no file
//! is read.
//! Not here: reading and writing files, printing (`cli`).

pub mod findings;
mod flags;
mod launch;
mod shell;
mod slurm;
mod text;
mod translate;

use serde::Serialize;

pub use findings::{Finding, FindingKind};
pub use launch::NoLaunch;
pub use translate::TranslateOptions;

/// The maximum size of a script in bytes.
const LARGEST: usize = 1 << 20;

/// The result of an import.
#[derive(Clone, Debug, Serialize)]
pub struct Imported {
    /// The formatted spec, with the findings as comments at its end.
    pub spec: String,
    /// Sorted by kind and line.
    pub findings: Vec<Finding>,
}

/// Why a script cannot be imported.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MegatronError {
    #[error("the launch script has {0} bytes, and the limit is {LARGEST}")]
    TooLarge(usize),
    #[error(transparent)]
    NoLaunch(#[from] NoLaunch),
}

/// Imports a script. `name` is its path; origins contain the file name.
///
/// # Errors
/// It does not start training of a GPT.
pub fn import(name: &str, script: &str, options: TranslateOptions) -> Result<Imported, MegatronError> {
    if script.len() > LARGEST {
        return Err(MegatronError::TooLarge(script.len()));
    }
    let batch = slurm::SbatchOptions::read(script);
    let mut shell = shell::Shell::new(batch.variables());
    shell.run(&text::of_file(script));
    let mut launch = launch::launch(&shell)?;
    launch.report_untranslated();
    let file = translate::one_line(name.rsplit('/').next().unwrap_or(name));
    let stem = file.split('.').next().unwrap_or_default();
    let mut translation = translate::Translation::new(&launch, &batch, &file, options);
    let spec = translation.spec(&identifier(stem, "imported"));
    let mut findings = std::mem::take(&mut translation.findings);
    findings.extend(launch.findings);
    for (kind, notes) in [
        (FindingKind::NotUnderstood, &shell.notes),
        (FindingKind::Resolved, &shell.defaults),
    ] {
        findings.extend(notes.iter().map(|note| Finding {
            kind,
            line: note.line,
            what: note.what.clone(),
            why: note.why.clone(),
        }));
    }
    findings.sort_by(|a, b| (a.kind, a.line, &a.what).cmp(&(b.kind, b.line, &b.what)));
    findings.dedup();
    let head = format!("// Imported from {file}. The comment of each value is its origin.\n");
    let text = head + &spec + &list(&findings);
    // The text is valid by construction.
    let spec = aurora_lang::format::format(&text).unwrap_or(text);
    Ok(Imported { spec, findings })
}

/// The findings as comments.
fn list(findings: &[Finding]) -> String {
    let mut text = String::new();
    for kind in FindingKind::ALL {
        let of_kind: Vec<&Finding> = findings.iter().filter(|finding| finding.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        text.push_str(&format!("// {}:\n", kind.heading()));
        for finding in of_kind {
            text.push_str(&format!("//   {}\n", translate::one_line(&finding.to_string())));
        }
        text.push_str("//\n");
    }
    text.trim_end_matches("//\n").to_owned()
}

/// Converts text to a valid name; `otherwise` if no character remains.
fn identifier(text: &str, otherwise: &str) -> String {
    let mut name = String::new();
    for char in text.chars() {
        match char {
            'a'..='z' | '0'..='9' => name.push(char),
            'A'..='Z' => name.push(char.to_ascii_lowercase()),
            _ if name.ends_with('_') || name.is_empty() => {}
            _ => name.push('_'),
        }
    }
    let name = name.trim_matches('_');
    let reserved = [
        "from",
        "weight",
        "max_epochs",
        "every",
        "expect",
        "import",
        "extends",
        "let",
        "param",
        "in",
    ];
    let reserved = reserved.contains(&name) || ["unknown", "none", "true", "false"].contains(&name);
    match name.chars().next() {
        None => otherwise.to_owned(),
        Some('0'..='9') => format!("{otherwise}_{name}"),
        Some(_) if reserved => format!("{otherwise}_{name}"),
        Some(_) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
