# Creates small files endlessly.
from target import broken, files

made = 0
try:
    while made < 5000:
        with open(f"small-{made}", "wb") as file:
            file.write(b"x" * 4096)
        made += 1
except OSError:
    pass
if made * 4096 > files:
    broken(f"{made} files")
