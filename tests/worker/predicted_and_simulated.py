"""One case predicted and simulated in this process, in figures that can be compared."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.allocator.caching import CachingAllocator
from bench.allocator.limits import case_limits
from bench.core.case import Case
from bench.core.messages import Entered, Message, Result, last
from bench.engines.exllamav2.quantised_caches import with_cache
from bench.engines.exllamav2.spec import SPEC
from bench.run.verdict import OUT_OF_MEMORY
from bench.trace.parametric import ParametricTrace, load_tensor_bytes
from bench.trace.replay import Replayer
from bench.worker import cards, recorder, scenario
from tests.worker.architectures import ARCHITECTURES, DENSE
from tests.worker.conftest import made_up_case

ENDLESS_BYTES = 1 << 50


@dataclass(frozen=True)
class Figures:
    """How a case ends: the phase in which memory runs out, and the peaks up to there."""

    failed_in: str | None
    peak_allocated_bytes: int
    peak_requested_bytes: int
    peak_reserved_bytes: int
    parts_at_peak: tuple[int, ...]


@contextmanager
def little_garbage() -> Iterator[None]:
    """Lazy loading collects garbage: it need not look at what the imports left behind, as in the fork server."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def case_of(architecture: str, layers: int, more: dict[str, Any] | None = None, **axes: Any) -> Case:
    """A case of a small model with `layers` layers, on a card that is large enough for anything."""
    config = {**DENSE, "architectures": [architecture], **ARCHITECTURES[architecture], **(more or {})}
    config |= {key: layers for key in ("num_hidden_layers", "n_layer") if key in config}
    return made_up_case(config, total_bytes=ENDLESS_BYTES, **axes)


def trace_of(case: Case, layouts: Path) -> ParametricTrace:
    """The program of a search, with every layer, as `bench.forecast.library` has it."""
    recorded = replace(case, cache=SPEC.caches[case.cache].recorded_as)
    return with_cache(recorder.make_trace(recorded, layouts).deepened(), case.cache)


def tensor_bytes_of(case: Case, layouts: Path) -> dict[str, int]:
    """The sizes of the tensors of the case's checkpoint."""
    path = layouts / "tensors.json"
    recorder.save_tensor_bytes(path, case, layouts)
    return load_tensor_bytes(path)


def predict(replayer: Replayer, case: Case) -> Figures:
    """By replay."""
    replay = replayer.replay(case.max_seq_len, case_limits(case.device, case.vram_limit_bytes, case))
    figures = vars(replay).copy()
    assert figures.pop("peak_held_bytes") == replay.peak_reserved_bytes  # nothing is taken beside PyTorch
    return Figures(**figures)


@dataclass(frozen=True)
class Ended:
    """How a case ended on simulated cards: each card's allocator, and how many layers are where if it went through."""

    failed_in: str | None
    allocators: list[CachingAllocator]
    layers: list[int] | None


def run(case: Case, layouts: Path) -> Ended:
    """By the engine's own code, on one card or several."""
    messages: list[Message] = []
    failed_in: str | None = None
    with cards.open_machine(case) as machine:
        try:
            scenario.run(case, machine, layouts, messages.append)
        except RuntimeError as error:
            if not OUT_OF_MEMORY.search(str(error)):
                raise
            entered = last(messages, Entered)
            failed_in = str(entered and entered.phase)
        # What leaves the machine with the case changes no peak.
        allocators = [card.allocator for card in machine.cards]
    result = last(messages, Result)
    return Ended(failed_in, allocators, [card.layers for card in result.cards] if result else None)


def peaks_of(allocator: CachingAllocator) -> tuple[int, int, int, tuple[int, ...]]:
    """The peaks of allocated, requested and reserved bytes, and the parts."""
    stats = allocator.stats
    peaks = (stats.peak_allocated_bytes, stats.peak_requested_bytes, stats.peak_reserved_bytes)
    return (*peaks, tuple(allocator.parts_at_peak))


def simulate(case: Case, layouts: Path) -> tuple[Figures, int]:
    """A case on one card, and how often the allocator had to give its cached segments back."""
    ended = run(case, layouts)
    (allocator,) = ended.allocators
    return Figures(ended.failed_in, *peaks_of(allocator)), allocator.stats.num_alloc_retries
