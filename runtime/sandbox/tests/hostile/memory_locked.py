# Locks memory, so that it cannot be swapped out.
import ctypes
from target import attempt, call

area = ctypes.create_string_buffer(1 << 20)
attempt("locked memory", call, "mlock", ctypes.addressof(area), 1 << 20)
attempt("all memory locked", call, "mlockall", 3)
