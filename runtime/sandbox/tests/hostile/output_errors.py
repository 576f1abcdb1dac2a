# Writes to stderr without end, in large pieces, as fast as it can.
import os

while True:
    os.write(2, b"x" * (1 << 20))
