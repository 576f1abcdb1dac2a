# Allocates memory in small blocks until the allocation fails.
from target import broken, memory

taken = []
try:
    while len(taken) << 20 <= memory:
        taken.append(b"x" * (1 << 20))
except MemoryError:
    print(len(taken), "MiB")
else:
    broken("more memory than it may have")
