# Hangs inside the interpreter, where Python's signal handlers do not run.
import re

re.match(r"(a+)+$", "a" * 64 + "b")
