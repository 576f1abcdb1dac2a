# Leaves a background command running that ignores signals.
import subprocess
from target import marker

try:
    subprocess.Popen(["/bin/sh", "-c", f"trap '' TERM HUP; sleep 60 # {marker}"], start_new_session=True)
except OSError:
    pass
