//! Standard output and standard error, without the panics of `println!`, and safe for terminals.
//!
//! Results go to standard output through [`outln!`], everything else to standard error through [`errln!`]: lines with values
//! of specs, data, programs and servers. Characters in values that control a terminal are printed as codes, and a line break
//! of a value continues its line after `  | `, so that no value can look like a line of Aurora. [`out_text`] prints texts
//! whose lines are all Aurora's own or those of a file that is the result; [`out_json`] prints JSON, which stays exact.

use std::fmt::{self, Arguments, Write as _};
use std::io::{self, Write};

use aurora_lang::printable::{controls, printable_coloured, printable_lines};
use aurora_runtime::redact;

/// Writes a line to standard output. A closed pipe (`aurora build SPEC | head`) is an error, which ends the command.
macro_rules! outln {
    ($format:literal $($values:tt)*) => {
        $crate::stdio::write_out($format, format_args!($format $($values)*))
    };
}

/// Writes a line to standard error, without secrets. Nothing can be reported if that fails.
macro_rules! errln {
    ($format:literal $($values:tt)*) => {
        $crate::stdio::write_err($format, format_args!($format $($values)*))
    };
}

pub(crate) use {errln, outln};

/// Standard output cannot be written to.
#[derive(Debug)]
pub struct OutputError(pub io::Error);

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot write to standard output: {}", self.0)
    }
}

impl std::error::Error for OutputError {}

pub type Printed = Result<(), OutputError>;

/// Writes the line with this format, of which only the line breaks begin a new line.
pub fn write_out(format: &str, line: Arguments<'_>) -> Printed {
    write_to_out(&lines(format, &line.to_string()))
}

/// As [`write_out`], to standard error, and without secrets.
pub fn write_err(format: &str, line: Arguments<'_>) {
    let text = line.to_string();
    let safe = lines(format, &redact::message(&text));
    let _ = io::stderr().lock().write_all(safe.as_bytes());
}

/// Writes a text to standard output. All its lines are Aurora's own, or those of a file.
pub fn out_text(text: &str) -> Printed {
    write_to_out(&printable_lines(text))
}

/// Writes rendered diagnostics to standard error. The renderer has coloured them, and has made their values printable; secrets are removed.
pub fn err_rendered(text: &str) {
    let _ = io::stderr()
        .lock()
        .write_all(printable_coloured(&redact::message(text)).as_bytes());
}

/// Writes a JSON text and a line end to standard output. Characters that would control a terminal are in it as `\u…`, which
/// is the same JSON.
pub fn out_json(text: &str) -> Printed {
    let mut safe = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        // Line ends are between values: in strings, JSON has them as `\n`.
        if controls(character) && character != '\n' {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(character);
        }
    }
    safe.push('\n');
    write_to_out(&safe)
}

fn write_to_out(text: &str) -> Printed {
    io::stdout().lock().write_all(text.as_bytes()).map_err(OutputError)
}

fn lines(format: &str, text: &str) -> String {
    let mut safe = printable_lines(text).into_owned();
    let breaks = |text: &str| text.bytes().filter(|byte| *byte == b'\n').count();
    if breaks(&safe) > breaks(format) {
        safe = safe.replace('\n', "\n  | ");
    }
    safe.push('\n');
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_begin_a_line() {
        let forged = "x\nerror: forged\n  = help: run it";
        let line = lines("a {}: b", &format!("a {forged}: b"));
        assert_eq!(line, "a x\n  | error: forged\n  |   = help: run it: b\n");
        let line = lines("a\nb {}", &format!("a\nb {forged}"));
        assert_eq!(line, "a\n  | b x\n  | error: forged\n  |   = help: run it\n");
        assert_eq!(lines("a\nb {}", &format!("a\nb {}", "c")), "a\nb c\n");
        assert_eq!(lines("{}", "\u{1b}[31mred\r"), "\\u{1b}[31mred\\u{d}\n");
    }
}
