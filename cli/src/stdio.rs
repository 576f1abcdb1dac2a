//! Standard output and standard error, without the panics of `println!`.
//!
//! Results go to standard output through [`out!`] and [`outln!`], everything else to standard error through [`errln!`].

use std::fmt::Arguments;
use std::io::{self, Write};

/// Writes to standard output. A closed pipe (`aurora build SPEC | head`) is an error, which ends the command.
macro_rules! out {
    ($($text:tt)*) => { $crate::stdio::write_out(format_args!($($text)*)) };
}

/// Writes a line to standard output, as [`out!`] does.
macro_rules! outln {
    ($($text:tt)*) => { $crate::stdio::write_out(format_args!("{}\n", format_args!($($text)*))) };
}

/// Writes a line to standard error. Nothing can be reported if that fails.
macro_rules! errln {
    ($($text:tt)*) => { $crate::stdio::write_err(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {errln, out, outln};

pub fn write_out(text: Arguments<'_>) -> io::Result<()> {
    io::stdout().lock().write_fmt(text)
}

pub fn write_err(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}
