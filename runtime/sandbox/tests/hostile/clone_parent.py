# Creates a process that is a child of its parent, not of itself.
import ctypes
import time
from target import broken, call

CLONE_PARENT = 0x8000
pid = call("clone", CLONE_PARENT | 17, 0, 0, 0, 0)
if pid == 0:
    time.sleep(60)
if pid > 0:
    broken("a process outside")
