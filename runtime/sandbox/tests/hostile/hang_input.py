# Waits for input and for a child, which never come.
import os
import select

input_ended = os.read(0, 1) == b""
out, into = os.pipe()
select.select([out], [], [])
print(input_ended)
