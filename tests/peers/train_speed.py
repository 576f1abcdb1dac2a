#!/usr/bin/env python3
"""Training speed and losses against Hugging Face transformers on PyTorch, on this machine.

    train_speed.py SPEED [--rounds 3] [--threads 2] [--shape small large] [--precision bf16]
    train_speed.py SPEED --losses [--keep losses.json]

SPEED is the `speed` example of aurora-train (`cargo build --release -p aurora-train --example speed`). Both trainers
run the same model, precision (f32; bf16 is autocast there), threads (2), batch and optimizer; runs alternate, and medians are compared, so that
other work on the machine falls on both. On a busy machine two threads that wait for each other suffer more than two that
do not; processor time with `--threads 1` is then the fairer figure. `--losses` compares the losses of the first steps, of
one worker and of a mesh of four; `--keep` leaves the peer's for the test that needs no peer. Needs torch and transformers
in the Python that runs this file.
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
    "llama": dict(layers=4, hidden=128, heads=4, vocabulary=4096, sequence=128, micro_batch=32, kv_heads=2,
                  feed_forward=352, theta=10000.0, tied=False),
    "smollm2": dict(layers=30, hidden=576, heads=9, vocabulary=49152, sequence=256, micro_batch=4, kv_heads=3,
                    feed_forward=1536, theta=100000.0, tied=True),
}
LEARNING_RATE = 1e-3
MICRO_BATCHES = 2
# For losses: few samples, so that the test that repeats them is fast.
LOSSES = dict(shapes=["small", "llama"], steps=20, micro_batch=2)


def peer_model(of: dict):
    """The model of a shape: GPT-BigCode with multi-query attention, or Llama with grouped queries."""
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM, LlamaConfig, LlamaForCausalLM

    common = dict(vocab_size=of["vocabulary"], use_cache=False, attn_implementation="sdpa")
    if "kv_heads" in of:
        return LlamaForCausalLM(LlamaConfig(
            hidden_size=of["hidden"], intermediate_size=of["feed_forward"], num_hidden_layers=of["layers"],
            num_attention_heads=of["heads"], num_key_value_heads=of["kv_heads"], rms_norm_eps=1e-5,
            max_position_embeddings=of["sequence"], rope_parameters=dict(rope_type="default", rope_theta=of["theta"]),
            tie_word_embeddings=of["tied"], attention_bias=False, mlp_bias=False, hidden_act="silu", **common,
        ))
    return GPTBigCodeForCausalLM(GPTBigCodeConfig(
        n_positions=of["sequence"], n_embd=of["hidden"], n_layer=of["layers"], n_head=of["heads"],
        n_inner=4 * of["hidden"], activation_function="gelu_pytorch_tanh", multi_query=True, attn_pdrop=0.0,
        resid_pdrop=0.0, embd_pdrop=0.0, **common,
    ))


def peer(shape: str, steps: int, micro_batch: int | None, folder: str | None, precision: str) -> None:
    """One run of the peer, in this process: prints a JSON line as `speed` does."""
    import resource
    import time

    import numpy
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(1)
    of = SHAPES[shape]
    micro_batches, micro_batch = MICRO_BATCHES, micro_batch or of["micro_batch"]
    model = peer_model(of)
    model.train()
    row = of["sequence"] + 1
    count = steps * micro_batches * micro_batch * row
    if folder:
        from safetensors.torch import load_file

        weights = {}
        for file in sorted(Path(folder, "weights").iterdir()):
            weights.update(load_file(file))
        missing, unexpected = model.load_state_dict(weights, strict=False)
        tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
        assert not unexpected and set(missing) <= tied, (missing, unexpected)
        model.tie_weights()
        ids = numpy.fromfile(Path(folder, "tokens.i64"), dtype="<i8")[:count]
    else:
        ids = numpy.random.default_rng(1).integers(0, of["vocabulary"], count)
    batches = torch.from_numpy(ids).view(steps, micro_batches, micro_batch, row)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        lr=LEARNING_RATE, betas=(0.9, 0.95), eps=1e-8, fused=True,
    )
    seconds, processor, losses = [], [], []
    for step in range(steps):
        began, used = time.perf_counter(), time.process_time()
        total = 0.0
        for batch in batches[step]:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                logits = model(batch[:, :-1]).logits.float()
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
    tokens = micro_batches * micro_batch * of["sequence"]
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


def compare_losses(speed: str, shape: str) -> list[float]:
    """Of one worker, and of a mesh with tensor 2 and pipeline 2, against the peer's, which are returned."""
    common = ["--steps", str(LOSSES["steps"]), "--micro-batch", str(LOSSES["micro_batch"])]
    layouts = {"one worker": [], "mesh 2,2,1": ["--mesh", "2,2,1"]}
    own: dict[str, list[float]] = {}
    peers: list[float] = []
    for layout, arguments in layouts.items():
        with tempfile.TemporaryDirectory() as folder:
            ours(speed, shape, *common, "--tensor", "2", *arguments, "--dump", folder)
            own[layout] = [float(line.split()[0]) for line in Path(folder, "losses.txt").read_text().splitlines()]
            peers = peers or theirs(shape, *common, "--folder", folder)["losses"]
    for layout, losses in own.items():
        worst = max(abs(a - b) / b for a, b in zip(losses, peers, strict=True))
        print(f"{shape}, {layout}: {len(losses)} losses, {losses[0]:.6f} to {losses[-1]:.6f}, "
              f"peer's to {peers[-1]:.6f}, at most {worst:.1e} apart", flush=True)
        if worst > 1e-4:
            sys.exit("error: the losses differ by more than 1e-4")
    if len(set(map(tuple, own.values()))) > 1:
        sys.exit("error: the losses differ between layouts")
    return peers


def keep(path: str, losses: dict[str, list[float]]) -> None:
    import torch
    import transformers

    Path(path).write_text(json.dumps({
        "origin": f"transformers {transformers.__version__} on torch {torch.__version__}, CPU, f32, made by "
                  "tests/peers/train_speed.py --losses --keep; initial weights and batches are those of the example `speed`",
        "micro_batch": LOSSES["micro_batch"],
        "micro_batches": MICRO_BATCHES,
        "learning_rate": LEARNING_RATE,
        "losses": losses,
    }, indent=2) + "\n")


def compare_speed(speed: str, shape: str, rounds: int, steps: int, precision: str) -> None:
    more = ["--steps", str(steps), "--precision", precision]
    kinds = {
        "invariant": lambda: ours(speed, shape, *more),
        "peer": lambda: theirs(shape, *more),
        "native": lambda: ours(speed, shape, *more, "--numerics", "native"),
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
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["large", "small"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--losses", action="store_true", help="compare the first losses of both families, not the speed")
    parser.add_argument("--keep", help="with --losses: a file for the peer's")
    parser.add_argument("--micro-batch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--peer", choices=SHAPES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    if arguments.peer:
        peer(arguments.peer, arguments.steps, arguments.micro_batch, arguments.folder, arguments.precision)
        return
    if not arguments.speed:
        parser.error("which `speed`?")
    if arguments.losses:
        losses = {shape: compare_losses(arguments.speed, shape) for shape in LOSSES["shapes"]}
        if arguments.keep:
            keep(arguments.keep, losses)
        return
    for shape in arguments.shape:
        compare_speed(arguments.speed, shape, arguments.rounds, arguments.steps, arguments.precision)


if __name__ == "__main__":
    main()
