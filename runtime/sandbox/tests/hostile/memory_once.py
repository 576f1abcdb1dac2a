# Allocates memory in one large piece.
from target import attempt, memory

attempt("more memory than it may have", bytearray, memory)
attempt("memory for a text", lambda: "x" * memory)
attempt("memory for a number", lambda: 1 << (memory * 8))
