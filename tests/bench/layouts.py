#!/usr/bin/env python3
"""Two workers of one thread against one worker of two threads, at the same arithmetic; and what the contracts cost.

usage: tests/bench/layouts.py SPEED [--rounds 3] [--steps 4] [--shape large] [--only KIND …]

SPEED is the `speed` example of aurora-train. Each pair of runs is measured one after the other, so that other work on the
machine falls on both; a ratio is of such a pair. Where the machine's processors have other work, two workers that wait
for each other lose more than two threads that do not: the load is told with the figures.
"""

import argparse
import json
import os
import re
import statistics
import subprocess

GRID = ["--tensor", "2", "--lanes", "2"]
TWO_THREADS = [*GRID, "--threads", "2"]

# name: (what is measured, what it is compared with, micro-batches, target of the ratio of tokens per second)
KINDS = {
    "tensor 2": ([*GRID, "--threads", "1", "--mesh", "2,1,1"], TWO_THREADS, 2, "≥ 0.85"),
    "tensor 2, sequence parallel": (
        [*GRID, "--threads", "1", "--mesh", "2,1,1", "--sequence-parallel"], TWO_THREADS, 2, "≥ 0.85"),
    "pipeline 2": ([*GRID, "--threads", "1", "--mesh", "1,2,1"], TWO_THREADS, 8, "≥ 0.90 without the bubble"),
    "data 2": ([*GRID, "--threads", "1", "--mesh", "1,1,2"], TWO_THREADS, 2, "≥ 0.95"),
    "data 2, distributed optimizer": (
        [*GRID, "--threads", "1", "--mesh", "1,1,2", "--distributed-optimizer"], TWO_THREADS, 2, "≥ 0.95"),
    "invariant against native": (TWO_THREADS, [*TWO_THREADS, "--numerics", "native"], 2, "≥ 0.90"),
    "portable against invariant": ([*TWO_THREADS, "--numerics", "portable"], TWO_THREADS, 2, "as it is"),
}
RANK = re.compile(r"rank (\d+): ([\d.]+) of a step in transfers, memory (\d+) MiB of (\d+) planned")


def spread(values):
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def run(speed, arguments):
    """Tokens per second of a run; each rank's share of a step in transfers, and its memory as a ratio to the plan's."""
    done = subprocess.run([speed, *arguments], check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    figures = json.loads(done.stdout.splitlines()[-1])
    ranks = {0: (figures["in_transfers"], figures["grown_mib"] / figures["planned_mib"])}
    for rank, share, grown, planned in RANK.findall(done.stderr):
        ranks[int(rank)] = (float(share), float(grown) / float(planned))
    return figures["median_tokens_per_second"], ranks


def measure(speed, name, options):
    ours, theirs, micro_batches, target = KINDS[name]
    common = ["--shape", options.shape, "--steps", str(options.steps), "--micro-batches", str(micro_batches)]
    pairs = [(run(speed, [*common, *ours]), run(speed, [*common, *theirs])) for _ in range(options.rounds)]
    ratios = [our / their for (our, _), (their, _) in pairs]
    ranks = [ranks for (_, ranks), _ in pairs]
    print(f"{name}: {spread(ratios)}; target {target}; load {os.getloadavg()[0]:.1f}", flush=True)
    for at, what in enumerate(["share of a step in transfers", "memory, as a ratio to the plan's"]):
        each = (f"rank {rank} {spread([of[rank][at] for of in ranks])}" for rank in sorted(ranks[0]))
        print(f"  {what}: {', '.join(each)}")
    if name.startswith("pipeline"):
        # Source: Narayanan et al. 2021, §2.2.1: (p − 1) / (m + p − 1) of a step, if all stages took the same time.
        stages = 2
        bubble = (stages - 1) / (micro_batches + stages - 1)
        idle = [statistics.mean(share for share, _ in of.values()) for of in ranks]
        print(f"  without the bubble of {bubble:.3f}: {spread([ratio / (1 - bubble) for ratio in ratios])}; "
              f"measured idle (mean of the stages' waits) {spread(idle)}")


def checkpoints(speed, options):
    arguments = [*TWO_THREADS, "--shape", options.shape, "--steps", "2", "--checkpoint"]
    runs = []
    for _ in range(options.rounds):
        done = subprocess.run([speed, *arguments], check=True, text=True, stdout=subprocess.PIPE)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    mib = runs[0]["checkpoint_bytes"] / (1 << 20)
    for what, plain in [("write", "plain_write"), ("load", "plain_read")]:
        speeds = spread([mib / run[what] for run in runs])
        ratios = spread([run[plain] / run[what] for run in runs])
        print(f"checkpoint of {mib:.0f} MiB, {what}: {speeds} MiB/s; {ratios} × a plain file's speed")
    print(f"  copy before it, in which training stands: {spread([run['copy'] for run in runs])} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--shape", default="large")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    for name in options.only:
        measure(options.speed, name, options)
    checkpoints(options.speed, options)


if __name__ == "__main__":
    main()
