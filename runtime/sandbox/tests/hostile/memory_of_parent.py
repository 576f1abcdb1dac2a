# Reads and writes the memory of its parent.
import ctypes
import os
from target import attempt, call, parent

area = ctypes.create_string_buffer(64)
vector = (ctypes.c_size_t * 2)(ctypes.addressof(area), 64)
for process in [parent, os.getppid(), 1]:
    attempt("read", call, "process_vm_readv", process, ctypes.addressof(vector), 1, ctypes.addressof(vector), 1, 0)
    attempt("written", call, "process_vm_writev", process, ctypes.addressof(vector), 1, ctypes.addressof(vector), 1, 0)
    attempt("opened", open, f"/proc/{process}/mem", "r+b")
