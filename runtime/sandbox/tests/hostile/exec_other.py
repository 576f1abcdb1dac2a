# Becomes another program, to be rid of what holds this one.
import os
from target import outside, secrets

os.execv("/bin/sh", ["sh", "-c", f"cat {' '.join(secrets)}; echo x > {outside}/exec; exec 3<>/dev/tcp/127.0.0.1/1"])
