# Writes outside through a link, and links what it writes to the outside.
import os
from target import attempt, outside


def through():
    os.symlink(outside, "folder")
    open("folder/symlink", "w").close()


def out():
    os.symlink("/etc", f"{outside}/link")


attempt("a file through a link", through)
attempt("a link outside", out)
