"""Replays a case on several cards that are filled one after the other, each through an allocator of its own.

Loading goes from card to card: a module that a card has no room for is taken back, and the next card begins with it
(`bench.core.split.SplitBy.AUTO`). From there on each card has its modules, and is replayed by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bench.allocator import caching
from bench.allocator import state as allocator
from bench.allocator.limits import Limits, MachineLimits
from bench.allocator.parts import CACHE, PARTS
from bench.allocator.state import State
from bench.core.outcome import Phase
from bench.trace import sections
from bench.trace.layers import Layers, layers_of
from bench.trace.parametric import Sections, concatenated
from bench.trace.passes import NoPrediction
from bench.trace.recording import Op
from bench.trace.replay import CardReplay, Replay, card_of, outcome_of
from bench.trace.sections import FULL
from bench.trace.split import BEGINNING, CardTemplates, Place, SplitTrace, Stretch, place_at
from bench.trace.template import BLOCK, LAYER, MODULE, NUM_COLUMNS, OP, PART, STREAM, Array


@dataclass(frozen=True)
class SplitReplay(Replay):
    """How a case ended on several cards: sums, and each card by itself.

    `failed_on` is the number of the card that was full. A card without modules has no stretch of them.
    """

    failed_on: int | None
    cards: tuple[CardReplay, ...]
    stretches: tuple[Stretch | None, ...]
    attention_layers: tuple[int, ...]


class _Loaded(NamedTuple):
    """A card after loading: its modules, and its allocator."""

    stretch: Stretch
    state: State


class _Program(NamedTuple):
    events: Array
    layers: Layers


class SplitReplayer:
    """One search, ready to be replayed at any length on any cards: see `bench.trace.replay.Replayer`."""

    def __init__(self, trace: SplitTrace, tensor_bytes: Mapping[str, int], reserve_bytes: Sequence[int]) -> None:
        """`reserve_bytes` is kept free on each card while it is filled."""
        self._trace = trace
        self._templates = CardTemplates(trace, tensor_bytes)
        self._reserve_bytes = tuple(reserve_bytes)
        self._sections: dict[tuple[int, int], Sections] = {}
        self._loads: dict[tuple[Place, str], Array] = {}
        self._programs: dict[Stretch, _Program] = {}
        self._needed: dict[int, int] = {}
        self._num_streams = 1 + max(
            int(template[:, STREAM].max(initial=0))
            for each in trace.beginnings.values()
            for template in each.templates.values()
        )

    @property
    def attention(self) -> str:
        """The back end that runs."""
        return self._trace.first.setup.attention

    @property
    def reading(self) -> dict[str, Any] | None:
        """What the engine made of config.json, in plain values."""
        return self._trace.first.reading

    def replay(self, max_seq_len: int, limits: MachineLimits, endless: bool = False) -> SplitReplay:
        """The case at `max_seq_len` on cards, or on endless ones. Raises `NoPrediction`."""
        cards = [each.endless if endless else each for each in limits.cards]
        loaded, is_whole = self._load(max_seq_len, cards)
        failed: tuple[int, int] | None = None
        if not is_whole:
            failed = (0, len(cards) - 1)
        else:
            for number, card in enumerate(loaded):
                step = self._run(max_seq_len, card, cards[number], number)
                if step is not None:
                    failed = min(failed or (step, number), (step, number))
        unused = len(cards) - len(loaded)
        outcomes = [outcome_of(card.state) for card in loaded] + [outcome_of(self._empty_card(cards[0], 0))] * unused
        phase = None if failed is None else self._sections_of(BEGINNING, max_seq_len).phases[failed[0]]
        return SplitReplay(
            failed_in=phase,
            peak_allocated_bytes=sum(card.peak_allocated_bytes for card in outcomes),
            peak_requested_bytes=sum(card.peak_requested_bytes for card in outcomes),
            peak_reserved_bytes=sum(card.peak_reserved_bytes for card in outcomes),
            parts_at_peak=tuple(map(sum, zip(*(card.parts_at_peak for card in outcomes), strict=True))),
            failed_on=None if failed is None else failed[1],
            cards=tuple(outcomes),
            stretches=(*(card.stretch for card in loaded), *[None] * unused),
            attention_layers=(*(self._templates.attention_layers(card.stretch) for card in loaded), *[0] * unused),
        )

    def needed_bytes(self, max_seq_len: int, limits: MachineLimits) -> int:
        """About what PyTorch must hold at that length, on any cards; remembered."""
        if max_seq_len not in self._needed:
            loaded, _ = self._load(max_seq_len, [limits.cards[0].endless])
            self._needed[max_seq_len] = int(loaded[0].state.counters[allocator.PEAK_ALLOCATED])
        return self._needed[max_seq_len]

    def _load(self, max_seq_len: int, limits: Sequence[Limits]) -> tuple[list[_Loaded], bool]:
        """The cards that got modules, and whether the last of them got all that was left."""
        loaded: list[_Loaded] = []
        begin = BEGINNING
        for number, each in enumerate(limits):
            events = self._loading(begin, max_seq_len)
            state = self._empty_card(each, len(events))
            rows = np.full(len(events), -1, np.int64)
            plan = self._sections_of(begin, max_seq_len)
            card = self._card(each, number, max_seq_len)
            done = sections.fill(events, plan.terms[0], card, state, rows)
            if done == len(events):
                return [*loaded, _Loaded(Stretch(begin, None), state)], True
            end = place_at(events, done, self._templates, begin)
            last_card = number == len(limits) - 1
            if not last_card and end <= begin:
                raise NoPrediction("no recording shows a card that has room for no module")
            if not last_card:
                _take_back(events, done, state, rows)
            loaded.append(_Loaded(Stretch(begin, end), state))
            begin = end
        return loaded, False

    def _run(self, max_seq_len: int, card: _Loaded, limits: Limits, number: int) -> int | None:
        """All after loading, on one card; the section in which it was full."""
        program, plan = self._passes(card.stretch), self._sections_of(card.stretch.begin, max_seq_len)
        rows = np.full(len(program.events), -1, np.int64)
        asked = self._card(limits, number, max_seq_len)
        steps = (1, len(plan.kinds))
        failed, ended = sections.replay(
            program.events, program.layers, plan.kinds, plan.terms, steps, asked, card.state, rows
        )
        if ended == sections.CROWDED:
            raise NoPrediction("too many blocks")
        return failed if ended == FULL else None

    def _card(self, limits: Limits, number: int, max_seq_len: int) -> sections.Card:
        reserve = self._reserve_bytes[number]
        return card_of(limits, self._trace.first.scratch_bytes(max_seq_len), reserve)

    def _sections_of(self, begin: Place, max_seq_len: int) -> Sections:
        trace = self._templates.trace_of(begin)
        key = id(trace), max_seq_len
        if key not in self._sections:
            self._sections[key] = trace.sections(max_seq_len)
        return self._sections[key]

    def _loading(self, begin: Place, max_seq_len: int) -> Array:
        """What a card that begins there is asked for until it has all that follows."""
        kind = list(self._templates.trace_of(begin).templates)[self._sections_of(begin, max_seq_len).kinds[0]]
        key = (begin, kind)
        if key not in self._loads:
            events = self._templates.of(Stretch(begin, None), kind).copy()
            self._templates.put_tensors(events, begin)
            self._loads[key] = events
        return self._loads[key]

    def _passes(self, stretch: Stretch) -> _Program:
        key = stretch
        if key not in self._programs:
            trace, depth = self._templates.trace_of(stretch.begin), self._templates.num_layers(stretch)
            nothing = np.zeros((0, NUM_COLUMNS), np.int64)
            templates = [
                nothing if kind.startswith(Phase.LOAD) else self._templates.of(stretch, kind)
                for kind in trace.templates
            ]
            self._programs[key] = _Program(concatenated(templates)[0], layers_of(templates, depth, trace.period))
        return self._programs[key]

    def _empty_card(self, limits: Limits, num_events: int) -> State:
        return limits.new_state(len(PARTS), 2 * num_events + 4096, self._num_streams)


def _take_back(events: Array, done: int, state: State, rows: Array) -> None:
    """What a module has taken that did not fit, and all that the card would have given back at the end of loading.

    What the first of its kind has taken of the cache, beside what each does, stays: it is for all that would follow.
    """
    modules = events[:, [LAYER, MODULE]]
    same = np.all(modules == modules[done], axis=1)
    caches = (events[:, OP] == Op.MALLOC) & (events[:, PART] == CACHE)
    following = np.all(modules == modules[done] + [1, 0], axis=1)
    shared = int(np.sum(caches & same) - np.sum(caches & following)) if following.any() else 0
    stays = set(np.flatnonzero(caches & same)[:shared].tolist())
    later = events[done:]
    freed = set(later[later[:, OP] == Op.FREE, BLOCK].tolist())
    first = int(np.argmax(same))
    for index in np.flatnonzero(rows[:done] >= 0).tolist():
        if index in freed or (index >= first and index not in stays):
            caching.free(state, int(rows[index]))
    caching.empty_cache(state)
