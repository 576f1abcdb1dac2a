//! The functions of `shim/shim.cpp`. Statuses: 0 done, 1 failed, 2 the store did not answer in time.

use std::ffi::{c_char, c_int, c_void};

#[repr(C)]
pub struct TcpStore {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct ProcessGroup {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct Work {
    _opaque: [u8; 0],
}

/// Buffer for an error text, which is truncated to fit and ends with a zero byte.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ErrorText {
    pub bytes: *mut c_char,
    pub capacity: usize,
}

unsafe extern "C" {
    pub fn c10d_store_open(
        host: *const c_char,
        port: u16,
        listener: c_int,
        timeout_ms: i64,
        out: *mut *mut TcpStore,
        error: ErrorText,
    ) -> c_int;
    pub fn c10d_store_under(
        base: *mut TcpStore,
        prefix: *const c_char,
        out: *mut *mut TcpStore,
        error: ErrorText,
    ) -> c_int;
    pub fn c10d_store_set(store: *mut TcpStore, key: *const c_char, error: ErrorText) -> c_int;
    pub fn c10d_store_wait(store: *mut TcpStore, key: *const c_char, timeout_ms: i64, error: ErrorText) -> c_int;
    pub fn c10d_store_free(store: *mut TcpStore);
    pub fn c10d_group_new(
        store: *mut TcpStore,
        rank: c_int,
        size: c_int,
        address: *const c_char,
        timeout_ms: i64,
        out: *mut *mut ProcessGroup,
        error: ErrorText,
    ) -> c_int;
    pub fn c10d_group_free(group: *mut ProcessGroup);
    pub fn c10d_send(
        group: *mut ProcessGroup,
        tensor: *const c_void,
        to: c_int,
        tag: c_int,
        out: *mut *mut Work,
        error: ErrorText,
    ) -> c_int;
    pub fn c10d_receive(
        group: *mut ProcessGroup,
        tensor: *const c_void,
        from: c_int,
        tag: c_int,
        out: *mut *mut Work,
        error: ErrorText,
    ) -> c_int;
    pub fn c10d_work_wait(work: *mut Work, timeout_ms: i64, error: ErrorText) -> c_int;
    pub fn c10d_work_free(work: *mut Work);
    pub fn c10d_size_of_group() -> usize;
    pub fn c10d_libtorch_built_for() -> u64;
    /// libtorch's own.
    pub fn aoti_torch_abi_version() -> u64;
}
