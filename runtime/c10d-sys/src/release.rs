//! The release of libtorch that this program is built for, and the one that is loaded.

use std::fmt;

use crate::raw;

/// A release of libtorch, such as 2.13.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LibtorchRelease {
    pub major: u8,
    pub minor: u8,
    pub patch: u8,
}

impl LibtorchRelease {
    /// The release of the headers that the shim was compiled with.
    pub fn built_for() -> Self {
        // SAFETY: no arguments, no effects.
        Self::of(unsafe { raw::c10d_libtorch_built_for() })
    }

    /// The release of the library that this process has loaded.
    pub fn loaded() -> Self {
        // SAFETY: no arguments, no effects; a function of libtorch's stable C interface.
        Self::of(unsafe { raw::aoti_torch_abi_version() })
    }

    /// Whether programs built for one of the two can load the other.
    pub fn is_compatible(self, other: Self) -> bool {
        (self.major, self.minor) == (other.major, other.minor)
    }

    /// Decodes libtorch's ABI version: the first three bytes are the numbers of the release.
    fn of(version: u64) -> Self {
        let [major, minor, patch, ..] = version.to_be_bytes();
        Self { major, minor, patch }
    }
}

impl fmt::Display for LibtorchRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}
