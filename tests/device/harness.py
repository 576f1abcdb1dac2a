"""What the items of `device.py` share: processes with a time limit, projects of their own, results that are made once."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The pages of the book are the training text.
PAGES = HERE.parents[1] / "book/src"

# Part of the name by which the driver reports a device, and the word for it in a layout.
KINDS = {"H100": "h100", "H200": "h200", "A100": "a100"}

# Devices that `--simulated` pretends.
SIMULATED_DEVICES = 2


class Failure(Exception):
    """A check that failed. `details` are recorded with it."""

    def __init__(self, text: str, /, **details):
        super().__init__(text)
        self.details = details


def tail(text: str) -> str:
    return text[-3000:]


class Once:
    """Makes each value once, also if several items need it at the same time. An error is raised for each of them."""

    def __init__(self):
        self.lock, self.made = threading.Lock(), {}

    def get(self, key, make):
        with self.lock:
            future, first = self.made.get(key), key not in self.made
            if first:
                future = self.made[key] = Future()
        if first:
            try:
                future.set_result(make())
            except Exception as error:
                future.set_exception(error)
        return future.result()


@dataclass
class Machine:
    """This machine, and where the items work on it."""

    programs: Path
    work: Path
    simulated: bool
    once: Once
    # The word for its devices in a layout.
    kind: str = "h100"

    def program(self, name: str) -> str:
        return str(self.programs / name)

    def worker(self) -> str:
        """The worker, which has libtorch's version in its name."""
        return str(next(self.programs.glob("aurora-worker*")))


class Item:
    """One item while it runs: its processes end at its time limit."""

    def __init__(self, name: str, machine: Machine, seconds: float):
        self.name, self.machine = name, machine
        self.end = time.monotonic() + seconds

    def start(self, command: list, folder: Path, **variables: str) -> subprocess.Popen:
        environment = os.environ | variables
        if self.machine.simulated:
            environment["AURORA_TEST_DEVICES"] = str(SIMULATED_DEVICES)
        return subprocess.Popen(
            [str(part) for part in command], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace", start_new_session=True,
        )

    def finish(self, process: subprocess.Popen, code: int | None = 0) -> subprocess.CompletedProcess:
        """Waits for a process. Fails at the time limit, and at another exit code than `code`, if there is one."""
        late = False
        try:
            out, err = process.communicate(timeout=max(0.0, self.end - time.monotonic()))
        except subprocess.TimeoutExpired:
            late = True
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        command = " ".join(process.args)
        if late:
            raise Failure("the time limit was reached", command=command, out=tail(out), err=tail(err))
        if code is not None and process.returncode != code:
            raise Failure(f"exit code {process.returncode}", command=command, out=tail(out), err=tail(err))
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run(self, command: list, folder: Path = HERE, code: int | None = 0, **variables: str):
        return self.finish(self.start(command, folder, **variables), code)

    def last_line(self, command: list) -> dict:
        """The JSON of the last line that a program prints."""
        return json.loads(self.run(command).stdout.splitlines()[-1])


@dataclass
class Project:
    """A folder with the specs, the text, and a store of its own."""

    folder: Path
    spec: str
    settings: tuple[str, ...] = ()

    @classmethod
    def new(cls, machine: Machine, name: str, spec: str, layout: str = "", workers: int = 1, shared: bool = False,
            settings: tuple[str, ...] = ()):
        """`shared`: the workers use one device together."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=machine.work))
        (folder / "data").mkdir()
        shutil.copytree(HERE / "specs", folder / "specs")
        for page in PAGES.glob("*.md"):
            shutil.copy(page, folder / "data")
        shutil.copy(HERE / "data/prompts.jsonl", folder / "data")
        # Simulated devices are enough for all workers.
        transport = "transport = gloo\n" if shared and not machine.simulated else ""
        with (folder / f"specs/{spec}.aur").open("a") as file:
            file.write(f"\nlayout device {{\nmachine = {machine.kind}\ndevices = {workers}\n{transport}{layout}\n}}\n")
        return cls(folder, spec, settings)

    def arguments(self) -> list[str]:
        """The spec with its settings, as arguments of a command."""
        return [f"specs/{self.spec}.aur", *(part for setting in self.settings for part in ("--set", setting))]

    def command(self, machine: Machine, progress: str = "none") -> list[str]:
        return [machine.program("aurora"), "run", *self.arguments(), "--progress", progress, "--threads", "4"]

    def run(self, item: Item, *more: str) -> dict:
        """Runs the spec; the document that `aurora run --json` prints."""
        try:
            done = item.run([*self.command(item.machine), "--json", *more], self.folder)
        except Failure as failure:
            logs = sorted(self.folder.glob(".aurora/runs/latest/logs/*"))
            failure.details["logs"] = {log.name: tail(log.read_text(errors="replace")) for log in logs}
            raise
        return json.loads(done.stdout)

    def metrics(self) -> list[dict]:
        """The lines of the step log of the last run."""
        path = self.folder / ".aurora/runs/latest/metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def verify(self, item: Item) -> None:
        item.run([item.machine.program("aurora"), "verify"], self.folder)
