"""The real card. Its arithmetic is tested on a driver that is made up; what needs a GPU is marked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

from bench import nvml
from bench.core.case import Case
from bench.core.device import DeviceSpec
from bench.worker import cards, cuda
from bench.worker.engines.exllamav2.engine import EXLLAMAV2
from tests.worker.conftest import made_up_case

MIB = 1 << 20
UUID = "GPU-made-up"


class Driver:
    """A 24 GiB GPU: what PyTorch and NVML would say of it."""

    def __init__(self) -> None:
        self.context_mib = 0
        self.reserved_mib = 0
        self.foreign_mib = 500
        self.peak_reserved_mib = 0
        self.tells_processes = True
        self.fraction: float | None = None

    def init(self) -> None:
        self.context_mib = 300

    def reserve(self, mib: int) -> None:
        self.reserved_mib = mib
        self.peak_reserved_mib = max(self.peak_reserved_mib, mib)

    @property
    def used_bytes(self) -> int:
        return (self.context_mib + self.reserved_mib + self.foreign_mib) * MIB

    def read(self, uuid: str) -> nvml.Reading:
        own = (self.context_mib + self.reserved_mib) * MIB if self.tells_processes else None
        processes = [nvml.Process(4711, 500 * MIB)]
        if self.context_mib:
            processes.append(nvml.Process(os.getpid(), own))
        return nvml.Reading(total_bytes=24 << 30, used_bytes=self.used_bytes, processes=processes)

    def stats(self, device: int) -> dict[str, int]:
        names = ("allocated", "requested", "reserved")
        return {
            **{f"{name}_bytes.all.current": self.reserved_mib * MIB for name in names},
            **{f"{name}_bytes.all.peak": self.peak_reserved_mib * MIB for name in names},
        }


@pytest.fixture
def driver() -> Iterator[Driver]:
    made_up = Driver()
    answers: dict[str, Any] = {
        "init": made_up.init,
        "empty_cache": lambda: None,
        "synchronize": lambda: None,
        "get_device_properties": lambda device: SimpleNamespace(total_memory=24 << 30, multi_processor_count=82),
        "memory_reserved": lambda device: made_up.reserved_mib * MIB,
        "memory_stats": made_up.stats,
        "mem_get_info": lambda device: ((24 << 30) - made_up.used_bytes, 24 << 30),
        "reset_peak_memory_stats": lambda device: None,
        "set_per_process_memory_fraction": lambda fraction, device: setattr(made_up, "fraction", fraction),
    }
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(torch, "empty", return_value=None))
        stack.enter_context(mock.patch.object(nvml, "read", made_up.read))
        yield made_up


def real_case(**changes: Any) -> Case:
    device = DeviceSpec("made_up", "cuda", "Made up", 24 << 30, uuid=UUID)
    return replace(made_up_case({"architectures": ["LlamaForCausalLM"]}), device=device, **changes)


@pytest.mark.parametrize("tells_processes", [True, False])
def test_the_context_is_what_pytorch_did_not_reserve(driver: Driver, tells_processes: bool) -> None:
    driver.tells_processes = tells_processes
    assert cuda.CudaCard(real_case(), EXLLAMAV2).context_bytes == 300 * MIB


def test_device_bytes_never_fall_below_what_was_reserved_at_the_peak(driver: Driver) -> None:
    card = cuda.CudaCard(real_case(), EXLLAMAV2)
    driver.reserve(4000)
    driver.reserve(1000)
    memory = card.memory()
    assert memory.reserved_bytes == 1000 * MIB
    assert memory.peak_reserved_bytes == 4000 * MIB
    assert memory.device_bytes == (300 + 1000 + 500) * MIB
    assert memory.peak_device_bytes == (300 + 4000) * MIB


def test_a_limit_leaves_room_for_the_context(driver: Driver) -> None:
    cuda.CudaCard(real_case(vram_limit_bytes=12 << 30), EXLLAMAV2)
    assert driver.fraction == pytest.approx(((12 << 30) - 300 * MIB) / (24 << 30))


def test_foreign_processes_are_noted(driver: Driver) -> None:
    assert cuda.CudaCard(real_case(), EXLLAMAV2, foreign_processes=driver.read(UUID)).notes() == [
        "other processes on the GPU: 4711"
    ]


def test_a_card_that_others_keep_small_is_what_they_left(driver: Driver) -> None:
    """Of 24 GiB, 500 MiB are a stranger's; what the holder takes beside them leaves 8 GiB."""
    foreign_processes = driver.read(UUID)
    driver.foreign_mib += 15884
    held_bytes = driver.used_bytes
    card = cuda.CudaCard(
        real_case(vram_limit_bytes=8 << 30), EXLLAMAV2, foreign_processes, cuda.Ballast(held_bytes, 1, 1)
    )
    assert driver.fraction is None  # nobody caps PyTorch
    assert card.context_bytes == 300 * MIB
    assert card.facts().held_bytes == held_bytes
    driver.reserve(4000)
    memory = card.memory()
    assert memory.device_bytes == memory.peak_device_bytes == 4300 * MIB
    assert card.notes() == [
        "other processes on the GPU: 4711",
        f"vram_limit kept by {held_bytes:,} B that others hold",
    ]


