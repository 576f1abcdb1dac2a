# Overflows the interpreter's stack, beyond the interpreter's own check.
import sys

sys.setrecursionlimit(1 << 30)
nested = []
for _ in range(1 << 20):
    nested = [nested]
print(len(repr(nested)))
