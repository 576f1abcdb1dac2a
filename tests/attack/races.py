"""Changes what a run reads while it runs, and runs commands at the same time."""

import os
import time

from project import OTHER, sentences


def round(attack):
    attack.random.choice([edits, cuts, pairs, collections])(attack)


def edits(attack):
    """A source is edited again and again while it is read: results are those of the content in the lock."""
    project, chance = attack.project(), attack.random
    path = project.root / "data/english.txt"
    texts = ["\n".join(sentences("en", 240)) + "\n", "\n".join(reversed(sentences("en", 240))) + "\n"]
    process = project.start(["run", "specs/small.aur", "--progress", "none"])
    until = time.monotonic() + chance.uniform(0.2, attack.seconds)
    while not project.has_ended(process) and time.monotonic() < until:
        for text in texts:
            path.with_name("new").write_text(text)
            path.with_name("new").rename(path)
            time.sleep(chance.uniform(0, 0.01))
    ended = project.end(process)
    attack.findings.count("races, edited source")
    if ended.code not in (0, 1, 4):
        attack.findings.add("wrong", f"while a source is edited, a run ends with {ended.code}: {ended.err[-400:]}")
    if ended.code == 0:
        # The results must be those of a run whose source does not change from what the lock pins.
        pinned = project.lock()["source"]["english"]["content"]
        quiet = attack.project()
        for text in texts:
            (quiet.root / "data/english.txt").write_text(text)
            quiet.run_spec()
            if quiet.lock()["source"]["english"]["content"] == pinned:
                break
        else:
            attack.findings.add("wrong", "the lock pins content that the source never had")
        if quiet.results() != project.results():
            attack.findings.add("wrong", "the results of a run are not those of the content that its lock pins")
        quiet.close("an edited source")
    path.write_text(texts[0])
    project.finish(attack.expected, "edits of a source")
    project.close("edits of a source")


def cuts(attack):
    """A source is truncated and written again while it is read: an error or the right result, never a crash."""
    project, chance = attack.project(), attack.random
    path = project.root / chance.choice(["data/english.txt", "data/finnish.tar.gz", "data/pages.zip"])
    whole = path.read_bytes()
    process = project.start(["run", "specs/small.aur", "--progress", "none"])
    until = time.monotonic() + chance.uniform(0.2, attack.seconds)
    while not project.has_ended(process) and time.monotonic() < until:
        os.truncate(path, chance.randrange(len(whole)))
        time.sleep(chance.uniform(0, 0.005))
        path.write_bytes(whole)
        time.sleep(chance.uniform(0, 0.005))
    path.write_bytes(whole)
    ended = project.end(process)
    attack.findings.count("races, truncated source")
    if ended.code not in (0, 1, 4):
        attack.findings.add("wrong", f"while a source is truncated, a run ends with {ended.code}: {ended.err[-400:]}")
    project.finish(attack.expected, "truncations of a source")
    project.close("truncations of a source")


def pairs(attack):
    """Two to four runs at once in one store, of specs that share results under other names."""
    project, chance = attack.project(), attack.random
    (project.root / "specs/other.aur").write_text(OTHER)
    runs = []
    for _ in range(chance.randrange(2, 5)):
        spec = chance.choice(["specs/small.aur", "specs/other.aur"])
        layout = chance.choice([[], ["--layout", "tensor=2"]])
        runs.append(project.start(["run", spec, "--progress", "none", *layout]))
        time.sleep(chance.uniform(0, attack.seconds / 2))
    if chance.random() < 0.3:
        project.run("verify")
    for process in runs:
        ended = project.end(process)
        attack.findings.count("races, runs at once")
        if ended.code != 0:
            attack.findings.add("wrong", f"of runs at once, one ends with {ended.code}: {ended.err[-400:]}")
    project.finish(attack.expected, "runs at once")
    project.close("runs at once")


def collections(attack):
    """`gc`, `verify` and `status` while a run works."""
    project, chance = attack.project(), attack.random
    process = project.start(["run", "specs/small.aur", "--progress", "none"])
    while not project.has_ended(process):
        command = chance.choice([["gc"], ["gc"], ["verify"], ["status"], ["plan", "specs/small.aur"]])
        ended = project.run(*command)
        attack.findings.count(f"races, {command[0]} during a run")
        if ended.code not in (0, 1, 4):
            attack.findings.add("wrong", f"`{command[0]}` during a run ends with {ended.code}: {ended.err[-400:]}")
        if command[0] == "verify" and ended.code != 0:
            attack.findings.add("wrong", f"`verify` during a run finds: {ended.out[-400:]}")
    ended = project.end(process)
    # `gc` refuses while a run has the store; a run that starts during `gc` says so.
    if ended.code != 0 and "is using the store" not in ended.err:
        attack.findings.add("wrong", f"a run during gc ends with {ended.code}: {ended.err[-400:]}")
    project.finish(attack.expected, "commands during a run")
    project.close("commands during a run")
