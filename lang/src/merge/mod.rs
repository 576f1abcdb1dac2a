//! Two changes of one spec, joined by what they say: a block by its kind and name, an entry by its name.
//!
//! In: the text that both sides began with, and theirs. Out: our text with what the other side has changed, and what both
//! have changed in different ways, marked in the text as git marks it. Sides that differ in layout alone don't differ.
//! Not here: whether the result makes sense, which is `check`'s, and git.

mod units;

use std::ops::Range;

use crate::diagnostics::Diagnostic;
use crate::format;
use units::{HEAD, Side, TAIL, Unit};

/// The joined text.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// With conflict markers, if there are conflicts.
    pub text: String,
    pub conflicts: Vec<Conflict>,
}

/// One thing that both sides have changed in different ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `stage.cap.budget`.
    pub path: String,
    /// As both sides began with it; nothing if it was not there.
    pub base: Option<String>,
    pub ours: Option<String>,
    pub theirs: Option<String>,
}

/// A side that has syntax faults cannot be merged by what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// `base`, `ours` or `theirs`.
    pub side: &'static str,
    pub faults: Vec<Diagnostic>,
}

/// Joins two changes of `base`.
///
/// # Errors
/// [`Unreadable`], if one of the texts has syntax faults.
pub fn merge(base: &str, ours: &str, theirs: &str) -> Result<Merged, Unreadable> {
    let side = |side, text| Side::new(text).map_err(|faults| Unreadable { side, faults });
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

/// A range of our text and what takes its place.
struct Edit {
    range: Range<usize>,
    text: String,
}

fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    // Of several at one place the first that was made is the first.
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

fn find<'u>(units: &'u [Unit], key: &str) -> Option<&'u Unit> {
    units.iter().find(|unit| unit.key == key)
}

fn same(one: Option<&Unit>, other: Option<&Unit>) -> bool {
    one.map(|unit| &unit.canonical) == other.map(|unit| &unit.canonical)
}

/// `budget` in `stage cap` as `stage.cap.budget`.
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
    /// One level: all blocks of a file, or all entries of a block.
    fn level(&mut self, path: &str, base: &[Unit], ours: &[Unit], theirs: &[Unit]) {
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
                // Gone on our side, and left as it was on theirs.
                Some(_) if same(before, Some(their)) => {}
                Some(_) => self.conflict(path, &their.key, at..at, before, None, Some(their)),
            }
        }
    }

    fn one(&mut self, path: &str, base: Option<&Unit>, our: &Unit, their: Option<&Unit>) {
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
        base: Option<&Unit>,
        ours: Option<&Unit>,
        theirs: Option<&Unit>,
    ) {
        let text = |side: &Side, unit: Option<&Unit>| {
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
        let said = |unit: Option<&Unit>| unit.map(|unit| unit.canonical.clone());
        self.conflicts.push(Conflict {
            path: below(path, key),
            base: said(base),
            ours: said(ours),
            theirs: said(theirs),
        });
    }
}
