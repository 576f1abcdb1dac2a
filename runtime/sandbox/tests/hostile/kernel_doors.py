# Uses the parts of the kernel that had most vulnerabilities.
import ctypes
from target import attempt, call, text

area = ctypes.addressof(ctypes.create_string_buffer(256))
attempt("a key", call, "add_key", text("user"), text("x"), area, 8, -3)
attempt("a key ring", call, "keyctl", 0, -3, 1)
attempt("a program in the kernel", call, "bpf", 0, area, 48)
attempt("a counter", call, "perf_event_open", area, 0, -1, -1, 0)
attempt("page faults", call, "userfaultfd", 1)
attempt("a kernel module", call, "finit_module", 0, text(""), 0)
attempt("another kernel", call, "kexec_load", 0, 0, 0, 0)
attempt("the kernel's log", call, "syslog", 3, area, 8)
attempt("a queue of messages", call, "msgget", 0, 0o1600)
attempt("a semaphore", call, "semget", 0, 1, 0o1600)
attempt("a named queue", call, "mq_open", text("hostile"), 0o102, 0o600, 0)
attempt("watching files", call, "inotify_init1", 0)
attempt("a 32-bit way in", call, 0x40000000 + 39)
