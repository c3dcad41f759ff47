"""Replays a trace through the allocator: does a case fit a card of this size, and what does it take at its peak?

This is the allocator that the simulated card uses, fed with the events that the engine would have caused there.

An example: one layer's cache takes 1 KiB for each token of `max_seq_len`, then a chunk allocates 20 KiB for each token
in it. At 2,048 tokens, of which 1,024 are there, that is 2 and 20 MiB.

>>> from bench.trace.layers import layers_of
>>> templates = [np.zeros((1, columns.NUM_COLUMNS), np.int64) for _ in range(2)]  # one allocation each
>>> templates[0][0, columns.SIZE_TERMS + 1] = 1024 * DENOMINATOR  # the second term is max_seq_len
>>> templates[1][0, columns.SIZE_TERMS + 2] = 20480 * DENOMINATOR  # the third is k_len
>>> layers, events = layers_of(templates, depth=1, period=1), np.concatenate(templates)
>>> lengths = np.stack([columns.terms(0, 0, 2048), columns.terms(256, 1024, 2048)])
>>> def replay(card_bytes):
...     state, rows = allocator.new_state(card_bytes, len(PARTS), max_blocks=8, num_streams=1), np.full(2, -1)
...     ended = sections.replay(events, layers, np.array([0, 1]), lengths, (0, 2), (1, 0, 0, 1, 0, 0), state, rows)
...     return ended, int(state.counters[allocator.PEAK_ALLOCATED]) >> 20

On 40 MiB both sections go through (0 is `DONE`), with 22 MiB in use at the peak. On 32 MiB the card is full in section
1 (1 is `FULL`): the cache's 2 MiB have taken a segment of 20, and the 18 that are left of it are too few.

>>> replay(40 << 20), replay(32 << 20)
(((1, 0), 22), ((1, 1), 2))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bench.allocator import state as allocator
from bench.allocator.beside import peak_held_bytes
from bench.allocator.compiled import as_given
from bench.allocator.limits import ENDLESS_BYTES, Limits
from bench.allocator.parts import PARTS
from bench.allocator.state import State
from bench.core.outcome import Phase
from bench.trace import sections
from bench.trace import template as columns
from bench.trace.handed_on import PLACES
from bench.trace.layers import Layers
from bench.trace.parametric import ParametricTrace
from bench.trace.passes import NoPrediction
from bench.trace.recording import Op, Size
from bench.trace.sections import CROWDED, FULL, Card
from bench.trace.template import DENOMINATOR, Array

_ENDS = 64  # sections


@dataclass(frozen=True)
class CardReplay:
    """The peaks of one card. `peak_held_bytes` is what PyTorch and all but the CUDA context hold together."""

    peak_allocated_bytes: int
    peak_requested_bytes: int
    peak_reserved_bytes: int
    parts_at_peak: tuple[int, ...]
    peak_held_bytes: int


@dataclass(frozen=True)
class Replay:
    """How a case ended: `failed_in` is the phase in which the card was full, None where it fits."""

    failed_in: str | None
    peak_allocated_bytes: int
    peak_requested_bytes: int
    peak_reserved_bytes: int
    parts_at_peak: tuple[int, ...]
    peak_held_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the case went through."""
        return self.failed_in is None


class _Plan(NamedTuple):
    """The sections of a case: their phases, their kinds, and what their sizes are made of (rows of `terms`).

    `scratch_bytes` are those of the model and of its draft model. From the section `first_decode` on, sizes differ from
    one kind of card to the next.
    """

    phases: list[str]
    kinds: Array
    lengths: Array
    scratch_bytes: tuple[int, int]
    first_decode: int


class _Stage(NamedTuple):
    """An allocator amid a case, and the block that each event has made."""

    state: State
    rows: Array

    def copy(self, limit_bytes: int) -> _Stage:
        """The same on a card of another size."""
        state = allocator.copied(self.state)
        state.counters[allocator.LIMIT] = limit_bytes - state.counters[allocator.BESIDE_BYTES]
        return _Stage(state, self.rows.copy())


