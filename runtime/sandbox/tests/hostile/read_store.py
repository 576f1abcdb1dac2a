# Reads the store and the home folder by path.
import os
from target import secrets

for path in secrets:
    for read in [lambda: open(path).read(), lambda: os.listdir(os.path.dirname(path))]:
        try:
            print(read())
        except OSError as error:
            print(error)
