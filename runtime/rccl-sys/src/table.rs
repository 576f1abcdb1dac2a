//! The functions that the libraries export; all are optional.
//!
//! A library that is older than a function does not have it: RCCL 5.4.3 has neither `ncclCommInitRankConfig` nor
//! `ncclCommFinalize`. Callers decide what happens then.

use std::ffi::{c_char, c_int, c_uint, c_void};

use crate::types::{Configuration, RawCommunicator, RawEvent, RawStream, UniqueId};

macro_rules! table {
    ($(#[$about:meta])* $table:ident { $($(#[$doc:meta])* $name:ident($($argument:ty),*) -> $result:ty;)* }) => {
        $(#[$about])*
        #[allow(non_snake_case)]
        #[derive(Clone, Copy, Debug)]
        pub struct $table {
            $($(#[$doc])* pub $name: Option<unsafe extern "C" fn($($argument),*) -> $result>,)*
        }

        impl $table {
            /// Looks up every function by its name with `prefix`.
            ///
            /// # Safety
            /// The library's functions with these names have the types in this table, and the library stays loaded as
            /// long as the table is used.
            pub unsafe fn load(library: &libloading::Library, prefix: &str) -> Self {
                Self {
                    // SAFETY: the caller guarantees the types.
                    $($name: unsafe {
                        library
                            .get::<unsafe extern "C" fn($($argument),*) -> $result>(
                                format!(concat!("{}", stringify!($name), "\0"), prefix).as_bytes(),
                            )
                            .ok()
                            .map(|symbol| *symbol)
                    },)*
                }
            }

            /// Names, without their prefix, that the library does not have.
            pub fn missing(&self) -> Vec<&'static str> {
                [$((stringify!($name), self.$name.is_none())),*]
                    .into_iter()
                    .filter_map(|(name, missing)| missing.then_some(name))
                    .collect()
            }
        }
    };
}

table! {
    /// NCCL's and RCCL's functions (prefix `nccl` in both). All but the texts and the version return `ncclResult_t`.
    Collectives {
        /// Writes the version as one number (see [`crate::Version`]).
        GetVersion(*mut c_int) -> c_int;
        GetErrorString(c_int) -> *const c_char;
        /// What led to the last error of this process, whatever the communicator. NCCL 2.13 and later.
        GetLastError(RawCommunicator) -> *const c_char;
        GetUniqueId(*mut UniqueId) -> c_int;
        /// Returns when all ranks of the communicator have called it.
        CommInitRank(*mut RawCommunicator, c_int, UniqueId, c_int) -> c_int;
        /// NCCL 2.14 and later.
        CommInitRankConfig(*mut RawCommunicator, c_int, UniqueId, c_int, *mut Configuration) -> c_int;
        CommGetAsyncError(RawCommunicator, *mut c_int) -> c_int;
        /// Aborts work in progress and frees the communicator.
        CommAbort(RawCommunicator) -> c_int;
        /// Waits for work in progress, without blocking. NCCL 2.14 and later.
        CommFinalize(RawCommunicator) -> c_int;
        CommDestroy(RawCommunicator) -> c_int;
        GroupStart() -> c_int;
        GroupEnd() -> c_int;
        Send(*const c_void, usize, c_int, c_int, RawCommunicator, RawStream) -> c_int;
        Recv(*mut c_void, usize, c_int, c_int, RawCommunicator, RawStream) -> c_int;
    }
}

table! {
    /// The runtime's functions (prefix `hip` or `cuda`). All but the text return `hipError_t`, `cudaError_t`.
    Runtime {
        GetDeviceCount(*mut c_int) -> c_int;
        RuntimeGetVersion(*mut c_int) -> c_int;
        GetErrorString(c_int) -> *const c_char;
        /// The device of the calling thread.
        SetDevice(c_int) -> c_int;
        StreamCreateWithFlags(*mut RawStream, c_uint) -> c_int;
        StreamDestroy(RawStream) -> c_int;
        /// Later work of the stream waits for the event as it was last recorded. The last argument is 0.
        StreamWaitEvent(RawStream, RawEvent, c_uint) -> c_int;
        EventCreateWithFlags(*mut RawEvent, c_uint) -> c_int;
        EventRecord(RawEvent, RawStream) -> c_int;
        EventQuery(RawEvent) -> c_int;
        EventDestroy(RawEvent) -> c_int;
    }
}
