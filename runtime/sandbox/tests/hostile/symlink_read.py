# Reads the store through a symbolic link in its own folder.
import os
from target import secrets

for number, path in enumerate(secrets):
    try:
        os.symlink(path, f"link-{number}")
        print(open(f"link-{number}").read())
    except OSError as error:
        print(error)
