# Crashes with much memory in use, to leave a core dump.
import ctypes
import resource
from target import attempt

attempt("a limit on core dumps above its own", resource.setrlimit, resource.RLIMIT_CORE, (1 << 20, 1 << 20))
kept = bytearray(50 << 20)
ctypes.string_at(0)
