# Sleeps longer than the time limit.
import time

time.sleep(1000)
