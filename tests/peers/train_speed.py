#!/usr/bin/env python3
"""Training speed and losses against Hugging Face transformers on PyTorch, on this machine.

    train_speed.py SPEED [--rounds 3] [--threads 2] [--shape small large] [--losses]

SPEED is the `speed` example of aurora-train (`cargo build --release -p aurora-train --example speed`). Both trainers
run the same model, precision (f32), threads (2), batch and optimizer; runs alternate, and medians are compared, so that
other work on the machine falls on both. On a busy machine two threads that wait for each other suffer more than two that
do not; processor time with `--threads 1` is then the fairer figure. Needs torch and transformers in the Python that runs
this file.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SHAPES = {
    "large": dict(layers=8, hidden=512, heads=8, vocabulary=16384, sequence=512, micro_batch=4),
    "small": dict(layers=4, hidden=128, heads=4, vocabulary=4096, sequence=128, micro_batch=32),
}


def peer(shape: str, steps: int, micro_batches: int, folder: str | None) -> None:
    """One run of the peer, in this process: prints a JSON line as `speed` does."""
    import resource
    import time

    import numpy
    import torch
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(1)
    of = SHAPES[shape]
    config = GPTBigCodeConfig(
        vocab_size=of["vocabulary"], n_positions=of["sequence"], n_embd=of["hidden"], n_layer=of["layers"],
        n_head=of["heads"], n_inner=4 * of["hidden"], activation_function="gelu_pytorch_tanh", multi_query=True,
        attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0, use_cache=False, attn_implementation="sdpa",
    )
    model = GPTBigCodeForCausalLM(config)
    model.train()
    row = of["sequence"] + 1
    count = steps * micro_batches * of["micro_batch"] * row
    if folder:
        from safetensors.torch import load_file

        weights = {}
        for file in sorted(Path(folder, "weights").iterdir()):
            weights.update(load_file(file))
        missing, unexpected = model.load_state_dict(weights, strict=False)
        assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
        model.tie_weights()
        ids = numpy.fromfile(Path(folder, "tokens.i64"), dtype="<i8")[:count]
    else:
        ids = numpy.random.default_rng(1).integers(0, of["vocabulary"], count)
    batches = torch.from_numpy(ids).view(steps, micro_batches, of["micro_batch"], row)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        lr=1e-3, betas=(0.9, 0.95), eps=1e-8, fused=True,
    )
    seconds, processor, losses = [], [], []
    for step in range(steps):
        began, used = time.perf_counter(), time.process_time()
        total = 0.0
        for batch in batches[step]:
            logits = model(batch[:, :-1]).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()) / micro_batches
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
        losses.append(total)
    skip = min(max(1, len(seconds) // 4), len(seconds) - 1)
    kept, processor = sorted(seconds[skip:]), sorted(processor[skip:])
    tokens = micro_batches * of["micro_batch"] * of["sequence"]
    print(json.dumps({
        "median_tokens_per_second": tokens / kept[len(kept) // 2],
        "best_tokens_per_second": tokens / kept[0],
        "tokens_per_processor_second": tokens / processor[len(processor) // 2],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "losses": losses,
    }))


def run(command: list[str]) -> dict:
    result = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def ours(speed: str, shape: str, *more: str) -> dict:
    threads = os.environ["OMP_NUM_THREADS"]
    return run([speed, "--shape", shape, "--threads", threads, "--lanes", "2", *more])


def theirs(shape: str, *more: str) -> dict:
    threads = os.environ["OMP_NUM_THREADS"]
    return run([sys.executable, __file__, "--peer", shape, "--threads", threads, *more])


def compare_losses(speed: str, shape: str, steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours(speed, shape, "--steps", str(steps), "--dump", folder)
        lines = Path(folder, "losses.txt").read_text().splitlines()
        own = [float(line.split()[0]) for line in lines]
        peers = theirs(shape, "--steps", str(steps), "--folder", folder)["losses"]
    worst = max(abs(a - b) / b for a, b in zip(own, peers, strict=True))
    print(f"{shape}: {steps} losses, {own[0]:.6f} to {own[-1]:.6f}, peer's to {peers[-1]:.6f}, at most {worst:.1e} apart")
    if worst > 1e-4:
        sys.exit("error: the losses differ by more than 1e-4")


def compare_speed(speed: str, shape: str, rounds: int, steps: int) -> None:
    kinds = {
        "invariant": lambda: ours(speed, shape, "--steps", str(steps)),
        "peer": lambda: theirs(shape, "--steps", str(steps)),
        "native": lambda: ours(speed, shape, "--steps", str(steps), "--numerics", "native"),
    }
    found: dict[str, list[dict]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, measure in kinds.items():
            found[kind].append(measure())
    median = {
        kind: statistics.median(run["median_tokens_per_second"] for run in runs) for kind, runs in found.items()
    }
    processor = {
        kind: statistics.median(run["tokens_per_processor_second"] for run in runs) for kind, runs in found.items()
    }
    for kind, runs in found.items():
        best = max(run["best_tokens_per_second"] for run in runs)
        memory = max(run["peak_mib"] for run in runs)
        print(f"{shape:6} {kind:10} {median[kind]:9.1f} tokens/s (best {best:9.1f}), "
              f"{processor[kind]:9.1f} tokens/processor second, peak {memory} MiB")
    for what, of in (("time", median), ("processor time", processor)):
        print(f"{shape:6} by {what}: invariant / peer {of['invariant'] / of['peer']:.3f}, "
              f"invariant / native {of['invariant'] / of['native']:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speed", nargs="?")
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--losses", action="store_true", help="compare the first losses, not the speed")
    parser.add_argument("--loss-steps", type=int, default=20)
    parser.add_argument("--peer", choices=SHAPES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    if arguments.peer:
        peer(arguments.peer, arguments.steps, 2, arguments.folder)
        return
    if not arguments.speed:
        parser.error("which `speed`?")
    for shape in arguments.shape:
        if arguments.losses:
            compare_losses(arguments.speed, shape, arguments.loss_steps)
        else:
            compare_speed(arguments.speed, shape, arguments.rounds, arguments.steps)


if __name__ == "__main__":
    main()
