# Changes the file system: mounts, another root, a way back to the old one.
import os
from target import attempt, call, text

attempt("a mount", call, "mount", text("none"), text("."), text("tmpfs"), 0, 0)
attempt("a remount", call, "mount", text("none"), text("/"), 0, 0x20 | 0x1000, 0)
attempt("an unmount", call, "umount2", text("/usr/bin"), 2)
attempt("a new root", call, "pivot_root", text("."), text("."))
attempt("a change of root", os.chroot, ".")
attempt("a tree", call, "open_tree", -100, text("/"), 1)
attempt("a file system", call, "fsopen", text("proc"), 0)