@pytest.mark.parametrize("failing", [False, True])
def test_the_rest_is_held_as_long_as_the_card_is_open(driver: Driver, failing: bool) -> None:
    held: list[int | None] = []
    ballast = SimpleNamespace(held_bytes=1, release=lambda: held.append(None))
    with mock.patch.object(cuda, "reserve_all_but", side_effect=lambda left: held.append(left) or ballast):
        case = real_case(vram_limit_bytes=8 << 30, vram_limit_by="process")
        with suppress(ZeroDivisionError), cards.open_machine(case):
            assert held == [8 << 30]
            assert 1 / (not failing)
        assert held == [8 << 30, None]
        with cards.open_machine(real_case(vram_limit_bytes=8 << 30, vram_limit_by="allocator")):
            assert driver.fraction is not None
        assert len(held) == 2


def test_the_cublas_workspaces_are_what_pytorch_lets_go_of(driver: Driver) -> None:
    def block(address: int, mib: int, state: str = "active_allocated") -> dict[str, Any]:
        return {"address": address, "requested_size": mib * MIB, "state": state}

    before = [{"blocks": [block(1, 100), block(2, 32)]}, {"blocks": [block(3, 32), block(4, 8, "inactive")]}]
    after = [{"blocks": [block(1, 100), block(2, 32, "inactive")]}]
    with (
        mock.patch.object(torch.cuda, "memory_snapshot", side_effect=[before, after]),
        mock.patch.object(torch._C, "_cuda_clearCublasWorkspaces", create=True),
    ):
        card = cuda.CudaCard(real_case(), EXLLAMAV2)
        assert (card.facts().properties or {})["workspaces_bytes"] is None
        parts = card.parts_at_peak(lambda: {"weights": [], "cache": [None]})
    assert parts == {"weights_bytes": 0, "cache_bytes": 0, "workspace_bytes": 64 * MIB}
    assert (card.facts().properties or {})["workspaces_bytes"] == [32 * MIB, 32 * MIB]


def test_every_repeat_is_timed(driver: Driver) -> None:
    done: list[int] = []
    samples = cuda.CudaCard(real_case(), EXLLAMAV2).time(lambda: done.append(1), 3)
    assert len(samples) == len(done) == 3
    assert all(sample >= 0 for sample in samples)


@pytest.mark.gpu
def test_a_real_gpu_counts_what_pytorch_takes(gpu: nvml.Gpu) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu.uuid
    device = DeviceSpec(gpu.name, "cuda", gpu.name, gpu.total_bytes, uuid=gpu.uuid)
    with cards.open_machine(replace(real_case(), device=device)) as card:
        before = card.memory()
        held = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda:0")
        after = card.memory()
        assert after.allocated_bytes - before.allocated_bytes == 64 * MIB
        assert (after.peak_device_bytes or 0) >= after.reserved_bytes
        assert 50 * MIB < (card.facts().context_bytes or 0) < 2000 * MIB
        del held


@pytest.mark.gpu
def test_a_real_gpu_s_driver_answers_everything(gpu: nvml.Gpu) -> None:
    reading = nvml.read(gpu.uuid)
    assert reading.total_bytes is not None
    assert reading.total_bytes >= gpu.total_bytes * 0.9
    assert reading.used_bytes is not None
    assert reading.temperature_c is not None