class OfTrace:
    """What any replayer tells of what was recorded; of several cards that is the trace of the first.

    `shortest` is the `max_seq_len` in tokens below which a case is another than was recorded.
    """

    shortest = 0

    def is_known(self, length: int) -> bool:
        """Whether a case of that length is one that was recorded."""
        return not self.shortest or self._recorded.setup.lengths_at(length)[0] >= self.shortest

    def __init__(self, recorded: ParametricTrace) -> None:
        self._recorded = recorded

    @property
    def attention(self) -> str:
        """The back end that runs."""
        return self._recorded.setup.attention

    @property
    def reading(self) -> dict[str, Any] | None:
        """What the engine made of config.json, in plain values."""
        return self._recorded.reading


class Replayer(OfTrace):
    """One search, ready to be replayed at any length on any card: a trace and the sizes of a checkpoint's tensors."""

    def __init__(self, trace: ParametricTrace, tensor_bytes: Mapping[str, int]) -> None:
        """Raises `NoPrediction` where the checkpoint lacks a tensor that the trace loads."""
        super().__init__(trace)
        self._trace = trace.deepened()
        events, _ = self._trace.all_events
        self._layers = self._trace.layers.as_given()
        self._events = events.copy()
        sizes = np.zeros((len(self._trace.tensors), self._trace.depth + 2), np.int64)
        try:
            for index, layer, name in self._trace.tensor_names:
                sizes[index, layer + 1] = tensor_bytes[name]
        except KeyError as missing:
            raise NoPrediction(f"the checkpoint has no tensor {missing}") from None
        loads = self._events[:, columns.SIZE_RULE] == Size.TENSOR
        wanted = sizes[self._events[loads, columns.TENSOR], self._events[loads, columns.LAYER] + 1]
        self._events[loads, columns.SIZE_TERMS] = wanted * DENOMINATOR
        self._num_streams = int(self._events[:, columns.STREAM].max(initial=0)) + 1
        self._max_blocks = len(self._events) // 2 + 2
        self._depends_on_room = bool(np.any(self._events[:, columns.OP] == Op.REQUIRE))
        self._events = as_given(self._events)
        self._plans: dict[int, _Plan] = {}
        self._beginnings: dict[tuple[int, int, bool, bytes], _Stage] = {}
        self._needed: dict[int, int] = {}

    def replay(self, max_seq_len: int, limits: Limits, endless: bool = False) -> Replay:
        """The case at `max_seq_len` on a card, or on an endless one of its kind.

        Raises `NoPrediction` for lengths that the recordings say nothing about.
        """
        plan = self._plans[max_seq_len] = self._plans.get(max_seq_len) or self._plan(max_seq_len)
        card = limits.endless if endless else limits
        key = max_seq_len, limits.device_bytes, limits.beside_counted, self._asked_before_decode(plan, limits)
        if endless and not self._depends_on_room and key not in self._beginnings:
            self._beginnings[key], _ = self._run(plan, card, end=plan.first_decode)
        beginning = self._beginnings.get(key)
        if beginning is not None and card.never_refuses(peak_held_bytes(beginning.state)):
            stage, failed = self._run(plan, card, beginning)
        else:
            stage, failed = self._run(plan, card)
        return Replay(failed_in=None if failed is None else plan.phases[failed], **vars(outcome_of(stage.state)))

    def lengths_alike(self, lengths: Sequence[int], limits: Any) -> None:
        """A longer one takes no less, whatever `lengths` are."""

    def needed_bytes(self, max_seq_len: int, limits: Limits) -> int:
        """About what PyTorch must hold at that length, on any card; remembered."""
        if max_seq_len not in self._needed:
            plan = _without_middle(self._plan(max_seq_len))
            stage, _ = self._run(plan, limits.endless)
            self._needed[max_seq_len] = int(stage.state.counters[allocator.PEAK_ALLOCATED])
        return self._needed[max_seq_len]

    def _plan(self, max_seq_len: int) -> _Plan:
        phases, kinds, lengths = self._trace.sections(max_seq_len)
        scratch_bytes = self._trace.scratch_bytes(max_seq_len), self._trace.draft_scratch_bytes(max_seq_len)
        return _Plan(phases, kinds, lengths, scratch_bytes, phases.index(Phase.DECODE))

    def _asked_before_decode(self, plan: _Plan, limits: Limits) -> bytes:
        """The same for kinds of cards that are asked for the same sizes until the first token is decoded."""
        card = _card_of(limits, plan)
        flash_sizes: Array = sections.all_sizes(
            *self._trace.flash_calls, plan.kinds[: plan.first_decode], plan.lengths, card
        )
        return np.array(card, np.int64).tobytes()[8:] + flash_sizes.tobytes()  # all of the card but `num_sms`

    def _run(
        self, plan: _Plan, limits: Limits, beginning: _Stage | None = None, end: int | None = None
    ) -> tuple[_Stage, int | None]:
        """The sections before `end`, or those after a `beginning`; the last stage, and where the card was full."""
        card = _card_of(limits, plan)
        steps = (0 if beginning is None else plan.first_decode, len(plan.kinds) if end is None else end)
        while True:
            stage = self._empty_card(limits) if beginning is None else beginning.copy(limits.mapped_bytes)
            failed, ended = sections.replay(self._events, self._layers, plan.kinds, plan.lengths, steps, card, *stage)
            if ended != CROWDED:
                return stage, failed if ended == FULL else None
            self._max_blocks *= 4  # chunks that grow may leave any number of segments behind
            beginning, steps = None, (0, steps[1])

    def _empty_card(self, limits: Limits) -> _Stage:
        state = limits.new_state(len(PARTS), self._max_blocks, self._num_streams)
        return _Stage(state, as_given(np.full(len(self._events) + PLACES, -1, np.int64)))


