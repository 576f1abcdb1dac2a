#!/usr/bin/env python3
"""Puts a libtorch folder into the user's cache and prints its path.

`pip` downloads the wheels, whose hashes are in requirements.txt. Only the CPU library, its headers and the libraries
that it loads are extracted (490 MB). An existing folder is used unchanged: a folder gets its final name only when it
is complete.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
WANTED = {
    "torch": ["torch/include/", "torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp.so.1"],
    "nvidia_cuda_runtime": ["nvidia/cu13/lib/libcudart.so.13"],
    "nvidia_cuda_cupti": ["nvidia/cu13/lib/libcupti.so.13"],
}
VERSION = "2.13.0"


def cache() -> Path:
    base = os.environ.get("AURORA_CACHE_DIR")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aurora"


def unpack(wheel: Path, wanted: list[str], folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if member.endswith("/") or not any(member == w or (w.endswith("/") and member.startswith(w)) for w in wanted):
                continue
            inner = member.removeprefix("torch/") if member.startswith("torch/") else "lib/" + member.rsplit("/", 1)[1]
            target = folder / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(target, "wb") as sink:
                while chunk := source.read(1 << 20):
                    sink.write(chunk)


def main() -> int:
    final = cache() / f"libtorch-{VERSION}-cpu"
    if final.is_dir():
        print(final)
        return 0
    final.parent.mkdir(parents=True, exist_ok=True)
    print(f"fetching libtorch {VERSION} (530 MB, once) into {final}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".libtorch-") as scratch:
        wheels = Path(scratch) / "wheels"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                   "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none",
                   "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_25_x86_64",
                   "--platform", "manylinux2014_x86_64", "--require-hashes",
                   "-r", str(HERE / "requirements.txt"), "-d", str(wheels)]
        if subprocess.run(command, stdout=sys.stderr).returncode != 0:
            print("error: pip could not fetch libtorch's wheels\n"
                  "  = help: check the network and pip's settings and try again, or set LIBTORCH to a libtorch "
                  f"{VERSION} folder of your own (with include/ and lib/)", file=sys.stderr)
            return 1
        folder = Path(scratch) / "libtorch"
        for wheel in sorted(wheels.iterdir()):
            unpack(wheel, WANTED[wheel.name.split("-")[0]], folder)
        # torch-sys links `-ltorch`; the wheel's own libtorch.so would pull in CUDA.
        (folder / "lib" / "libtorch.so").write_text("INPUT(libtorch_cpu.so)\n")
        (folder / "build-version").write_text(VERSION + "+cpu\n")
        try:
            folder.rename(final)
        except OSError:
            if not final.is_dir():  # another process may have finished first
                raise
    print(final)
    return 0


if __name__ == "__main__":
    sys.exit(main())
