# Hangs inside the interpreter, where no handler of Python's own comes through.
import re

re.match(r"(a+)+$", "a" * 64 + "b")
