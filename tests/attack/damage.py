"""Damages a finished store in one random way: it is reported or repaired, and never used."""

import os
import shutil

FOLDERS = ["cas", "actions", "realised", "partial", "names", "classes", "publishing", "runs", "imports"]


def files(project, folders=FOLDERS):
    found = []
    for folder in folders:
        found += [path for path in (project.root / ".aurora" / folder).rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted(found)


def writable(path):
    path.chmod(0o644)
    return path


def flip(path, chance):
    bytes_ = bytearray(writable(path).read_bytes())
    if bytes_:
        bytes_[chance.randrange(len(bytes_))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes_)


def cut(path, chance):
    length = path.stat().st_size
    os.truncate(writable(path), chance.randrange(length) if length else 0)


def extend(path, chance):
    with writable(path).open("ab") as file:
        file.write(chance.randbytes(chance.randrange(1, 64)))


def empty(path, chance):
    writable(path).write_bytes(b"")


def delete(path, chance):
    path.unlink()


def folder(path, chance):
    path.unlink()
    path.mkdir()
    (path / "x").write_text("x")


def pipe(path, chance):
    path.unlink()
    os.mkfifo(path)


def link(path, chance):
    path.unlink()
    path.symlink_to("/proc/self/environ")


def dangling(path, chance):
    path.unlink()
    path.symlink_to("nowhere")


SINGLE = [flip, flip, flip, cut, extend, empty, delete, folder, pipe, link, dangling]


def exchange(paths, chance):
    """Two files of one folder take each other's place."""
    first = chance.choice(paths)
    others = [path for path in paths if path.parent.parent == first.parent.parent and path != first] or [first]
    second = chance.choice(others)
    keep = first.with_name("kept-by-the-attack")
    first.rename(keep)
    if second != first:
        second.rename(first)
    keep.rename(second)


def copy(paths, chance):
    """One file is copied over another one."""
    first, second = chance.choice(paths), chance.choice(paths)
    if first != second:
        second.chmod(0o644)
        shutil.copyfile(first, second)


def round(attack):
    project, chance = attack.project(), attack.random
    ended = project.run_spec()
    if ended.code != 0:
        attack.findings.add("wrong", f"a run in a new store ends with {ended.code}: {ended.err[-600:]}")
    for _ in range(3):
        paths = files(project)
        harm = chance.choice([*SINGLE, exchange, copy])
        if harm in (exchange, copy):
            what = harm.__name__
            harm(files(project, chance.choice([["actions"], ["realised"], ["names"], ["cas"], FOLDERS])) or paths, chance)
        else:
            path = chance.choice(paths)
            what = f"{harm.__name__} {path.relative_to(project.root)}"
            harm(path, chance)
        attack.findings.count(f"store damage, {harm.__name__}")
        verified = project.run("verify")
        if verified.code not in (0, 1):
            attack.findings.add("wrong", f"verify after {what} ends with {verified.code}: {verified.err[-400:]}")
        ended = project.run("rerun", "lockfiles/small.lock", "--progress", "none") if chance.random() < 0.2 else project.run_spec()
        if ended.code not in (0, 4):
            attack.findings.add("wrong", f"after {what}, a run ends with {ended.code}: {ended.err[-600:]}")
        # What a run does not read (records of other runs, imports) stays damaged; `verify` has to go on naming it.
        if ended.code == 0 and project.results() != attack.expected:
            attack.findings.add("wrong", f"after {what}, results differ")
    # Runs are only for people: damaged ones are deleted, as `verify` says.
    shutil.rmtree(project.root / ".aurora/runs", ignore_errors=True)
    project.finish(attack.expected, "damage of the store")
    project.close("damage of the store")
