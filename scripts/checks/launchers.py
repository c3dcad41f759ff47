"""A sweep by joblib, Ray or Slurm for real, on two GPUs that are pretended: shared out, killed in the middle, resumed.

    .venv/bin/python scripts/checks/launchers.py joblib|ray|slurm|all

Each line is a check. What cannot be done here says `skipped`, and why; exit code 1 where a check fails. Ray is started
on this machine; Slurm as a node of its own in a temporary folder (`slurm_here.sh`), which takes root on Debian.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
sys.path.insert(0, str(ROOT))

from bench.store.store import read_boundaries, read_cases  # noqa: E402

CACHES, LOADS, FITS_UP_TO = ("FP16", "Q8", "Q6", "Q4"), ("single", "autosplit"), 2048
SEARCHES = len(CACHES) * len(LOADS)
PATIENCE_S = 300.0
PLUGINS = {"joblib": "hydra_joblib_launcher", "ray": "hydra_ray_launcher", "slurm": "hydra_submitit_launcher"}
WORDS = {
    "joblib": ["hydra.launcher.n_jobs=2"],
    "ray": ["+hydra.launcher.ray.init.num_gpus=2"],
    "slurm": ["hydra.launcher.partition=gpu", "hydra.launcher.timeout_min=15"],
}


class Failed(Exception):
    """A check did not hold."""


def check(holds: bool, what: str, **told: object) -> None:
    print(f"{'ok    ' if holds else 'FAILED'} {what}", flush=True)
    if not holds:
        raise Failed(f"{what}: {json.dumps(told, default=str)[:2000]}")


class Bench:
    """The program in a folder, with the words of one launcher."""

    def __init__(self, folder: Path, launcher: str) -> None:
        self.folder, self.launcher = folder, launcher
        path = os.pathsep.join([str(HERE / "pretended"), str(ROOT)])
        own = {"XDG_CACHE_HOME": str(folder / "cache"), "PRETENDED_TAKES_S": "0.4", "RAY_AUTH_MODE": "disabled"}
        self.environment = {**os.environ, **own, "PYTHONPATH": path}

    def start(self, *words: str) -> subprocess.Popen[str]:
        with (self.folder / "said.txt").open("a") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "bench", *words],
                cwd=self.folder,
                env=self.environment,
                stdout=said,
                stderr=said,
                text=True,
                start_new_session=True,
            )

    def sweep(self, *words: str) -> subprocess.Popen[str]:
        searches = [f"cache={','.join(CACHES)}", f"load={','.join(LOADS)}", "auto_up_to=4096"]
        asked = ["model=local", "model.path=model", "device=cuda", *searches, f"hydra/launcher={self.launcher}"]
        return self.start("sweep", *asked, *WORDS[self.launcher], *words)

    @property
    def said(self) -> str:
        return (self.folder / "said.txt").read_text()

    @property
    def cases(self) -> list[dict[str, Any]]:
        return read_cases(self.folder / "results")[0].to_pylist()

    @property
    def boundaries(self) -> list[dict[str, Any]]:
        return read_boundaries(self.folder / "results")[0].to_pylist()


def waited(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.2)
    raise Failed("waited for too long")


def a_job_at_work(bench: Bench) -> int | None:
    """The process of a job that has begun and not found its boundary, when another has found one."""
    if not bench.boundaries:
        return None
    alive = {}
    for path in (bench.folder / "results").glob("*/.jobs/begun/*"):
        pid = int(path.name.rpartition("-")[2])
        if Path(f"/proc/{pid}").exists():
            alive[path.name] = (path.stat().st_mtime, pid)
    return max(alive.values())[1] if alive else None


def run(launcher: str, folder: Path) -> None:
    bench = Bench(folder, launcher)
    synth = ["synth", "model=tinyllama_1_1b", "bpw=4.0", "--sparse", "--out", "model"]
    environment = {name: value for name, value in bench.environment.items() if name != "PRETENDED_TAKES_S"}
    subprocess.run(
        [sys.executable, "-m", "bench", *synth], cwd=folder, env=environment, check=True, capture_output=True
    )
    first = bench.sweep("run_id=killed")
    pid = waited(lambda: a_job_at_work(bench) or (first.poll() is not None and -1))
    check(pid > 0, "jobs run, and one finds its boundary", said=bench.said[-1500:])
    acknowledged = {(row["case_id"], row["started_at"]) for row in bench.cases}
    os.kill(pid, signal.SIGKILL)
    code = first.wait(PATIENCE_S)
    there = {(row["case_id"], row["started_at"]) for row in bench.cases}
    check(acknowledged <= there, f"a worker that is killed loses none of {len(acknowledged)} rows")
    check(code in (0, 1), f"the sweep ends all the same ({code})", said=bench.said[-1500:])
    found = len(bench.boundaries)
    second = bench.sweep("run_id=resumed").wait(PATIENCE_S)
    check(second == 0, f"the same command completes it, from {found} of {SEARCHES}", said=bench.said[-1500:])
    boundaries, cases = bench.boundaries, bench.cases
    check(len({row["boundary_id"] for row in boundaries}) == len(boundaries) == SEARCHES, "each boundary is found once")
    check(all(row["certified"] and row["fits_at"] == FITS_UP_TO for row in boundaries), "and is certified")
    places = {(row["cache"], row["lazy"]) for row in boundaries}
    check(len(places) == SEARCHES, "of what was asked for", there=sorted(map(str, places)))
    uuids = {row["device_uuid"] for row in cases}
    if launcher == "joblib":  # which gives out no cards
        check(len(uuids) == 1, "all on the card that was asked for", uuids=uuids)
    else:
        check(len(uuids) == 2, "both cards were used, told by their UUIDs", uuids=uuids)
        for column in ("scheduler", "scheduler_node", "scheduler_job", "scheduler_step", "scheduler_gpus"):
            check(all(row[column] for row in cases), f"each row has its {column}: {cases[0][column]}")
        check(all(row["cell_id"] for row in boundaries), "each boundary has the id of what was asked for")
    left = list((folder / "results").rglob("*.jsonl"))
    check(not left, "all journals are merged", left=left)
    if launcher == "slurm":
        of_slurm(bench)


def of_slurm(bench: Bench) -> None:
    refused = bench.sweep("hydra.launcher.partition=none_such", "rerun=true")
    check(refused.wait(PATIENCE_S) == 2, "a partition that does not exist is refused", said=bench.said[-500:])
    check("partition=none_such: no such partition; Slurm has gpu" in bench.said, "in a line that says which there are")

    def queued() -> list[str]:
        return subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout.splitlines()

    stopped = bench.sweep("run_id=stopped", "rerun=true")
    waited(lambda: len(queued()) > 1)
    stopped.send_signal(signal.SIGINT)
    code = stopped.wait(PATIENCE_S)
    check(code == 130, f"Ctrl-C ends the sweep ({code})", said=bench.said[-1500:])
    check(not queued(), "and cancels what was queued", left=queued())


@contextmanager
def slurm() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as name:
        script = [str(HERE / "slurm_here.sh"), name]
        os.environ["SLURM_CONF"] = f"{name}/slurm.conf"
        try:
            subprocess.run([*script, "start"], check=True)
            yield
        finally:
            subprocess.run([*script, "stop"], check=False)
            time.sleep(2)


def why_not(launcher: str) -> str | None:
    if importlib.util.find_spec(f"hydra_plugins.{PLUGINS[launcher]}") is None:
        return f'not installed: pip install -c constraints.txt ".[{launcher}]"'
    if launcher == "slurm":
        if os.geteuid() != 0:
            return "needs root: slurmd of its own"
        missing = [name for name in ("slurmctld", "slurmd", "munged", "dpkg") if shutil.which(name) is None]
        if missing:
            return f"{missing[0]} is not there: apt-get install --no-install-recommends slurm-wlm munge, on Debian"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("launcher", choices=[*PLUGINS, "all"])
    parser.add_argument("--must", action="store_true", help="what is skipped has failed")
    asked = parser.parse_args()
    code = 0
    for launcher in PLUGINS if asked.launcher == "all" else [asked.launcher]:
        if (reason := why_not(launcher)) is not None:
            print(f"skipped {launcher}: {reason}", flush=True)
            code |= asked.must
            continue
        print(f"{launcher}:", flush=True)
        started_at = time.monotonic()
        with tempfile.TemporaryDirectory(dir="/tmp") as name:
            try:
                if launcher == "slurm":
                    with slurm():
                        run(launcher, Path(name))
                else:
                    run(launcher, Path(name))
            except (Failed, subprocess.SubprocessError) as error:
                print(f"FAILED {launcher}: {error}", flush=True)
                code = 1
        print(f"       {time.monotonic() - started_at:.0f} s", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
