"""Rows a second that 1, 2, 4 and 8 processes append to one folder of results, each row synced to disk before the next.

Each writes journals of runs of its own, as sweeps do that share a folder, with rows that are made up (`report.py`). At
last all rows are read again: none is lost, none is there twice.

    .venv/bin/python scripts/benchmarks/writers.py [--rows 200]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import made_up

from bench.store.store import read_cases

_WRITER = """\
import json, sys
from pathlib import Path
from bench.store.journal import Journal
folder, number = Path(sys.argv[1]), sys.argv[2]
rows = [{**row, "run_id": number} for row in json.loads((folder / "rows.json").read_text())]
journal = Journal(folder / "results" / number)
print("ready", flush=True)
sys.stdin.readline()
for row in rows:
    journal.append(row)
"""


def written(writers: int, rows: int) -> float:
    """Seconds from the word to begin to the end of the last writer."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = json.dumps(made_up(rows).to_pylist(), default=lambda moment: moment.isoformat())
        (folder / "rows.json").write_text(made)
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", _WRITER, name, f"writer-{number}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(writers)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        started_at = time.monotonic()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert [process.wait() for process in processes] == [0] * writers
        seconds = time.monotonic() - started_at
        found, problems = read_cases(folder / "results")
        assert (found.num_rows, problems) == (writers * rows, [])
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200, help="of each writer")
    asked = parser.parse_args()
    print(f"load of this machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for writers in (1, 2, 4, 8):
        seconds = written(writers, asked.rows)
        print(f"{writers} writers: {writers * asked.rows / seconds:,.0f} rows/s", flush=True)


if __name__ == "__main__":
    main()
