# Looks for secrets in its environment and in those of other processes.
import os
from target import parent

print(dict(os.environ))
for process in [parent, os.getppid(), 1, "self"]:
    for name in ["environ", "cmdline", "maps", "root/etc/passwd", "cwd/secret"]:
        try:
            print(open(f"/proc/{process}/{name}").read())
        except OSError as error:
            print(error)
