//! The functions of `shim/shim.cpp`. They return 0, or 1 and a text.

use std::ffi::{c_char, c_int, c_void};

/// Buffer for an error text, which is truncated to fit and ends with a zero byte.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ErrorText {
    pub bytes: *mut c_char,
    pub capacity: usize,
}

unsafe extern "C" {
    pub fn aten_flash_forward(
        query: *const c_void,
        key: *const c_void,
        value: *const c_void,
        scale: f64,
        out: *mut *mut c_void,
        lse: *mut *mut c_void,
        error: ErrorText,
    ) -> c_int;
    pub fn aten_flash_backward(
        dout: *const c_void,
        query: *const c_void,
        key: *const c_void,
        value: *const c_void,
        out: *const c_void,
        lse: *const c_void,
        scale: f64,
        dquery: *mut *mut c_void,
        dkey: *mut *mut c_void,
        dvalue: *mut *mut c_void,
        error: ErrorText,
    ) -> c_int;
    pub fn aten_fix_arithmetic(error: ErrorText) -> c_int;
    pub fn aten_stream(index: c_int, stream: *mut *mut c_void, error: ErrorText) -> c_int;
    pub fn aten_memory(index: c_int, figures: *mut i64, error: ErrorText) -> c_int;
}
