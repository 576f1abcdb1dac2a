"""Makes system calls of runs fail: errors of disks, short reads and writes, missing locks."""

import errno
import pathlib
import subprocess
import tempfile

CALLS = {
    "open": ["EIO", "EACCES", "EMFILE", "ENFILE"],
    "read": ["EIO", "short", "EINTR"],
    "write": ["EIO", "ENOSPC", "EDQUOT", "short", "EINTR"],
    "sync": ["EIO", "ENOSPC"],
    "rename": ["EIO", "ENOSPC", "EACCES"],
    "lock": ["ENOLCK", "EIO"],
    "map": ["ENOMEM"],
}

_library = None


def library():
    global _library
    if _library is None:
        path = pathlib.Path(tempfile.mkdtemp(prefix="aurora-failing-calls-")) / "libfailing-calls.so"
        source = pathlib.Path(__file__).with_name("failing_calls.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", path, source, "-ldl"], check=True)
        _library = path
    return _library


def round(attack):
    project, chance = attack.project(), attack.random
    for _ in range(4):
        call = chance.choice(list(CALLS))
        how = chance.choice(CALLS[call])
        # Most calls that fail are in the project; libraries of the system are read, too.
        place = chance.choice([".aurora", ".aurora/tmp", ".aurora/cas", "data/", "lockfiles", project.root.name])
        first = int(chance.paretovariate(0.5)) if chance.random() < 0.8 else 1
        last = 0 if how in ("short", "EINTR") or chance.random() < 0.3 else first
        if how == "EINTR":
            last = first + 3
        number = how if how == "short" else getattr(errno, how)
        which = f"{call}:{number}:{first}:{last}:{place}"
        command = chance.choice([["run", "specs/small.aur"]] * 4 + [["verify"], ["gc"], ["lock", "specs/small.aur"], ["plan", "specs/small.aur"]])
        if command[0] == "run":
            command = [*command, "--progress", "none"]
        ended = project.run(*command, more={"LD_PRELOAD": str(library()), "AURORA_FAILING_CALLS": which})
        attack.findings.count(f"failing calls, {call} {how}")
        allowed = {0, 1, 4}
        if ended.code not in allowed:
            attack.findings.add("wrong", f"`{command[0]}` with {which} ends with {ended.code}: {ended.err[-600:]}")
        if ended.code == 0 and how == "short" and command[0] == "run" and project.results() != attack.expected:
            attack.findings.add("wrong", f"with {which}, results differ")
    project.finish(attack.expected, "failing system calls")
    project.close("failing system calls")
