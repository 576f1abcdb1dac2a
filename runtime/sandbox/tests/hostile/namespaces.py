# Becomes root in its own namespace, to have more to attack.
from target import attempt, call

for flag in [0x10000000, 0x20000, 0x40000000, 0x20000000, 0x10000000 | 0x20000]:
    attempt("a namespace", call, "unshare", flag)
    attempt("a process in a namespace", call, "clone", flag | 17, 0, 0, 0, 0)
    attempt("another's namespace", call, "setns", 0, flag)
