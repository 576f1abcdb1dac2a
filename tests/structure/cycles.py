#!/usr/bin/env python3
"""Modules must not depend on each other in a cycle.

A module is a folder; a file directly under `src` is a module too. Dependencies are the `use` paths and the inline
`crate::…`, `super::…` and `self::…` paths, through re-exports. The root file of a folder (`mod.rs`) is its interface:
dependencies between it and its parts do not count. Tests do not count.

Prints each cycle and exits with 1. A cycle between the parts of one folder is allowed if the header of the folder's root
file justifies it, in a line that begins with `//! Cycle:`. A cycle directly under `src` is never allowed.
"""

import re
import sys

import source

PATH = re.compile(r"\b(?:crate|super|self)(?:\s*::\s*\w+)+")
USE = re.compile(r"^[^\S\n]*(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);", re.MULTILINE)


def leaves(tree, before=()):
    """The paths of a `use` tree, each with the name that it gets."""
    tree = tree.strip()
    if group := re.fullmatch(r"(?:(.*?)::\s*)?\{(.*)\}", tree, re.DOTALL):
        head = tuple(part.strip() for part in (group.group(1) or "").split("::") if part.strip())
        depth, start, body = 0, 0, group.group(2) + ","
        for place, sign in enumerate(body):
            depth += {"{": 1, "}": -1}.get(sign, 0)
            if sign == "," and depth == 0:
                if body[start:place].strip():
                    yield from leaves(body[start:place], before + head)
                start = place + 1
        return
    path, _, name = tree.partition(" as ")
    path = before + tuple(part.strip() for part in path.split("::") if part.strip())
    if path[-1] == "self":
        path = path[:-1]
    yield path, name.strip() or path[-1]


class Crate:
    """The modules of one crate: tuples of names below `src`, the root is `()`."""

    def __init__(self, src):
        self.src = src
        self.code = {}
        for path in source.files(src):
            self.code.setdefault(self.module(path), []).append(source.code(path.read_text()))
        self.exports = {}
        for module, texts in self.code.items():
            for text in texts:
                for public, tree in USE.findall(text):
                    for path, name in leaves(tree):
                        if public:
                            self.exports[module, name] = path

    def module(self, path):
        parts = path.relative_to(self.src).with_suffix("").parts
        if parts[-1] == "mod" or parts in (("lib",), ("main",)):
            parts = parts[:-1]
        return parts

    def is_folder(self, module):
        return (self.src.joinpath(*module)).is_dir()

    def resolve(self, here, path, depth=0):
        """The module that a path leads to; `None` if it is not of this crate."""
        at, rest = here, list(path)
        if rest[0] == "crate":
            at, rest = (), rest[1:]
        elif rest[0] in ("super", "self"):
            while rest and rest[0] in ("super", "self"):
                at = at[:-1] if rest[0] == "super" else at
                rest = rest[1:]
        elif at + (rest[0],) not in self.code:
            return None
        for index, name in enumerate(rest):
            if at + (name,) in self.code:
                at = at + (name,)
            elif (export := self.exports.get((at, name))) and depth < 8:
                return self.resolve(at, export + tuple(rest[index + 1 :]), depth + 1) or at
            else:
                break
        return at

    def dependencies(self):
        for module, texts in self.code.items():
            for text in texts:
                paths = [path for _, tree in USE.findall(text) for path, _ in leaves(tree)]
                paths += [tuple(re.split(r"\s*::\s*", path)) for path in PATH.findall(USE.sub("", text))]
                for path in paths:
                    to = self.resolve(module, path)
                    if to is not None and to != module:
                        yield module, to

    def parts(self):
        """For each folder: which of its parts depends on which."""
        found = {}
        for module, to in self.dependencies():
            shared = 0
            while shared < min(len(module), len(to)) and module[shared] == to[shared]:
                shared += 1
            # The root file of a folder is its interface.
            if shared < len(module) and shared < len(to):
                folder = found.setdefault(module[:shared], {})
                folder.setdefault(module[shared], set()).add(to[shared])
        return found

    def justified(self, folder):
        for path in (self.src.joinpath(*folder, "mod.rs"), self.src.joinpath(*folder).with_suffix(".rs")):
            if folder and path.is_file():
                return any(line.startswith("//! Cycle:") for line in path.read_text().splitlines())
        return False


def cycles(graph):
    """The strongly connected components with more than one part (Tarjan 1972)."""
    index, low, stack, found = {}, {}, [], []

    def visit(part):
        index[part] = low[part] = len(index)
        stack.append(part)
        for to in sorted(graph.get(part, ())):
            if to not in index:
                visit(to)
            if to in stack:
                low[part] = min(low[part], low[to])
        if low[part] == index[part]:
            at = stack.index(part)
            component = stack[at:]
            del stack[at:]
            if len(component) > 1:
                found.append(sorted(component))

    for part in sorted(graph):
        if part not in index:
            visit(part)
    return found


def main():
    sys.setrecursionlimit(10_000)
    errors = 0
    for src in source.crates():
        crate = Crate(src)
        for folder, graph in sorted(crate.parts().items()):
            for cycle in cycles(graph):
                if crate.justified(folder):
                    continue
                place = src.joinpath(*folder).relative_to(source.ROOT)
                print(f"{place}: a cycle of {len(cycle)} modules: {', '.join(cycle)}")
                for part in cycle:
                    print(f"  {part} → {', '.join(sorted(graph[part] & set(cycle)))}")
                errors += 1
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
