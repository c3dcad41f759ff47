"""Replays a case on several cards that are filled one after the other, each through an allocator of its own.

Loading goes from card to card: a module that a card has no room for is taken back, and the next card begins with it
(`bench.core.split.SplitBy.AUTO`). From there on each card has its modules, and is replayed by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bench.allocator import caching
from bench.allocator import state as allocator
from bench.allocator.compiled import as_given
from bench.allocator.limits import Limits, MachineLimits
from bench.allocator.parts import CACHE
from bench.allocator.state import State
from bench.trace import sections
from bench.trace.card_programs import CardsReplayer, Loaded, SplitReplay
from bench.trace.passes import NoPrediction
from bench.trace.recording import Op
from bench.trace.replay import card_of
from bench.trace.split import BEGINNING, SplitTrace, Stretch, place_at
from bench.trace.template import BLOCK, LAYER, MODULE, OP, PART, Array


class SplitReplayer(CardsReplayer):
    """One search, ready to be replayed at any length on any cards: see `bench.trace.replay.Replayer`."""

    def __init__(self, trace: SplitTrace, tensor_bytes: Mapping[str, int], reserve_bytes: Sequence[int]) -> None:
        """`reserve_bytes` is kept free on each card while it is filled."""
        super().__init__(trace, tensor_bytes)
        self._reserve_bytes = tuple(reserve_bytes)

    def lengths_alike(self, lengths: Sequence[int], limits: MachineLimits) -> None:
        """A longer one takes no less, whatever `lengths` are."""

    def replay(self, max_seq_len: int, limits: MachineLimits, endless: bool = False) -> SplitReplay:
        """The case at `max_seq_len` on cards, or on endless ones. Raises `NoPrediction`."""
        cards = [each.endless if endless else each for each in limits.cards]
        loaded, is_whole = self._load(max_seq_len, cards)
        failed: list[tuple[int, int]] = []
        if not is_whole:
            failed = [(0, len(cards) - 1)]
        else:
            for number, card in enumerate(loaded):
                step = self._programs.run(card, max_seq_len, self._card(cards[number], number, max_seq_len), True)
                if step is not None:
                    failed.append((step, number))
        unused = [Loaded(None, self._programs.empty_card(cards[0], 0))] * (len(cards) - len(loaded))
        return self._ended([*loaded, *unused], failed, max_seq_len)

    def _find_needed(self, max_seq_len: int, limits: MachineLimits) -> int:
        loaded, _ = self._load(max_seq_len, [limits.cards[0].endless])
        return int(loaded[0].state.counters[allocator.PEAK_ALLOCATED])

    def _load(self, max_seq_len: int, limits: Sequence[Limits]) -> tuple[list[Loaded], bool]:
        """The cards that got modules, and whether the last of them got all that was left."""
        loaded: list[Loaded] = []
        begin = BEGINNING
        for number, each in enumerate(limits):
            events = self._programs.loading(begin, max_seq_len)
            state = self._programs.empty_card(each, len(events))
            rows = as_given(np.full(len(events), -1, np.int64))
            plan = self._programs.sections_of(begin, max_seq_len)
            card = self._card(each, number, max_seq_len)
            done = sections.fill(events, plan.terms[0], card, state, rows)
            if done == len(events):
                return [*loaded, Loaded(Stretch(begin, None), state)], True
            end = place_at(events, done, self._programs.templates, begin)
            last_card = number == len(limits) - 1
            if not last_card and end <= begin:
                raise NoPrediction("no recording shows a card that has room for no module")
            if not last_card:
                _take_back(events, done, state, rows)
            loaded.append(Loaded(Stretch(begin, end), state))
            begin = end
        return loaded, False

    def _card(self, limits: Limits, number: int, max_seq_len: int) -> sections.Card:
        reserve = self._reserve_bytes[number]
        return card_of(limits, self._trace.first.scratch_bytes(max_seq_len), reserve)


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
    for index in np.flatnonzero(np.asarray(rows[:done]) >= 0).tolist():
        if index in freed or (index >= first and index not in stays):
            caching.free(state, int(rows[index]))
    caching.empty_cache(state)
