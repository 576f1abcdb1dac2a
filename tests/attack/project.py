"""A small project that is attacked, and the checks that every command has to pass.

Every command must end in time, with one of the documented exit codes, without a panic, and within the memory limit.
What breaks one of these rules, or gives a wrong result, is a finding; an attack never stops at one.
"""

import gzip
import io
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
import time
import tomllib
import uuid
import zipfile

SPEC = """
/// Attacked: two stages, four formats, three kinds of evals, a gate.
experiment small {
  seed     = 7
  numerics = invariant(tensor = 2, lanes = 2, micro_batch = 2 sequences)
}

source english { from = "file:data/english.txt" }
source finnish { from = "file:data/finnish.tar.gz" }
source pages { from = "file:data/pages.zip" }
source program { from = "file:data/program.py" }
source problems { from = "file:data/problems.jsonl" }

corpus en {
  language = en
  from     = [text(english, by_line = true)]
  held_out = 10%
}
corpus fi {
  language = fi
  from     = [jsonl(finnish, files = ["**/*.jsonl"], field = "text"), html(pages, files = ["**/*.html"], select = "body")]
  held_out = 10%
}
corpus py {
  language = code
  from     = [code(program)]
}

tokenizer bpe {
  kind    = train_bpe(vocabulary = 512)
  corpora = [en, fi, py]
}

model tiny {
  architecture = gpt_bigcode
  layers       = 2
  hidden       = 32
  heads        = 4
  context      = 32 tokens
  vocabulary   = 512
  tokenizer    = bpe
  weights      = random(std = 0.02)
}

mixture cap {
  en from [en] weight 50%
  fi from [fi] weight 30%
  py from [py] weight 20%
}
mixture cat {
  en from [en] weight 40%
  fi from [fi] weight 60%
}

stage cap {
  start         = tiny
  budget        = 24 steps
  mixture       = cap
  sequence      = 32 tokens
  global_batch  = 8 sequences
  learning_rate = constant(rate = 3e-3, warmup = 4 steps)
  optimizer     = adamw(beta1 = 0.9, beta2 = 0.95, weight_decay = 0.1, clip = 1.0)
  checkpoint    = every 8 steps
}
stage cat {
  start         = cap
  budget        = 8 steps
  mixture       = cat
  sequence      = 32 tokens
  global_batch  = 8 sequences
  learning_rate = cosine(peak = 1e-3, floor = 1e-4, warmup = 2 steps)
  optimizer     = adamw(beta1 = 0.9, beta2 = 0.95, weight_decay = 0.1, clip = 1.0)
  checkpoint    = every 8 steps
}

eval heldout {
  kind = perplexity
  data = [en, fi]
  at   = [start, every 8 steps, end]
}
eval problems {
  kind        = pass_at_k
  data        = [problems]
  program     = "text = '''{completion}'''\\n{test}"
  k           = [1]
  samples     = 2
  temperature = 1.0
  maximum     = 6 tokens
  at          = [end]
}

expect learned { cap.heldout.bits_per_byte.en < tiny.heldout.bits_per_byte.en }
"""

# The same work with other names, in another order: two runs of both specs need each other's results.
OTHER = SPEC.replace("experiment small", "experiment other").replace("stage cap", "stage zulu").replace("stage cat", "stage alpha")
OTHER = OTHER.replace("= cap\n  budget", "= zulu\n  budget").replace("expect learned { cap.", "expect learned { zulu.")

EXITS = {0, 1, 2, 4, 5, 6, 75, 130}
TIME_LIMIT = 300  # seconds; a run takes a few
MEMORY_LIMIT = 2048  # MiB, of the largest process
KINDS = ["wrong", "hang", "panic", "memory", "stale"]

