"""Runs a case on a real GPU while PyTorch's allocator records every request, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.core.case import Case
from bench.launch.environment import child_environment
from bench.launch.launchers import uuids_of


def record_snapshot(case: Case, path: Path) -> bool:
    """Has a worker run `case` and write the recording to `path` (.npz); false where it failed, which it has printed."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.worker", "snapshot", str(path)],
        input=case.to_json(),
        env=child_environment(case.device.kind, uuids_of(case.devices), case.allocator),
        text=True,
        check=False,
    )
    return done.returncode == 0
