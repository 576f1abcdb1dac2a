#!/usr/bin/env python3
"""Aurora's evals against lm-evaluation-harness on the same model and the same local items.

    harness.py AURORA [--keep harness.json]

A small llama is trained by Aurora on text that this script makes, exported in Hugging Face's layout, and measured by both:
`multiple_choice` (log-likelihoods of every choice within 1e-4 relative; acc, acc_norm and acc_bytes equal), `generation`
under greedy decoding (texts equal), `perplexity` with rolling windows (log-likelihood of every document within 1e-4
relative, bits per byte). `--keep` leaves the harness' numbers for the test that needs no peer.
"""

import argparse
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

TOLERANCE = 1e-4
CONTEXT = 128

SPEC = """
experiment harness {
  seed     = 11
  numerics = invariant(tensor = 1, lanes = 2, micro_batch = 4 sequences)
}

source text { from = "file:text.txt" }
source texts { from = "file:texts.jsonl" }
source questions { from = "file:questions.jsonl" }
source solved { from = "file:solved.jsonl" }

corpus en {
  language        = en
  from            = [text(text, by_line = true)]
  language_filter = false
}

corpus kept {
  language        = en
  from            = [jsonl(texts)]
  language_filter = false
  minimum         = 0 characters
  unit            = document
  deduplicate     = false
}

tokenizer bpe {
  kind    = train_bpe(vocabulary = 512)
  corpora = [en]
}

model small {
  architecture = llama
  layers       = 2
  hidden       = 64
  heads        = 4
  kv_heads     = 2
  feed_forward = 160
  context      = 128 tokens
  vocabulary   = 512
  tokenizer    = bpe
}

mixture all {
  en from [en] weight 100%
}

stage cap {
  start         = small
  budget        = 60 steps
  mixture       = all
  sequence      = 64 tokens
  global_batch  = 8 sequences
  learning_rate = constant(rate = 3e-3, warmup = 4 steps)
}

eval choice {
  kind    = multiple_choice
  data    = [questions]
  prompt  = "{q}"
  choices = ["{c}"]
  answer  = "{a}"
  at      = [end]
}

eval shots {
  kind       = multiple_choice
  data       = [questions, solved]
  files      = ["questions.jsonl"]
  prompt     = "Question: {q}\\nAnswer:"
  choices    = ["{c}"]
  answer     = "{a}"
  shots      = 2
  shot_files = ["solved.jsonl"]
  at         = [end]
}

eval words {
  kind    = generation
  data    = [questions]
  prompt  = "{q}"
  answer  = "{c.0}"
  stop    = ["."]
  maximum = 12 tokens
  at      = [end]
}

eval rolling {
  kind   = perplexity
  data   = [kept]
  split  = all
  window = 128 tokens
  at     = [end]
}
"""

OPENINGS = ["The people of the village", "A cook in the mountains", "The first tram of the day", "Nobody at the harbour"]
MIDDLES = ["opens the old door", "has never seen the sea", "waits for the baker", "counts the boats at night"]
ENDS = ["before the sun is up", "because of the cold", "and goes home again", "while the water boils"]


def write(folder: Path) -> None:
    chance = random.Random(5)
    pick = chance.choice
    lines = [f"{pick(OPENINGS)} {pick(MIDDLES)} {pick(ENDS)}." for _ in range(400)]
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    questions = []
    for _ in range(40):
        choices = chance.sample(MIDDLES, 3) + [f"naïve {pick(ENDS)} ünd überall"]
        questions.append({"q": f"{pick(OPENINGS)}", "c": choices, "a": chance.randrange(4)})
    (folder / "solved.jsonl").write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in questions[:2]))
    questions = questions[2:]
    (folder / "questions.jsonl").write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in questions))
    texts = [" ".join(pick(lines) for _ in range(chance.randrange(1, 12))) for _ in range(20)]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "harness.aur").write_text(SPEC)


def run(folder: Path, *command: object) -> None:
    subprocess.run([str(word) for word in command], cwd=folder, stdout=subprocess.DEVNULL, check=True)


