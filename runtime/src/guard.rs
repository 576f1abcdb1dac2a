//! Libraries that panic on wrong input.
//!
//! In: a call into a library. Out: its result, or the text of its panic. Used only where a library is known to panic on
//! input that it should refuse; what it was working on is thrown away. Not here: bugs of Aurora, which end the program.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread is caught, so that nothing is printed for it.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Calls a library; a panic in it is the error.
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                before(panic);
            }
        }));
    });
    let outer = QUIET.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    QUIET.set(outer);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic")
            .to_owned()
    })
}
