"""Replays a case on several cards that all have a part of every layer, each through an allocator of its own.

Parts may change with the length: the engine divides by what the cards have left beside the cache that it expects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import numpy as np

from bench.allocator.compiled import as_given
from bench.allocator.limits import MachineLimits
from bench.allocator.parts import PARTS
from bench.trace import sections
from bench.trace import template as columns
from bench.trace.card_programs import Loaded, SplitReplay, outcome_of_cards
from bench.trace.divided import PartsOfCards, divided
from bench.trace.parametric import ParametricTrace, Sections
from bench.trace.passes import NoPrediction
from bench.trace.recording import Size
from bench.trace.replay import OfTrace, card_of
from bench.trace.split import BEGINNING, SplitTrace, Stretch, card_name
from bench.trace.template import DENOMINATOR, Array

_KEPT_PROGRAMS = 64
_ALL = Stretch(BEGINNING, None)


class Division(NamedTuple):
    """Of each part of a layer what each card has, and the scratch buffer of each card in bytes."""

    parts: tuple[tuple[int, ...], ...]
    scratch_bytes: tuple[int, ...]


# The division at a length on these cards. Raises `NoPrediction` where some card has no part, or the engine ends.
Dividing = Callable[[int, MachineLimits], Division]


class DividedReplayer(OfTrace):
    """One search, ready to be replayed at any length on any cards: see `bench.trace.replay.Replayer`."""

    def __init__(
        self,
        trace: SplitTrace,
        tensor_bytes: Mapping[str, int],
        divide: Dividing,
        cannot_run: Callable[[int, MachineLimits], bool],
    ) -> None:
        """`cannot_run` says of a length that the engine would end, or that a card is full with what is known of it.

        Raises `NoPrediction` where the checkpoint lacks a tensor.
        """
        assert trace.split_sizes is not None
        super().__init__(trace.first)
        self._depth = trace.first.depth
        self._divide = divide
        self._cannot_run = cannot_run
        self._divisions: Sequence[PartsOfCards] = trace.split_sizes["divisions"]
        count = len(trace.beginnings)
        self._cards = [_Card(trace.beginnings[card_name(number)], tensor_bytes) for number in range(count)]
        self._events = lru_cache(_KEPT_PROGRAMS)(self._divided_events)
        self._needed: dict[tuple[int, MachineLimits], int] = {}

    def lengths_alike(self, lengths: Sequence[int], limits: MachineLimits) -> list[Sequence[int]]:
        """Of `lengths`, those that follow one another and have the same division: a longer one takes no less."""
        possible = [length for length in lengths if not self._cannot_run(length, limits)] or lengths[:1]
        return [list(alike) for _, alike in groupby(possible, key=lambda length: self._divide(length, limits))]

    def replay(self, max_seq_len: int, limits: MachineLimits, endless: bool = False) -> SplitReplay:
        """The case at `max_seq_len` on cards, or divided as on these on endless ones. Raises `NoPrediction`."""
        division = self._divide(max_seq_len, limits)
        self._require_shown(division)
        failed: tuple[int, int] | None = None
        cards: list[Loaded] = []
        phases: list[str] = []
        for number, (card, each) in enumerate(zip(self._cards, limits.cards, strict=True)):
            plan = card.plan(max_seq_len)
            phases = plan.phases
            events = self._events(number, division.parts)
            bound = each.endless if endless else each
            state = bound.new_state(len(PARTS), 2 * len(events) + 4096, card.num_streams)
            rows = as_given(np.full(len(events), -1, np.int64))
            about = card_of(each, division.scratch_bytes[number])
            steps = (0, len(plan.kinds))
            step, ended = sections.replay(events, card.layers, plan.kinds, plan.terms, steps, about, state, rows)
            if ended == sections.CROWDED:
                raise NoPrediction("too many blocks")
            if ended == sections.FULL:
                failed = min(failed or (step, number), (step, number))
            cards.append(Loaded(_ALL, state))
        phase, failed_on = (None, None) if failed is None else (phases[failed[0]], failed[1])
        return outcome_of_cards(cards, [self._depth] * len(cards), phase, failed_on)

    def needed_bytes(self, max_seq_len: int, limits: MachineLimits) -> int:
        """About what PyTorch must hold at that length on these cards; remembered."""
        key = max_seq_len, limits
        if key not in self._needed:
            self._needed[key] = self.replay(max_seq_len, limits, endless=True).peak_allocated_bytes
        return self._needed[key]

    def _divided_events(self, number: int, parts: PartsOfCards) -> Array:
        return divided(self._cards[number].events, self._divisions[0], parts)

    def _require_shown(self, division: Division) -> None:
        """A part that was the same in all recordings is known at that size alone."""
        recorded = np.array([np.ravel(parts) for parts in self._divisions], np.int64)
        wanted = np.array(np.ravel(division.parts), np.int64)
        if np.any((wanted != recorded[0]) & np.all(recorded == recorded[0], axis=0)):
            raise NoPrediction("no recording shows how its allocations follow a part of some card")


class _Card:
    """What one card is asked for, with every layer and the sizes of the checkpoint's tensors."""

    def __init__(self, trace: ParametricTrace, tensor_bytes: Mapping[str, int]) -> None:
        self._trace = trace.deepened()
        self.layers = self._trace.layers
        self.events = self._trace.all_events[0].copy()
        self.num_streams = 1 + int(self.events[:, columns.STREAM].max(initial=0))
        sizes = np.zeros((len(trace.tensors), trace.depth + 2), np.int64)
        for index, layer, name in self._trace.tensor_names:
            if name not in tensor_bytes:
                raise NoPrediction(f"the checkpoint has no tensor {name}")
            sizes[index, layer + 1] = tensor_bytes[name]
        named = self.events[:, columns.SIZE_RULE] == Size.TENSOR
        of_tensor = self.events[named]
        whole = sizes[of_tensor[:, columns.TENSOR], of_tensor[:, columns.LAYER] + 1]
        shared = whole * of_tensor[:, columns.SHARE]
        if np.any(shared % of_tensor[:, columns.SHARES]):
            raise NoPrediction("a part of a tensor is no whole number of bytes")
        self.events[named, columns.SIZE_TERMS] = shared // of_tensor[:, columns.SHARES] * DENOMINATOR
        self._plans: dict[int, Sections] = {}

    def plan(self, max_seq_len: int) -> Sections:
        """Every section of a case of that length. Raises `NoPrediction`."""
        if max_seq_len not in self._plans:
            self._plans[max_seq_len] = self._trace.sections(max_seq_len)
        return self._plans[max_seq_len]
