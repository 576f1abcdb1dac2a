# Writes to stderr endlessly, in large pieces, as fast as possible.
import os

while True:
    os.write(2, b"x" * (1 << 20))
