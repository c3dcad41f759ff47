"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.core.process_tree import descendants

# A pool as that which draws a report's pictures, in the middle of a long one.
_DRAWING = """\
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from bench.core.lifeline import serve_parent
if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("spawn"), serve_parent) as pool:
        pool.submit(int).result()
        print("drawing", flush=True)
        pool.submit(time.sleep, 60).result()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has such a signal")
def test_a_pool_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "drawing.py"
    script.write_text(_DRAWING)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    with subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "drawing\n"
        found = descendants(parent.pid)
        assert len(found) == 2  # with the tracker of multiprocessing
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 10
    while left := [pid for pid in found if _is_alive(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
