//! The table of codes: what each means, with an example of wrong and right, for `aurora explain` and the book.

use std::fmt;

use serde::{Serialize, Serializer};

use super::Severity;

/// A stable code such as `E0203`; the constants of this type are all there are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(&'static str);

/// What a code means.
#[derive(Clone, Copy, Debug)]
pub struct Explanation {
    pub code: Code,
    /// A few words, such as "unknown field".
    pub title: &'static str,
    /// Paragraphs of Markdown.
    pub text: &'static str,
    /// Shows the fault. A line `// …` stands for what a whole spec has besides.
    pub wrong: &'static str,
    /// The same without the fault.
    pub right: &'static str,
}

impl Code {
    /// The code as it is printed, such as `E0203`.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// `E…` is an error, `W…` a warning.
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

/// The explanation of a code, written in any case.
pub fn explain(code: &str) -> Option<&'static Explanation> {
    let code = code.trim().to_ascii_uppercase();
    TABLE.iter().find(|entry| entry.code.0 == code)
}

macro_rules! codes {
    ($($constant:ident = $code:literal, $title:literal, $text:literal, wrong $wrong:literal, right $right:literal;)*) => {
        impl Code {
            $(#[doc = concat!($code, ": ", $title)] pub const $constant: Code = Code($code);)*
        }

        /// Every code, sorted.
        pub const TABLE: &[Explanation] = &[
            $(Explanation { code: Code::$constant, title: $title, text: $text, wrong: $wrong, right: $right },)*
        ];
    };
}

codes! {
    SYNTAX = "E0101", "unexpected text", "", wrong "", right "";
    UNCLOSED = "E0102", "bracket is never closed", "", wrong "", right "";
    TOO_DEEP = "E0103", "nested too deeply", "", wrong "", right "";
    FILE_TOO_LARGE = "E0104", "file too large", "", wrong "", right "";
    UNCLOSED_STRING = "E0105", "text is never closed", "", wrong "", right "";
    UNKNOWN_ESCAPE = "E0106", "unknown escape", "", wrong "", right "";
    NOT_SUPPORTED = "E0107", "not supported yet", "", wrong "", right "";
    LOCK_MALFORMED = "E0501", "not a lock", "", wrong "", right "";
    LOCK_CONFLICT = "E0502", "merge conflict in a lock", "", wrong "", right "";
    LOCK_TOO_NEW = "E0503", "lock of a newer version", "", wrong "", right "";
    LOCK_OF_ANOTHER_SPEC = "E0504", "lock of another spec", "", wrong "", right "";
    LOCK_ENTRY_DISAGREES = "E0505", "lock entry that does not follow from its spec", "", wrong "", right "";
    LOCK_WOULD_CHANGE = "E0506", "lock is stale", "", wrong "", right "";
    SOURCE_NOT_PINNED = "E0507", "source is not pinned", "", wrong "", right "";
}
