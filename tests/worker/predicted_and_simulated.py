"""One case predicted and simulated in this process, in figures that can be compared."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.allocator.limits import case_limits
from bench.core.case import Axis, Case
from bench.core.messages import Entered, Message, Result, last
from bench.engines.exllamav2.quantised_caches import with_cache
from bench.engines.exllamav2.spec import SPEC
from bench.forecast.library import bound
from bench.run.verdict import OUT_OF_MEMORY
from bench.trace.card_programs import SplitReplay
from bench.trace.parametric import ParametricTrace, load_tensor_bytes, with_draft
from bench.trace.replay import CardReplay, Replay, Replayer
from bench.worker import cards, recorder, scenario
from tests.worker.architectures import ARCHITECTURES, DENSE
from tests.worker.conftest import made_up_case

ENDLESS_BYTES = 1 << 50


@contextmanager
def little_garbage(engine: str = SPEC.name) -> Iterator[None]:
    """Lazy loading collects garbage: it need not look at what the imports left behind, as in the fork server.

    It never does again: to give all of that back to the collector would cost the tests that come after.
    """
    cards.preload("simulated", engine)
    gc.collect()
    gc.freeze()
    yield


def case_of(architecture: str, layers: int, more: dict[str, Any] | None = None, **axes: Any) -> Case:
    """A case of a small model with `layers` layers, on a card that is large enough for anything."""
    config = {**DENSE, "architectures": [architecture], **ARCHITECTURES[architecture], **(more or {})}
    config |= {key: layers for key in ("num_hidden_layers", "n_layer") if key in config}
    return made_up_case(config, total_bytes=ENDLESS_BYTES, **axes)


def trace_of(case: Case, layouts: Path, axis: Axis = Axis.MAX_SEQ_LEN) -> ParametricTrace:
    """The program of a search, with every layer, as `bench.forecast.library` has it."""
    if case.draft_model is not None:
        return recorder.make_trace(case, layouts).within(*bound(case, axis))
    recorded = replace(case, cache=SPEC.caches[case.cache].recorded_as)
    trace = with_cache(recorder.make_trace(recorded, layouts).deepened(), case.cache)
    return trace.within(*bound(case, axis))


def tensor_bytes_of(case: Case, layouts: Path) -> dict[str, int]:
    """The sizes of the tensors of the case's checkpoint, and of its draft model's."""
    path = layouts / "tensors.json"
    recorder.save_tensor_bytes(path, case, layouts)
    sizes = load_tensor_bytes(path)
    return sizes if case.of_draft is None else with_draft(sizes, tensor_bytes_of(case.of_draft, layouts))


def predict(replayer: Replayer, case: Case, length: int | None = None) -> Replay:
    """By replay, at the case's own length or at one along another axis."""
    return replayer.replay(length or case.max_seq_len, case_limits(case.device, case.vram_limit_bytes, case))


@dataclass(frozen=True)
class Ended:
    """How a case ended on simulated cards: in which phase memory ran out, if it did, and the peaks of each card.

    How many layers are where is known if it went through; `num_alloc_retries` says how often the allocators gave back
    what they had cached.
    """

    failed_in: str | None
    cards: list[CardReplay]
    layers: list[int] | None
    num_alloc_retries: int


def run(case: Case, layouts: Path) -> Ended:
    """By the engine's own code, on one card or several."""
    messages: list[Message] = []
    failed_in: str | None = None
    with cards.open_machine(case) as machine:
        try:
            scenario.run(case, machine, layouts, messages.append)
        except (RuntimeError, AssertionError) as error:  # a split that holds not all modules is the latter
            if not OUT_OF_MEMORY.search(str(error)):
                raise
            entered = last(messages, Entered)
            failed_in = str(entered and entered.phase)
        peaks = [_peaks_of(card) for card in machine.cards]
        retries = sum(card.allocator.stats.num_alloc_retries for card in machine.cards)
    result = last(messages, Result)
    return Ended(failed_in, peaks, [card.layers for card in result.cards] if result else None, retries)


def _peaks_of(card: Any) -> CardReplay:
    """As a replay tells them; what leaves the machine with the case changes none."""
    memory = card.memory()
    return CardReplay(
        peak_allocated_bytes=memory.peak_allocated_bytes,
        peak_requested_bytes=memory.peak_requested_bytes,
        peak_reserved_bytes=memory.peak_reserved_bytes,
        parts_at_peak=tuple(card.parts_at_peak(dict).values()),
        peak_held_bytes=memory.peak_device_bytes - card.limits.context_bytes,
    )


def assert_as_it_ran(predicted: SplitReplay, ended: Ended) -> None:
    """Where it goes through, every card to the byte; else the phase in which memory runs out."""
    assert predicted.failed_in == ended.failed_in
    if ended.failed_in is None:
        assert list(predicted.cards) == ended.cards
        assert list(predicted.attention_layers) == ended.layers


def simulate(case: Case, layouts: Path) -> tuple[Replay, int]:
    """A case on one card, and how often the allocator had to give its cached segments back."""
    ended = run(case, layouts)
    (card,) = ended.cards
    return Replay(ended.failed_in, **vars(card)), ended.num_alloc_retries
