//! White space: runs collapsed, wrapped lines joined. White space is what Unicode calls White_Space.

/// Collapses every run of white space to one space and trims both ends.
pub fn collapse(text: &str) -> String {
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
pub fn reflow(text: &str) -> String {
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
pub fn push_paragraph(out: &mut String, paragraph: &str) {
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
