# Reserves disk space without writing.
import os
from target import broken, files

try:
    file = os.open("reserved", os.O_CREAT | os.O_RDWR)
    os.posix_fallocate(file, 0, files + (1 << 20))
    broken("more room than it may have")
except OSError:
    pass