OPENINGS = {
    "en": ["The people of the village said that", "It is known that the river", "When they have seen the house"],
    "fi": ["Kylän ihmiset sanoivat että", "On tunnettua että joki ei ole", "Kun he olivat nähneet talon"],
}
ENDS = {
    "en": ["was not the same as before", "will be there for all of them", "is one of the oldest in the country"],
    "fi": ["se ei ollut enää sama kuin ennen", "kaikki voivat tulla sinne", "joka on maan vanhimpia"],
}


def sentences(language, count):
    openings, ends = OPENINGS[language], ENDS[language]
    return [f"{openings[n % 3]} {ends[n // 3 * 7 % 3]} {n}." for n in range(count)]


def pack_tar(path, members):
    """Writes an archive of members by name; the same bytes each time."""
    with gzip.GzipFile(path, "wb", mtime=0) as file, tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def pack_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


class Findings:
    """What went wrong, by kind, and how much was tried, by campaign."""

    def __init__(self):
        self.tried = {}
        self.found = []

    def count(self, campaign, number=1):
        self.tried[campaign] = self.tried.get(campaign, 0) + number

    def add(self, kind, text):
        assert kind in KINDS
        self.found.append((kind, text))
        print(f"FOUND {kind}: {text}", flush=True)

    def totals(self):
        return {kind: sum(1 for found, _ in self.found if found == kind) for kind in KINDS}


class Ended:
    """A command that has ended."""

    def __init__(self, code, out, err, mebibytes):
        self.code, self.out, self.err, self.mebibytes = code, out, err, mebibytes


