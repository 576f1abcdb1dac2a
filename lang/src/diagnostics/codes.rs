//! Diagnostic codes, and what each means: for `aurora explain` and the book.

use std::fmt;

use serde::{Serialize, Serializer};

use super::Severity;

/// A stable code such as `E0203`. Its constants are all codes that exist.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(&'static str);

/// What a code means.
#[derive(Clone, Copy, Debug)]
pub struct Explanation {
    pub code: Code,
    /// Such as "unknown field".
    pub title: &'static str,
    /// Paragraphs of Markdown.
    pub text: &'static str,
    /// A spec with the error. A line `// …` represents the rest of the spec.
    pub wrong: &'static str,
    /// The same spec without the error.
    pub right: &'static str,
}

impl Code {
    pub(super) const fn of(code: &'static str) -> Self {
        Self(code)
    }

    /// The code as it is printed, such as `E0203`.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// An error for `E…`, a warning for `W…`.
    pub fn severity(self) -> Severity {
        if self.0.starts_with('W') {
            Severity::Warning
        } else {
            Severity::Error
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

macro_rules! codes {
    ($($constant:ident = $code:literal, $title:literal, $text:literal, wrong $wrong:literal, right $right:literal;)*) => {
        impl $crate::diagnostics::Code {
            $(#[doc = concat!($code, ": ", $title)] pub const $constant: $crate::diagnostics::Code = $crate::diagnostics::Code::of($code);)*
        }

        /// Every code with its explanation, sorted by code.
        pub const TABLE: &[$crate::diagnostics::codes::Explanation] = &[
            $($crate::diagnostics::codes::Explanation { code: $crate::diagnostics::Code::$constant, title: $title, text: $text, wrong: $wrong, right: $right },)*
        ];
    };
}
pub(super) use codes;

impl Explanation {
    /// The explanation as a Markdown page of the book; `aurora explain` prints the same.
    pub fn page(&self) -> String {
        let mut page = format!("# {}: {}\n\n{}\n", self.code, self.title, self.text);
        for (head, example) in [("Wrong", self.wrong), ("Right", self.right)] {
            if !example.is_empty() {
                page.push_str(&format!("\n{head}:\n\n```aur\n{example}\n```\n"));
            }
        }
        page
    }
}
