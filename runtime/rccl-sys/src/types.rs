//! Types and numbers of the two interfaces.
//!
//! Sources: `nccl.h` of NCCL 2.32.3 (package nvidia-nccl-cu13), `rccl.h` of RCCL 5.4.3 (Debian, librccl-dev),
//! `driver_types.h` of CUDA and `hip_runtime_api.h` of HIP. Numbers are equal in both where both have them.

use std::ffi::{c_char, c_int, c_uint, c_void};

/// `ncclComm_t`: never null in calls, which crash some libraries.
pub type RawCommunicator = *mut c_void;

/// `cudaStream_t`, `hipStream_t`: null is the default stream.
pub type RawStream = *mut c_void;

/// `cudaEvent_t`, `hipEvent_t`.
pub type RawEvent = *mut c_void;

/// `ncclUniqueId`: 128 bytes that the ranks of one communicator have in common. Passed by value.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UniqueId(pub [c_char; UniqueId::BYTES]);

impl UniqueId {
    /// `NCCL_UNIQUE_ID_BYTES`.
    pub const BYTES: usize = 128;

    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes.map(|byte| byte as c_char))
    }

    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        self.0.map(|byte| byte as u8)
    }
}

impl std::fmt::Debug for UniqueId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UniqueId(…)")
    }
}

/// `ncclConfig_t` as in NCCL 2.14: later versions fill in missing fields according to `size` and `version`
/// (`parseCommConfig` in NCCL's init.cc).
#[repr(C)]
#[derive(Debug)]
pub struct Configuration {
    pub size: usize,
    pub magic: c_uint,
    pub version: c_uint,
    /// 0: calls return at once, and [`crate::Communicator::progress`] reports their progress.
    pub blocking: c_int,
    /// Padding; `NCCL_CONFIG_UNDEF_INT`, in case a library reads it as the next field.
    pub unused: c_int,
}

impl Configuration {
    /// A configuration for non-blocking calls.
    pub fn nonblocking() -> Self {
        Self {
            size: size_of::<Self>(),
            magic: 0xcafe_beef,
            version: 21_400,
            blocking: 0,
            unused: c_int::MIN,
        }
    }
}

/// `ncclDataType_t`: transfers move bytes.
pub const U8: c_int = 1;

/// `ncclResult_t`: done; for an asynchronous call: nothing is in progress and nothing failed.
pub const SUCCESS: c_int = 0;
/// `ncclRemoteError`: a peer was lost, or the network to it (NCCL 2.13 and later).
pub const REMOTE_ERROR: c_int = 6;
/// `ncclInProgress` (NCCL 2.14 and later).
pub const IN_PROGRESS: c_int = 7;

/// `cudaErrorNotReady`, `hipErrorNotReady`: an event has not been reached.
pub const NOT_READY: c_int = 600;
/// `cudaErrorNoDevice`, `hipErrorNoDevice`.
pub const NO_DEVICE: c_int = 100;
/// `cudaErrorInsufficientDriver`: the runtime has no driver, or one that is too old.
pub const INSUFFICIENT_DRIVER: c_int = 35;

/// `cudaStreamNonBlocking`, `hipStreamNonBlocking`: ordered with the default stream by events only.
pub const STREAM_NON_BLOCKING: c_uint = 1;
/// `cudaEventDisableTiming`, `hipEventDisableTiming`.
pub const EVENT_DISABLE_TIMING: c_uint = 2;
