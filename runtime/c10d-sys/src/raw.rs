//! The functions of `shim/shim.cpp`. Statuses: 0 done, 1 failed, 2 the store did not answer in time.

use std::ffi::{c_char, c_int, c_void};

#[repr(C)]
pub struct Store {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct Group {
    _opaque: [u8; 0],
}

#[repr(C)]
pub struct Work {
    _opaque: [u8; 0],
}

/// Where an error's text goes, cut to fit and ended by a zero.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Text {
    pub bytes: *mut c_char,
    pub capacity: usize,
}

unsafe extern "C" {
    pub fn c10d_store_open(
        host: *const c_char,
        port: u16,
        listener: c_int,
        timeout_ms: i64,
        out: *mut *mut Store,
        error: Text,
    ) -> c_int;
    pub fn c10d_store_under(base: *mut Store, prefix: *const c_char, out: *mut *mut Store, error: Text) -> c_int;
    pub fn c10d_store_set(store: *mut Store, key: *const c_char, error: Text) -> c_int;
    pub fn c10d_store_wait(store: *mut Store, key: *const c_char, timeout_ms: i64, error: Text) -> c_int;
    pub fn c10d_store_free(store: *mut Store);
    pub fn c10d_group_new(
        store: *mut Store,
        rank: c_int,
        size: c_int,
        address: *const c_char,
        timeout_ms: i64,
        out: *mut *mut Group,
        error: Text,
    ) -> c_int;
    pub fn c10d_group_free(group: *mut Group);
    pub fn c10d_send(
        group: *mut Group,
        tensor: *const c_void,
        to: c_int,
        tag: c_int,
        out: *mut *mut Work,
        error: Text,
    ) -> c_int;
    pub fn c10d_receive(
        group: *mut Group,
        tensor: *const c_void,
        from: c_int,
        tag: c_int,
        out: *mut *mut Work,
        error: Text,
    ) -> c_int;
    pub fn c10d_work_wait(work: *mut Work, timeout_ms: i64, error: Text) -> c_int;
    pub fn c10d_work_free(work: *mut Work);
    pub fn c10d_sum(group: *mut Group, tensor: *const c_void, timeout_ms: i64, error: Text) -> c_int;
    pub fn c10d_size_of_group() -> usize;
}
