#!/usr/bin/env python3
"""Attacks `aurora` and counts what breaks.

usage: tests/attack/attack.py AURORA [--hours N | --rounds N] [--seed S] [--only CAMPAIGN] [--log FILE]

Campaigns take turns; each round is drawn from the seed. The counts are appended to FILE as one line of JSON. Ends with 1
if anything was found: a wrong result, a hang, a panic, more memory than the limit, or something left behind.
"""

import argparse
import json
import pathlib
import random
import signal
import subprocess
import sys
import time
import traceback

import damage
import failing_calls
import hostile
import kills
import limits
import locks
import races
from project import Attack, Findings

CAMPAIGNS = {
    "kills": kills.round,
    "damage": damage.round,
    "locks": locks.round,
    "limits": limits.round,
    "hostile": hostile.round,
    "failing-calls": failing_calls.round,
    "races": races.round,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("aurora")
    parser.add_argument("--hours", type=float)
    parser.add_argument("--rounds", type=int, default=1, help="of each campaign, if there is no --hours")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=list(CAMPAIGNS), action="append")
    parser.add_argument("--log")
    options = parser.parse_args()
    aurora = str(pathlib.Path(options.aurora).resolve())
    findings = Findings()
    began = time.monotonic()
    chance = random.Random(options.seed)
    attack = Attack(aurora, findings, options.seed)
    names = options.only or list(CAMPAIGNS)
    rounds = 0
    stopped = []
    for stop in [signal.SIGINT, signal.SIGTERM]:
        # What was tried so far counts: the round ends, and the counts are written.
        signal.signal(stop, lambda number, _: stopped.append(number))
    while not stopped and (
        rounds < options.rounds if options.hours is None else time.monotonic() - began < options.hours * 3600
    ):
        for name in names:
            attack.random = random.Random(chance.getrandbits(64))
            try:
                CAMPAIGNS[name](attack)
            except Exception:  # one broken round must not end a campaign of hours, but it counts
                findings.add("wrong", f"campaign {name} broke: {traceback.format_exc()}")
            if stopped:
                break
        rounds += 1
    version = subprocess.run([aurora, "--version"], capture_output=True, text=True).stdout.strip()
    result = {
        "version": version,
        "seed": options.seed,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "rounds": rounds,
        "tried": dict(sorted(findings.tried.items())),
        "found": findings.totals(),
        "findings": [f"{kind}: {text}" for kind, text in findings.found],
    }
    if options.log:
        with open(options.log, "a") as log:
            log.write(json.dumps(result) + "\n")
    print(json.dumps({**result, "findings": len(findings.found)}, indent=2))
    sys.exit(1 if findings.found else 0)


if __name__ == "__main__":
    main()
