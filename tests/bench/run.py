#!/usr/bin/env python3
"""Measures Aurora side by side with its peers, and prints ratios with their spread.

usage: tests/bench/run.py FOLDER-OF-BINARIES WORK-FOLDER

Whole processes, interleaved (A, B, A, B, …), so that whatever else the machine does meets both. Nothing is asserted: the
targets stand beside the figures. `b3sum` is built by cargo into the work folder; the training peer runs if the
environment that `make peers` sets up is there.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REPEATS = 7


def timed(command, **options):
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    return time.perf_counter() - began


def spread(values, unit="", scale=1.0):
    low, middle, high = min(values) * scale, statistics.median(values) * scale, max(values) * scale
    return f"{middle:.3g}{unit} ({low:.3g} to {high:.3g})"


def alone(name, target, command):
    timed(command)
    times = [timed(command) for _ in range(REPEATS)]
    print(f"{name}: {spread(times, ' ms', 1e3)}; target {target}", flush=True)


def side_by_side(name, target, ours, theirs, better_is_faster=True):
    timed(ours), timed(theirs)
    pairs = [(timed(ours), timed(theirs)) for _ in range(REPEATS)]
    ratios = [their / our if better_is_faster else our / their for our, their in pairs]
    print(f"{name}: {spread(ratios)} × the peer's speed; ours {spread([our for our, _ in pairs], ' s')}, "
          f"the peer's {spread([their for _, their in pairs], ' s')}; target {target}", flush=True)


def main():
    binaries, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    work.mkdir(parents=True, exist_ok=True)
    aurora = str(binaries / "aurora")
    alone("build specs/aurora-m.aur, whole process", "≤ 10 ms",
          [aurora, "build", str(ROOT / "specs/aurora-m.aur"), "--json"])
    if (ROOT / ".aurora").is_dir() and (ROOT / "lockfiles/demo.lock").is_file():
        alone("run specs/demo.aur with nothing to do, whole process", "≤ 50 ms",
              [aurora, "run", str(ROOT / "specs/demo.aur"), "--progress", "none", "--offline"])
    else:
        print("run with nothing to do: not measured, `make demo` has not been run here")

    b3sum = work / "tools/bin/b3sum"
    if not b3sum.is_file():
        subprocess.run(["cargo", "install", "--quiet", "--locked", "b3sum", "--root", str(work / "tools")], check=True)
    data = work / "random.bin"
    if not data.is_file():
        with open(data, "wb") as file:
            for _ in range(1024):
                file.write(os.urandom(1 << 20))
    side_by_side("hashing 1 GiB against b3sum", "≥ 0.9", [str(binaries / "examples/hash_speed"), str(data)],
                 [str(b3sum), str(data)])

    for example, what in [("order_speed", "data order"),
                          ("lookup_speed", "data at and data where, target ≤ 50 ms for a step and for a document"),
                          ("tokenize_speed", "tokenizing against the crate")]:
        program = binaries / "examples" / example
        if program.is_file():
            print(f"{what}:", flush=True)
            subprocess.run([str(program)], check=True)

    print("layouts and contracts:", flush=True)
    subprocess.run([sys.executable, str(ROOT / "tests/bench/layouts.py"), str(binaries / "examples/speed")], check=True)

    python = work.parent / "peers/venv/bin/python"
    python = Path(os.environ.get("AURORA_PEERS_PYTHON", python))
    if python.is_file():
        speed = [str(python), str(ROOT / "tests/peers/train_speed.py"), str(binaries / "examples/speed")]
        subprocess.run(speed, check=True)
        for precision, target in [("f32", "≥ 1.1"), ("bf16", "≥ 1.2")]:
            print(f"SmolLM2-135M's shape in {precision}, target {target}:", flush=True)
            subprocess.run([*speed, "--shape", "smollm2", "--steps", "3", "--precision", precision], check=True)
        print("evals, target ≥ 1.5:", flush=True)
        subprocess.run([str(python), str(ROOT / "tests/bench/evals.py"), aurora], check=True)
    else:
        print("training and evals against transformers: not measured, `make peers` sets its environment up")


if __name__ == "__main__":
    main()
