"""Which packages beside the engine are broken: asked of a worker, as only a worker imports them."""

from __future__ import annotations

import json
import subprocess
import sys

from bench.launch.environment import child_environment


def broken_packages(timeout_s: float = 120.0) -> dict[str, str]:
    """What is installed beside the engine and cannot be imported, each with its error; asked of a worker."""
    command = [sys.executable, "-m", "bench.worker", "packages"]
    environment = child_environment("cuda")
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
        found = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return {}
    return {name: error for name, error in found.items() if error is not None}
