# Sends a signal to every process that it may.
import os
import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
for process in [-1, 0]:
    for number in [signal.SIGTERM, signal.SIGKILL]:
        try:
            os.kill(process, number)
        except OSError as error:
            print(error)
