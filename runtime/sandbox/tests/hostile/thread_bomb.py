# Starts more threads than are allowed.
import threading
import time
from target import broken, processes

threading.stack_size(32768)
made = 1
try:
    while made < 500:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        made += 1
except (RuntimeError, MemoryError):
    pass
if made > processes:
    broken(f"{made} threads")
