"""Others on a real GPU, by a driver that is made up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import nvml
from bench.config.cases import plan_sweep
from bench.config.devices import resolve_devices, what_is_free
from bench.config.settings import DeviceSettings
from bench.core.device import DeviceSpec
from bench.core.errors import BadInput
from bench.forecast.calibrate import Calibration
from bench.launch import launchers
from bench.nvml import Process, Reading
from bench.run import locks, tenants
from bench.run.locks import reserved
from bench.run.sweep import SweepOptions, run_sweep
from bench.run.tenants import Baseline, require_alone
from bench.store.store import read_cases
from tests.run.fake_card import FakeCard

MIB = 1 << 20
GPU = DeviceSpec("rtx_4090", "cuda", "NVIDIA GeForce RTX 4090", 24 << 30, index=0, uuid="GPU-a")


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_SHARED", tmp_path)
    monkeypatch.setattr(tenants, "_PATIENCE_S", 0.3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has NVML answer with these readings, one after the other, and then with the last."""

    def answer(*readings: Reading) -> None:
        left: Iterator[Reading] = iter(readings)
        monkeypatch.setattr(nvml, "read", lambda uuid: next(left, readings[-1]))

    return answer


def holding(mib: int, *processes: Process) -> Reading:
    return Reading(used_bytes=mib * MIB, processes=list(processes))


def test_processes_on_a_gpu_are_named_before_anything_runs(driver: Callable[..., None]) -> None:
    driver(holding(1000, Process(4711, 500 * MIB), Process(4712, None)))
    with pytest.raises(BadInput) as told:
        require_alone([GPU])
    for text in ("GPU 0", "process 4711 (500 MiB)", "process 4712 (unknown memory)", "allow_foreign=true"):
        assert text in str(told.value)


def test_a_gpu_without_others_or_of_which_nobody_tells_is_taken(
    driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for reading in (holding(10), Reading(used_bytes=MIB), Reading()):
        driver(reading)
        require_alone([GPU, replace(GPU, uuid=None)])
    monkeypatch.undo()
    require_alone([GPU])  # no driver


def test_another_sweep_on_a_gpu_is_waited_for_and_not_refused(driver: Callable[..., None]) -> None:
    driver(holding(1000, Process(4711, 500 * MIB)))
    with reserved(["GPU-a"], threading.Event()):
        require_alone([GPU])


def test_memory_that_comes_back_a_moment_later_has_not_moved(driver: Callable[..., None]) -> None:
    driver(holding(100), holding(9000), holding(9000), holding(101))
    assert Baseline.of(["GPU-a"]).moved() == []


@pytest.mark.parametrize(("after", "told"), [(600, "500 MiB more of GPU-a"), (0, "100 MiB less of GPU-a")])
def test_memory_that_does_not_come_back_is_told(driver: Callable[..., None], after: int, told: str) -> None:
    driver(holding(100), holding(after))
    (line,) = Baseline.of(["GPU-a"]).moved()
    assert line.startswith(told)


def test_what_nobody_tells_has_not_moved(driver: Callable[..., None]) -> None:
    driver(Reading(), holding(100))
    assert Baseline.of(["GPU-a"]).moved() == []


@pytest.mark.parametrize(("stays", "runs", "is_noted"), [(False, 2, False), (True, 2, True), (None, 1, False)])
def test_a_case_during_which_others_came_is_run_again_and_marked_where_they_come_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stays: bool | None, runs: int, is_noted: bool
) -> None:
    card = FakeCard()
    monkeypatch.setattr(launchers, "make_launcher", lambda *of: card)

    def read(uuid: str) -> Reading:
        """Each run of a case leaves 1,000 MiB: none, the first, or every one."""
        came = 0 if stays is None else len(card.lengths) if stays else min(len(card.lengths), 1)
        return holding(100 + 1000 * came)

    monkeypatch.setattr(nvml, "read", read)
    (case,) = plan_sweep(["model=tinyllama_1_1b", "device=t4", "max_seq_len=256"]).cases
    case = replace(case, device=GPU)
    run_sweep([case], [], SweepOptions(tmp_path / "results", "run", timeout_s=20))
    (row,) = read_cases(tmp_path / "results")[0].to_pylist()
    assert len(card.lengths) == runs
    assert any("others came or went" in note for note in row["notes"]) is is_noted


