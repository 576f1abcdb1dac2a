//! The language reference as Markdown, made from the tables.

/// Returns the reference.
pub fn reference() -> String {
    String::new()
}
