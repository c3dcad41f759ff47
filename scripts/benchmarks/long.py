"""How long do very long cases take, beside an older build? Pairs in one run, so that both meet the same machine.

(plan)  `vram-bench plan` of Mistral-Nemo-12B at 1,024,000 tokens without flash attention, nothing kept from before.
(probe) A case of Qwen3-30B-A3B at 40,960 tokens on a simulated card: the seconds of its row, and of the whole sweep.

The older build is unpacked from git into a temporary folder and run by the same interpreter; each build has a cache of
its own, empty at each run of it. What numba compiles is made beforehand, once a build, by a small plan. A build that
does not end within `--limit-s` is stopped there, and its ratio is a lower bound.

    .venv/bin/python scripts/benchmarks/long.py --pairs 3
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.store.store import read_cases

ROOT = Path(__file__).parents[2]
OLD = "ac6bec7"  # of 2026-11-23: before matrices, experts and long replays were made short
WARM_UP = ["plan", "model=tinyllama_1_1b", "device=rtx_3090", "max_seq_len=512"]
PLAN = ["plan", "model=mistral_nemo_12b", "max_seq_len=1024000", "attention=matmul", "device=a100_80gb"]
PLAN += ["model.config.max_position_embeddings=1024000"]  # beyond the model's own limit the older build plans nothing
PROBE = ["sweep", "model=qwen3_30b_a3b", "max_seq_len=40960", "device=rtx_3090", "bpw=4", "cache=Q6"]
CATALOGUE_ENTRY = "conf/model/qwen3_30b_a3b.yaml"


@dataclass(frozen=True)
class Run:
    """One command: wall and CPU seconds of it and its children; `case_s` is what its case took, where it ran one."""

    wall_s: float
    cpu_s: float
    stopped: bool
    case_s: float | None = None

    def __str__(self) -> str:
        case = "" if self.case_s is None else f", its case {self.case_s:.1f} s"
        return f"{'stopped at ' if self.stopped else ''}{self.wall_s:.1f} s wall, {self.cpu_s:.1f} s CPU{case}"


def run(build: Path, command: list[str], limit_s: float) -> Run:
    """Runs `command` of a build with nothing kept; one that goes beyond the limit is killed with all it started."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, "XDG_CACHE_HOME": f"{folder}/cache", "PYTHONPATH": str(build)}
        results = Path(folder) / "results"
        before, started_at, stopped = _cpu_s(), time.monotonic(), False
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *command, f"results_dir={results}"],
            cwd=build,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = ""
        try:
            _, said = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            stopped = True
            process.send_signal(signal.SIGINT)  # the build's own way of ending its workers
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        wall_s, cpu_s = time.monotonic() - started_at, _cpu_s() - before
        if not stopped and process.returncode:
            sys.exit(f"{' '.join(command)} of {build} ended with exit code {process.returncode}: {said}")
        rows = [] if stopped or command[0] != "sweep" else read_cases(results)[0].to_pylist()
        return Run(min(wall_s, limit_s) if stopped else wall_s, cpu_s, stopped, rows[0]["wall_s"] if rows else None)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def unpack(commit: str, folder: Path) -> Path:
    """The tree of a commit, below `folder`, with today's catalogue entry of the model that it may not know."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    build = folder / commit
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(build, filter="data")
    shutil.copy(ROOT / CATALOGUE_ENTRY, build / CATALOGUE_ENTRY)
    return build


def compare(name: str, command: list[str], old: Path, pairs: int, limit_s: float) -> None:
    """Prints each pair and the medians of their ratios, old by new."""
    ratios: dict[str, list[float]] = {"wall": [], "CPU": [], "case": []}
    bound = False
    for index in range(pairs):
        order = [old, ROOT] if index % 2 else [ROOT, old]
        done = {build: run(build, command, limit_s) for build in order}
        new_run, old_run = done[ROOT], done[old]
        bound |= old_run.stopped
        ratios["wall"].append(old_run.wall_s / new_run.wall_s)
        ratios["CPU"].append(old_run.cpu_s / new_run.cpu_s)
        if new_run.case_s and old_run.case_s:
            ratios["case"].append(old_run.case_s / new_run.case_s)
        print(f"{name}: now {new_run}; {old.name} {old_run}; load {os.getloadavg()[0]:.1f}", flush=True)
    at_least = "at least " if bound else ""
    said = ", ".join(f"{at_least}{median(each):.1f} x in {key}" for key, each in ratios.items() if each)
    print(f"{name}: {said}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["plan", "probe"])
    parser.add_argument("--pairs", type=int, default=3, metavar="N", help="runs of each build (default 3)")
    parser.add_argument("--limit-s", type=float, default=120.0, help="a run is stopped after so long (default 120)")
    parser.add_argument("--old", default=OLD, metavar="COMMIT", help=f"the older build (default {OLD})")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="vram-bench-old-"))
    try:
        old = unpack(arguments.old, folder)
        for build in (ROOT, old):
            run(build, WARM_UP, 600)
        for name, command in (("plan", PLAN), ("probe", PROBE)):
            if arguments.only in (None, name):
                compare(name, command, old, arguments.pairs, arguments.limit_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
