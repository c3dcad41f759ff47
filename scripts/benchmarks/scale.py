"""What a fleet costs: bytes a row, the merge of many writers, the program's own cost for a search, and two workers.

    nice .venv/bin/python scripts/benchmarks/scale.py [rows merge own workers] [--searches 10000] [--merged 100000]

`rows`: bytes of a row in a journal and in parquet. `merge`: 64 writers' journals become parquet, and are read. `own`:
CPU of the program for each of many searches, of which two runs each are played at once and the rest is as ever
(prediction, rows, journals, claims). `workers`: simulated cases with jobs=2 beside jobs=1, in turns. Rows are those
of a real sweep over a simulated card, each number of them changed at random, so that they compress no better than
others would.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.config.cases import plan_sweep
from bench.core.case import Case
from bench.core.requests import RunCase, read_request
from bench.launch import launchers
from bench.launch.launchers import make_launcher
from bench.run.sweep import SweepOptions, new_run_id, run_sweep
from bench.store.schema import Kind
from bench.store.store import compact, read_boundaries, read_cases

WRITERS = 64
PROBES = 2  # of a search that is predicted
SEARCH = ["model=tinyllama_1_1b", "device=rtx_3060_12gb"]
LEAST_BYTES, SPAN_BYTES = 812 << 20, 26 << 20  # limits on it at which some length fits, and not all
# What `workers` does: cases that take about as long as others.
WORK = [
    "model=llama_3_1_8b",
    "device=rtx_3090",
    "bpw=3.0,4.0,5.0,6.0",
    "cache=FP16,Q8,Q6,Q4",
    "max_seq_len=4k,8k,16k,32k",
]
NO_PROCESS = (1 << 22) - 7  # no process has this number: `/proc/sys/kernel/pid_max` ends before


def cpu_s() -> float:
    return time.process_time()


class Taken:
    """Seconds by the clock and of CPU."""

    def __init__(self, do: Callable[[], Any]) -> None:
        started_at, cpu_at = time.monotonic(), cpu_s()
        self.result = do()
        self.s, self.cpu_s = time.monotonic() - started_at, cpu_s() - cpu_at

    def __str__(self) -> str:
        return f"{self.s:.1f} s, {self.cpu_s:.1f} s of CPU"


def sampled_rows(folder: Path) -> dict[Kind, dict[str, Any]]:
    """A case and a boundary as a sweep over a simulated card writes them."""
    planned = plan_sweep([*SEARCH, f"results_dir={folder}"])
    run_sweep([], planned.searches, SweepOptions(folder, "sample", 900))
    found = {Kind.CASES: read_cases(folder)[0], Kind.BOUNDARIES: read_boundaries(folder)[0]}
    return {kind: table.to_pylist()[0] for kind, table in found.items()}


def another(row: dict[str, Any], number: int, moment: datetime) -> dict[str, Any]:
    """A row with ids and a moment of its own, every number of it changed, those in its documents too."""
    chance = random.Random(number)

    def told(name: str, value: Any) -> Any:
        if name.endswith("_id") and name != "run_id":
            return f"{chance.getrandbits(64):016x}"
        if name == "case_ids":
            return [f"{chance.getrandbits(64):016x}" for _ in value]
        if name in ("started_at", "finished_at"):
            return (moment + timedelta(milliseconds=number)).isoformat()
        if name.endswith("_bytes") and isinstance(value, int):
            return max(0, value + chance.randrange(-1 << 20, 1 << 20))
        if isinstance(value, float) and name not in ("bpw",):
            return value * (1 + chance.random() / 10)
        if name == "phases" and value is not None:
            return re.sub(r"\d{6,}", lambda digits: str(chance.randrange(10 ** len(digits[0]))), value)
        return value

    return {name: value if value is None else told(name, value) for name, value in row.items()}


def write_journal(folder: Path, kind: Kind, name: str, rows: list[dict[str, Any]]) -> int:
    """Lines as `Journal` writes them, without a sync for each; how many bytes."""
    beginning = {Kind.CASES: "journal", Kind.BOUNDARIES: "boundaries-journal"}[kind]
    folder.mkdir(parents=True, exist_ok=True)
    text = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    (folder / f"{beginning}-{name}.jsonl").write_bytes(text)
    return len(text)


def merge(searches: int, sample: dict[Kind, dict[str, Any]]) -> None:
    """64 writers' journals in one run: merged as a sweep's end does it, and read as a report does."""
    with tempfile.TemporaryDirectory() as name:
        run, journal_bytes, rows = Path(name) / "run", dict.fromkeys(sample, 0), dict.fromkeys(sample, 0)
        moment, number = datetime(2026, 1, 1, tzinfo=UTC), 0
        for writer in range(WRITERS):
            mine = searches // WRITERS + (writer < searches % WRITERS)
            for kind, count in ((Kind.CASES, PROBES * mine), (Kind.BOUNDARIES, mine)):
                made = [another(sample[kind], number + each, moment) for each in range(count)]
                number += count
                journal_bytes[kind] += write_journal(run, kind, f"node-{writer:02}-{1000 + writer}", made)
                rows[kind] += count
        merged = Taken(lambda: compact(run, are_ended=True))
        assert not list(run.glob("*.jsonl"))
        read = Taken(lambda: (read_cases(run), read_boundaries(run)))
        (cases, problems), (boundaries, others) = read.result
        assert (cases.num_rows, boundaries.num_rows, problems, others) == (PROBES * searches, searches, [], [])
        print(f"merge: {searches:,} searches of {WRITERS} writers ({sum(rows.values()):,} rows): {merged}")
        print(f"       read again: {read}; memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10:,} MiB")
        for kind, count in rows.items():
            stored = (run / f"{kind}.parquet").stat().st_size
            in_journal, in_parquet = journal_bytes[kind] / count, stored / count
            print(f"rows:  {kind}: {in_journal:,.0f} B a row in a journal, {in_parquet:,.0f} in parquet")


class Played:
    """Cases end at once, by what is predicted; all else is asked of the real launcher."""

    def __init__(self, real: Any, fits_at: dict[int | None, int]) -> None:
        self._real, self._fits_at = real, fits_at

    def start(self, request: str, records_fd: int, log_fd: int) -> Any:
        asked = read_request(request)
        if not isinstance(asked, RunCase):
            return self._real.start(request, records_fd, log_fd)
        os.write(records_fd, self._said(asked.case))
        return _Ended()

    def _said(self, case: Case) -> bytes:
        memory = {f"peak_{name}_bytes": 1 << 20 for name in ("allocated", "requested", "reserved", "device")}
        memory |= {f"{name}_bytes": 0 for name in ("allocated", "reserved", "device")}
        said: list[dict[str, Any]] = [
            {"kind": "Entered", "phase": "load"},
            {"kind": "Started", "attention": "flash", "notes": [], "facts": {"context_bytes": 0}},
        ]
        if case.max_seq_len > self._fits_at[case.vram_limit_bytes]:
            failure = {"type": "OutOfMemoryError", "message": "CUDA out of memory", "memory": memory}
            said.append({"kind": "Failure", **failure})
        else:
            said.append({"kind": "PhaseDone", "phase": "decode", "seconds": 0.0, "memory": memory})
            said.append({"kind": "Result", "parts": {}, "notes": [], "facts": {}})
        return "".join(json.dumps(each) + "\n" for each in said).encode()

    def close(self) -> None:
        self._real.close()

    def kill(self) -> None:
        self._real.kill()


class _Ended:
    pid = NO_PROCESS

    def wait(self, timeout_s: float | None = None) -> int:
        return 0


def own(searches: int) -> None:
    """The program's own CPU for each search: its prediction, two runs that take no time, their rows, its boundary."""
    from bench.answers.foreseen import forecaster_of
    from bench.run.resume import Stored

    (one,) = plan_sweep(SEARCH).searches
    limits = [LEAST_BYTES + SPAN_BYTES * number // searches for number in range(searches)]
    works = [one.along(replace(one.longest, vram_limit_bytes=limit)) for limit in limits]
    with forecaster_of(Stored({}, set(), []), 1) as forecaster:
        forecaster.prepare([one.longest], lambda done, total: None)
        predicted = Taken(lambda: [forecaster.fits_at(work) or 0 for work in works])
    fits_at = dict(zip(limits, predicted.result, strict=True))
    launchers.make_launcher = lambda *of: Played(make_launcher(*of), fits_at)  # type: ignore[arg-type,assignment]
    with tempfile.TemporaryDirectory() as name:
        results = Path(name)
        done = Taken(lambda: run_sweep([], works, SweepOptions(results, new_run_id(), 900, jobs=1)))
        found = read_boundaries(results)[0].to_pylist()
        probes = sum(row["probes"] for row in found) / len(found)
        assert len(found) == searches
        assert all(row["certified"] for row in found)
        each_ms = [1000 * seconds / searches for seconds in (done.cpu_s, done.s, predicted.cpu_s)]
        print(f"own:   {searches:,} searches of {probes:.1f} runs: {each_ms[0]:.1f} ms of CPU each,")
        print(f"       {each_ms[1]:.1f} ms by the clock; {each_ms[2]:.1f} ms of CPU to predict each by itself")


def workers() -> None:
    """Simulated cases, in turns with one and with two at a time, in fresh folders."""

    def swept(jobs: int) -> tuple[float, float, int]:
        with tempfile.TemporaryDirectory() as name:
            command = [sys.executable, "-m", "bench", "sweep", *WORK, f"results_dir={name}", f"jobs={jobs}", "--json"]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            started_at = time.monotonic()
            subprocess.run(command, check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            took_s = time.monotonic() - started_at
            cases = read_cases(Path(name))[0].to_pylist()
            moments = sorted(row["started_at"] for row in cases)
            last = max(row["started_at"] + timedelta(seconds=row["wall_s"]) for row in cases)
            cpu = sum(getattr(after, each) - getattr(before, each) for each in ("ru_utime", "ru_stime"))
            print(f"       jobs={jobs}: {took_s:.1f} s, {cpu:.1f} s of CPU, {len(cases)} runs", flush=True)
            return (last - moments[0]).total_seconds(), cpu, len(cases)

    swept(2)  # what is compiled and recorded once
    ratios = []
    for _ in range(2):
        one, two = swept(1), swept(2)
        ratios.append((one[0] / one[2]) / (two[0] / two[2]))
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"workers: runs a second from the first run to the end of the last, jobs=2 over jobs=1: {each}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["merge", "own", "workers"], help="rows merge own workers")
    parser.add_argument("--searches", type=int, default=10_000)
    parser.add_argument("--merged", type=int, default=100_000)
    asked = parser.parse_args()
    print(f"load of this machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    if {"merge", "rows"} & set(asked.what):
        with tempfile.TemporaryDirectory() as name:
            sample = sampled_rows(Path(name))
        merge(asked.merged if "merge" in asked.what else 1000, sample)
    if "own" in asked.what:
        own(asked.searches)
    if "workers" in asked.what:
        workers()
    print(f"load of this machine {os.getloadavg()[0]:.1f} afterwards")


if __name__ == "__main__":
    main()
