//! Three-way merge of specs by their structure: a block is identified by its kind and name, an entry by its name.
//!
//! In: the base text, and two changed versions of it. Out: our text with the changes of the other side. What both sides
//! have changed in different ways is a conflict, with the markers of git. Formatting is not a change.
//! Not here: whether the result is valid (`check`), and git.

mod units;

use std::ops::Range;

use crate::diagnostics::Diagnostic;
use crate::format;
use units::{HEAD, MergeUnit, Side, TAIL};

/// The merged text.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// With conflict markers, if there are conflicts.
    pub text: String,
    pub conflicts: Vec<Conflict>,
}

/// A block or entry that both sides have changed in different ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `stage.cap.budget`.
    pub path: String,
    /// In the base text. `None` if it is not there.
    pub base: Option<String>,
    pub ours: Option<String>,
    pub theirs: Option<String>,
}

/// A side has syntax errors, so its structure is unknown.
#[derive(Clone, Debug, PartialEq)]
pub struct SyntaxErrors {
    /// `base`, `ours` or `theirs`.
    pub side: &'static str,
    pub errors: Vec<Diagnostic>,
}

/// Merges two changed versions of `base`.
///
/// # Errors
/// [`SyntaxErrors`] if one of the texts has syntax errors.
pub fn merge(base: &str, ours: &str, theirs: &str) -> Result<Merged, SyntaxErrors> {
    let side = |side, text| Side::new(text).map_err(|errors| SyntaxErrors { side, errors });
    let (base, ours, theirs) = (side("base", base)?, side("ours", ours)?, side("theirs", theirs)?);
    let mut merging = Merging {
        base: &base,
        ours: &ours,
        theirs: &theirs,
        edits: Vec::new(),
        conflicts: Vec::new(),
    };
    merging.level("", &base.units, &ours.units, &theirs.units);
    let Merging { edits, conflicts, .. } = merging;
    let text = apply(&ours.text, edits);
    let text = match format(&text) {
        Ok(formatted) if ours.formatted => formatted,
        _ => text,
    };
    Ok(Merged { text, conflicts })
}

/// A range of our text and its replacement.
struct Edit {
    range: Range<usize>,
    text: String,
}

fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    // The sort is stable: edits at one place stay in the order in which they were made.
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for Edit { range, text: new } in edits {
        out.push_str(&text[from..range.start]);
        if !new.is_empty() && !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        out.push_str(&new);
        if !new.is_empty() && !new.ends_with('\n') {
            out.push('\n');
        }
        from = range.end.max(from);
    }
    out.push_str(&text[from..]);
    out
}

struct Merging<'s> {
    base: &'s Side,
    ours: &'s Side,
    theirs: &'s Side,
    edits: Vec<Edit>,
    conflicts: Vec<Conflict>,
}

fn find<'u>(units: &'u [MergeUnit], key: &str) -> Option<&'u MergeUnit> {
    units.iter().find(|unit| unit.key == key)
}

fn same(one: Option<&MergeUnit>, other: Option<&MergeUnit>) -> bool {
    one.map(|unit| &unit.canonical) == other.map(|unit| &unit.canonical)
}

/// The path of an entry: `stage.cap.budget` for `budget` in `stage cap`.
fn below(path: &str, key: &str) -> String {
    let key = key.replace(' ', ".");
    match (path, key.as_str()) {
        ("", HEAD | TAIL) => "the file's comments".to_owned(),
        (path, HEAD | TAIL) => format!("{path} (comments)"),
        ("", _) => key,
        _ => format!("{path}.{key}"),
    }
}

impl Merging<'_> {
    /// Merges one level: all blocks of a file, or all entries of a block.
    fn level(&mut self, path: &str, base: &[MergeUnit], ours: &[MergeUnit], theirs: &[MergeUnit]) {
        for our in ours {
            self.one(path, find(base, &our.key), our, find(theirs, &our.key));
        }
        let mut at = ours.first().map_or(0, |unit| unit.extent.end);
        for their in theirs {
            if let Some(our) = find(ours, &their.key) {
                if their.key != TAIL {
                    at = our.extent.end;
                }
                continue;
            }
            let before = find(base, &their.key);
            match before {
                None => self.put(at..at, self.theirs.text[their.extent.clone()].to_owned()),
                // Removed on our side, unchanged on theirs.
                Some(_) if same(before, Some(their)) => {}
                Some(_) => self.conflict(path, &their.key, at..at, before, None, Some(their)),
            }
        }
    }

    fn one(&mut self, path: &str, base: Option<&MergeUnit>, our: &MergeUnit, their: Option<&MergeUnit>) {
        let extent = our.extent.clone();
        if same(Some(our), their) || same(base, their) {
            return;
        }
        match their {
            Some(their) if same(base, Some(our)) => {
                self.put(extent, self.theirs.text[their.extent.clone()].to_owned());
            }
            Some(their) if !our.inside.is_empty() && !their.inside.is_empty() => {
                let inside = base.map_or(&[][..], |base| &base.inside);
                self.level(&below(path, &our.key), inside, &our.inside, &their.inside);
            }
            None if same(base, Some(our)) => self.put(extent, String::new()),
            _ => self.conflict(path, &our.key, extent, base, Some(our), their),
        }
    }

    fn put(&mut self, range: Range<usize>, text: String) {
        self.edits.push(Edit { range, text });
    }

    fn conflict(
        &mut self,
        path: &str,
        key: &str,
        range: Range<usize>,
        base: Option<&MergeUnit>,
        ours: Option<&MergeUnit>,
        theirs: Option<&MergeUnit>,
    ) {
        let text = |side: &Side, unit: Option<&MergeUnit>| {
            let text = unit.map_or("", |unit| side.text[unit.extent.clone()].trim_matches('\n'));
            if text.is_empty() {
                String::new()
            } else {
                format!("{text}\n")
            }
        };
        let marked = format!(
            "<<<<<<< ours\n{}||||||| base\n{}=======\n{}>>>>>>> theirs\n",
            text(self.ours, ours),
            text(self.base, base),
            text(self.theirs, theirs)
        );
        self.put(range, marked);
        let canonical = |unit: Option<&MergeUnit>| unit.map(|unit| unit.canonical.clone());
        self.conflicts.push(Conflict {
            path: below(path, key),
            base: canonical(base),
            ours: canonical(ours),
            theirs: canonical(theirs),
        });
    }
}
