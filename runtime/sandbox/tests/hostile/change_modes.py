# Changes owner, mode, times and attributes of files, without writing to them.
import os
from target import attempt, secrets

for path in [*secrets, "/usr/bin/python3", "/dev/null"]:
    attempt("mode", os.chmod, path, 0o777)
    attempt("owner", os.chown, path, os.getuid(), os.getgid())
    attempt("times", os.utime, path)
    attempt("attribute", os.setxattr, path, "user.hostile", b"x")