class Project:
    """A project in a temporary folder. Its processes are found by a variable of their environment."""

    def __init__(self, aurora, findings, spec=SPEC):
        self.aurora, self.findings = aurora, findings
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="aurora-attack-"))
        self.mark = uuid.uuid4().hex
        self.temporary = self.root / "temporary"
        for folder in ["specs", "data", "lockfiles", "temporary"]:
            (self.root / folder).mkdir()
        self.spec = self.root / "specs/small.aur"
        self.spec.write_text(spec)
        self.write_data()

    def write_data(self):
        data = self.root / "data"
        (data / "english.txt").write_text("\n".join(sentences("en", 240)) + "\n")
        finnish = sentences("fi", 200)
        lines = "".join(f'{{"text": "{line}"}}\n' for line in finnish[:160]).encode()
        pack_tar(data / "finnish.tar.gz", {"corpus/finnish.jsonl": lines})
        pages = {}
        for page in range(4):
            body = "".join(f"<p>{line}</p>" for line in finnish[160 + page * 10 : 170 + page * 10])
            pages[f"pages/{page}.html"] = f"<html><body>{body}</body></html>".encode()
        pack_zip(data / "pages.zip", pages)
        functions = [f"def value_{n}(x):\n    return x * {n} + {n * n % 17}\n\n" for n in range(60)]
        (data / "program.py").write_text("".join(functions))
        (data / "problems.jsonl").write_text(
            '{"prompt": "def f", "test": "assert isinstance(text, str)"}\n{"prompt": "def g", "test": "assert text == 1"}\n'
        )

    def environment(self, more=None):
        own = {"AURORA_ATTACK": self.mark, "TMPDIR": str(self.temporary), "RUST_BACKTRACE": "0"}
        return {**os.environ, **own, **(more or {})}

    def start(self, arguments, more=None, limits=None, stdin=None):
        """Starts a command in a session of its own. `limits` has (resource, value) pairs; `stdin` is a file."""

        def prepare():
            for kind, value in limits or []:
                resource.setrlimit(kind, (value, value))

        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        process = subprocess.Popen(
            [self.aurora, *arguments],
            cwd=self.root,
            env=self.environment(more),
            stdin=open(stdin, "rb") if stdin else subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=prepare if limits else None,
        )
        process.streams = (out, err)
        process.arguments = arguments
        return process

    def has_ended(self, process):
        """Leaves the status to `end`, which also takes what the process has used."""
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def end(self, process, killed=False, within=TIME_LIMIT):
        """Waits for a command and checks how it ended; `killed` says that this tool has killed it."""
        timer = threading.Timer(within, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        hung = not timer.is_alive()
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for stream in process.streams:
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
            stream.close()
        ended = Ended(process.returncode, *texts, usage.ru_maxrss // 1024)
        what = " ".join(str(argument) for argument in process.arguments)
        last = "\n".join(ended.err.splitlines()[-6:])
        if hung:
            self.findings.add("hang", f"`{what}` did not end within {within} s: {last}")
        elif not killed and (ended.code not in EXITS or "panicked" in ended.err):
            self.findings.add("panic", f"`{what}` ended with {ended.code}: {last}")
        if ended.mebibytes > MEMORY_LIMIT:
            self.findings.add("memory", f"`{what}` used {ended.mebibytes} MiB")
        return ended

    def run(self, *arguments, more=None, limits=None, within=TIME_LIMIT):
        return self.end(self.start(arguments, more, limits), within=within)

    def run_spec(self, *more, **options):
        return self.run("run", "specs/small.aur", "--progress", "plain", *more, **options)

    def lock(self):
        return tomllib.loads((self.root / "lockfiles/small.lock").read_text())

    def results(self):
        """The results in the lock, by node."""
        return self.lock()["result"]

    def finish(self, expected, what):
        """Runs to the end without an attack: the results are those of a run that nothing disturbed, and the store is whole."""
        ended = self.run_spec()
        if ended.code != 0:
            self.findings.add("wrong", f"after {what}, a run ends with {ended.code}: {ended.err[-600:]}")
            return
        found = self.results()
        differing = [name for name in expected if found.get(name) != expected[name]]
        if differing or set(found) != set(expected):
            self.findings.add("wrong", f"after {what}, results differ: {differing}")
        verified = self.run("verify")
        if verified.code != 0:
            self.findings.add("wrong", f"after {what}, verify ends with {verified.code}: {verified.out[-600:]}")

    def processes(self):
        """The processes of this project that still run."""
        found = []
        for folder in pathlib.Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and self.mark.encode() in (folder / "environ").read_bytes():
                    state = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0]
                    if state != "Z":
                        found.append(int(folder.name))
            except OSError:
                pass
        return found

    def close(self, what):
        """Nothing is left: no process, and after `gc` no partial file in the store."""
        until = time.monotonic() + 30
        while self.processes() and time.monotonic() < until:
            time.sleep(0.1)
        for process in self.processes():
            try:
                command = pathlib.Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                os.kill(process, signal.SIGKILL)
            except OSError:
                continue
            self.findings.add("stale", f"after {what}, process {process} is left: {command}")
        collected = self.run("gc")
        if collected.code != 0:
            self.findings.add("wrong", f"after {what}, gc ends with {collected.code}: {collected.err[-600:]}")
        for folder in ["tmp", "publishing"]:
            left = list((self.root / ".aurora" / folder).glob("*"))
            if left:
                self.findings.add("stale", f"after {what}, gc leaves {[path.name for path in left[:5]]} in {folder}")
        for path in self.root.rglob("*"):
            if not path.is_symlink() and path.exists():
                path.chmod(path.stat().st_mode | 0o700)
        shutil.rmtree(self.root)


def undisturbed(aurora, findings):
    """The results of a run that nothing disturbs, and the seconds that it takes."""
    project = Project(aurora, findings)
    began = time.monotonic()
    ended = project.run_spec()
    seconds = time.monotonic() - began
    if ended.code != 0:
        raise SystemExit(f"a run that nothing disturbs ends with {ended.code}:\n{ended.err}")
    expected = project.results()
    project.close("an undisturbed run")
    return expected, seconds


class Attack:
    """What a campaign gets: the binary, where findings go, the expected results, its own random numbers."""

    def __init__(self, aurora, findings, seed):
        self.aurora, self.findings = aurora, findings
        self.random = random.Random(seed)
        self.expected, self.seconds = undisturbed(aurora, findings)

    def project(self):
        return Project(self.aurora, self.findings)
