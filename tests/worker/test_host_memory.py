"""A child of simulated cards ends with a verdict where it takes too much of this machine's own memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.worker import host_memory

_TAKES = """
import sys
from bench.core.device import DeviceSpec
from bench.worker import host_memory
host_memory.most_bytes = lambda: int(sys.argv[1]) << 20
def tell(failure):
    print(failure.type, failure.message, flush=True)
host_memory.watch([DeviceSpec("x", sys.argv[2], "", 1 << 30)], tell, 3)
import time
taken = bytearray(64 << 20)  # of zeros that are not written to
for at in range(0, len(taken), 4096):
    taken[at] = 1
time.sleep(0.5)
print("went through")
"""


@pytest.mark.parametrize(
    ("limit_mib", "kind", "code", "said"),
    [
        (40, "simulated", 3, "HostMemoryExceeded more than 0.0 GiB of this machine's own memory"),
        (4096, "simulated", 0, "went through"),
        (40, "cuda", 0, "went through"),  # whose weights go through the host
    ],
)
def test_a_child_ends_where_it_takes_too_much(limit_mib: int, kind: str, code: int, said: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _TAKES, str(limit_mib), kind], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stdout.startswith(said)) == (code, True), ended


def test_the_limit_leaves_room_for_what_runs_beside_it() -> None:
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 2 << 30 <= host_memory.most_bytes() <= max(2 << 30, installed // 4)


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(12, "no"), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_what_the_machine_refuses_is_told_in_words(error: Exception) -> None:
    told = host_memory.explained(error)
    assert type(told).__name__ == "HostMemoryExceeded"
    assert "config.json" in str(told)
    other = ValueError("x")
    assert host_memory.explained(other) is other
