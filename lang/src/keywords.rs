//! The words that decide where a block or statement of a file ends.
//!
//! The grammar (`parse/grammar.pest`) contains the same words; a test compares the two.

/// Words that start a statement. A statement ends with its line, a block with its brace.
pub const STATEMENTS: [&str; 4] = ["import", "extends", "let", "param"];

/// Blocks and statements that change other blocks: they contain paths such as `stage.cap.budget`, and blocks.
pub const CHANGE_BLOCKS: [&str; 3] = ["profile", "sweep", "extends"];

/// Introduces the allowed values of a `param`, also on a new line.
pub const IN: &str = "in";
