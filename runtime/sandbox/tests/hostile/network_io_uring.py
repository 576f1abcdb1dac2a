# Opens a socket through io_uring, which a filter of system calls does not see.
import ctypes
from target import attempt, call

attempt("a ring", call, "io_uring_setup", 8, ctypes.addressof(ctypes.create_string_buffer(256)))
