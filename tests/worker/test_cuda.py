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
from bench.worker import cards
from bench.worker.ballast import Ballast, CannotReserve
from bench.worker.cuda import machine
from bench.worker.cuda.card import CudaCard
from bench.worker.cuda.machine import CudaMachine
from bench.worker.engines.exllamav2.engine import EXLLAMAV2
from tests.worker.conftest import made_up_case

MIB = 1 << 20
UUIDS = ("GPU-made-up", "GPU-other")
UUID = UUIDS[0]


class Gpu:
    """A 24 GiB GPU: what PyTorch and NVML would say of it."""

    def __init__(self, multiprocessors: int) -> None:
        self.multiprocessors = multiprocessors
        self.capability = (8, 6)
        self.context_mib = 0
        self.reserved_mib = 0
        self.foreign_mib = 500
        self.peak_reserved_mib = 0
        self.tells_processes = True
        self.fraction: float | None = None

    def reserve(self, mib: int) -> None:
        self.reserved_mib = mib
        self.peak_reserved_mib = max(self.peak_reserved_mib, mib)

    @property
    def used_bytes(self) -> int:
        return (self.context_mib + self.reserved_mib + self.foreign_mib) * MIB

    def read(self) -> nvml.Reading:
        own = (self.context_mib + self.reserved_mib) * MIB if self.tells_processes else None
        processes = [nvml.Process(4711, 500 * MIB)]
        if self.context_mib:
            processes.append(nvml.Process(os.getpid(), own))
        return nvml.Reading(total_bytes=24 << 30, used_bytes=self.used_bytes, processes=processes)

    def stats(self) -> dict[str, int]:
        names = ("allocated", "requested", "reserved")
        return {
            **{f"{name}_bytes.all.current": self.reserved_mib * MIB for name in names},
            **{f"{name}_bytes.all.peak": self.peak_reserved_mib * MIB for name in names},
        }


class Driver:
    """Two such GPUs, in the order in which they are visible; they do not reach each other's memory."""

    def __init__(self) -> None:
        self.gpus = [Gpu(82), Gpu(46)]
        self.peer_access = False
        self.synchronized: list[int] = []

    def first_allocation(self, device: torch.device) -> None:
        """A context comes with the first allocation on a card, and on no other."""
        self.gpus[device.index or 0].context_mib = 300 + 20 * (device.index or 0)


@pytest.fixture
def driver() -> Iterator[Driver]:
    made_up = Driver()
    gpus = made_up.gpus

    def properties(index: int) -> SimpleNamespace:
        return SimpleNamespace(total_memory=24 << 30, multi_processor_count=gpus[index].multiprocessors)

    answers: dict[str, Any] = {
        "init": lambda: None,
        "empty_cache": lambda: None,
        "synchronize": made_up.synchronized.append,
        "get_device_properties": properties,
        "get_device_capability": lambda index: gpus[index].capability,
        "can_device_access_peer": lambda one, other: made_up.peer_access,
        "memory_reserved": lambda index: gpus[index].reserved_mib * MIB,
        "memory_stats": lambda index: gpus[index].stats(),
        "mem_get_info": lambda index: ((24 << 30) - gpus[index].used_bytes, 24 << 30),
        "reset_peak_memory_stats": lambda index: None,
        "set_per_process_memory_fraction": lambda fraction, index: setattr(gpus[index], "fraction", fraction),
    }
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(torch, "empty", lambda size, device: made_up.first_allocation(device)))
        stack.enter_context(mock.patch.object(nvml, "read", lambda uuid: gpus[UUIDS.index(uuid)].read()))
        yield made_up


@pytest.fixture
def gpu_0(driver: Driver) -> Gpu:
    """The only one of a case on one card."""
    return driver.gpus[0]


def real_case(**changes: Any) -> Case:
    device = DeviceSpec("made_up", "cuda", "Made up", 24 << 30, uuid=UUID)
    return replace(made_up_case({"architectures": ["LlamaForCausalLM"]}), device=device, **changes)


def case_on_two(**changes: Any) -> Case:
    case = real_case(**changes)
    return replace(case, more_devices=(replace(case.device, uuid=UUIDS[1]),), split="auto", lazy=True)


def machine_of(case: Case, *args: Any) -> CudaMachine:
    return CudaMachine(case, EXLLAMAV2, case.devices, *args)


def card_of(case: Case, *args: Any) -> CudaCard:
    (card,) = machine_of(case, *args).cards
    return card


