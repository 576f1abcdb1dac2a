#!/usr/bin/env python3
"""Texts must not use wording that the glossary replaced.

Searched are the book, the README and its companions, snapshots, specs, and of Rust files the string literals and all
comments (the help of the command line and the tables of the language are among them). The patterns are whole words.
An exception is a line of `wording-exceptions.txt`: the file, a tab, the exact line without its indentation, a tab, the
reason. An exception that is not needed is an error too.

Prints each place and exits with 1.
"""

import re
import subprocess
import sys

import source

ROOT = source.ROOT
EXCEPTIONS = ROOT / "tests/structure/wording-exceptions.txt"

# Old wording, and what is written instead.
PATTERNS = {
    r"(is|are|was|were|be|been|being) told": "is reported, printed or recorded",
    r"tells?": "reports, prints or records",
    r"(go|goes|going|went|gone) on": "resumes or continues",
    r"stands? (in|on|at|for|behind|before|after|there|beside|between)": "is in, is based on, represents",
    r"(standing|stood) (in|on|at|for)": "is in, is based on, represents",
    r"so many": "N",
    r"(is|are|was|were) no (whole|longer a whole)": "is not a complete",
    r"has not (a|an|any|the|got)": "does not have",
    r"have not (a|an|any|the|got)": "does not have",
    r"hears?|heard": "receives",
    r"mend(s|ed|ing)?": "fix",
    r"(?<![-{\"])faults?(?![-}\"]| injection)": "error (of the input) or bug (of Aurora)",
    r"crew": "worker pool",
    r"twins?": "ATen equivalent",
    r"nobody (knows|waits|has|asks|reads|wrote)": "name the subject",
    r"somebody": "name the subject",
    r"is worth|are worth": "say what",
    r"in words": "as text",
    r"trails?(?!\.jsonl)": "step log",
    r"half-written": "partial",
}
PATTERN = re.compile("|".join(rf"(?P<p{i}>\b(?:{text})\b)" for i, text in enumerate(PATTERNS)), re.IGNORECASE)
MEANT = list(PATTERNS.values())


def exceptions():
    found = {}
    if EXCEPTIONS.exists():
        for line in EXCEPTIONS.read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                path, text, reason = line.split("\t")
                assert reason.strip(), line
                found[path, text] = False
    return found


def files():
    command = ["git", "ls-files", "-co", "--exclude-standard", "*.rs", "*.md", "*.snap", "*.aur"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in sorted(set(listed.stdout.splitlines())) if (ROOT / name).is_file()]


def main():
    allowed = exceptions()
    count = 0
    for name in files():
        text = (ROOT / name).read_text(encoding="utf-8")
        lines = text.splitlines()
        read = source.words(text) if name.endswith(".rs") else text
        for number, line in enumerate(read.splitlines(), 1):
            match = PATTERN.search(line)
            if not match:
                continue
            key = (name, lines[number - 1].strip())
            if key in allowed:
                allowed[key] = True
                continue
            index = next(int(group[1:]) for group, value in match.groupdict().items() if value)
            print(f"{name}:{number}: `{match.group()}`: write \"{MEANT[index]}\"\n    {lines[number - 1].strip()}")
            count += 1
    for (name, text), used in allowed.items():
        if not used:
            print(f"wording-exceptions.txt: not needed: {name}: {text}")
            count += 1
    if count:
        print(f"{count} places")
    sys.exit(1 if count else 0)


main()
