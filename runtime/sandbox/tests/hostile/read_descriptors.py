# Reads from the descriptors that its parent left open.
import os

for number in range(3, 1024):
    try:
        print(number, os.read(number, 1000))
    except OSError:
        pass
    try:
        print(number, os.pread(number, 1000, 0), os.listdir(number))
    except OSError:
        pass
