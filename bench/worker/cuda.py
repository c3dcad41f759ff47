"""The real card: PyTorch's own counters beside NVML's, and CUDA time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bench import nvml
from bench.core.case import Case
from bench.core.device import DeviceSpec
from bench.core.messages import CardFacts, Memory
from bench.engines.registry import engine_of
from bench.worker.ballast import Ballast, reserve_all_but
from bench.worker.interfaces.card import Machine
from bench.worker.interfaces.engine import Engine, Unsupported


class CudaCard:
    """The GPU that CUDA_VISIBLE_DEVICES leaves visible, as `cuda:0`.

    `foreign_processes` is what NVML saw before anything of ours was there; `ballast` is held to make the card smaller
    and is no part of what the case holds.
    """

    decode_tokens = 32

    def __init__(
        self,
        case: Case,
        engine: Engine,
        foreign_processes: nvml.Reading | None = None,
        ballast: Ballast | None = None,
    ) -> None:
        self._engine = engine
        self.warm_up_tokens = engine_of(case.engine).warm_up_tokens
        self._uuid = case.device.uuid
        self._foreign_processes = foreign_processes
        self._ballast = ballast
        self._switched_off: list[str] = []
        self._before = _read(self._uuid)
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.empty(1, device="cuda:0")  # the first allocation brings the context and the allocator into being
        torch.cuda.empty_cache()
        torch.cuda.synchronize()
        self._total_bytes = torch.cuda.get_device_properties(0).total_memory
        self._peak_device_bytes = 0
        self.context_bytes = self._measure_context()
        if case.vram_limit_bytes is not None and ballast is None:
            allowed = max(0, case.vram_limit_bytes - (self.context_bytes or 0))
            torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / self._total_bytes), 0)
        self._workspaces_bytes: list[int] | None = None
        torch.cuda.reset_peak_memory_stats(0)

    @property
    def cards(self) -> tuple[CudaCard]:
        """Itself: it is a machine of one card."""
        return (self,)

    # The interfaces `Card` and `Machine` of `bench.worker.interfaces.card`

    def supports_flash_attention(self) -> bool:
        """By the compute capability that CUDA reports."""
        return torch.cuda.get_device_capability(0)[0] >= 8

    def model_dir(self, case: Case, layouts: Path) -> Path:
        """The checkpoint's own. Raises `FileNotFoundError` where there are no weights."""
        if not case.model.has_weights or case.model.path is None:
            raise FileNotFoundError(f"{case.model.name}: a real GPU needs EXL2 weights (model=local model.path=DIR)")
        return Path(case.model.path)

    def facts(self) -> CardFacts:
        """As CUDA reports them; `held_bytes` is what was used before this process had a context."""
        return CardFacts(
            context_bytes=self.context_bytes,
            cuda_version=torch.version.cuda,
            device_total_bytes=self._total_bytes,
            held_bytes=self._before.used_bytes if self._ballast and self._before else None,
            properties={
                "multi_processor_count": torch.cuda.get_device_properties(0).multi_processor_count,
                "workspaces_bytes": self._workspaces_bytes,
            },
        )

    def memory(self) -> Memory:
        """PyTorch's statistics, and what the driver says is used, less the ballast."""
        torch.cuda.synchronize()
        stats = torch.cuda.memory_stats(0)
        free_bytes, total_bytes = torch.cuda.mem_get_info(0)
        device_bytes = total_bytes - free_bytes - (self._ballast.held_bytes if self._ballast else 0)
        peak_reserved_bytes = int(stats["reserved_bytes.all.peak"])
        # Between two looks the card held at least what PyTorch reserved at its peak, and the context.
        known = [self._peak_device_bytes, device_bytes]
        if self.context_bytes is not None:
            known.append(peak_reserved_bytes + self.context_bytes)
        self._peak_device_bytes = max(known)
        return Memory(
            allocated_bytes=int(stats["allocated_bytes.all.current"]),
            reserved_bytes=int(stats["reserved_bytes.all.current"]),
            device_bytes=device_bytes,
            peak_allocated_bytes=int(stats["allocated_bytes.all.peak"]),
            peak_requested_bytes=int(stats["requested_bytes.all.peak"]),
            peak_reserved_bytes=peak_reserved_bytes,
            peak_device_bytes=self._peak_device_bytes,
        )

    def parts_at_peak(self, resident: Callable[[], dict[str, Iterable[Any]]]) -> dict[str, int | None]:
        """From the engine's own objects: what lives as long as the model. The transients at the peak are not known.

        The cuBLAS workspaces are freed to be counted: this is the last that is asked of a card.
        """
        sizes: dict[str, int | None] = {f"{part}_bytes": _bytes(tensors) for part, tensors in resident().items()}
        self._workspaces_bytes = _workspaces_bytes()
        return {
            **sizes,
            "workspace_bytes": None if self._workspaces_bytes is None else sum(self._workspaces_bytes),
        }

    def time(self, work: Callable[[], None], repeats: int) -> list[float]:
        """Seconds of each repeat, with the card synchronised before and after."""
        samples = []
        for _ in range(repeats):
            torch.cuda.synchronize()
            started = time.perf_counter()
            work()
            torch.cuda.synchronize()
            samples.append(time.perf_counter() - started)
        return samples

    def import_engine(self) -> None:
        """Imports it; what was switched off for that is noted."""
        self._switched_off = self._engine.import_engine()

    def notes(self) -> list[str]:
        # Those that were there first: in a container the driver's process numbers are not ours to compare with.
        """Other processes on the GPU, switched-off packages, and the ballast."""
        others = [process.pid for process in self._foreign_processes.processes] if self._foreign_processes else []
        notes = [f"other processes on the GPU: {', '.join(map(str, others))}"] if others else []
        notes += self._switched_off
        if self._ballast is not None:
            notes.append(f"vram_limit kept by {self._ballast.held_bytes:,} B that others hold")
        return notes

    def _measure_context(self) -> int | None:
        """What the context took: what this process holds beyond PyTorch's own, or else what the GPU lost meanwhile."""
        after = _read(self._uuid)
        if after is None:
            return None
        reserved_bytes = torch.cuda.memory_reserved(0)
        own = next((p.used_bytes for p in after.processes if p.pid == os.getpid()), None)
        if own is not None:
            return own - reserved_bytes
        if self._before is None or self._before.used_bytes is None or after.used_bytes is None:
            return None
        return after.used_bytes - self._before.used_bytes - reserved_bytes


