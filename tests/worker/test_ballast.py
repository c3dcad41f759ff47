"""The process that makes a card smaller, on a driver that is made up: what it takes, what it says, and when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from bench import nvml
from bench.worker import ballast as holder
from bench.worker.ballast import CannotReserve, reserve_all_but

MIB, GIB = 1 << 20, 1 << 30
TOTAL_BYTES = 24 * GIB


class Driver:
    """A 24 GiB GPU of which 20 are free, as the process that asks would see it; others give 1 GiB back meanwhile."""

    def __init__(self) -> None:
        self.free_bytes = 20 * GIB - 12345
        self.returned_bytes = 0
        self.asked = 0

    def mem_get_info(self, device: int) -> tuple[int, int]:
        self.asked += 1
        if self.asked == 2:
            self.free_bytes += self.returned_bytes
        return self.free_bytes, TOTAL_BYTES

    def empty(self, num_bytes: int, **_: Any) -> object:
        self.free_bytes -= -(-num_bytes // (2 * MIB)) * 2 * MIB
        return object()


@pytest.fixture
def driver() -> Iterator[Driver]:
    made_up = Driver()
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.cuda, "mem_get_info", made_up.mem_get_info))
        stack.enter_context(mock.patch.object(torch, "empty", made_up.empty))
        stack.enter_context(mock.patch.object(holder, "_SETTLE_S", 0.001))
        yield made_up


@pytest.mark.parametrize("returned_bytes", [0, GIB])
def test_what_is_left_is_the_smaller_card_or_a_piece_less(driver: Driver, returned_bytes: int) -> None:
    driver.returned_bytes = returned_bytes
    ballast = reserve_all_but(8 * GIB)
    left_bytes = TOTAL_BYTES - ballast.held_bytes
    assert 8 * GIB - 2 * MIB < left_bytes <= 8 * GIB
    assert driver.free_bytes == 20 * GIB - 12345  # this process holds nothing
    ballast.release()
    with pytest.raises(ChildProcessError):
        os.waitpid(ballast._pid, os.WNOHANG)


def test_of_several_cards_each_holder_sees_its_own_alone(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1,GPU-2")
    free_bytes = {"GPU-1": 10 * GIB, "GPU-2": 16 * GIB}

    def fill(left_bytes: int) -> tuple[list[torch.Tensor], int]:
        return [], TOTAL_BYTES - min(left_bytes, free_bytes[os.environ["CUDA_VISIBLE_DEVICES"]])

    monkeypatch.setattr(holder, "_fill", fill)
    ballasts = [reserve_all_but(12 * GIB, uuid) for uuid in free_bytes]
    assert [TOTAL_BYTES - ballast.held_bytes for ballast in ballasts] == [10 * GIB, 12 * GIB]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
    for ballast in ballasts:  # the first holder is no child of the second's pipe: it ends by itself
        ballast.release()


def test_a_card_that_is_not_free_enough_is_refused(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder, "_PATIENCE_S", 0.01)
    with pytest.raises(CannotReserve, match=r"only 21,474,824,135 B of the card are free; vram_limit_by=allocator"):
        reserve_all_but(22 * GIB)


def test_what_the_driver_refuses_is_told(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12 GiB\nand more")

    monkeypatch.setattr(torch, "empty", refused)
    with pytest.raises(
        CannotReserve, match=r"no smaller card of 8,589,934,592 B: CUDA out of memory\. Tried to allocate"
    ):
        reserve_all_but(8 * GIB)


def test_a_holder_that_dies_is_no_riddle(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder, "_fill", lambda left_bytes: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(CannotReserve, match="has died"):
        reserve_all_but(8 * GIB)


def test_the_death_of_the_worker_is_the_holder_s(driver: Driver) -> None:
    reading, writing = os.pipe()
    worker = os.fork()
    if not worker:
        try:
            os.write(writing, str(reserve_all_but(8 * GIB)._pid).encode())
            time.sleep(60)
        finally:
            os._exit(1)
    pid = int(os.read(reading, 20))
    assert not _ended(pid)
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    deadline = time.monotonic() + 10
    while not _ended(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.gpu
def test_a_real_gpu_is_as_small_as_it_should_be(gpu: nvml.Gpu) -> None:
    left_bytes = gpu.total_bytes // 2
    script = f"""
import torch
from bench.worker.ballast import reserve_all_but
rest = reserve_all_but({left_bytes})
total_bytes = torch.cuda.mem_get_info(0)[1]
small = torch.empty(1, device="cuda:0")
free_bytes = torch.cuda.mem_get_info(0)[0]
assert {left_bytes} - (2 << 20) < total_bytes - rest.held_bytes <= {left_bytes}, rest
assert free_bytes < {left_bytes}, free_bytes
try:
    torch.empty({left_bytes}, dtype=torch.uint8, device="cuda:0")
except torch.OutOfMemoryError:
    pass
else:
    raise AssertionError("the card is larger than it should be")
rest.release()
torch.empty({left_bytes}, dtype=torch.uint8, device="cuda:0")
"""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpu.uuid}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=120)


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
