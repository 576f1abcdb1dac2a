# Writes outside through a symbolic link in its own folder, and creates a symbolic link outside.
import os
from target import attempt, outside


def through():
    os.symlink(outside, "folder")
    open("folder/symlink", "w").close()


def out():
    os.symlink("/etc", f"{outside}/link")


attempt("a file through a link", through)
attempt("a link outside", out)