@pytest.mark.parametrize("tells_processes", [True, False])
def test_the_context_is_what_pytorch_did_not_reserve(gpu_0: Gpu, tells_processes: bool) -> None:
    gpu_0.tells_processes = tells_processes
    assert card_of(real_case()).context_bytes == 300 * MIB


def test_device_bytes_never_fall_below_what_was_reserved_at_the_peak(gpu_0: Gpu) -> None:
    card = card_of(real_case())
    gpu_0.reserve(4000)
    gpu_0.reserve(1000)
    memory = card.memory()
    assert memory.reserved_bytes == 1000 * MIB
    assert memory.peak_reserved_bytes == 4000 * MIB
    assert memory.device_bytes == (300 + 1000 + 500) * MIB
    assert memory.peak_device_bytes == (300 + 4000) * MIB


def test_a_limit_leaves_room_for_the_context(gpu_0: Gpu) -> None:
    card_of(real_case(vram_limit_bytes=12 << 30))
    assert gpu_0.fraction == pytest.approx(((12 << 30) - 300 * MIB) / (24 << 30))


def test_foreign_processes_are_noted(gpu_0: Gpu) -> None:
    assert machine_of(real_case(), [gpu_0.read()]).notes() == ["other processes on the GPU: 4711"]


def test_a_card_that_others_keep_small_is_what_they_left(gpu_0: Gpu) -> None:
    """Of 24 GiB, 500 MiB are a stranger's; what the holder takes beside them leaves 8 GiB."""
    foreign_processes = gpu_0.read()
    gpu_0.foreign_mib += 15884
    held_bytes = gpu_0.used_bytes
    opened = machine_of(real_case(vram_limit_bytes=8 << 30), [foreign_processes], [Ballast(held_bytes, 1, 1)])
    (card,) = opened.cards
    assert gpu_0.fraction is None  # nobody caps PyTorch
    assert card.context_bytes == 300 * MIB
    assert card.facts().held_bytes == held_bytes
    gpu_0.reserve(4000)
    memory = card.memory()
    assert memory.device_bytes == memory.peak_device_bytes == 4300 * MIB
    assert opened.notes() == [
        "other processes on the GPU: 4711",
        f"vram_limit kept by {held_bytes:,} B that others hold",
    ]


@pytest.mark.parametrize("failing", [False, True])
def test_the_rest_is_held_as_long_as_the_card_is_open(gpu_0: Gpu, failing: bool) -> None:
    held: list[Any] = []
    ballast = SimpleNamespace(held_bytes=1, release=lambda: held.append(None))
    with mock.patch.object(machine, "reserve_all_but", side_effect=lambda *asked: held.append(asked) or ballast):
        case = real_case(vram_limit_bytes=8 << 30, vram_limit_by="process")
        with suppress(ZeroDivisionError), cards.open_machine(case):
            assert held == [(8 << 30, UUID)]
            assert 1 / (not failing)
        assert held == [(8 << 30, UUID), None]
        with cards.open_machine(real_case(vram_limit_bytes=8 << 30, vram_limit_by="allocator")):
            assert gpu_0.fraction is not None
        assert len(held) == 2


def test_the_cublas_workspaces_are_what_pytorch_lets_go_of(driver: Driver) -> None:
    def block(address: int, mib: int, state: str = "active_allocated") -> dict[str, Any]:
        return {"address": address, "requested_size": mib * MIB, "state": state}

    def segment(device: int, *blocks: dict[str, Any]) -> dict[str, Any]:
        return {"device": device, "blocks": list(blocks)}

    before = [
        segment(0, block(1, 100), block(2, 32)),
        segment(0, block(3, 32), block(4, 8, "inactive")),
        segment(1, block(2, 16), block(3, 500)),
    ]
    after = [segment(0, block(1, 100), block(2, 32, "inactive")), segment(1, block(3, 500))]
    with (
        mock.patch.object(torch.cuda, "memory_snapshot", side_effect=[before, after]),
        mock.patch.object(torch._C, "_cuda_clearCublasWorkspaces", create=True),
    ):
        first, second = machine_of(case_on_two()).cards
        assert (first.facts().properties or {})["workspaces_bytes"] is None
        parts = [card.parts_at_peak(lambda: {"weights": [], "cache": [None]}) for card in (first, second)]
    assert parts[0] == {"weights_bytes": 0, "cache_bytes": 0, "workspace_bytes": 64 * MIB}
    assert parts[1] == {"weights_bytes": 0, "cache_bytes": 0, "workspace_bytes": 16 * MIB}
    assert (first.facts().properties or {})["workspaces_bytes"] == [32 * MIB, 32 * MIB]
    assert (second.facts().properties or {})["workspaces_bytes"] == [16 * MIB]


