"""The measurements: training steps and generation, side by side with transformers (`peer.py`)."""

import re
import statistics
import sys

from harness import HERE, Failure, Item, Machine, Project
from peer import NEW_TOKENS, PROMPTS, SHAPES

# Dense bf16 products of H100 SXM and H200, as NVIDIA's data sheets state.
PEAK = 989e12
STEPS = 16


def flops_per_token(shape: str) -> float:
    """FLOPs of forward and backward pass for a token.

    6 × parameters, which counts the tied embedding once, as the output layer; and 6 × layers × hidden × sequence for causal
    attention: forward 2 products × 2 FLOPs × hidden × sequence ÷ 2 per layer, and twice that backward.
    """
    of = SHAPES[shape]
    heads = of["hidden"] // of["heads"]
    attention = 2 * of["hidden"] ** 2 + 2 * of["hidden"] * of["kv_heads"] * heads
    layer = attention + 3 * of["hidden"] * of["feed_forward"]
    parameters = of["layers"] * layer + of["vocabulary"] * of["hidden"]
    return 6 * parameters + 6 * of["layers"] * of["hidden"] * of["sequence"]


def measured(result: dict, shape: str) -> dict:
    rate = result["median_tokens_per_second"]
    return {**result, "tokens_per_second": rate, "mfu": rate * flops_per_token(shape) / PEAK}


def peer(item: Item, shape: str, *more: str) -> dict:
    command = [sys.executable, HERE / "peer.py", "--shape", shape, "--steps", STEPS, *more]
    return measured(item.last_line(command), shape)


def speed(item: Item, shape: str, *more: str) -> dict:
    of = SHAPES[shape]
    return item.last_line([
        item.machine.program("speed"), "--device", "gpu", "--shape", shape, "--precision", "bf16", "--lanes", "1",
        "--micro-batch", of["micro_batch"], "--micro-batches", of["micro_batches"], *more,
    ])


def aurora(item: Item, shape: str, contract: str) -> dict:
    return measured(speed(item, shape, "--numerics", contract, "--steps", STEPS), shape)


def checkpoint(item: Item) -> dict:
    """Bytes per second of a checkpoint, and of a plain file of the same size."""
    result = speed(item, "smollm2-2048", "--steps", "2", "--checkpoint")
    rates = {
        f"{what}_gb_per_second": result["checkpoint_bytes"] / result[what] / 1e9
        for what in ("copy", "write", "load", "plain_write", "plain_read")
    }
    return {**result, **rates}


def generate(item: Item) -> dict:
    """Tokens per second of an eval: its time contains loading the weights, and an answer may end before its maximum."""
    project = Project.new(item.machine, "generate", "generate", "data = 1")
    done = item.run(project.command(item.machine, progress="plain"), project.folder)
    time = re.search(r"eval/continuation/smollm2 \(([0-9.]+) s\)", done.stderr + done.stdout)
    if not time:
        raise Failure("the time of the eval was not printed", out=done.stdout, err=done.stderr)
    seconds = float(time[1])
    return {"seconds": seconds, "tokens_per_second": PROMPTS * NEW_TOKENS / seconds}


def items(_: Machine) -> dict:
    """By name, in the order of importance; Aurora and the peer alternate."""
    found = {}
    for shape in SHAPES:
        found |= {
            f"peer/{shape}/compile": lambda item, s=shape: peer(item, s, "--mode", "compile"),
            f"aurora/{shape}/native": lambda item, s=shape: aurora(item, s, "native"),
            f"peer/{shape}/eager": lambda item, s=shape: peer(item, s, "--mode", "eager"),
            f"aurora/{shape}/invariant": lambda item, s=shape: aurora(item, s, "invariant"),
        }
    found["checkpoint"] = checkpoint
    found["generate/peer"] = lambda item: item.last_line([sys.executable, HERE / "peer.py", "--mode", "generate"])
    found["generate/aurora"] = generate
    for shape in SHAPES:
        found[f"peer/{shape}/compile-bf16"] = lambda item, s=shape: peer(item, s, "--mode", "compile", "--pure-bf16")
    return found


def summary(records: list[dict]) -> list[str]:
    """A line for each item with its medians over the rounds, and ratios to the peer."""
    rates: dict[str, list[dict]] = {}
    for record in records:
        if record["ok"] and "tokens_per_second" in record["details"]:
            rates.setdefault(record["item"], []).append(record["details"])
    medians = {name: statistics.median(one["tokens_per_second"] for one in found) for name, found in rates.items()}
    lines = []
    for name, found in rates.items():
        line = f"{name:34} {medians[name]:10,.0f} tokens/s"
        if "mfu" in found[0]:
            line += f"  MFU {statistics.median(one['mfu'] for one in found):.1%}"
        if "device_peak_mib" in found[0]:
            line += f"  peak {max(one['device_peak_mib'] for one in found):,} MiB"
        if "first_step_seconds" in found[0]:
            line += f"  first step {found[0]['first_step_seconds']:.1f} s"
        lines.append(line)
    for name in medians:
        kind, *rest = name.split("/")
        if kind == "aurora":
            peers = [f"peer/{rest[0]}/{mode}" for mode in ("eager", "compile", "compile-bf16")]
        else:
            peers = ["generate/peer"] if name == "generate/aurora" else []
        lines += [f"{name} / {other}: {medians[name] / medians[other]:.3f}" for other in peers if other in medians]
    return lines
