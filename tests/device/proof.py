"""The proof: results on the device are those of the CPU within bounds, and the same bits under every layout."""

import json
import signal
import time
from dataclasses import dataclass

from harness import Failure, Item, Machine, Project

FAMILIES = ["gpt_bigcode", "llama"]

# The largest relative difference of losses and scores from those of the CPU.
BOUNDS = {"f32": 1e-3, "bf16": 5e-2}

# By name: fields of the layout, and its number of workers, which use one device together.
LAYOUTS = {
    "recompute": ("data = 1\nrecompute = full", 1),
    "tensor": ("data = 1\ntensor = 2", 2),
    "data": ("data = 2", 2),
    "pipeline": ("data = 1\npipeline = 2", 2),
}

# A run that is long enough to be interrupted, and where.
LONG = ("stage.read.budget=120 steps", "stage.read.checkpoint=every 30 steps")
INTERRUPT_AFTER = 45


@dataclass
class Trained:
    """A finished run."""

    project: Project
    lock: str
    # The digest of every result.
    results: dict[str, str]
    losses: list[float]
    # Of the held-out text, after training.
    bits_per_byte: float
    answers: list[str]


def precision_of(family: str, precision: str) -> str:
    return f"experiment.{family}.precision={precision}"


def train(item: Item, name: str, family: str, settings: tuple[str, ...], layout="data = 1", workers=1, more=()) -> Trained:
    project = Project.new(item.machine, name, family, layout, workers, shared=workers > 1, settings=settings)
    return read(item, project, project.run(item, *more))


def read(item: Item, project: Project, document: dict) -> Trained:
    evals = {entry["name"]: entry for entry in document["evals"]}
    item.run([item.machine.program("aurora"), "export", "lm-eval", *project.arguments(), "out"], project.folder)
    samples = next(project.folder.glob("out/*/samples_continuation_aurora.jsonl")).read_text().splitlines()
    return Trained(
        project=project,
        lock=document["lock"],
        results=document["results"],
        losses=[line["loss"] for line in project.metrics()],
        bits_per_byte=evals["heldout"]["points"][-1]["sets"]["en"]["bits_per_byte"],
        answers=[json.loads(sample)["resps"][0][0] for sample in samples],
    )


def on_device(item: Item, family: str, precision: str) -> Trained:
    """The run on one device, which several items compare with."""
    name = f"device-{family}-{precision}"
    return item.machine.once.get(name, lambda: train(item, name, family, (precision_of(family, precision),)))


def apart(own: float, peer: float) -> float:
    return abs(own - peer) / abs(peer)


def training(item: Item, family: str, precision: str) -> dict:
    """The losses and scores of the device and of the CPU."""
    device = on_device(item, family, precision)
    settings, to_cpu = (precision_of(family, precision),), ("--layout", "machine=cpu")
    cpu = train(item, f"cpu-{family}-{precision}", family, settings, more=to_cpu)
    same = sum(own == other for own, other in zip(device.answers, cpu.answers, strict=True))
    details = {
        "losses_device": device.losses,
        "losses_cpu": cpu.losses,
        "losses_apart": max(apart(*pair) for pair in zip(device.losses, cpu.losses, strict=True)),
        "bits_per_byte_apart": apart(device.bits_per_byte, cpu.bits_per_byte),
        "bound": BOUNDS[precision],
        "answers": len(cpu.answers),
        "same_answers": same,
    }
    if max(details["losses_apart"], details["bits_per_byte_apart"]) > BOUNDS[precision]:
        raise Failure("the device and the CPU differ by more than the bound", **details)
    # Two tokens may be almost equally likely; in bf16 often.
    if precision == "f32" and same < 0.9 * len(cpu.answers):
        raise Failure("more than a tenth of the greedy answers differ", **details)
    return details


def same_results(own: Trained, reference: Trained) -> dict:
    different = [node for node, digest in reference.results.items() if own.results.get(node) != digest]
    if different or len(own.results) != len(reference.results):
        raise Failure("results differ", nodes=different, losses=own.losses, reference=reference.losses)
    return {"results": len(reference.results)}


