#!/usr/bin/env python3
"""Kills `aurora run SPEC` at random moments and checks that it ends as an undisturbed run does.

usage: tests/kills.py AURORA SPEC LOCK STORE [KILLS] [SEED]

LOCK holds the results of an undisturbed run. The store is made anew. After every kill `aurora verify` must find the
store whole; at the end the results must be those of LOCK. Not part of `make test`: it takes as long as several runs.
"""

import random
import shutil
import signal
import subprocess
import sys
import time
import tomllib


def results(path):
    with open(path, "rb") as lock:
        return tomllib.load(lock)["result"]


def main():
    aurora, spec, lock, store = sys.argv[1:5]
    kills = int(sys.argv[5]) if len(sys.argv) > 5 else 20
    draw = random.Random(int(sys.argv[6]) if len(sys.argv) > 6 else 1)
    expected = results(lock)
    shutil.rmtree(store, ignore_errors=True)
    run = [aurora, "run", spec, "--store", store, "--progress", "plain"]
    killed = 0
    while killed < kills:
        process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        after = draw.uniform(0.5, 25.0)
        try:
            process.wait(after)
            print(f"ended by itself with {process.returncode} before it was to be killed; starting anew")
            shutil.rmtree(store, ignore_errors=True)
            continue
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        killed += 1
        said = process.stderr.read().strip().splitlines()
        verified = subprocess.run([aurora, "verify", "--store", store], capture_output=True, text=True)
        print(f"kill {killed} after {after:.1f} s, during: {said[-1] if said else '(nothing said)'}")
        if verified.returncode != 0:
            sys.exit(f"the store is not whole:\n{verified.stdout}")
    subprocess.run(run, check=True)
    got = results(lock)
    differing = [name for name in expected if expected[name] != got.get(name)]
    print(f"{killed} kills; {len(expected)} results, {len(differing)} differ")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
