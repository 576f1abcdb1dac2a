# Attaches to its parent as a debugger.
import os
from target import attempt, call, parent

for process in [parent, os.getppid(), 1]:
    attempt("attached", call, "ptrace", 16, process, 0, 0)
    attempt("seized", call, "ptrace", 0x4206, process, 0, 0)
attempt("traced by its parent", call, "ptrace", 0, 0, 0, 0)
