//! Types and numbers of the two interfaces.
//!
//! Sources: `nccl.h` of NCCL 2.32.3 (package nvidia-nccl-cu13), `rccl.h` of RCCL 5.4.3 (Debian, librccl-dev),
//! `driver_types.h` of CUDA and `hip_runtime_api.h` of HIP. Numbers are equal in both where both have them.

use std::ffi::{c_char, c_int, c_uint, c_void};

/// `ncclComm_t`: null is never passed to a library (RCCL 7.2.4 crashes on it in ncclAllReduce).
pub type RawCommunicator = *mut c_void;

/// `cudaStream_t`, `hipStream_t`: null is the default stream.
pub type RawStream = *mut c_void;

/// `cudaEvent_t`, `hipEvent_t`.
pub type RawEvent = *mut c_void;

/// `ncclUniqueId`: 128 bytes that the ranks of one communicator share. Passed by value.
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

/// `ncclConfig_t` as NCCL 2.14 had it: later versions fill in what an older one does not have, going by `size` and
/// `version` (`parseCommConfig` in NCCL's init.cc).
#[repr(C)]
#[derive(Debug)]
pub struct Configuration {
    pub size: usize,
    pub magic: c_uint,
    pub version: c_uint,
    /// 0: calls come back at once, and [`crate::Communicator::progress`] says how far they are.
    pub blocking: c_int,
    /// Padding; `NCCL_CONFIG_UNDEF_INT`, in case that a library reads it as the field that came next.
    pub unused: c_int,
}

impl Configuration {
    /// A configuration for calls that come back at once.
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

/// `ncclDataType_t`.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    I8 = 0,
    U8 = 1,
    I32 = 2,
    I64 = 4,
    F16 = 6,
    F32 = 7,
    F64 = 8,
    Bf16 = 9,
}

/// `ncclRedOp_t`: the sum.
pub const SUM: c_int = 0;

/// `ncclResult_t`: done; in an asynchronous call: nothing is under way and nothing went wrong.
pub const SUCCESS: c_int = 0;
/// `ncclRemoteError`: a peer has gone, or the network to it has (NCCL 2.13 and later).
pub const REMOTE_ERROR: c_int = 6;
/// `ncclInProgress` (NCCL 2.14 and later).
pub const IN_PROGRESS: c_int = 7;

/// `cudaErrorNotReady`, `hipErrorNotReady`: an event is still to come.
pub const NOT_READY: c_int = 600;
/// `cudaErrorNoDevice`, `hipErrorNoDevice`.
pub const NO_DEVICE: c_int = 100;
/// `cudaErrorInsufficientDriver`: the runtime is there without a driver, or with one that is too old.
pub const INSUFFICIENT_DRIVER: c_int = 35;

/// `cudaStreamNonBlocking`, `hipStreamNonBlocking`: not ordered with the default stream but by events.
pub const STREAM_NON_BLOCKING: c_uint = 1;
/// `cudaEventDisableTiming`, `hipEventDisableTiming`.
pub const EVENT_DISABLE_TIMING: c_uint = 2;
