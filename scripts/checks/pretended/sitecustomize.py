"""Two GPUs that are not there, for every process that has this folder on its PYTHONPATH.

The driver lists two cards, and a case is a few lines of Python that play one (`tests/run/fake_card.py`). Whatever gives
a process its GPUs, by CUDA_VISIBLE_DEVICES, is left as it is: that is what is looked at.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FITS_UP_TO = 2048  # tokens, on either card


def _pretend() -> None:
    from bench import nvml
    from bench.launch import inspection, launchers
    from tests.run.fake_card import FakeCard

    def gpu(number: int) -> nvml.Gpu:
        return nvml.Gpu(number, f"GPU-pretended-{number}", "NVIDIA Pretended", 24 << 30, "8.9", "580.1", "13.0")

    takes_s = float(os.environ["PRETENDED_TAKES_S"])

    def make_launcher(kind: str, engine: str, uuids: Sequence[str] = (), allocator: str = "native") -> Any:
        return FakeCard(FITS_UP_TO, takes_s=takes_s)

    nvml.gpus = lambda: [gpu(0), gpu(1)]
    nvml.read = lambda uuid: nvml.Reading(used_bytes=0, processes=[])
    launchers.make_launcher = make_launcher
    inspection.require_whole = lambda cases: None  # weights of zeros, which nobody loads


if "PRETENDED_TAKES_S" in os.environ:
    sys.path.insert(0, str(Path(__file__).parents[3]))
    _pretend()
