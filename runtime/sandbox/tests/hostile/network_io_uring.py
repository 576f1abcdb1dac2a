# Opens a socket by a ring, past a filter of system calls.
import ctypes
from target import attempt, call

attempt("a ring", call, "io_uring_setup", 8, ctypes.addressof(ctypes.create_string_buffer(256)))
