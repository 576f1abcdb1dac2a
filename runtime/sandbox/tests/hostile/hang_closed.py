# Closes its output, so that it seems to have ended, and hangs.
import os
import time

os.close(1)
os.close(2)
time.sleep(1000)
