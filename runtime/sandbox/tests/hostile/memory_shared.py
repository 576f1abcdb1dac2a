# Allocates memory that belongs to no process.
import mmap
import os
from target import attempt, call, memory

attempt("shared memory", mmap.mmap, -1, memory)
attempt("a file in memory", os.memfd_create, "x")
attempt("a shared segment", call, "shmget", 0, 1 << 20, 0o1600)
attempt("a secret area", call, "memfd_secret", 0)
