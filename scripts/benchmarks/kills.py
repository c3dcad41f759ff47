"""What kill -9 costs: sweeps are killed at random moments, and their workers, until every case has its row.

The sweep is the program's own from its plan to its parquet files: processes, fork server, journals, claims, clean-up.
Only the card is played, by a few lines in the worker, so that hundreds of kills take minutes.

    nice .venv/bin/python scripts/benchmarks/kills.py --kills 400 --child-kills 400
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config.cases import Sweep, plan_sweep
from bench.core.case import Case
from bench.core.columns import CaseRow
from bench.core.process_tree import descendants
from bench.launch import fork_server
from bench.run.progress import Progress
from bench.run.sweep import SweepOptions, run_sweep
from bench.store.store import read_boundaries, read_cases, read_memory

LENGTHS = ",".join(map(str, range(256, 2049, 256)))
WHAT = ["device=t4", f"max_seq_len={LENGTHS},auto", "cache=FP16,Q4"]
PLAYED = ["model=tinyllama_1_1b", *WHAT]
ORPHANS_END_S = 3.0
MOST_S = 1.5  # about what a sweep takes

# The fork server as it is, but that its children play a card on which up to 1,000 tokens fit.
SERVE = """\
import json, os, random, socket, sys, time, types
import bench.worker
from bench.core.lifeline import adopt_orphans, die_with_parent
die_with_parent()
def main(fd, text):
    adopt_orphans()
    request = json.loads(text)
    if request["kind"] != "RunCase":
        os._exit(0)
    def say(kind, **data):
        os.write(fd, (json.dumps({"kind": kind, **data}) + "\\n").encode())
    length = request["case"]["max_seq_len"]
    memory = {f"peak_{name}_bytes": 1000 + length for name in ("allocated", "requested", "reserved", "device")}
    memory.update({f"{name}_bytes": 0 for name in ("allocated", "reserved", "device")})
    say("Entered", phase="load")
    say("Started", attention="flash", notes=[], facts={"context_bytes": 0})
    time.sleep(random.Random(os.getpid()).uniform(0, 0.04))
    if length > 1000:
        say("Failure", type="OutOfMemoryError", message="CUDA out of memory", memory=memory)
        os._exit(3)
    say("PhaseDone", phase="decode", seconds=0.0, memory=memory)
    say("Result", parts={}, notes=[], facts={})
    os._exit(0)
bench.worker.cards = types.SimpleNamespace(preload=lambda kind, engine: None)
bench.worker.child = types.SimpleNamespace(main=main, EXIT_FAILED=3)
from bench.worker import forkserver
forkserver.serve(socket.socket(fileno=int(sys.argv[1])), *sys.argv[2:])
"""


@dataclass
class Figures:
    """What is counted."""

    kills: int = 0
    sweeps: int = 0
    acknowledged: int = 0
    lost: int = 0
    twice: int = 0
    orphans: int = 0
    unreadable: int = 0
    left_after_kill: Counter[str] = field(default_factory=Counter)
    left_at_the_end: Counter[str] = field(default_factory=Counter)
    folders: int = 0
    unequal: int = 0
    gone_s: list[float] = field(default_factory=list)

    def told(self) -> str:
        longest_s = max(self.gone_s, default=0.0)
        return "\n".join(
            [
                f"{self.kills} kills in {self.sweeps} sweeps into {self.folders} folders",
                f"acknowledged rows: {self.acknowledged}, lost: {self.lost}, twice: {self.twice}",
                f"orphans after {ORPHANS_END_S:g} s: {self.orphans}; the last process was gone after {longest_s:.2f} s",
                f"unreadable files: {self.unreadable}",
                f"left by the killed: {dict(self.left_after_kill)}; after the last sweep: {dict(self.left_at_the_end)}",
                f"resumed sweeps that differ from the uninterrupted one: {self.unequal} of {self.folders}",
            ]
        )

    def is_good(self) -> bool:
        faults = self.lost, self.twice, self.orphans, self.unreadable, sum(self.left_at_the_end.values()), self.unequal
        return not any(faults)


class Acknowledging(Progress):
    """Writes the number of each case that has its row."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def finish(self, case: Case, row: CaseRow) -> None:
        os.write(self._fd, f"{row['run_id']}/{row['case_id']}\n".encode())

    probe = finish


def played(folder: Path, planned: Sweep, said: int) -> int:
    """Starts a sweep on the played card; it writes acknowledged rows to `said`. Its process number."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        os.chdir(folder)
        os.environ["TMPDIR"] = str(folder / "tmp")
        tempfile.tempdir = None
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        options = SweepOptions(folder / "results", f"{time.time_ns()}", timeout_s=60, jobs=2)
        run_sweep(planned.cases, planned.searches, options, Acknowledging(said))
    finally:
        os._exit(0)


def apart(do: Callable[[], Any]) -> Any:
    """What `do` returns, done in a process of its own: pyarrow's threads may not be there when this one forks."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(read_fd)
            with os.fdopen(write_fd, "w") as out:
                json.dump(do(), out)
        finally:
            os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def stored(results: Path) -> dict[str, Any]:
    """What is below `results`: its rows, the answers by their last word, and what could not be read."""
    cases, problems = read_cases(results)
    boundaries, more = read_boundaries(results)
    rows = cases.sort_by("started_at").to_pylist()
    found = boundaries.sort_by("finished_at").to_pylist()
    keys = Counter(f"{row['run_id']}/{row['case_id']}" for row in rows)
    # A case whose child was killed has a row that says so; it may be run again, by a search of the same sweep, too.
    answers = Counter(row["case_id"] for row in rows if row["outcome"] in ("fits", "oom"))
    equal = Counter(f"{row['run_id']}/{row['case_id']}/{row['started_at']}" for row in rows)
    return {
        "rows": list(keys),
        "twice": sum(count - 1 for count in equal.values()) + sum(count - 1 for count in answers.values()),
        "cases": {row["case_id"]: [row["outcome"], row["max_seq_len"], row["peak_allocated_bytes"]] for row in rows},
        "boundaries": {row["boundary_id"]: [row["fits_at"], row["fails_at"], row["certified"]] for row in found},
        "problems": len({*problems, *more, *read_memory(results)[1]}),
    }


