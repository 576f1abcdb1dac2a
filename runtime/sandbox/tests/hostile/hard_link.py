# Creates a hard link in its own folder to a file of the store.
import os
from target import outside, secrets

for path in secrets:
    for name in ["hard", f"{outside}/hard"]:
        try:
            os.link(path, name)
            print(open(name).read())
        except OSError as error:
            print(error)
