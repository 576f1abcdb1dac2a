"""Feeds hostile input to commands: specs, data, archives, models. Errors are expected; crashes, hangs and memory are not."""

import gzip
import json
import struct
import tarfile
import zipfile

from project import SPEC, pack_tar, pack_zip, sentences

QUICK = 60  # seconds for a command that only reads


def round(attack):
    for campaign in [specs, data, models, editor]:
        campaign(attack)


def mutated(data, chance, most=8):
    """Bytes with a few random changes."""
    data = bytearray(data)
    for _ in range(chance.randrange(1, most)):
        if not data:
            break
        at = chance.randrange(len(data))
        how = chance.randrange(6)
        if how == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            data[at] = chance.choice([0, 0xFF, 0x7F, 0x80, 0x0A, 0x22, 0x7B])
        elif how == 2:
            del data[at : at + chance.randrange(1, 64)]
        elif how == 3:
            data[at:at] = data[at : at + chance.randrange(1, 64)] * chance.randrange(1, 4)
        elif how == 4:
            data[at : at + 8] = struct.pack("<Q", chance.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]))
        else:
            del data[at:]
    return bytes(data)


PIECES = [
    "[" * 3000, "{" * 3000, "(" * 3000, "-" * 5000, "1" * 4000, "1e999999999", "0x", "\u202e", "\0", "\ufeff", "\"", "'", "//", "/*", "@assumed(\"x\")",
    " from ", "let x = [x, x]\n", "import \"../../etc/passwd\" { a }\n", "18446744073709551616", "340282366920938463463374607431768211456", "99999999999 steps",
    "sweep(1, 2, 3)", "%", "100%", "= =", "a.b.c.d", "\r", "\t", "é" * 300, "stage cap {}\n", "experiment x {}\n",
]


def specs(attack):
    project, chance = attack.project(), attack.random
    for _ in range(12):
        text = SPEC
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(text))
            if chance.random() < 0.6:
                text = text[:at] + chance.choice(PIECES) + text[at:]
            else:
                tokens = text.split(" ")
                one, other = chance.randrange(len(tokens)), chance.randrange(len(tokens))
                tokens[one] = tokens[other]
                text = " ".join(tokens)
        raw = text.encode()
        if chance.random() < 0.3:
            raw = mutated(raw, chance)
        project.spec.write_bytes(raw)
        for command in [["check"], ["fmt", "--check"], ["show"], ["plan"]]:
            if project.run(*command, "specs/small.aur", within=QUICK).code not in (0, 1, 4):
                attack.findings.add("wrong", f"`{command[0]}` of a mutated spec: {project.spec.read_bytes()[:200]!r}")
        attack.findings.count("hostile specs")
    project.close("hostile specs")


