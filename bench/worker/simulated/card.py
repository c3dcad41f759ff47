"""One card as PyTorch knows it in a process: an allocator, a current stream, and what cuBLAS holds on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from bench.allocator.caching import CachingAllocator, OutOfMemory
from bench.allocator.limits import Limits, compute_capability
from bench.allocator.oom_text import oom_text
from bench.allocator.parts import PARTS, WORKSPACE
from bench.core.device import DeviceSpec
from bench.core.messages import CardFacts, Memory
from bench.worker.simulated.beside import BesidePyTorch


class Claim:
    """Holds one block of the allocator as long as some tensor's storage needs it."""

    __slots__ = ("_allocator", "block")

    def __init__(self, allocator: CachingAllocator, block: int) -> None:
        self._allocator = allocator
        self.block = block

    @property
    def address(self) -> int:
        """Where the block begins."""
        return self._allocator.address(self.block)

    def __del__(self) -> None:
        self._allocator.free(self.block)


class Cublas:
    """What PyTorch decides once for all cards of a process: how large each workspace is.

    It goes by the card that uses cuBLAS first (CUDABlas.cpp, getChosenWorkspaceSize; seen on the null GPU).
    """

    workspace_bytes: int | None = None


class Peaks(NamedTuple):
    """The most that was in use at once; `parts` when that was allocated."""

    allocated_bytes: int = -1
    requested_bytes: int = 0
    reserved_bytes: int = 0
    parts: Sequence[int] = ()

    def or_higher(self, allocator: CachingAllocator) -> Peaks:
        """These, or what `allocator` has seen since its own were reset."""
        stats = allocator.stats
        return Peaks(
            max(self.allocated_bytes, stats.peak_allocated_bytes),
            max(self.requested_bytes, stats.peak_requested_bytes),
            max(self.reserved_bytes, stats.peak_reserved_bytes),
            allocator.parts_at_peak if stats.peak_allocated_bytes > self.allocated_bytes else self.parts,
        )


class SimulatedCard:
    """The card `cuda:index`. `limits` are of `spec`, or of a smaller card inside it; `cublas` is the process's."""

    def __init__(
        self, index: int, spec: DeviceSpec, limits: Limits, allocator: CachingAllocator, cublas: Cublas
    ) -> None:
        self.index = index
        self.device = torch.device("cuda", index)
        self.spec = spec
        self.limits = limits
        self.allocator = allocator
        self.stream = 0  # the current one; 0 is the default
        self.beside = BesidePyTorch()
        self._fraction_bytes: int | None = None  # what torch.cuda.set_per_process_memory_fraction leaves
        self._peaks_before = Peaks()
        self._cublas = cublas
        self._streams_made = 0
        self._workspaces: dict[int, Claim] = {}

    @property
    def properties(self) -> SimpleNamespace:
        """As `torch.cuda.get_device_properties`."""
        major, minor = compute_capability(self.spec)
        return SimpleNamespace(
            name=self.spec.full_name,
            major=major,
            minor=minor,
            total_memory=self.spec.total_memory_bytes,
            multi_processor_count=self.limits.num_sms,
            is_integrated=False,
        )

    # The interface of `bench.worker.interfaces.card.Card`

    def facts(self) -> CardFacts:
        """The context alone: all else is in the catalogue."""
        return CardFacts(context_bytes=self.limits.context_bytes)

    def memory(self) -> Memory:
        """As the model of the allocator counts it; the peaks are those of the whole case, whoever reset PyTorch's."""
        stats, peaks = self.allocator.stats, self._peaks()
        context_bytes, held_bytes = self.limits.context_bytes, self.beside.held_bytes
        return Memory(
            allocated_bytes=stats.allocated_bytes,
            reserved_bytes=stats.reserved_bytes,
            device_bytes=stats.reserved_bytes + held_bytes + context_bytes,
            peak_allocated_bytes=peaks.allocated_bytes,
            peak_requested_bytes=peaks.requested_bytes,
            peak_reserved_bytes=peaks.reserved_bytes,
            peak_device_bytes=self.beside.peak_bytes(stats.reserved_bytes, peaks.reserved_bytes) + context_bytes,
        )

    def parts_at_peak(self, resident: Callable[[], dict[str, Iterable[Any]]]) -> dict[str, int | None]:
        """By the labels that allocations were given."""
        return {f"{part}_bytes": size for part, size in zip(PARTS, self._peaks().parts, strict=True)}

    # What PyTorch's own settings do with it

    def reset_peak(self) -> None:
        """`torch.cuda.reset_peak_memory_stats`."""
        self._peaks_before = self._peaks()
        self.allocator.reset_peak()

    def set_fraction(self, fraction: float) -> None:
        """`torch.cuda.set_per_process_memory_fraction`."""
        self._fraction_bytes = int(fraction * self.limits.total_bytes)
        if self.limits.device_bytes:  # expandable segments count it apart
            self.allocator.set_limit(self._fraction_bytes)
        self._leave_room()

    def take_beside(self, name: str, size_bytes: int) -> bool:
        """A buffer from the driver, for the life of the process; False where it does not fit."""
        if self.beside.has(name):
            return True
        stats, peak_bytes = self.allocator.stats, self._peaks().reserved_bytes
        taken = self.beside.take(name, size_bytes, self.mem_get_info()[0], stats.reserved_bytes, peak_bytes)
        if taken:
            self._leave_room()
        return taken

    def _leave_room(self) -> None:
        room_bytes = self.limits.mapped_bytes - self.beside.held_bytes
        if self._fraction_bytes is not None and not self.limits.device_bytes:
            room_bytes = min(room_bytes, self._fraction_bytes)
        self.allocator.set_room(room_bytes)

    def _peaks(self) -> Peaks:
        return self._peaks_before.or_higher(self.allocator)

    # What operators and stand-ins do with it

    def new_stream(self) -> int:
        """The number of a stream that no other has on this card."""
        self._streams_made += 1
        return self._streams_made

    def take(self, size_bytes: int, part: int) -> Claim:
        """Memory for `size_bytes` (> 0) on the current stream. Raises torch.OutOfMemoryError."""
        try:
            return Claim(self.allocator, self.allocator.malloc(size_bytes, self.stream, part))
        except OutOfMemory as error:
            raise self.out_of_memory(error) from None

    def out_of_memory(self, error: OutOfMemory) -> Exception:
        """What PyTorch raises in the place of `error`."""
        return torch.OutOfMemoryError(oom_text(error, self.allocator.stats, self.limits.total_bytes, self.index))

    def use_cublas(self) -> None:
        """PyTorch gives each handle and stream a workspace at the first use of cuBLAS, and keeps it."""
        if self.stream not in self._workspaces:
            if self._cublas.workspace_bytes is None:
                self._cublas.workspace_bytes = self.limits.workspace_bytes
            self._workspaces[self.stream] = self.take(self._cublas.workspace_bytes, WORKSPACE)

    def mem_get_info(self) -> tuple[int, int]:
        """Free and total bytes, as `torch.cuda.mem_get_info`."""
        held_bytes = self.allocator.stats.reserved_bytes + self.beside.held_bytes
        return self.limits.mapped_bytes - held_bytes, self.limits.total_bytes
