# Changes the machine's clock, name and power state.
import ctypes
import socket
import time
from target import attempt, call, text

attempt("the clock", time.clock_settime, time.CLOCK_REALTIME, time.time())
attempt("the name", call, "sethostname", text("hostile"), 7)
attempt("the power", call, "reboot", 0xFEE1DEAD, 672274793, 0, 0)
attempt("a device", call, "mknodat", -100, text("disk"), 0o60600, 0xFE00)
attempt("swap", call, "swapoff", text("/dev/sda"))
