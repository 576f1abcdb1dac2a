# Leaves a process with its own session behind.
import os
import time
from target import outside

try:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(60)
            open(f"{outside}/daemon", "w").close()
        os._exit(0)
except OSError:
    pass
