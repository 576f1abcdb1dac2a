# Overflows the stack of the interpreter, beyond what it watches itself.
import sys

sys.setrecursionlimit(1 << 30)
nested = []
for _ in range(1 << 20):
    nested = [nested]
print(len(repr(nested)))
