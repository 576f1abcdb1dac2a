#!/usr/bin/env python3
"""Writes the first inputs of each fuzzer.

usage: tests/fuzz/seeds.py FOLDER
"""

import io
import json
import pathlib
import random
import struct
import sys
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/attack"))

import hostile  # noqa: E402
from project import SPEC  # noqa: E402

LINES = b'{"text": "one"}\n{"text": "two\\nthree"}\n'
CONFIG = {
    "architectures": ["GPTBigCodeForCausalLM"],
    "model_type": "gpt_bigcode",
    "n_layer": 1,
    "n_embd": 8,
    "n_head": 2,
    "n_inner": 16,
    "n_positions": 8,
    "vocab_size": 16,
    "activation_function": "gelu_pytorch_tanh",
    "layer_norm_epsilon": 1e-5,
    "multi_query": True,
    "tie_word_embeddings": True,
}
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [{"id": 3, "content": "<|endoftext|>", "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}],
    "normalizer": {"type": "Replace", "pattern": {"String": "  "}, "content": " "},
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated", "invert": False},
    "post_processor": None,
    "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
}


def tar():
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in ["a.jsonl", "b" * 120 + ".jsonl"]:
            member = tarfile.TarInfo(name)
            member.size = len(LINES)
            archive.addfile(member, io.BytesIO(LINES))
    return packed.getvalue()


def packed_zip():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jsonl", LINES)
    return packed.getvalue()


def ar(members):
    packed = b"!<arch>\n"
    for name, content in members:
        packed += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)
    return packed


def archives():
    import gzip
    import lzma

    deb = ar([("debian-binary", b"2.0\n"), ("control.tar.gz", gzip.compress(tar())), ("data.tar.xz", lzma.compress(tar()))])
    kinds = [tar(), gzip.compress(tar()), lzma.compress(tar()), b"", packed_zip(), deb, gzip.compress(LINES), gzip.compress(tar())]
    return [bytes([kind]) + content for kind, content in enumerate(kinds)]


def safetensors():
    header = json.dumps({"transformer.ln_f.bias": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}).encode()
    return json.dumps(CONFIG).encode() + b"\0" + struct.pack("<Q", len(header)) + header + b"\0" * 32


def seeds():
    chance = random.Random(1)
    specs = [SPEC.encode()] + [path.read_bytes() for path in sorted((ROOT / "specs").rglob("*.aur"))]
    pages = [b"<html><body><p>one<b>two</b></p><table><tr><td>x</table></body></html>", hostile.nested("div", 50).encode(), hostile.misnested(20).encode()]
    return {
        "spec": specs,
        "lock": [path.read_bytes() for path in sorted((ROOT / "lockfiles").glob("*.lock"))],
        "archive": archives(),
        "html": pages,
        "gguf": [hostile.gguf(chance)],
        "safetensors": [safetensors()],
        "tokenizer": [json.dumps(TOKENIZER).encode()],
    }


def main():
    for target, inputs in seeds().items():
        folder = pathlib.Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(inputs):
            (folder / f"seed-{number}").write_bytes(content)


if __name__ == "__main__":
    main()
