"""What isolation costs: the same simulated case in one process, in forks of a server, and in fresh interpreters.

All three ways take turns in one run, so that a machine whose speed drifts slows all of them. Run it with
`.venv/bin/python scripts/benchmarks/isolation.py`; it prints medians, the overhead, and simulated cases a second.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from bench.config.cases import plan_sweep
from bench.core import wire
from bench.core.case import DEFAULT_ENGINE, Case
from bench.core.requests import RunCase
from bench.launch.environment import child_environment
from bench.launch.fork_server import ForkServer
from bench.launch.fresh_interpreter import FreshInterpreter
from bench.launch.launcher import Launcher
from bench.launch.supervise import run_isolated
from bench.report.naming.work import WorkNames

_ONE_PROCESS = """
import os, sys, time
from bench.core.requests import read_request
from bench.worker import cards, child
cards.preload("simulated", "exllamav2")
null = os.open(os.devnull, os.O_WRONLY)
print("ready", flush=True)
for line in sys.stdin:
    started = time.perf_counter()
    assert child.run_request(read_request(line), null) == 0
    print(time.perf_counter() - started, flush=True)
"""


class OneProcess:
    """The scenario again and again in one interpreter."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ONE_PROCESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        while self._stdout.readline().strip() != "ready":
            pass

    def seconds(self, case: Case, layouts: Path) -> float:
        self._stdin.write(wire.encode(RunCase(case, layouts)) + "\n")
        self._stdin.flush()
        while True:
            try:
                return float(self._stdout.readline())
            except ValueError:
                continue  # something that the engine printed

    def close(self) -> None:
        self._stdin.close()
        self._process.wait()


def isolated_seconds(launcher: Launcher, case: Case, layouts: Path) -> float:
    started = time.perf_counter()
    ending = run_isolated(launcher, RunCase(case, layouts), layouts / f"log-{threading.get_ident()}", 600)
    assert ending.exit_code == 0, ending.log_tail
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("overrides", nargs="*", default=["model=llama_3_8b", "device=rtx_4090", "max_seq_len=8192"])
    arguments = parser.parse_args()
    case = plan_sweep(arguments.overrides).cases[0]
    environment = child_environment("simulated")
    one, fork, fresh = (
        OneProcess(environment),
        ForkServer(environment, "simulated", DEFAULT_ENGINE),
        FreshInterpreter(environment),
    )
    times: dict[str, list[float]] = {"one process": [], "fork server": [], "fresh interpreter": []}
    with tempfile.TemporaryDirectory() as folder:
        layouts = Path(folder)
        one.seconds(case, layouts)  # lays the checkpoint out, once for all
        isolated_seconds(fork, case, layouts)
        for _ in range(arguments.repeats):
            times["one process"].append(one.seconds(case, layouts))
            times["fork server"].append(isolated_seconds(fork, case, layouts))
            times["fresh interpreter"].append(isolated_seconds(fresh, case, layouts))
        cores = os.cpu_count() or 1
        started = time.perf_counter()
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(lambda _: isolated_seconds(fork, case, layouts), range(arguments.repeats * cores)))
        rate = arguments.repeats * cores / (time.perf_counter() - started)
    one.close()
    fork.close()
    base = median(times["one process"])
    print(f"{WorkNames([case]).title(case)}, {arguments.repeats} of each in turn, {cores} cores")
    for name, samples in times.items():
        middle = median(samples)
        print(f"{name:18} median {middle:6.3f} s   overhead {1000 * (middle - base):+8.1f} ms   {middle / base:5.2f}x")
    print(f"{'all cores':18} {rate:.2f} simulated cases a second, each isolated")


if __name__ == "__main__":
    main()
