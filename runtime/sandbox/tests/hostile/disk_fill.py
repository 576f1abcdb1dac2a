# Writes an endless file.
from target import broken, files

written = 0
try:
    with open("big", "wb", buffering=0) as file:
        while written < 64 << 20:
            written += file.write(bytes(1 << 16))
except OSError:
    pass
if written > files:
    broken(f"{written} bytes")
