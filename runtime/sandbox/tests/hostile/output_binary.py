# Writes bytes that are not text, and ends successfully.
import os

os.write(1, bytes(range(256)) * 4)
os._exit(0)
