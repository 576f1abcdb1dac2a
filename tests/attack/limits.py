"""Runs under limits of resources: they end with an error that names the cause, or succeed, and leave nothing half-written."""

import resource


def round(attack):
    project, chance = attack.project(), attack.random
    for _ in range(3):
        kind = chance.choice(["address space", "files", "file size", "processes", "CPU", "stack", "read-only store"])
        more, limits = None, None
        if kind == "address space":
            limits = [(resource.RLIMIT_AS, chance.randrange(64, 3000) << 20)]
        elif kind == "files":
            limits = [(resource.RLIMIT_NOFILE, chance.randrange(4, 64))]
        elif kind == "file size":
            limits = [(resource.RLIMIT_FSIZE, chance.randrange(0, 400_000))]
        elif kind == "processes":
            # Root is exempt from it: this only shows that nothing breaks.
            limits = [(resource.RLIMIT_NPROC, chance.randrange(1, 200))]
        elif kind == "CPU":
            limits = [(resource.RLIMIT_CPU, chance.randrange(1, 3))]
        elif kind == "stack":
            limits = [(resource.RLIMIT_STACK, chance.randrange(64, 8192) << 10)]
        else:
            more = {"TMPDIR": "/nonexistent"}
        process = project.start(["run", "specs/small.aur", "--progress", "none"], more, limits)
        # The kernel ends a process that is over its CPU limit, and aborts one without memory: both are kills.
        ended = project.end(process, killed=kind in ("CPU", "address space", "stack"))
        attack.findings.count(f"limits, {kind}")
        if ended.code not in (0, 4, 1) and kind not in ("CPU", "address space", "stack"):
            attack.findings.add("wrong", f"under a limit of {kind} ({limits}) a run ends with {ended.code}: {ended.err[-400:]}")
        if ended.code == 4 and "error" not in ended.err:
            attack.findings.add("wrong", f"under a limit of {kind} ({limits}) a run fails without a message: {ended.err[-400:]}")
        verified = project.run("verify")
        if verified.code != 0:
            attack.findings.add("wrong", f"verify after a limit of {kind} ends with {verified.code}: {verified.out[-600:]}")
    project.finish(attack.expected, "limits of resources")
    project.close("limits of resources")
