#!/usr/bin/env python3
"""Aurora's evals against lm-evaluation-harness on the same model and the same local items.

    harness.py AURORA [--keep harness.json]

A small llama is trained by Aurora on made-up text (the project in `harness/`), exported in Hugging Face's layout, and measured by both:
`multiple_choice` (log-likelihoods of every choice within 1e-4 relative; acc, acc_norm and acc_bytes equal), `generation`
under greedy decoding (texts equal), `perplexity` with rolling windows (log-likelihood of every document within 1e-4
relative, bits per byte). `--keep` leaves the harness' numbers for the test that needs no peer.
"""

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOLERANCE = 1e-4
CONTEXT = 128

PROJECT = Path(__file__).parent / "harness"


def write(folder: Path) -> None:
    """The project: made-up sentences, questions and texts, and a spec with `portable` numerics."""
    for file in PROJECT.iterdir():
        shutil.copy(file, folder)


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
