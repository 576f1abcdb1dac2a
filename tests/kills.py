#!/usr/bin/env python3
"""Kills `aurora run SPEC` at random times and checks that the results equal those of an uninterrupted run.

usage: tests/kills.py AURORA SPEC LOCK STORE [KILLS] [SEED]

LOCK holds the results of an uninterrupted run. The store is deleted first. After every kill `aurora verify` must find
no damage in the store; at the end the results must equal those of LOCK. Not part of `make test`: it takes as long as
several runs.
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
    generator = random.Random(int(sys.argv[6]) if len(sys.argv) > 6 else 1)
    expected = results(lock)
    shutil.rmtree(store, ignore_errors=True)
    run = [aurora, "run", spec, "--store", store, "--progress", "plain"]
    killed = 0
    while killed < kills:
        process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        after = generator.uniform(0.5, 25.0)
        try:
            process.wait(after)
            print(f"the run ended with status {process.returncode} before the kill; starting again with an empty store")
            shutil.rmtree(store, ignore_errors=True)
            continue
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        killed += 1
        messages = process.stderr.read().strip().splitlines()
        verified = subprocess.run([aurora, "verify", "--store", store], capture_output=True, text=True)
        print(f"kill {killed} after {after:.1f} s, last message: {messages[-1] if messages else '(none)'}")
        if verified.returncode != 0:
            sys.exit(f"the store is damaged:\n{verified.stdout}")
    subprocess.run(run, check=True)
    actual = results(lock)
    differing = [name for name in expected if expected[name] != actual.get(name)]
    print(f"{killed} kills; {len(expected)} results, {len(differing)} differ")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
