# Reads information about the machine and its users.
import os

for path in ["/etc/passwd", "/etc/shadow", "/etc/hostname", "/root/.bashrc", "/proc/1/environ", "/sys/kernel/notes"]:
    try:
        print("BROKEN:", path, open(path, "rb").read(20))
    except OSError:
        pass
for folder in ["/home", "/root", "/etc", "/tmp", "/var", "/proc", "/dev", "/"]:
    try:
        print(folder, os.listdir(folder))
    except OSError:
        pass
