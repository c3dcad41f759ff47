"""How long until the first answer: a fresh environment, the core installed into it, and `plan` of a model in it.

    .venv/bin/python scripts/benchmarks/first_answer.py [--beside hf-mem llmfit] [--pairs 3]

Installs this tree, and each package that is named `--beside` it, into environments of their own in a temporary folder,
with pip and without its cache. Says what installing took, the size on disk, and of three plans the wall and the CPU:
nothing kept, an answer kept, and another card (recordings kept, no answer). Where this script itself runs, with all
extras, the same plans are made for comparison, in turns.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
PLAN = ("plan", "model=phi_3_medium_128k", "bpw=4.0", "device=rtx_4090")
OTHER = (*PLAN[:-1], "device=rtx_3060_12gb")


def run(command: Sequence[str | Path], cwd: Path, **more: str) -> tuple[float, float]:
    """The wall and the CPU seconds of a command."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {**os.environ, **more}
    subprocess.run(command, check=True, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - started, cpu_s


def size_mb(folder: Path) -> float:
    """What its files take on disk."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*")) / 1e6


def installed(package: str | Path, folder: Path) -> Path | None:
    """The folder of programs of a new environment with `package`; None where it cannot be installed."""
    made, _ = run([sys.executable, "-m", "venv", folder], folder.parent)
    install = [folder / "bin" / "pip", "install", "--no-cache-dir", "--disable-pip-version-check", package]
    bare = size_mb(folder)
    try:
        wall, cpu = run(install, folder.parent)
    except subprocess.CalledProcessError:
        print(f"{package}: pip cannot install it here")
        return None
    print(
        f"{package}: environment {made:.1f} s, installed in {wall:.1f} s ({cpu:.1f} s of CPU), "
        f"{size_mb(folder) - bare:.0f} MB beside the {bare:.0f} MB of an empty one"
    )
    return folder / "bin"


def plans(name: str, program: Sequence[str | Path], folder: Path, pairs: int) -> None:
    """Prints what the plans take, medians of so many."""
    times: dict[str, list[tuple[float, float]]] = {}
    for number in range(pairs):
        cache = {"XDG_CACHE_HOME": str(folder / f"cache-{name}-{number}")}
        for what, words in (("nothing kept", PLAN), ("an answer kept", PLAN), ("another card", OTHER)):
            times.setdefault(what, []).append(run([*program, *words], folder, **cache))
    for what, each in times.items():
        wall, cpu = (median(values) for values in zip(*each, strict=True))
        print(f"{name}, {what}: {wall:.2f} s, {cpu:.2f} s of CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", nargs="*", default=[], metavar="PACKAGE")
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        core = installed(ROOT, folder / "core")
        for package in arguments.beside:
            installed(package, folder / package)
        if core is not None:
            plans("core", [core / "vram-bench"], folder, arguments.pairs)
        plans("everything", [sys.executable, "-m", "bench"], folder, arguments.pairs)
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