@pytest.mark.parametrize(("held_mib", "is_told"), [(2048, True), (10, False), (None, False)])
def test_without_a_limit_what_is_free_is_what_there_is_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, held_mib: int | None, is_told: bool
) -> None:
    gpu = nvml.Gpu(0, "GPU-a", "NVIDIA GeForce RTX 4090", 24 << 30, "8.9", "570.1", "12.8")
    monkeypatch.setattr(nvml, "gpus", lambda: [gpu])
    monkeypatch.setattr(nvml, "read", lambda uuid: Reading() if held_mib is None else holding(held_mib))
    (device,) = resolve_devices(DeviceSettings(kind="cuda"))
    assert [("others hold 2.00 of 24.00 GiB" in line) for line in what_is_free([device])] == [True] * is_told
    (simulated,) = plan_sweep(["model=tinyllama_1_1b", "device=t4", "max_seq_len=256"]).cases
    case = replace(simulated, device=device)
    alone = replace(case, device=replace(case.device, held_bytes=None))
    free = [Calibration({}).limits(each) for each in (case, alone)]
    assert free[1].context_bytes + (held_mib or 0) * MIB == free[0].context_bytes
    assert case.case_id({}) == alone.case_id({})  # what others hold now makes no other case


class NotFound(Exception):
    """NVML's error of what is not there."""


def _driver(**answers: Any) -> SimpleNamespace:
    def refuse(*_: object) -> None:
        raise NotFound

    usual = {
        "nvmlInit": lambda: None,
        "nvmlSystemGetDriverVersion": lambda: "570.1",
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 12080,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: f"whole-{index}",
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetCudaComputeCapability": lambda handle: (9, 0),
        "nvmlDeviceGetUUID": lambda handle: f"MIG-{handle}" if "part" in handle else f"GPU-{handle}",
        "nvmlDeviceGetName": lambda handle: f"NVIDIA {handle}",
        "nvmlDeviceGetMemoryInfo": lambda handle, version=None: SimpleNamespace(
            total=10 if "part" in handle else 80, used=1, reserved=0
        ),
        "nvmlDeviceGetMigMode": refuse,
        "nvmlDeviceGetComputeRunningProcesses": refuse,
        "NVMLError": NotFound,
        "nvmlMemory_v2": 2,
    }
    return SimpleNamespace(**{**usual, **answers})


def _part(handle: str, number: int) -> str:
    if number > 1:
        raise NotFound
    return f"{handle}-part-{number}"


def test_a_gpu_that_mig_divides_is_its_instances_each_with_its_own_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = _driver(
        nvmlDeviceGetMigMode=lambda handle: (1, 1) if handle == "whole-0" else (0, 0),
        nvmlDeviceGetMaxMigDeviceCount=lambda handle: 7,
        nvmlDeviceGetMigDeviceHandleByIndex=_part,
    )
    monkeypatch.setattr(nvml, "pynvml", driver)
    assert [(gpu.index, gpu.uuid, gpu.total_bytes) for gpu in nvml.gpus()] == [
        (0, "MIG-whole-0-part-0", 10),
        (1, "MIG-whole-0-part-1", 10),
        (2, "GPU-whole-1", 80),
    ]
    assert nvml.read("MIG-whole-0-part-1").total_bytes == 80 - 70


@pytest.mark.parametrize(
    ("answer", "processes"),
    [
        (None, None),
        ([], []),
        ([(7, None), (8, 0), (9, 5)], [Process(7, None), Process(8, None), Process(9, 5)]),
    ],
)
def test_what_a_driver_does_not_tell_of_processes_is_null_and_never_0(
    monkeypatch: pytest.MonkeyPatch, answer: list[tuple[int, int | None]] | None, processes: list[Process] | None
) -> None:
    def running(handle: str) -> list[SimpleNamespace]:
        if answer is None:
            raise NotFound
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in answer]

    monkeypatch.setattr(nvml, "pynvml", _driver(nvmlDeviceGetComputeRunningProcesses=running))
    assert nvml.read("GPU-a").processes == processes
