"""What a case costs the program itself, over thousands of them: the engine of the tests runs its quickest case.

The program's own command line, with a fresh results folder and no report; its memory and CPU time are read in /proc
while it runs. `parent` is the program, without the fork server and the cases.

    nice .venv/bin/python scripts/benchmarks/many_cases.py [--cases 10000] [--jobs 1]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.faulty_program import faulty_program

FIRST_LENGTH = 1024
LOOK_S = 1.0
TICKS_PER_S, PAGE_BYTES = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid: int) -> float:
    """Of a process alone."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def count_rows(results: Path) -> int:
    return sum(journal.read_bytes().count(b"\n") for journal in results.glob("*/journal-*.jsonl"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, quick = Path(name), [("none", "load")]
        program = faulty_program(folder, quick)
        lengths = f"max_seq_len=range({FIRST_LENGTH},{FIRST_LENGTH + asked.cases})"
        command = program.sweep(quick, lengths, f"jobs={asked.jobs}", "run_id=quick")
        sweep = subprocess.Popen(
            command, cwd=folder, env=program.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        print("rows  ms a case  CPU of the parent, ms a case  its memory, MiB", flush=True)
        before: tuple[float, int, float] | None = None  # when, rows, CPU seconds
        step = max(1, asked.cases // 10)
        while sweep.poll() is None:
            rows = count_rows(folder / "results")
            if rows and (before is None or rows - before[1] >= step):
                now = time.monotonic(), rows, cpu_s(sweep.pid)
                if before is not None:
                    each_ms, own_ms = (1000 * (now[n] - before[n]) / (rows - before[1]) for n in (0, 2))
                    memory_mib = resident_bytes(sweep.pid) / (1 << 20)
                    print(f"{rows:>5} {each_ms:>9.1f} {own_ms:>29.2f} {memory_mib:>16.1f}", flush=True)
                before = now
            time.sleep(LOOK_S)
        print(f"load of this machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, exit code {sweep.returncode}")


if __name__ == "__main__":
    main()
