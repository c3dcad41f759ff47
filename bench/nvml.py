"""The only door to NVML: what the driver says of its GPUs. Needs no CUDA context and makes none.

Every reading that a GPU or driver does not offer is None.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

try:
    import pynvml
except Exception as error:  # the old package of this name, or half of one
    pynvml = None
    _WHY_NOT = f"NVML: nvidia-ml-py cannot be imported ({type(error).__name__}: {error})"


# nvmlGpuTopologyLevel_t, in the words of `nvidia-smi topo -m`.
_PATHS = {0: "PIX", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}


_MIG_ENABLED = 1  # NVML_DEVICE_MIG_ENABLE


class NoDriver(RuntimeError):
    """NVML cannot be used here; the text says why."""


@dataclass(frozen=True)
class Process:
    """A process that holds memory on a GPU; `used_bytes` is None where the driver does not tell."""

    pid: int
    used_bytes: int | None


@dataclass(frozen=True)
class Gpu:
    """One GPU as the driver lists it."""

    index: int
    uuid: str
    name: str
    total_bytes: int
    compute_capability: str
    driver_version: str
    cuda_driver_version: str


@dataclass(frozen=True)
class Reading:
    """One look at a GPU. `processes` is None where the driver does not tell of any (WSL).

    `reserved_bytes` is the driver's own and no part of `used_bytes` (NVML's memory info v2).
    """

    total_bytes: int | None = None
    used_bytes: int | None = None
    reserved_bytes: int | None = None
    processes: list[Process] | None = None
    energy_mj: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    throttle_reasons: int | None = None


@dataclass(frozen=True)
class Link:
    """How two GPUs are connected; None where the driver does not tell.

    `path` is nvidia-smi's word for what lies between them (`PIX` to `SYS`); `peer_access` is whether each reads the
    other's memory, so that copies need not go through the host's.
    """

    path: str | None
    peer_access: bool | None


def gpus() -> list[Gpu]:
    """Every GPU of this machine; of one that is divided by MIG its instances, which are what CUDA sees.

    Raises `NoDriver` where there is no driver to ask.
    """
    _start()
    try:
        return _list()
    except (pynvml.NVMLError, AttributeError) as error:  # the old pynvml lacks functions
        raise NoDriver(f"NVML: {error}") from error


def _list() -> list[Gpu]:
    driver = _text(pynvml.nvmlSystemGetDriverVersion())
    cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
    found = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        found += [
            Gpu(
                index=0,
                uuid=_text(pynvml.nvmlDeviceGetUUID(each)),
                name=_text(pynvml.nvmlDeviceGetName(each)),
                total_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(each).total),
                compute_capability=f"{major}.{minor}",
                driver_version=driver,
                cuda_driver_version=f"{cuda // 1000}.{cuda % 1000 // 10}",
            )
            for each in _instances(handle) or [handle]
        ]
    return [replace(gpu, index=index) for index, gpu in enumerate(found)]


def _instances(handle: Any) -> list[Any]:
    """The instances of a GPU that MIG divides; none of one that is whole."""
    mode = _try(lambda: pynvml.nvmlDeviceGetMigMode(handle)[0])
    if mode != _MIG_ENABLED:
        return []
    most = _try(lambda: int(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle))) or 0
    asked = [_try(partial(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)) for number in range(most)]
    return [each for each in asked if each is not None]


def read(uuid: str) -> Reading:
    """What GPU `uuid` says now. Raises `NoDriver` where there is no driver to ask."""
    _start()
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except pynvml.NVMLError as error:
        raise NoDriver(f"NVML: GPU {uuid}: {error}") from error
    memory = _try(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2))
    if memory is None:
        memory = _try(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))  # v1: no `reserved`, it counts as used
    running = _try(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
    return Reading(
        total_bytes=int(memory.total) if memory else None,
        used_bytes=int(memory.used) if memory else None,
        reserved_bytes=_try(lambda: int(memory.reserved)),
        # Where a driver does not tell what a process holds, it says so, or 0: WDDM manages that memory by itself.
        processes=None if running is None else [Process(p.pid, int(p.usedGpuMemory or 0) or None) for p in running],
        energy_mj=_try(lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))),
        sm_clock_mhz=_try(lambda: int(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))),
        memory_clock_mhz=_try(lambda: int(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM))),
        temperature_c=_try(lambda: int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))),
        throttle_reasons=_try(lambda: int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))),
    )


def link(one: str, other: str) -> Link:
    """How the GPUs of two uuids are connected. Raises `NoDriver` where there is no driver to ask."""
    _start()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in (one, other)]
    except pynvml.NVMLError as error:
        raise NoDriver(f"NVML: {error}") from error
    level = _try(lambda: int(pynvml.nvmlDeviceGetTopologyCommonAncestor(*handles)))
    status = _try(lambda: int(pynvml.nvmlDeviceGetP2PStatus(*handles, pynvml.NVML_P2P_CAPS_INDEX_READ)))
    return Link(
        path=None if level is None else _PATHS.get(level),
        peer_access=None if status is None else status == pynvml.NVML_P2P_STATUS_OK,
    )


def _start() -> None:
    """Starts NVML, which counts its starts: all but the first are cheap, and the end of the process ends it."""
    if pynvml is None:
        raise NoDriver(_WHY_NOT)
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoDriver(f"NVML: {error}") from error


def _try(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except (pynvml.NVMLError, AttributeError):
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
