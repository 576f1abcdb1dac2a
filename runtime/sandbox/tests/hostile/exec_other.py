# Executes another program, to lose its own restrictions.
import os
from target import outside, secrets

os.execv("/bin/sh", ["sh", "-c", f"cat {' '.join(secrets)}; echo x > {outside}/exec; exec 3<>/dev/tcp/127.0.0.1/1"])
