#!/usr/bin/env python3
"""Functions have at most 100 lines. A longer one states its reason directly above, as `// long: …`. Tests do not count."""

import re
import sys

import source

MOST = 100
FUNCTION = re.compile(r"^[^\S\n]*(?:pub(?:\([^)]*\))? )?(?:const |async |unsafe |extern \S* ?)*fn (\w+)", re.MULTILINE)


def long_functions(path):
    text = path.read_text()
    code = source.code(text)
    lines = text.splitlines()
    for found in FUNCTION.finditer(code):
        body = re.compile(r"[{;]").search(code, found.end())
        if body is None or body.group() == ";":
            continue
        first = code.count("\n", 0, found.end())
        last = code.count("\n", 0, source.closing(code, body.start()))
        above = first - 1
        while above >= 0 and lines[above].lstrip().startswith(("///", "#[")):
            above -= 1
        stated = above >= 0 and lines[above].lstrip().startswith("// long: ")
        if last - first + 1 > MOST and not stated:
            yield found.group(1), first + 1, last - first + 1


def main():
    errors = 0
    for src in source.crates():
        for path in source.files(src):
            for name, line, length in long_functions(path):
                print(f"{path.relative_to(source.ROOT)}:{line}: `{name}` has {length} lines, more than {MOST}")
                errors += 1
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
