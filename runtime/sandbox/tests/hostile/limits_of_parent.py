# Reduces its parent's limits, priority and processors.
import os
import resource
from target import attempt, parent

attempt("limits", resource.prlimit, parent, resource.RLIMIT_NOFILE, (0, 0))
attempt("priority", os.setpriority, os.PRIO_PROCESS, parent, 19)
attempt("priority of the user", os.setpriority, os.PRIO_USER, 0, 19)
attempt("processors", os.sched_setaffinity, parent, [0])