def left_in(folder: Path) -> Counter[str]:
    """What is neither a row nor a log nor a report."""
    found: Counter[str] = Counter()
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if "logs" in inside or "report" in inside or path.name in ("results", "tmp"):
            continue
        if path.name == ".lock" or path.name == ".claims":
            found[path.name] += 1
        elif path.name.endswith((".jsonl", ".partial")):
            found["journals" if path.suffix == ".jsonl" else "halves"] += 1
        elif inside[0] == "tmp" and len(inside) == 2:
            found["temporary folders"] += 1
    return found


def processes_in(folder: Path) -> set[int]:
    """The processes whose working directory is `folder`."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if os.readlink(path) == str(folder):
                found.add(int(path.parent.name))
    return found


def all_gone(folder: Path, figures: Figures) -> None:
    started_at = time.monotonic()
    while left := processes_in(folder):
        if time.monotonic() - started_at > ORPHANS_END_S:
            figures.orphans += len(left)
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.02)
    figures.gone_s.append(time.monotonic() - started_at)


@contextlib.contextmanager
def new_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name).resolve()
        (folder / "tmp").mkdir()
        yield folder


def has_ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG) != (0, 0)


def trial(
    planned: Sweep,
    kills: int,
    of_children: bool,
    chance: random.Random,
    expected: dict[str, Any],
) -> Figures:
    figures = Figures()
    while figures.kills < kills:
        with new_folder() as folder:
            acknowledged: set[str] = set()
            done = False
            while not done:
                read_fd, write_fd = os.pipe()
                pid = played(folder, planned, write_fd)
                os.close(write_fd)
                figures.sweeps += 1
                os.set_blocking(read_fd, False)
                told = Told(read_fd)
                done = one_sweep(pid, told, of_children, chance, figures, kills)
                acknowledged |= told.rows()
                os.close(read_fd)
                all_gone(folder, figures)
                if not done:
                    figures.left_after_kill += left_in(folder)
                now = apart(lambda folder=folder: stored(folder / "results"))
                figures.lost += len(acknowledged - set(now["rows"]))
                figures.unreadable += now["problems"]
                if done and of_children and any(now[key] != expected[key] for key in ("cases", "boundaries")):
                    done = False  # what was killed has a row that says so; the next sweep runs it again
            figures.folders += 1
            print(f"so far, of {kills}:\n{figures.told()}\n", file=sys.stderr, flush=True)
            figures.acknowledged += len(acknowledged)
            figures.twice += now["twice"]
            figures.left_at_the_end += left_in(folder)
            figures.unequal += any(now[key] != expected[key] for key in ("cases", "boundaries"))
    return figures


class Told:
    """What a sweep has acknowledged so far."""

    def __init__(self, fd: int) -> None:
        self._fd, self._text = fd, ""

    def rows(self) -> set[str]:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, 1 << 16):
                self._text += data.decode()
        return set(self._text.split())


def one_sweep(pid: int, told: Told, of_children: bool, chance: random.Random, figures: Figures, kills: int) -> bool:
    """Lets a sweep run, and kills it or its children meanwhile. Whether it came to its end.

    A third of the kills come after a time, wherever the sweep is by then; the others a moment after so many rows, as a
    machine that is busy would be killed before its first row most of the time.
    """
    while True:
        by_time = chance.random() < 1 / 3
        rows = 0 if by_time else len(told.rows()) + chance.randint(1, 4)
        if not wait_until(lambda rows=rows: len(told.rows()) >= rows, pid, 60.0):
            return True
        moment = time.monotonic() + chance.uniform(0, MOST_S if by_time else MOST_S / 15)
        if not wait_until(lambda moment=moment: time.monotonic() >= moment, pid, 60.0):
            return True
        if figures.kills >= kills:
            while not has_ended(pid):
                time.sleep(0.01)
            return True
        if not of_children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            figures.kills += 1
            return False
        if children := sorted(descendants(pid)):
            with contextlib.suppress(OSError):
                os.kill(chance.choice(children), signal.SIGKILL)
                figures.kills += 1


def wait_until(is_time: Callable[[], bool], pid: int, most_s: float) -> bool:
    """False where the sweep ended before that."""
    ends_at = time.monotonic() + most_s
    while not is_time() and time.monotonic() < ends_at:
        if has_ended(pid):
            return False
        time.sleep(0.002)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--child-kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    fork_server._COMMAND = (sys.executable, "-c", SERVE)
    planned = plan_sweep(PLAYED)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        with new_folder() as folder:  # undisturbed
            read_fd, write_fd = os.pipe()
            os.waitpid(played(folder, planned, write_fd), 0)
            os.close(write_fd)
            os.close(read_fd)
            expected = apart(lambda: stored(folder / "results"))
        print(f"undisturbed: {len(expected['cases'])} cases, {len(expected['boundaries'])} boundaries", flush=True)
        good = True
        for what, kills, of_children in (
            ("the sweep", arguments.kills, False),
            ("one of its children", arguments.child_kills, True),
        ):
            if kills:
                figures = trial(planned, kills, of_children, chance, expected)
                print(f"\nkill -9 of {what}\n{figures.told()}", flush=True)
                good = good and figures.is_good()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
