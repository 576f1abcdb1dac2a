#!/usr/bin/env python3
"""Measures `aurora lsp` and `aurora check` on a spec of 2,000 lines with the real binary, and prints the figures.

usage: tests/bench/editor.py AURORA [LINES] [ROUNDS]

An editor is played over standard input and output: in each round one character is typed at another place of the file (every
tenth round leaves it broken), and then every kind of request is made, each right after the change as an editor does. A
time is from the message's first byte to the answer's last. Nothing is asserted: the targets stand beside the figures.
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HEAD = """\
/// A large spec.
experiment large {
  seed     = 7
  numerics = invariant(tensor = 2, lanes = 2, micro_batch = 2 sequences)
}

source text { from = "file:data/text.txt" }

tokenizer bpe {
  kind    = train_bpe(vocabulary = 4096)
  corpora = [corpus_0]
}

model small {
  architecture = gpt_bigcode
  layers       = 4
  hidden       = 128
  heads        = 4
  context      = 128 tokens
  vocabulary   = 4096
  tokenizer    = bpe
}
"""

PART = """
corpus corpus_{i} {{
  language = en
  from     = [text(text, by_line = true)]
  held_out = 3%
}}

mixture mix_{i} {{
  en from [corpus_{i}] weight 60%
  fi from [corpus_{before}] weight 40% max_epochs 4
}}

stage stage_{i} {{
  start         = {start}
  budget        = 240 steps @assumed("long enough")
  mixture       = mix_{i}
  sequence      = 128 tokens
  global_batch  = 32 sequences
  learning_rate = wsd(peak = 3e-3, floor = 1e-3, warmup = 20 steps, decay = 40 steps)
  optimizer     = adamw(beta1 = 0.9, beta2 = 0.95, weight_decay = 0.1, clip = 1.0)
  checkpoint    = every 40 steps
}}

eval held_out_{i} {{
  kind   = perplexity
  data   = [corpus_{i}]
  stages = [stage_{i}]
  at     = [start, every 80 steps, end]
}}
"""


def large(lines):
    text = HEAD
    for i in range(lines):
        if text.count("\n") >= lines:
            return text
        text += PART.format(i=i, before=max(i - 1, 0) if i else 1, start=f"stage_{i - 1}" if i else "small")
    return text


class Editor:
    def __init__(self, aurora, folder):
        self.server = subprocess.Popen([aurora, "lsp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.number = 0
        root = f"file://{folder}"
        self.request("initialize", {"processId": None, "rootUri": root, "capabilities": {},
                                    "workspaceFolders": [{"uri": root, "name": "bench"}]})
        self.notify("initialized", {})

    def send(self, message):
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.server.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.server.stdin.flush()

    def receive(self):
        length = 0
        while line := self.server.stdout.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return self.server.stdout.read(length)

    def notify(self, method, params):
        self.send({"method": method, "params": params})

    def request(self, method, params):
        """The seconds until the answer is there, and the answer."""
        self.number += 1
        began = time.perf_counter()
        self.send({"id": self.number, "method": method, "params": params})
        while True:
            body = self.receive()
            took = time.perf_counter() - began
            message = json.loads(body)
            if message.get("id") == self.number and "method" not in message:
                return took, message.get("result")

    def diagnostics(self):
        while True:
            body = self.receive()
            heard = time.perf_counter()
            message = json.loads(body)
            if message.get("method") == "textDocument/publishDiagnostics":
                return heard, message["params"]["diagnostics"]


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def line(name, seconds):
    values = [second * 1e3 for second in seconds]
    print(f"  {name:<34} {statistics.median(values):7.2f} ms median  {percentile(values, 0.95):7.2f} ms at 95 %  "
          f"{max(values):7.2f} ms at most")


def main():
    aurora = str(Path(sys.argv[1]).resolve())
    lines = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    random.seed(7)
    text = large(lines)
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "specs/large.aur"
        (Path(folder) / "lockfiles").mkdir()
        spec.parent.mkdir()
        spec.write_text(text)
        print(f"{text.count(chr(10))} lines, {len(text)} bytes")
        whole = []
        for _ in range(20):
            began = time.perf_counter()
            subprocess.run([aurora, "check", str(spec)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            whole.append(time.perf_counter() - began)
        print("aurora check, whole process:")
        line("sound", whole)

        editor = Editor(aurora, folder)
        uri = f"file://{spec}"
        editor.notify("textDocument/didOpen",
                      {"textDocument": {"uri": uri, "languageId": "aur", "version": 1, "text": text}})
        editor.diagnostics()
        document = {"uri": uri}
        all_lines = text.split("\n")
        stages = [number for number, content in enumerate(all_lines) if content.startswith("stage ")]
        version = 1
        typed, answers = [], {}

        def change(at, end, new):
            nonlocal version
            version += 1
            span = {"start": {"line": at, "character": end[0]}, "end": {"line": at, "character": end[1]}}
            editor.notify("textDocument/didChange", {"textDocument": {"uri": uri, "version": version},
                                                     "contentChanges": [{"range": span, "text": new}]})

        for number in range(rounds):
            stage = random.choice(stages)
            budget = stage + 2
            broken = number % 10 == 9
            began = time.perf_counter()
            change(budget, (18, 18), "= " if broken else "1")
            heard, _ = editor.diagnostics()
            typed.append(heard - began)
            on_name = {"textDocument": document, "position": {"line": stage, "character": 7}}
            on_key = {"textDocument": document, "position": {"line": stage + 4, "character": 4}}
            span = {"start": {"line": max(stage - 30, 0), "character": 0}, "end": {"line": stage + 30, "character": 0}}
            requests = [
                ("textDocument/hover", on_key),
                ("textDocument/hover", on_name),
                ("textDocument/completion", {"textDocument": document, "position": {"line": stage + 3, "character": 18}}),
                ("textDocument/definition", {"textDocument": document, "position": {"line": stage + 3, "character": 19}}),
                ("textDocument/references", {**on_name, "context": {"includeDeclaration": True}}),
                ("textDocument/prepareRename", on_name),
                ("textDocument/rename", {**on_name, "newName": "another"}),
                ("textDocument/formatting", {"textDocument": document, "options": {"tabSize": 2, "insertSpaces": True}}),
                ("textDocument/codeAction", {"textDocument": document, "range": span, "context": {"diagnostics": []}}),
                ("textDocument/inlayHint", {"textDocument": document, "range": span}),
                ("textDocument/documentSymbol", {"textDocument": document}),
                ("textDocument/foldingRange", {"textDocument": document}),
                ("textDocument/semanticTokens/full", {"textDocument": document}),
            ]
            method, params = requests[number % len(requests)]
            # The first request after a change pays for reading the file again.
            change(budget, (18, 20 if broken else 19), "")
            took, _ = editor.request(method, params)
            answers.setdefault("right after a change", []).append(took)
            for method, params in requests:
                took, _ = editor.request(method, params)
                answers.setdefault(method.removeprefix("textDocument/"), []).append(took)
        print("diagnostics after a change (target: check and diagnostics ≤ 20 ms):")
        line("from the change to the diagnostics", typed)
        print("answers (target: ≤ 30 ms at 95 %):")
        for name, seconds in answers.items():
            line(name, seconds)
        line("all", [second for seconds in answers.values() for second in seconds])
        editor.request("shutdown", None)
        editor.notify("exit", None)
        editor.server.stdin.close()
        editor.server.wait()


if __name__ == "__main__":
    main()
