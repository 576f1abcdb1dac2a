"""Damages a lock in one random place: no command may call it unchanged or use what it lost."""

import tomllib


def change(text, chance):
    """Returns a damaged text, and what was done."""
    lines = text.splitlines(keepends=True)
    how = chance.choice(["digit", "digit", "digit", "delete line", "delete lines", "repeat line", "swap lines", "cut", "delete table"])
    at = chance.randrange(len(lines))
    if how == "digit":
        places = [n for n, char in enumerate(text) if char in "0123456789abcdef" and text[max(0, n - 8) : n].strip("0123456789abcdef") == ""]
        place = chance.choice(places)
        other = chance.choice([char for char in "0123456789abcdef" if char != text[place]])
        return text[:place] + other + text[place + 1 :], f"another digit in {lines[text[:place].count(chr(10))].strip()[:60]}"
    if how == "delete line":
        del lines[at]
    elif how == "delete lines":
        del lines[at : at + chance.randrange(2, 12)]
    elif how == "repeat line":
        lines.insert(at, lines[at])
    elif how == "swap lines":
        other = chance.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif how == "cut":
        return text[: chance.randrange(len(text))], how
    else:
        starts = [n for n, line in enumerate(lines) if line.startswith("[")]
        start = chance.choice(starts)
        end = next((n for n in starts if n > start), len(lines))
        return "".join(lines[:start] + lines[end:]), f"delete table {lines[start].strip()}"
    return "".join(lines), f"{how} at {lines[min(at, len(lines) - 1)].strip()[:60]}"


def meaning(text):
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def round(attack):
    project, chance = attack.project(), attack.random
    project.run_spec()
    path = project.root / "lockfiles/small.lock"
    whole = path.read_text()
    for _ in range(4):
        text, what = change(whole, chance)
        if meaning(text) == meaning(whole):
            continue
        path.write_text(text)
        attack.findings.count("lock damage")
        ended = project.run("run", "specs/small.aur", "--locked", "--progress", "none")
        if ended.code == 0 and not is_completed(text, path.read_text(), whole):
            attack.findings.add("wrong", f"`run --locked` accepts a lock after: {what}")
        path.write_text(text)
        ended = project.run("rerun", "lockfiles/small.lock", "--progress", "none")
        if ended.code == 0 and "rerun: identical" in ended.out and matters(meaning(text), meaning(whole)):
            attack.findings.add("wrong", f"`rerun` says identical after: {what}")
        path.write_text(whole)
    project.finish(attack.expected, "damage of the lock")
    project.close("damage of the lock")


def is_completed(damaged, now, whole):
    """Whether `run --locked` has only added what was lost: then the lock is the whole one again."""
    return meaning(now) == meaning(whole) and len(damaged) < len(whole)


# For people, or repeated by the spec: a rerun does not depend on them.
UNUSED = {"fingerprint", "revision", "libtorch", "spec"}


def matters(damaged, whole):
    """Whether the damage can change what a rerun computes or compares."""
    if damaged is None:
        return True
    keys = set(damaged) | set(whole)
    return any(damaged.get(key) != whole.get(key) for key in keys - UNUSED)
