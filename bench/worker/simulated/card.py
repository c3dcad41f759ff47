"""The simulated card: the engine's own Python code over fake CUDA tensors and a model of PyTorch's allocator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.allocator import flash, sort
from bench.allocator.caching import CachingAllocator
from bench.allocator.limits import compute_capability, limits_of, supports_flash_attention
from bench.allocator.parts import PARTS
from bench.allocator.requests import NotingAllocator
from bench.core.case import Case
from bench.core.messages import CardFacts, Memory
from bench.notes.rules import notes_of_card
from bench.scenarios.registry import scenario_of
from bench.worker.simulated import attention, cuda_api, operators
from bench.worker.simulated.compiler import keep_out_compiler
from bench.worker.simulated.engine import SimulatedEngine
from bench.worker.simulated.tensor import Observer, SimulatedCuda

_CUDA = SimulatedCuda({**operators.RULES, **attention.RULES})
_preloaded: set[str] = set()  # names of engines


class SimulatedCard:
    """One case's card. `Case.device` says how large it is and what a CUDA context takes of it."""

    def __init__(self, case: Case, engine: SimulatedEngine) -> None:
        device = case.device
        self.warm_up_tokens, self.decode_tokens = scenario_of(case.scenario).simulated_pace
        self._engine = engine
        self._device = device
        self.limits = limits_of(device, case.vram_limit_bytes)
        self.allocator: CachingAllocator = NotingAllocator(self.limits.torch_bytes, len(PARTS))

    # The interface of `bench.worker.interfaces.card.Card`

    def import_engine(self) -> None:
        """Imports it over its stand-ins, where that is not done yet."""
        preload(self._engine)

    def supports_flash_attention(self) -> bool:
        """By the compute capability of the catalogue."""
        return supports_flash_attention(self._device)

    def model_dir(self, case: Case, layouts: Path) -> Path:
        """The checkpoint's own, or a layout without weights."""
        if case.model.has_weights and case.model.path is not None:
            return Path(case.model.path)
        return self._engine.layout_of(case, layouts)

    def facts(self) -> CardFacts:
        """The context alone: all else is in the catalogue."""
        return CardFacts(context_bytes=self.limits.context_bytes)

    def memory(self) -> Memory:
        """As the model of the allocator counts it."""
        stats = self.allocator.stats
        return Memory(
            allocated_bytes=stats.allocated_bytes,
            reserved_bytes=stats.reserved_bytes,
            device_bytes=stats.reserved_bytes + self.limits.context_bytes,
            peak_allocated_bytes=stats.peak_allocated_bytes,
            peak_requested_bytes=stats.peak_requested_bytes,
            peak_reserved_bytes=stats.peak_reserved_bytes,
            peak_device_bytes=stats.peak_reserved_bytes + self.limits.context_bytes,
        )

    def parts_at_peak(self, resident: Callable[[], dict[str, Iterable[Any]]]) -> dict[str, int | None]:
        """By the labels that allocations were given."""
        return {f"{part}_bytes": size for part, size in zip(PARTS, self.allocator.parts_at_peak, strict=True)}

    def time(self, work: Callable[[], None], repeats: int) -> list[float]:
        """Does the work once; a simulated card has no times."""
        work()
        return []

    def notes(self) -> list[str]:
        """What the catalogue assumes of the card."""
        return notes_of_card(self._device)

    def use(self, allocator: CachingAllocator, observer: Observer) -> None:
        """Takes another allocator before anything is allocated; `observer` hears what else there is to know."""
        self.allocator = _CUDA.allocator = allocator
        _CUDA.observer = observer

    def mem_get_info(self) -> tuple[int, int]:
        """Free and total bytes, as `torch.cuda.mem_get_info`."""
        return self.allocator.limit_bytes - self.allocator.stats.reserved_bytes, self.limits.total_bytes


def preload(engine: SimulatedEngine) -> None:
    """Imports an engine over its stand-ins, once for all cards that this process and its forks will simulate."""
    if engine.name in _preloaded:
        return
    if not _preloaded:
        keep_out_compiler()
        cuda_api.allow_cuda_devices()
        sys.modules.update(attention.modules(attention.FlashAttention(_CUDA)))
    sys.modules.update(engine.stand_ins(_CUDA))
    ampere = SimpleNamespace(name="", major=8, minor=0, total_memory=0, multi_processor_count=1)
    with cuda_api.patched(_CUDA, ampere, lambda: (0, 0)):
        engine.import_simulated()
    if not _preloaded:
        _compile()
    _preloaded.add(engine.name)


def _compile() -> None:
    """Has numba compile the model of memory now, by using all of it once.

    In the middle of a case the frames of the engine, and the tensors in them, would outlive their calls: the compiler
    raises and catches, and what it caught goes with the garbage.
    """
    allocator = NotingAllocator(1 << 30)
    allocator.start()
    allocator.free(allocator.malloc(1))
    allocator.empty_cache()
    requests = allocator.stop()
    allocator.repeat(requests, np.empty(len(requests.asked), np.int64))
    flash.temporaries(1, 1, 1, 64, 1, 1, -1, 1)
    sort.workspace_bytes(sort.SHORT_ROW + 1, 1)


@contextmanager
def open_card(case: Case, engine: SimulatedEngine) -> Iterator[SimulatedCard]:
    """The card of `case`, in force until the block ends."""
    preload(engine)
    engine.start_card()
    card = SimulatedCard(case, engine)
    device = case.device
    major, minor = compute_capability(device)
    properties = SimpleNamespace(
        name=device.full_name,
        major=major,
        minor=minor,
        total_memory=device.total_memory_bytes,
        multi_processor_count=card.limits.num_sms,
    )
    _CUDA.start(card.allocator, card.limits, engine.part_of)
    with cuda_api.patched(_CUDA, properties, card.mem_get_info), engine.shortcuts(_CUDA), _CUDA:
        yield card
