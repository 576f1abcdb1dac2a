#!/usr/bin/env python3
"""Proves and measures Aurora on the GPU of this machine.

    run.sh [--part proof|bench|PATTERN] [--rounds N] [--seconds N] [--simulated]

`run.sh` sets the paths and calls this file. The items are those of a part, or those whose name contains the pattern
(`*` and `?` as in file names), such as `layouts/llama` or `aurora/*/native`. Every finished item is appended to
`device.jsonl` in the folder $OUT, or in the current one. An item that fails does not stop the others; no item starts
after `--seconds`. With `--simulated`, the CPU computes what devices would: a test of these files.

Exit code 1: an item of the proof failed, or had no time.
"""

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bench
import proof
from harness import KINDS, Failure, Item, Machine, Once

# Most seconds of an item.
LIMITS = {"proof": 120.0, "bench": 150.0}
# Items of the proof that run at the same time; measurements run alone.
AT_ONCE = 4


class Log:
    """Appends each record to the file, so that a later end of this process loses none."""

    def __init__(self, path: Path):
        self.path, self.lock, self.records = path, threading.Lock(), []

    def add(self, record: dict) -> None:
        with self.lock, self.path.open("a") as file:
            self.records.append(record)
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
            state = "ok" if record["ok"] else f"FAILED: {record['error']}"
            print(f"{record['item']:34} {record['seconds']:6.1f} s  {state}", flush=True)


def run(name: str, part: str, measure, machine: Machine, end: float, log: Log) -> None:
    began = time.monotonic()
    record = {"item": name, "part": part, "ok": False, "error": None, "details": {}}
    try:
        if began >= end:
            raise Failure("no time was left")
        item = Item(name, machine, min(LIMITS[part], end - began))
        record |= {"details": measure(item), "ok": True}
    except Failure as failure:
        record |= {"error": str(failure), "details": failure.details}
    except Exception as error:
        record |= {"error": repr(error), "details": {"traceback": traceback.format_exc()}}
    log.add({**record, "seconds": round(time.monotonic() - began, 2)})


def driver() -> str:
    """Name, driver and memory of the device, as nvidia-smi prints them."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown: {error}"


def chosen(machine: Machine, part: str) -> dict:
    """The items of a part or a pattern: by name, their part and what measures them."""
    every = {"proof": proof.items(machine), "bench": bench.items(machine)}
    if part in every:
        return {name: (part, measure) for name, measure in every[part].items()}
    return {
        name: (of, measure)
        for of, items in every.items()
        for name, measure in items.items()
        if fnmatch.fnmatch(name, f"*{part}*")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="proof")
    parser.add_argument("--rounds", type=int, default=1, help="how often the items run, one round after the other")
    parser.add_argument("--seconds", type=float, default=230.0, help="no item starts later, and all items end by then")
    parser.add_argument("--simulated", action="store_true")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory(prefix="aurora-device-") as work:
        machine = Machine(Path(os.environ["AURORA_BIN"]).resolve(), Path(work), arguments.simulated, Once())
        log = Log(Path(os.environ.get("OUT", "."), "device.jsonl"))
        if not machine.simulated:
            device = driver()
            machine.kind = next((kind for name, kind in KINDS.items() if name in device), machine.kind)
            log.add({"item": "machine", "part": arguments.part, "ok": True, "seconds": 0.0, "details": {"device": device}})
        items = chosen(machine, arguments.part)
        if not items:
            parser.error(f"no item has `{arguments.part}` in its name")
        parts = {part for part, _ in items.values()}
        with ThreadPoolExecutor(AT_ONCE if parts == {"proof"} else 1) as pool:
            for _ in range(arguments.rounds):
                for name, (part, measure) in items.items():
                    pool.submit(run, name, part, measure, machine, end, log)
    print("\n".join(["", *bench.summary(log.records)]))
    failed = [record["item"] for record in log.records if not record["ok"]]
    print(f"{len(log.records) - len(failed)} of {len(log.records)} ok" + "".join(f"\nfailed: {name}" for name in failed))
    sys.exit(any(not record["ok"] and record["part"] == "proof" for record in log.records))


if __name__ == "__main__":
    main()
