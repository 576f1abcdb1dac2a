# Leaves its folder by `..` and reads the store.
import os
from target import secrets

here = os.open(".", os.O_RDONLY)
for path in secrets:
    for steps in range(12):
        try:
            file = os.open("../" * steps + path[1:], os.O_RDONLY, dir_fd=here)
            print(os.read(file, 1000))
        except OSError:
            pass
