# Empties, renames and removes files of the store.
import os
from target import attempt, secrets

for path in secrets:
    attempt("emptied", os.truncate, path, 0)
    attempt("emptied", os.open, path, os.O_TRUNC)
    attempt("written", os.open, path, os.O_WRONLY)
    attempt("renamed", os.rename, path, path + ".old")
    attempt("removed", os.unlink, path)
    attempt("replaced", os.rename, "target.py", path)
