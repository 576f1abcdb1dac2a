//! Plain text: white space is collapsed, wrapped lines are joined.

/// Collapses every run of white space to one space and trims both ends.
pub(super) fn collapse(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// Paragraphs are separated by empty lines; each becomes one line.
pub(super) fn paragraphs(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut paragraph = String::new();
    for line in text.lines().chain([""]) {
        if !line.trim().is_empty() {
            paragraph.push_str(line);
            paragraph.push(' ');
            continue;
        }
        push_paragraph(&mut out, &paragraph);
        paragraph.clear();
    }
    out
}

/// Adds a paragraph as a line, unless it is empty.
pub(super) fn push_paragraph(out: &mut String, paragraph: &str) {
    let before = out.len();
    for word in paragraph.split_whitespace() {
        if out.len() > before {
            out.push(' ');
        } else if before > 0 {
            out.push('\n');
        }
        out.push_str(word);
    }
}