def layouts(item: Item, family: str, name: str) -> dict:
    """The bits of a run with another layout."""
    reference = on_device(item, family, "bf16")
    fields, workers = LAYOUTS[name]
    own = train(item, f"layout-{family}-{name}", family, (precision_of(family, "bf16"),), fields, workers)
    return same_results(own, reference)


def rerun(item: Item) -> dict:
    reference = on_device(item, "llama", "bf16")
    command = [item.machine.program("aurora"), "rerun", reference.lock, "--json", "--progress", "none"]
    document = json.loads(item.run(command, reference.project.folder).stdout)
    if not document["identical"]:
        raise Failure("the rerun differs", document=document)
    return {"nodes_compared": document["nodes_compared"]}


def resume(item: Item) -> dict:
    """An interrupted run that resumes has the bits of one that was not interrupted."""
    settings = (precision_of("llama", "bf16"), *LONG)
    uninterrupted = train(item, "uninterrupted", "llama", settings)
    project = Project.new(item.machine, "interrupted", "llama", "data = 1", settings=settings)
    process = item.start(project.command(item.machine), project.folder)
    while len(project.metrics()) < INTERRUPT_AFTER and process.poll() is None and time.monotonic() < item.end:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    item.finish(process, code=75)
    steps = len(project.metrics())
    project.verify(item)
    document = project.run(item)
    return {"interrupted_after": steps, **same_results(read(item, project, document), uninterrupted)}


def refused(item: Item, project: Project, texts: list[str]) -> dict:
    """A run that cannot work ends soon with these texts in its error, states a remedy and leaves a store without damage."""
    began = time.monotonic()
    done = item.run(project.command(item.machine), project.folder, code=None)
    details = {"exit_code": done.returncode, "seconds": time.monotonic() - began, "err": done.stderr[-3000:]}
    if done.returncode not in (1, 4):
        raise Failure("the exit code is neither 1 nor 4", **details)
    absent = [text for text in [*texts, "= help:"] if text not in done.stderr]
    if absent:
        raise Failure(f"the error does not contain {absent}", **details)
    project.verify(item)
    return details


def too_many_devices(item: Item) -> dict:
    layout = "data = 2\ntensor = 2\npipeline = 2"
    return refused(item, Project.new(item.machine, "too-many", "llama", layout, workers=8), ["needs 8 devices"])


def out_of_memory(item: Item) -> dict:
    return refused(item, Project.new(item.machine, "too-large", "too_large", "data = 1"), ["memory"])


def doctor(item: Item) -> dict:
    text = item.run([item.machine.program("aurora"), "doctor"]).stdout
    document = json.loads(item.run([item.machine.program("aurora"), "doctor", "--json"]).stdout)
    if not document["devices"]:
        raise Failure("no device is named", text=text)
    return {"text": text, "devices": document["devices"]}


def kernels(item: Item) -> dict:
    """Every kernel against its reference: the worker's own test, a line of JSON for the device and for each kernel."""
    done = item.run([item.machine.worker(), "--test-device=0"], code=None)
    device, *checks = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")] or [{}]
    if done.returncode != 0 or not checks:
        raise Failure(f"exit code {done.returncode}: {done.stderr[-3000:]}", device=device, checks=checks)
    return {"device": device, "checks": len(checks), "largest": max(checks, key=lambda check: check["error"] / check["bound"])}


def items(machine: Machine) -> dict:
    """By name, in the order of importance."""
    found = {} if machine.simulated else {"doctor": doctor, "kernels": kernels}
    for family in FAMILIES:
        for precision in BOUNDS:
            found[f"train/{family}/{precision}"] = lambda item, f=family, p=precision: training(item, f, p)
    for family in FAMILIES:
        for name in LAYOUTS:
            found[f"layouts/{family}/{name}"] = lambda item, f=family, n=name: layouts(item, f, n)
    found |= {"resume": resume, "rerun": rerun, "errors/too_many_devices": too_many_devices}
    if not machine.simulated:
        found["errors/out_of_memory"] = out_of_memory
    return found
