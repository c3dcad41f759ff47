"""What it costs to read rows that are in many runs: 300 and a half-written one, against one run that has the same.

The rows are made up (`report.py`), in folders that are removed again. Reading is all in which `vram-bench report`
differs between the two. The best of some rounds, in turns.

    .venv/bin/python scripts/benchmarks/many_runs.py [--runs 300] [--rows 62] [--logs 60]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from report import boundaries_of, made_up

from bench.store.journal import Journal
from bench.store.store import read_boundaries, read_cases, read_memory

ROUNDS = 3


def read(results: Path) -> tuple[float, float, int]:
    """Seconds by the clock and of CPU, and how many cases."""
    started_at, cpu_at = time.monotonic(), time.process_time()
    cases, boundaries, memory = read_cases(results), read_boundaries(results), read_memory(results)
    problems = {*cases[1], *boundaries[1], *memory[1]}
    assert not problems, problems
    return time.monotonic() - started_at, time.process_time() - cpu_at, cases[0].num_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in (("runs", 300), ("rows", 62), ("logs", 60)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        one, many = Path(folder) / "one", Path(folder) / "many"
        cases = made_up(asked.rows * (asked.runs + 1))
        for results, pieces in (
            (one, [cases]),
            (many, [cases.slice(n * asked.rows, asked.rows) for n in range(asked.runs)]),
        ):
            for number, piece in enumerate(pieces):
                run = results / f"run-{number}"
                (run / "logs").mkdir(parents=True)
                for log in range(asked.logs):
                    (run / "logs" / f"{log:016x}.log").touch()
                pq.write_table(piece, run / "cases.parquet", compression="zstd", write_page_checksum=True)
                found = boundaries_of(piece)
                pq.write_table(found, run / "boundaries.parquet", compression="zstd", write_page_checksum=True)
        half = Journal(many / "half-written")
        for row in cases.slice(asked.runs * asked.rows).to_pylist():
            half.append(json.loads(json.dumps(row, default=lambda moment: moment.isoformat())))
        with half.path.open("ab") as file:
            file.write(b'{"schema_version": 3, "run_id": "cut o')
        measured: dict[Path, list[tuple[float, float, int]]] = {one: [], many: []}
        for _ in range(ROUNDS):
            for results, times in measured.items():
                times.append(read(results))
        half.close()
        (one_s, one_cpu_s, one_rows), (many_s, many_cpu_s, many_rows) = (min(times) for times in measured.values())
        assert one_rows == many_rows == cases.num_rows
        print(f"{one_rows:,} rows; load of this machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print(f"one run: {one_s:.2f} s, {one_cpu_s:.2f} s of CPU")
        print(f"{asked.runs} runs and a half-written one: {many_s:.2f} s, {many_cpu_s:.2f} s of CPU")
        print(f"more: {many_s - one_s:.2f} s, {many_cpu_s - one_cpu_s:.2f} s of CPU")


if __name__ == "__main__":
    main()
