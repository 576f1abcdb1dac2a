# Sends signals to its parent.
import os
import signal
from target import attempt, call, parent, processes

for number in [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, 0]:
    attempt("signalled", os.kill, parent, number)
    attempt("queued", call, "rt_sigqueueinfo", parent, number, 0)
    attempt("thread signalled", call, "tgkill", parent, parent, number)
if processes == 1:
    attempt("signalled what started it", os.kill, os.getppid(), 0)
attempt("a handle of the parent", os.pidfd_open, parent)
