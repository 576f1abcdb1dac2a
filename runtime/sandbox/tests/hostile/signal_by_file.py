# Lets the kernel send its parent a signal when a file is ready.
import ctypes
import fcntl
import os
import signal
from target import attempt, call, parent

out, into = os.pipe()
attempt("an owner", fcntl.fcntl, out, fcntl.F_SETOWN, parent)
attempt("an owner", call, "ioctl", out, 0x8901, ctypes.addressof(ctypes.c_int(parent)))
attempt("a signal", fcntl.fcntl, out, fcntl.F_SETSIG, signal.SIGKILL)
fcntl.fcntl(out, fcntl.F_SETFL, os.O_ASYNC)
os.write(into, b"x")