def test_every_repeat_is_timed_on_all_cards(driver: Driver) -> None:
    opened, done = machine_of(case_on_two()), list[int]()
    driver.synchronized.clear()
    samples = opened.time(lambda: done.append(1), 3)
    assert len(samples) == len(done) == 3
    assert all(sample >= 0 for sample in samples)
    assert driver.synchronized == [0, 1] * 6


def test_each_of_several_cards_tells_of_itself(driver: Driver) -> None:
    opened = machine_of(case_on_two(), [gpu.read() for gpu in driver.gpus])
    for number, (gpu, reserved) in enumerate(zip(driver.gpus, (4000, 1000), strict=True)):
        gpu.reserve(reserved)
        facts, memory = opened.cards[number].facts(), opened.cards[number].memory()
        assert (facts.properties or {})["multi_processor_count"] == (82, 46)[number]
        assert facts.context_bytes == (300 + 20 * number) * MIB
        assert memory.peak_device_bytes == (300 + 20 * number + reserved + 500) * MIB
    assert opened.notes()[:2] == ["other processes on card 0: 4711", "other processes on card 1: 4711"]
    assert opened.notes()[2:] == ["cards 0 and 1 do not reach each other's memory"]
    driver.peer_access = True
    assert opened.notes()[2:] == ["cards reach each other's memory"]
    assert opened.supports_flash_attention()
    driver.gpus[1].capability = (7, 5)
    assert not opened.supports_flash_attention()


def test_what_lives_as_long_as_the_model_is_counted_where_it_is(driver: Driver) -> None:
    def tensor(index: int, address: int, mib: int) -> SimpleNamespace:
        storage = SimpleNamespace(data_ptr=lambda: address, nbytes=lambda: mib * MIB)
        return SimpleNamespace(device=torch.device("cuda", index), untyped_storage=lambda: storage)

    shared = tensor(0, 1, 10)
    resident = {"weights": [shared, shared, tensor(1, 1, 20)], "cache": [None, tensor(1, 2, 30)]}
    parts = [card.parts_at_peak(lambda: resident) for card in machine_of(case_on_two()).cards]
    assert [(part["weights_bytes"], part["cache_bytes"]) for part in parts] == [(10 * MIB, 0), (20 * MIB, 30 * MIB)]


def test_each_of_several_cards_is_as_small_as_it_should_be(driver: Driver) -> None:
    limits = (12 << 30, None)
    machine_of(case_on_two(vram_limits_bytes=limits, vram_limit_by="allocator"))
    assert driver.gpus[0].fraction == pytest.approx(((12 << 30) - 300 * MIB) / (24 << 30))
    assert driver.gpus[1].fraction is None
    held: list[Any] = []

    def hold(left_bytes: int, uuid: str) -> SimpleNamespace:
        if left_bytes > 20 << 30:
            raise CannotReserve("not so much is free")
        held.append((left_bytes >> 30, uuid))
        return SimpleNamespace(held_bytes=len(held) << 30, release=lambda: held.append(uuid))

    with mock.patch.object(machine, "reserve_all_but", side_effect=hold):
        case = case_on_two(vram_limits_bytes=(8 << 30, 6 << 30), vram_limit_by="process")
        with cards.open_machine(case) as opened:
            assert held == [(8, UUIDS[0]), (6, UUIDS[1])]
            assert [card.facts().held_bytes for card in opened.cards] == [800 * MIB, 820 * MIB]
            assert f"vram_limit of card 1 kept by {2 << 30:,} B that others hold" in opened.notes()
        assert held[2:] == [UUIDS[1], UUIDS[0]]
        held.clear()
        with pytest.raises(CannotReserve), cards.open_machine(replace(case, vram_limits_bytes=(8 << 30, 21 << 30))):
            pass
        assert held == [(8, UUIDS[0]), UUIDS[0]]  # what was held for the first is given back


@pytest.mark.gpu
def test_a_real_gpu_counts_what_pytorch_takes(gpu: nvml.Gpu) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu.uuid
    device = DeviceSpec(gpu.name, "cuda", gpu.name, gpu.total_bytes, uuid=gpu.uuid)
    with cards.open_machine(replace(real_case(), device=device)) as opened:
        (card,) = opened.cards
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
