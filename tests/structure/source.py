"""Reads the Rust files of the workspace: without comments, strings and tests, line by line where they were."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Comments, strings, characters (not lifetimes), in the order in which they are tried at each place.
HIDDEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?'(?:\\[^\n]*?|[^\\'\n])'""",
    re.DOTALL,
)
TEST = re.compile(r"#\[cfg\(test\)\]|#\[cfg\(all\(test[^\]]*\]|#\[test\]")


def blank(text):
    """The same number of lines, without text."""
    return re.sub(r"[^\n]", " ", text)


def closing(text, at):
    """The place behind the bracket that closes the one at `at`."""
    depth = 0
    for place in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    return len(text)


def code(text):
    """The code of a file: comments, strings and tests are blank."""
    text = HIDDEN.sub(lambda found: blank(found.group()), text)
    while found := TEST.search(text):
        ends = [place for place in (text.find("{", found.end()), text.find(";", found.end())) if place >= 0]
        end = min(ends, default=len(text))
        end = closing(text, end) if text[end : end + 1] == "{" else end + 1
        text = text[: found.start()] + blank(text[found.start() : end]) + text[end:]
    return text


def words(text):
    """The comments and strings of a file: code is blank."""
    kept, place = "", 0
    for found in HIDDEN.finditer(text):
        kept += blank(text[place : found.start()]) + found.group()
        place = found.end()
    return kept + blank(text[place:])


def crates():
    """The source folders of all crates."""
    return sorted(path.parent / "src" for path in ROOT.rglob("Cargo.toml") if is_ours(path) and (path.parent / "src").is_dir())


def is_ours(path):
    parts = path.relative_to(ROOT).parts
    return not any(part.startswith((".", "target")) for part in parts)


def files(src):
    """The files of a crate that are not tests."""
    for path in sorted(src.rglob("*.rs")):
        inside = path.relative_to(src).parts
        if "tests" not in inside and path.name != "tests.rs":
            yield path
