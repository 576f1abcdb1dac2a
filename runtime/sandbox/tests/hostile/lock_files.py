# Locks files that other programs need.
import fcntl
import sys
from target import attempt

for path in [sys.executable, "/dev/null"]:
    file = open(path, "rb")
    attempt("a lock", fcntl.flock, file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    attempt("a lock", fcntl.lockf, file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    attempt("a lease", fcntl.fcntl, file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
