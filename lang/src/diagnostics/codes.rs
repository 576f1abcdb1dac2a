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
    UNKNOWN_BLOCK = "E0201", "unknown kind of block", "", wrong "", right "";
    NESTED_BLOCK = "E0202", "block inside a block", "", wrong "", right "";
    UNKNOWN_FIELD = "E0203", "unknown field", "", wrong "", right "";
    DUPLICATE_FIELD = "E0204", "field set twice", "", wrong "", right "";
    DUPLICATE_BLOCK = "E0205", "block declared twice", "", wrong "", right "";
    UNKNOWN_NAME = "E0206", "unknown name", "", wrong "", right "";
    WRONG_KIND = "E0207", "name of another kind", "", wrong "", right "";
    UNKNOWN_CALL = "E0208", "unknown call", "", wrong "", right "";
    UNKNOWN_ARGUMENT = "E0209", "unknown argument", "", wrong "", right "";
    MISSING_FIELD = "E0210", "missing field", "", wrong "", right "";
    BAD_ARGUMENT = "E0211", "missing or misplaced argument", "", wrong "", right "";
    EXPERIMENT_COUNT = "E0212", "not exactly one experiment", "", wrong "", right "";
    CYCLE = "E0213", "stages in a circle", "", wrong "", right "";
    UNKNOWN_PROFILE = "E0214", "unknown profile", "", wrong "", right "";
    AMBIGUOUS_NAME = "E0215", "stage and model of one name", "", wrong "", right "";
    UNKNOWN_METRIC = "E0216", "metric that will not exist", "", wrong "", right "";
    BAD_PROFILE = "E0217", "profile that changes no field", "", wrong "", right "";
    PATH_OUTSIDE_PROFILE = "E0218", "path outside of a profile", "", wrong "", right "";
    WRONG_TYPE = "E0301", "value of another type", "", wrong "", right "";
    WRONG_UNIT = "E0302", "wrong or missing unit", "", wrong "", right "";
    UNKNOWN_WORD = "E0303", "unknown word", "", wrong "", right "";
    OUT_OF_RANGE = "E0304", "value out of range", "", wrong "", right "";
    UNKNOWN_UNIT = "E0305", "unknown unit", "", wrong "", right "";
    CANNOT_BE_UNKNOWN = "E0306", "value that cannot be unknown", "", wrong "", right "";
    NUMBER_OUT_OF_REACH = "E0307", "number that cannot be held exactly", "", wrong "", right "";
    WEIGHTS = "E0308", "weights do not sum to 100%", "", wrong "", right "";
    NO_EFFECT = "E0309", "field without an effect", "", wrong "", right "";
    BAD_SOURCE = "E0310", "malformed source", "", wrong "", right "";
    SOURCE_NOT_SUPPORTED = "E0311", "source that cannot be fetched yet", "", wrong "", right "";
    BAD_LIST = "E0312", "empty list or repeated element", "", wrong "", right "";
    BAD_EVIDENCE = "E0313", "malformed evidence", "", wrong "", right "";
    NOTHING_HELD_OUT = "E0314", "eval of an empty split", "", wrong "", right "";
    TRAINED_ON_EVAL = "E0315", "eval of training data", "", wrong "", right "";
    VOCABULARY_TOO_SMALL = "E0316", "model with too small a vocabulary", "", wrong "", right "";
    NO_STATE_TO_KEEP = "E0317", "no optimizer state to keep", "", wrong "", right "";
    BAD_PATTERN = "E0318", "malformed pattern", "", wrong "", right "";
    BAD_GATE = "E0319", "gate that compares unlike things", "", wrong "", right "";
    HEADS = "E0401", "width not divisible by heads", "", wrong "", right "";
    KV_HEADS = "E0402", "heads not divisible by key-value heads", "", wrong "", right "";
    SEQUENCE_TOO_LONG = "E0403", "sequence longer than the context", "", wrong "", right "";
    NOT_WHOLE_STEPS = "E0404", "not a whole number of steps", "", wrong "", right "";
    EVAL_BETWEEN_CHECKPOINTS = "E0405", "eval where no checkpoint is kept", "", wrong "", right "";
    BATCH_SPLIT = "E0406", "global batch that does not split evenly", "", wrong "", right "";
    GRID = "E0407", "model that the logical grid does not split evenly", "", wrong "", right "";
    SCHEDULE_TOO_LONG = "E0408", "schedule longer than its stage", "", wrong "", right "";
    LAYOUT_TENSOR = "E0409", "tensor degree that does not divide", "", wrong "", right "";
    LAYOUT_DATA = "E0410", "data degree that does not divide", "", wrong "", right "";
    LAYOUT_PIPELINE = "E0411", "more pipeline stages than layers", "", wrong "", right "";
    WORLD = "E0412", "layout that does not fit the machine", "", wrong "", right "";
    LAYOUT_MICRO_BATCH = "E0413", "two different micro-batches", "", wrong "", right "";
    LOCK_MALFORMED = "E0501", "not a lock", "", wrong "", right "";
    LOCK_CONFLICT = "E0502", "merge conflict in a lock", "", wrong "", right "";
    LOCK_TOO_NEW = "E0503", "lock of a newer version", "", wrong "", right "";
    LOCK_OF_ANOTHER_SPEC = "E0504", "lock of another spec", "", wrong "", right "";
    LOCK_ENTRY_DISAGREES = "E0505", "lock entry that does not follow from its spec", "", wrong "", right "";
    LOCK_WOULD_CHANGE = "E0506", "lock is stale", "", wrong "", right "";
    SOURCE_NOT_PINNED = "E0507", "source is not pinned", "", wrong "", right "";
    UNUSED = "W0201", "block that is never used", "", wrong "", right "";
    NOT_EXECUTED = "W0401", "layout of several workers", "", wrong "", right "";
}
