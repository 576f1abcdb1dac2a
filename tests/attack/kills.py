"""Kills and stops runs at random times, with one worker and with four."""

import os
import signal
import time

LAYOUTS = [(), ("--layout", "tensor=2,data=2"), ("--layout", "tensor=2,pipeline=2")]


def round(attack):
    """Disturbs one run until it has had three stops or ends, then finishes it."""
    project, chance = attack.project(), attack.random
    done = []
    for _ in range(3):
        layout = chance.choice(LAYOUTS)
        how = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, "twice", "worker"])
        process = project.start(["run", "specs/small.aur", "--progress", "plain", *layout])
        time.sleep(chance.uniform(0.02, attack.seconds * (2 if layout else 1)))
        if project.has_ended(process):
            project.end(process)
            continue
        if how == "worker":
            workers = [pid for pid in project.processes() if pid != process.pid]
            if workers:
                kill(chance.choice(workers), signal.SIGKILL)
        elif how == "twice":
            kill(process.pid, signal.SIGINT)
            time.sleep(chance.uniform(0, 0.3))
            kill(process.pid, signal.SIGINT)
        else:
            kill(process.pid, how)
        ended = project.end(process, killed=how == signal.SIGKILL)
        name = how if isinstance(how, str) else how.name
        attack.findings.count(f"kills, {'1 worker' if not layout else '4 workers'}, {name}")
        allowed = {"twice": {0, 75, 130}, "worker": {0, 4, 6}, "SIGTERM": {0, 75}, "SIGINT": {0, 75}, "SIGKILL": {-9, 0}}[name]
        if ended.code not in allowed:
            attack.findings.add("wrong", f"a run that got {name} ends with {ended.code}: {ended.err[-400:]}")
        verified = project.run("verify")
        if verified.code != 0:
            attack.findings.add("wrong", f"verify after {name} ends with {verified.code}: {verified.out[-600:]}")
        done.append(name)
    project.finish(attack.expected, f"kills ({', '.join(done)})")
    project.close("kills")


def kill(pid, how):
    """`Popen.send_signal` would take the status of a process that has ended."""
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        pass
