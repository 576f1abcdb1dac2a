//! Rules for the steps that prepare the text of a corpus.

use aurora_lang::diagnostics::{Code, Diagnostic};

use super::derive::has_pairs;
use crate::check::Checker;
use crate::language;
use crate::spec::{Block, Field};

/// Steps that change what they keep, or keep a part of a document.
const CHANGING: [&str; 4] = ["paragraphs", "reflow", "collapse", "trim"];

impl Checker<'_> {
    pub(super) fn preparation(&mut self, block: &Block) {
        let Some(prepare) = block.field("prepare") else { return };
        if prepare.is_written() {
            for short in ["unit", "minimum", "language_filter"] {
                if let Some(field) = block.field(short).filter(|field| field.is_written()) {
                    self.error(
                        Diagnostic::new(Code::NO_EFFECT, format!("`{short}` has no effect beside `prepare`"))
                            .label(field.span().unwrap_or(block.span), "would be ignored")
                            .label(block.place("prepare"), "has the steps")
                            .help(match short {
                                "unit" => "write the step `paragraphs`, or nothing for documents",
                                "minimum" => "write the step `minimum(…)`",
                                _ => "write the step `language`, or nothing",
                            }),
                    );
                }
            }
        }
        let steps = prepare.elements();
        let place = |step: &Field| step.span().unwrap_or(block.span);
        let tag = block.word("language");
        let untouched = match tag {
            _ if has_pairs(block) => Some(("pairs", "a prompt and its answer stay as they are")),
            Some("code") => Some(("code", "source code stays as it is")),
            _ => None,
        };
        for step in steps {
            let Some(name) = step.word() else { continue };
            let by_paragraph = step.argument("by").and_then(Field::word) == Some("paragraph");
            if let Some((what, why)) = untouched
                && (CHANGING.contains(&name) || by_paragraph)
            {
                self.error(
                    Diagnostic::new(
                        Code::NO_EFFECT,
                        format!("`{name}` would change documents of `{what}`: {why}"),
                    )
                    .label(place(step), format!("not with `{what}`"))
                    .help("leave it out: steps keep or drop complete documents here"),
                );
            }
            if name == "language"
                && let Some(tag) = tag
                && language::detection(tag).is_none()
            {
                let text = match tag {
                    "code" | "other" => format!("the language of a corpus in `{tag}` is not detected"),
                    _ => format!("nothing here detects the language `{tag}`"),
                };
                self.error(
                    Diagnostic::new(Code::NO_EFFECT, text)
                        .label(place(step), "has no effect")
                        .help("leave it out, and every document stays"),
                );
            }
        }
        let pairs = steps
            .windows(2)
            .filter_map(|pair| Some((pair[0].word()?, pair[1].word()?, &pair[1])));
        for (_, _, again) in pairs.filter(|(first, second, _)| first == second && *first != "deduplicate") {
            self.error(
                Diagnostic::new(Code::NO_EFFECT, "this step was the step before")
                    .label(place(again), "has no effect")
                    .help("remove it"),
            );
        }
        let last = steps.last().filter(|last| last.word() == Some("paragraphs"));
        if let Some(last) = last.filter(|_| untouched.is_none()) {
            self.error(
                Diagnostic::new(Code::NO_EFFECT, "no step after `paragraphs` works on paragraphs")
                    .label(place(last), "has no effect")
                    .help("add steps after it, such as `minimum(20 characters)`, or remove it"),
            );
        }
    }
}