def theirs(folder: Path, batch: int) -> dict:
    os.environ["TQDM_DISABLE"] = "1"
    import datasets
    logging.disable(logging.WARNING)
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.api.task import ConfigurableTask

    datasets.disable_progress_bars()

    def task(name: str, file: str, **more) -> ConfigurableTask:
        files = {"test": str(folder / file), "train": str(folder / ("solved.jsonl" if "questions" in file else file))}
        return ConfigurableTask(config={
            "task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": files},
            "test_split": "test", **more})

    accuracies = [{"metric": metric} for metric in ("acc", "acc_norm", "acc_bytes")]
    choice = {"output_type": "multiple_choice", "doc_to_choice": "{{c}}", "doc_to_target": "a", "metric_list": accuracies}
    tasks = [
        task("choice", "questions.jsonl", doc_to_text="{{q}}", **choice),
        task("shots", "questions.jsonl", doc_to_text="Question: {{q}}\nAnswer:", num_fewshot=2, fewshot_split="train",
             fewshot_config={"sampler": "first_n"}, **choice),
        task("words", "questions.jsonl", output_type="generate_until", doc_to_text="{{q}}", doc_to_target="{{c[0]}}",
             generation_kwargs={"until": ["."], "max_gen_toks": 12, "do_sample": False},
             metric_list=[{"metric": "exact_match"}]),
        task("rolling", "texts.jsonl", output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
             metric_list=[{"metric": "bits_per_byte"}, {"metric": "byte_perplexity"}]),
    ]
    model = HFLM(pretrained=str(folder / "model"), dtype="float32", batch_size=batch, device="cpu", max_length=CONTEXT)
    return simple_evaluate(model=model, tasks=tasks, log_samples=True, bootstrap_iters=0, verbosity="ERROR")


def samples(folder: Path, task: str) -> list[dict]:
    path = folder / "out/harness__cap@60" / f"samples_{task}_aurora.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def close(own: float, peer: float) -> float:
    return abs(own - peer) / max(abs(peer), 1e-9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("aurora", type=Path)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "lockfiles").mkdir()
        write(folder)
        aurora = options.aurora.resolve()
        run(folder, aurora, "run", "harness.aur", "--progress", "none")
        run(folder, aurora, "export", "hf", "harness/cap@60", "model")
        run(folder, aurora, "export", "lm-eval", "harness.aur", "out")
        own = json.loads((folder / "out/harness__cap@60/results_aurora.json").read_text())["results"]
        peer = theirs(folder, 8)
        kept: dict = {"lm_eval": "0.4.13", "choice": [], "words": [], "bits_per_byte": 0.0}
        worst = {}
        for task in ("choice", "shots"):
            largest = 0.0
            for mine, other in zip(samples(folder, task), peer["samples"][task], strict=True):
                likelihoods = [float(response[0][0]) for response in other["resps"]]
                largest = max(largest, *(close(response[0][0], value)
                                         for response, value in zip(mine["resps"], likelihoods, strict=True)))
                if task == "choice":
                    kept["choice"].append(likelihoods)
                for metric in ("acc", "acc_norm", "acc_bytes"):
                    if metric in other and mine[metric] != other[metric]:
                        sys.exit(f"{task} {mine['doc']['item']}: {metric} {mine[metric]} here, {other[metric]} there")
            worst[task] = largest
            for metric in ("acc", "acc_norm"):
                if own[task][f"{metric},none"] != peer["results"][task][f"{metric},none"]:
                    sys.exit(f"{task}: {metric} differs")
        for mine, other in zip(samples(folder, "words"), peer["samples"]["words"], strict=True):
            text = other["resps"][0][0]
            kept["words"].append(text)
            if mine["resps"][0][0] != text:
                sys.exit(f"words {mine['doc']['item']}: {mine['resps'][0][0]!r} here, {text!r} there")
        bits = peer["results"]["rolling"]["bits_per_byte,none"]
        worst["rolling"] = close(own["rolling_en"]["bits_per_byte,none"], bits)
        kept["bits_per_byte"] = bits
        for task, difference in worst.items():
            print(f"{task}: largest relative difference of a log-likelihood {difference:.1e}")
            if difference > TOLERANCE:
                sys.exit(f"{task}: more than {TOLERANCE}")
        print(f"words: {len(kept['words'])} greedy continuations equal")
        if options.keep:
            options.keep.write_text(json.dumps(kept, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
