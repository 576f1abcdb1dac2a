# Helpers of the hostile programs, and data about their targets. The test appends the data to this file.
import ctypes

library = ctypes.CDLL(None, use_errno=True)


def broken(what):
    print("BROKEN:", what, flush=True)


def attempt(what, function, *arguments):
    """Calls a function that must fail."""
    try:
        result = function(*arguments)
    except (OSError, ValueError, MemoryError, OverflowError) as error:
        print(what, error, flush=True)
    else:
        broken(f"{what}: {result!r}")


def call(name, *arguments):
    """Makes a system call by name or number."""
    number = calls[name] if isinstance(name, str) else name
    arguments = [ctypes.c_long(value) for value in arguments]
    result = library.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}")
    return result


def text(value):
    """Returns the address of a string that is kept in memory."""
    kept.append(ctypes.create_string_buffer(value.encode()))
    return ctypes.addressof(kept[-1])


kept = []
