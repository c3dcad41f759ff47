"""The simulated machine: the engine's own Python code over fake CUDA tensors and models of PyTorch's allocator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.allocator import flash, sort
from bench.allocator.caching import CachingAllocator
from bench.allocator.limits import Limits, case_limits, limits_of, supports_flash_attention
from bench.allocator.parts import PARTS
from bench.allocator.requests import NotingAllocator
from bench.core.case import Case
from bench.core.device import DeviceSpec
from bench.notes.rules import notes_of_cards
from bench.scenarios.registry import scenario_of
from bench.worker.simulated import attention, copies, cuda_api, operators
from bench.worker.simulated.card import Cublas, SimulatedCard
from bench.worker.simulated.compiler import keep_out_compiler
from bench.worker.simulated.engine import SimulatedEngine
from bench.worker.simulated.tensor import Observer, SimulatedCuda

_CUDA = SimulatedCuda({**operators.RULES, **copies.RULES, **attention.RULES})
_preloaded: set[str] = set()  # names of engines


class SimulatedMachine:
    """The cards of one case. Each `DeviceSpec` says how large a card is and what a CUDA context takes of it."""

    def __init__(self, case: Case, engine: SimulatedEngine, devices: tuple[DeviceSpec, ...]) -> None:
        self.pace = scenario_of(case.scenario).simulated_pace
        self._engine = engine
        cublas = Cublas()
        self.cards = [
            _card(index, spec, case_limits(spec, limit_bytes, case), cublas)
            for index, (spec, limit_bytes) in enumerate(zip(devices, case.limits_bytes, strict=True))
        ]

    # The interface of `bench.worker.interfaces.card.Machine`

    def import_engine(self) -> None:
        """Imports it over its stand-ins, where that is not done yet."""
        preload(self._engine)

    def supports_flash_attention(self) -> bool:
        """By the compute capabilities of the catalogue."""
        return all(supports_flash_attention(card.spec) for card in self.cards)

    def model_dir(self, case: Case, layouts: Path) -> Path:
        """The checkpoint's own, or a layout without weights."""
        if case.model.has_weights and case.model.path is not None:
            return Path(case.model.path)
        return self._engine.layout_of(case, layouts)

    def time(self, work: Callable[[], None], repeats: int) -> list[float]:
        """Does the work once; a simulated card has no times."""
        work()
        return []

    def peak_host_bytes(self) -> int | None:
        """None: tensors that nobody reads have no memory here."""
        return None

    def notes(self) -> list[str]:
        """What the catalogue assumes of the cards."""
        return notes_of_cards([card.spec for card in self.cards])

    def use(self, allocators: Sequence[CachingAllocator], observer: Observer) -> None:
        """Gives each card another allocator before anything is allocated; `observer` hears what those cannot.

        What the driver gives to others than PyTorch has no limit then.
        """
        for card, allocator in zip(self.cards, allocators, strict=True):
            card.allocator = allocator
            card.limits = card.limits.endless
        _CUDA.observer = observer


def _card(index: int, spec: DeviceSpec, limits: Limits, cublas: Cublas) -> SimulatedCard:
    allocator = NotingAllocator(limits.mapped_bytes, len(PARTS), limits.device_bytes, limits.fraction_bytes)
    return SimulatedCard(index, spec, limits, allocator, cublas)


def preload(engine: SimulatedEngine) -> None:
    """Imports an engine over its stand-ins, once for all cards that this process and its forks will simulate."""
    if engine.name in _preloaded:
        return
    if not _preloaded:
        keep_out_compiler()
        cuda_api.allow_cuda_devices()
        sys.modules.update(attention.modules(attention.FlashAttention(_CUDA)))
    sys.modules.update(engine.stand_ins(_CUDA))
    nothing = DeviceSpec("", "simulated", "", 0)  # an engine may look at what is there
    _CUDA.start([_card(0, nothing, limits_of(nothing, None), Cublas())], engine.part_of)
    with cuda_api.patched(_CUDA):
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
    flash.kvcache_temporaries(1, 1, 1, 64, 1, 1, -1, 1)
    sort.workspace_bytes(sort.SHORT_ROW + 1, 1)


@contextmanager
def open_machine(
    case: Case, engine: SimulatedEngine, devices: tuple[DeviceSpec, ...], peer_access: bool = False
) -> Iterator[SimulatedMachine]:
    """A machine of these cards for `case`, in force until the block ends.

    `peer_access` says whether its cards reach each other's memory; by default the driver moves what they copy.
    """
    preload(engine)
    engine.start_machine()
    machine = SimulatedMachine(case, engine, devices)
    _CUDA.start(machine.cards, engine.part_of, peer_access)
    with cuda_api.patched(_CUDA), engine.shortcuts(_CUDA), _CUDA:
        yield machine