def nested(tag, depth):
    return f"<html><body><p>{'x ' * 20}</p>" + f"<{tag}>" * depth + "deep" + f"</{tag}>" * (depth // 2) + "</body></html>"


def misnested(count):
    return "<html><body>" + "<b><i><p>text </b></i>" * count + "</body></html>"


def hostile_pages(chance):
    kind = chance.choice(["nested", "misnested", "tables", "entities", "attributes", "mutated"])
    if kind == "nested":
        return nested(chance.choice(["div", "b", "a", "font", "table", "select", "ruby"]), chance.choice([1000, 20_000, 100_000]))
    if kind == "misnested":
        return misnested(chance.choice([1000, 20_000]))
    if kind == "tables":
        return "<table>" * 5000 + "<tr><td>" * 5000 + "x"
    if kind == "entities":
        return "<body>" + "&amp;&#x110000;&#0;&notit;" * 50_000
    if kind == "attributes":
        return "<body><p " + " ".join(f'a{n}="{n}"' for n in range(50_000)) + ">x</p>"
    page = "<html><body>" + "".join(f"<p>{line}</p>" for line in sentences("fi", 40)) + "</body></html>"
    return mutated(page.encode(), chance, 40).decode("latin-1")


def data(attack):
    project, chance = attack.project(), attack.random
    kind = chance.choice(["archive", "pages", "lines", "zip of zeros", "gzip of zeros", "long name", "names", "text"])
    folder = project.root / "data"
    finnish = (folder / "finnish.tar.gz").read_bytes()
    pages = (folder / "pages.zip").read_bytes()
    if kind == "archive":
        (folder / "finnish.tar.gz").write_bytes(mutated(finnish, chance))
        (folder / "pages.zip").write_bytes(mutated(pages, chance))
    elif kind == "pages":
        good = nested("p", 1) + "".join(f"<p>{line}</p>" for line in sentences("fi", 30))
        pack_zip(folder / "pages.zip", {"pages/0.html": hostile_pages(chance).encode(), "pages/1.html": good.encode()})
    elif kind == "lines":
        odd = ['{"text": 1}', "[]", "null", '{"text": "a", "text": "b"}', '{"text": "\\ud800"}', "[" * 100_000, '{"a":' * 50_000, "", "\0", '{"text": "' + "x" * 5_000_000 + '"}']
        lines = [json.dumps({"text": line}, ensure_ascii=False) for line in sentences("fi", 150)]
        for _ in range(chance.randrange(1, 20)):
            lines.insert(chance.randrange(len(lines)), chance.choice(odd))
        pack_tar(folder / "finnish.tar.gz", {"corpus/finnish.jsonl": "\n".join(lines).encode()})
    elif kind == "zip of zeros":
        with zipfile.ZipFile(folder / "pages.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            zeros = b"\0" * (64 << 20)
            for page in range(chance.randrange(1, 40)):
                archive.writestr(f"pages/{page}.html", zeros)
    elif kind == "gzip of zeros":
        with gzip.open(folder / "finnish.tar.gz", "wb") as archive:
            for _ in range(chance.randrange(1, 40)):
                archive.write(b"\0" * (64 << 20))
    elif kind == "long name":
        # A GNU header that announces a member's name of gigabytes.
        header = tarfile.TarInfo("././@LongLink")
        header.type = tarfile.GNUTYPE_LONGNAME
        header.size = chance.choice([1 << 20, 8 << 30, 1 << 62])
        with gzip.open(folder / "finnish.tar.gz", "wb") as archive:
            archive.write(header.tobuf(tarfile.GNU_FORMAT))
            for _ in range(chance.randrange(1, 30)):
                archive.write(b"a" * (16 << 20))
    elif kind == "names":
        with zipfile.ZipFile(folder / "pages.zip", "w") as archive:
            for name in ["../../up.html", "/etc/x.html", "a\0b.html", "x" * 60_000 + ".html", "pages/\x1b[2J.html", "pages/a\nb.html", "pages/..html"]:
                archive.writestr(name, nested("p", 1))
    else:
        odd = ["\ufeff", "\0", "\u202e", "\u2028", "\x1b]0;x\x07", "x" * 3_000_000, "\r", "\ud800".encode("utf-16", "surrogatepass").decode("latin-1")]
        text = "".join(line + chance.choice(["\n", "\r\n", *odd]) for line in sentences("en", 240))
        (folder / "english.txt").write_bytes(mutated(text.encode(), chance))
    ended = project.run_spec()
    attack.findings.count(f"hostile data, {kind}")
    if ended.code not in (0, 1, 4, 5):
        attack.findings.add("wrong", f"with hostile data ({kind}), a run ends with {ended.code}: {ended.err[-400:]}")
    control = [char for char in ended.out + ended.err if char < " " and char not in "\n\t"]
    if control:
        attack.findings.add("wrong", f"with hostile data ({kind}), control characters reach the terminal: {control[:5]!r}")
    project.write_data()
    project.finish(attack.expected, f"hostile data ({kind})")
    project.close("hostile data")


_exported = None


def exported(attack):
    """The files of a small model in Hugging Face's format, by name."""
    global _exported
    if _exported is None:
        project = attack.project()
        project.run_spec()
        ended = project.run("export", "hf", "small/cat@8", "out")
        if ended.code != 0:
            attack.findings.add("wrong", f"`export hf` ends with {ended.code}: {ended.err[-400:]}")
        _exported = {path.name: path.read_bytes() for path in (project.root / "out").rglob("*") if path.is_file()}
        project.close("an export")
    return _exported


HOSTILE_CONFIG = [
    ("n_layer", 1_000_000), ("n_layer", -1), ("n_layer", 2**64), ("n_embd", 0), ("n_head", 0), ("vocab_size", 2**40), ("n_positions", 1e308), ("layer_norm_epsilon", "NaN"),
    ("architectures", [["x"]]), ("n_inner", 2**31), ("activation_function", "\u001b[2J"),
]


def models(attack):
    chance = attack.random
    files = dict(exported(attack))
    project = attack.project()
    for _ in range(6):
        folder = project.root / "model"
        folder.mkdir(exist_ok=True)
        changed = dict(files)
        if chance.random() < 0.4 and "config.json" in changed:
            config = json.loads(changed["config.json"])
            key, value = chance.choice(HOSTILE_CONFIG)
            config[key] = value
            changed["config.json"] = json.dumps(config).encode()
        else:
            name = chance.choice([name for name in changed if name.endswith((".json", ".safetensors"))])
            changed[name] = mutated(changed[name][:4096], chance) + changed[name][4096:] if chance.random() < 0.7 else mutated(changed[name], chance)
        for name, content in changed.items():
            (folder / name).write_bytes(content)
        ended = project.run("import", "hf", "model", within=QUICK)
        attack.findings.count("hostile models, Hugging Face")
        if ended.code not in (0, 1, 4):
            attack.findings.add("wrong", f"`import hf` of a mutated model ends with {ended.code}: {ended.err[-400:]}")
        (project.root / "model.gguf").write_bytes(mutated(gguf(chance), chance))
        ended = project.run("import", "gguf", "model.gguf", within=QUICK)
        attack.findings.count("hostile models, GGUF")
        if ended.code not in (0, 1, 4):
            attack.findings.add("wrong", f"`import gguf` of a mutated file ends with {ended.code}: {ended.err[-400:]}")
    project.close("hostile models")


def gguf(chance):
    """A GGUF file with the header of a llama model, without all of its tensors."""

    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    facts = [
        ("general.architecture", 8, text("llama")),
        ("llama.block_count", 4, struct.pack("<I", 2)),
        ("llama.embedding_length", 4, struct.pack("<I", 32)),
        ("llama.feed_forward_length", 4, struct.pack("<I", 64)),
        ("llama.attention.head_count", 4, struct.pack("<I", 4)),
        ("llama.context_length", 4, struct.pack("<I", 64)),
        ("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5)),
        ("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 16) + b"".join(text(f"t{n}") for n in range(16))),
    ]
    tensors = [("token_embd.weight", [32, 16]), ("output_norm.weight", [32]), ("blk.0.attn_q.weight", [32, 32])]
    body = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts))
    for key, kind, value in facts:
        body += text(key) + struct.pack("<I", kind) + value
    at = 0
    for name, shape in tensors:
        body += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in shape) + struct.pack("<IQ", 0, at)
        count = 1
        for n in shape:
            count *= n
        at += count * 4
    return body + b"\0" * (-len(body) % 32) + chance.randbytes(at)


def editor(attack):
    """Messages for the language server that are damaged, huge or nested; it ends or goes on, but does not hang."""
    project, chance = attack.project(), attack.random

    def framed(value):
        body = json.dumps(value).encode()
        return b"Content-Length: %d\r\n\r\n" % len(body) + body

    uri = project.spec.as_uri()
    opening = [
        framed({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"capabilities": {}}}),
        framed({"jsonrpc": "2.0", "method": "initialized", "params": {}}),
    ]
    text = chance.choice(["[" * 100_000, "{" * 100_000, "(" * 100_000, "experiment x { a = " + "-" * 100_000, SPEC])
    document = {"uri": uri, "languageId": "aurora", "version": 1, "text": text}
    opened = framed({"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": {"textDocument": document}})
    last = chance.choice([
        b"Content-Length: 99999999999999\r\n\r\n{}",
        b"Content-Length: -1\r\n\r\n{}",
        b"Content-Length: 3\r\n\r\n{}}",
        b"\0" * 1000,
        mutated(opened, chance),
        framed({"jsonrpc": "2.0", "id": 2, "method": "textDocument/hover", "params": {"textDocument": {"uri": uri}, "position": {"line": 2**31 - 1, "character": 2**31 - 1}}}),
    ])
    stream = project.root / "messages"
    stream.write_bytes(b"".join([*opening, opened, last]))
    process = project.start(["lsp"], stdin=stream)
    ended = project.end(process, within=QUICK)
    attack.findings.count("hostile messages, editor")
    if ended.code not in (0, 1, 2):
        attack.findings.add("wrong", f"`lsp` ends with {ended.code}: {ended.err[-400:]}")
    project.close("hostile messages")