def _bytes(tensors: Any) -> int:
    """The storages of some tensors, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t is not None}
    return sum(storages.values())


def _workspaces_bytes() -> list[int] | None:
    """What PyTorch holds for cuBLAS, one for each stream; None where this PyTorch cannot let go of it."""
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if clear is None:
        return None
    before = _blocks_in_use()
    clear()
    after = _blocks_in_use()
    return sorted(size for address, size in before.items() if address not in after)


def _blocks_in_use() -> dict[int, int]:
    """What was asked for, by address."""
    blocks = (block for segment in torch.cuda.memory_snapshot() for block in segment["blocks"])  # type: ignore[no-untyped-call]
    return {block["address"]: block["requested_size"] for block in blocks if block["state"] == "active_allocated"}


def _read(uuid: str | None) -> nvml.Reading | None:
    """What NVML says of a GPU now; None where there is none to ask for, or nobody to ask."""
    if uuid is None:
        return None
    try:
        return nvml.read(uuid)
    except nvml.NoDriver:
        return None


@contextmanager
def open_machine(case: Case, engine: Engine, devices: tuple[DeviceSpec, ...]) -> Iterator[Machine]:
    """The GPU of `case`; the parent has made it the only visible one."""
    if len(devices) > 1:
        raise Unsupported("several real cards in one case are not measured yet; take one, or simulate them")
    foreign_processes = _read(devices[0].uuid)
    ballast = None
    if case.vram_limit_bytes is not None and case.vram_limit_by == "process":
        ballast = reserve_all_but(case.vram_limit_bytes)
    try:
        yield CudaCard(case, engine, foreign_processes, ballast)
    finally:
        if ballast is not None:
            ballast.release()
