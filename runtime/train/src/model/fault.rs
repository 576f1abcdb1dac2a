//! A deliberate change of one sum, for tests of `aurora bisect`. Compiled in for tests only.

use aurora_runtime::trace::Operation;

/// The sum over shards that is added in another order, if there is one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fault {
    #[cfg(any(test, feature = "fault-injection"))]
    pub sum: Option<Operation>,
}

impl Fault {
    /// Whether `sum` is added from the last rank to the first.
    pub(super) fn reverses(self, sum: Operation) -> bool {
        #[cfg(any(test, feature = "fault-injection"))]
        return self.sum == Some(sum);
        #[cfg(not(any(test, feature = "fault-injection")))]
        {
            let _ = sum;
            false
        }
    }
}