def load_compiled() -> None:
    """Has numba load what replays run, or compile it, by replaying nothing: the first replay need not wait for that."""
    nothing, no_events = np.zeros(0, np.int64), np.zeros((0, columns.NUM_COLUMNS), np.int64)
    layers = Layers(np.zeros((0, 3), np.int64), np.zeros((0, 2), np.int64), nothing, np.zeros((0, 1), np.int64), 1)
    lengths, card = np.zeros((0, columns.NUM_TERMS), np.int64), (1, 0, 0, 1, 0, 0)
    state = allocator.new_state(ENDLESS_BYTES, len(PARTS), 2, 1)
    sections.replay(no_events, layers, nothing, lengths, (0, 0), card, state, nothing)
    sections.all_sizes(no_events, np.zeros(1, np.int64), nothing, lengths, card)
    sections.fill(no_events, np.zeros(columns.NUM_TERMS, np.int64), card, state, nothing)


def _without_middle(plan: _Plan) -> _Plan:
    """The first and the last sections of a long case: what it needs at its peak it mostly needs there."""
    if len(plan.kinds) <= 2 * _ENDS:
        return plan
    ends = np.r_[:_ENDS, len(plan.kinds) - _ENDS : len(plan.kinds)]
    phases = [plan.phases[index] for index in ends]
    return _Plan(phases, plan.kinds[ends], plan.lengths[ends], plan.scratch_bytes, phases.index(Phase.DECODE))


def _card_of(limits: Limits, plan: _Plan) -> Card:
    scratch_bytes, draft_scratch_bytes = plan.scratch_bytes
    return card_of(limits, scratch_bytes, draft_scratch_bytes=draft_scratch_bytes)


def card_of(limits: Limits, scratch_bytes: int, reserve_bytes: int = 0, draft_scratch_bytes: int = 0) -> Card:
    """What sizes follow from, beside the lengths."""
    return (
        limits.num_sms,
        limits.workspace_bytes,
        scratch_bytes,
        limits.sort_tile,
        reserve_bytes,
        draft_scratch_bytes,
    )


def outcome_of(state: State) -> CardReplay:
    """What an allocator has come to."""
    counters = state.counters
    return CardReplay(
        peak_allocated_bytes=int(counters[allocator.PEAK_ALLOCATED]),
        peak_requested_bytes=int(counters[allocator.PEAK_REQUESTED]),
        peak_reserved_bytes=int(counters[allocator.PEAK_RESERVED]),
        parts_at_peak=tuple(int(size) for size in state.parts[1]),
        peak_held_bytes=peak_held_bytes(state),
    )
