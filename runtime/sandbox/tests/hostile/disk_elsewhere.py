# Writes to folders that every user can write to.
import os
from target import attempt, marker, outside

for folder in [outside, "/tmp", "/var/tmp", "/dev/shm", "/run", "/usr/lib", "/"]:
    attempt(folder, open, f"{folder}/{marker}", "w")
    attempt(folder, os.mkdir, f"{folder}/{marker}-folder")
