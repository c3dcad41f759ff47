"""The short version of `scripts/benchmarks/kills.py`, which docs/reliability.md has the figures of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_sweeps_that_are_killed_at_random_moments_lose_nothing_and_leave_nothing() -> None:
    command = [sys.executable, "scripts/benchmarks/kills.py", "--kills", "2", "--child-kills", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for killed, kills in (("the sweep", 2), ("one of its children", 1)):
        told = done.stdout.partition(f"kill -9 of {killed}\n")[2]
        assert told.startswith(f"{kills} kills in ")
        assert "lost: 0, twice: 0" in told.splitlines()[1]
