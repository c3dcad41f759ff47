"""The real card. Its arithmetic is tested on a driver that is made up; what needs a GPU is marked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

from bench import nvml
from bench.records import Case, DeviceSpec
from bench.worker import cuda
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
    assert cuda.CudaCard(real_case()).context_bytes == 300 * MIB


def test_device_bytes_never_fall_below_what_was_reserved_at_the_peak(driver: Driver) -> None:
    card = cuda.CudaCard(real_case())
    driver.reserve(4000)
    driver.reserve(1000)
    memory = card.memory()
    assert memory.reserved_bytes == 1000 * MIB
    assert memory.peak_reserved_bytes == 4000 * MIB
    assert memory.device_bytes == (300 + 1000 + 500) * MIB
    assert memory.peak_device_bytes == (300 + 4000) * MIB


def test_a_limit_leaves_room_for_the_context(driver: Driver) -> None:
    cuda.CudaCard(real_case(vram_limit_bytes=12 << 30))
    assert driver.fraction == pytest.approx(((12 << 30) - 300 * MIB) / (24 << 30))


def test_foreign_processes_are_noted(driver: Driver) -> None:
    assert cuda.CudaCard(real_case()).notes() == ["other processes on the GPU: 4711"]


def test_the_cublas_workspace_is_what_pytorch_lets_go_of(driver: Driver) -> None:
    held = iter([100 * MIB, 68 * MIB])
    with (
        mock.patch.object(torch.cuda, "memory_allocated", side_effect=held),
        mock.patch.object(torch._C, "_cuda_clearCublasWorkspaces", create=True),
    ):
        model = SimpleNamespace(device_context=[], modules=[])
        parts = cuda.CudaCard(real_case()).parts_at_peak(model, SimpleNamespace(all_tensors=list))
    assert parts["workspace_bytes"] == 32 * MIB


def test_every_repeat_is_timed(driver: Driver) -> None:
    done: list[int] = []
    samples = cuda.CudaCard(real_case()).time(lambda: done.append(1), 3)
    assert len(samples) == len(done) == 3
    assert all(sample >= 0 for sample in samples)


@pytest.mark.gpu
def test_a_real_gpu_counts_what_pytorch_takes(gpu: nvml.Gpu) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu.uuid
    device = DeviceSpec(gpu.name, "cuda", gpu.name, gpu.total_bytes, uuid=gpu.uuid)
    with cuda.open_card(replace(real_case(), device=device)) as card:
        before = card.memory()
        held = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda:0")
        after = card.memory()
        assert after.allocated_bytes - before.allocated_bytes == 64 * MIB
        assert (after.peak_device_bytes or 0) >= after.reserved_bytes
        assert 50 * MIB < (card.facts()["context_bytes"] or 0) < 2000 * MIB
        del held


@pytest.mark.gpu
def test_a_real_gpu_s_driver_answers_everything(gpu: nvml.Gpu) -> None:
    reading = nvml.read(gpu.uuid)
    assert reading.total_bytes is not None
    assert reading.total_bytes >= gpu.total_bytes * 0.9
    assert reading.used_bytes is not None
    assert reading.temperature_c is not None
