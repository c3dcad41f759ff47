"""Replays a case on several cards of which it is known what is on which before anything is loaded.

Each card has its modules, then their cache, and is replayed by itself from its first allocation to its last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from bench.allocator import state as allocator
from bench.allocator.limits import Limits, MachineLimits
from bench.core.outcome import Phase
from bench.trace.card_programs import CardsReplayer, Loaded, SplitReplay
from bench.trace.passes import NoPrediction
from bench.trace.replay import card_of
from bench.trace.split import SplitTrace, Stretch


class Placement(NamedTuple):
    """Which modules are on each card, None where none are, and the scratch buffer of each in bytes."""

    stretches: tuple[Stretch | None, ...]
    scratch_bytes: tuple[int, ...]


# The placement at a length; None where not all modules have a card. With True there is room on the last for any rest.
Placing = Callable[[int, bool], Placement | None]


class PlacedReplayer(CardsReplayer):
    """One search, ready to be replayed at any length on any cards: see `bench.trace.replay.Replayer`."""

    def __init__(
        self,
        trace: SplitTrace,
        tensor_bytes: Mapping[str, int],
        place: Placing,
        lack: Callable[[int], str | None] = lambda max_seq_len: None,
        are_alike: bool = True,
    ) -> None:
        """`lack` says of a length what is missing where not all modules have a card, None where they have.

        Cards that `are_alike` have cuBLAS workspaces of one size, whichever of them multiplies first.
        """
        super().__init__(trace, tensor_bytes)
        self.lack = lack
        self._place = place
        self._are_alike = are_alike

    def lengths_alike(self, lengths: Sequence[int], limits: MachineLimits) -> list[Sequence[int]] | None:
        """Of `lengths`, those that follow one another and have the same placement: a longer one takes no less."""
        return [list(alike) for _, alike in groupby(lengths, key=lambda length: self._place(length, False))]

    def replay(self, max_seq_len: int, limits: MachineLimits, endless: bool = False) -> SplitReplay:
        """The case at `max_seq_len` on cards, or on endless ones. Raises `NoPrediction`."""
        placement = self._place(max_seq_len, endless)
        if placement is None:
            nothing = [Loaded(None, self._programs.empty_card(card, 0)) for card in limits.cards]
            return self._programs.outcome(nothing, Phase.LOAD, None)
        return self.replay_placed(placement, max_seq_len, limits, endless)

    def replay_placed(
        self, placement: Placement, max_seq_len: int, limits: MachineLimits, endless: bool = False
    ) -> SplitReplay:
        """The same with the modules where one says."""
        if placement.stretches[0] is None and not self._are_alike:
            raise NoPrediction("nothing is on the first card, by which the workspaces of unlike cards are known")
        failed: list[tuple[int, int]] = []
        cards = []
        for number, (stretch, each) in enumerate(zip(placement.stretches, limits.cards, strict=True)):
            bound = each.endless if endless else each
            if stretch is None:
                cards.append(Loaded(None, self._programs.empty_card(bound, 0)))
                continue
            events = self._programs.program(stretch, False).events
            cards.append(Loaded(stretch, self._programs.empty_card(bound, len(events))))
            step = self._programs.run(
                cards[-1], max_seq_len, card_of(each, placement.scratch_bytes[number]), is_loaded=False
            )
            if step is not None:
                failed.append((step, number))
        return self._ended(cards, failed, max_seq_len)

    def in_use(self, stretch: Stretch, scratch_bytes: int, max_seq_len: int, limits: Limits) -> int:
        """What one card with these modules would have in use at its peak, if it were endless."""
        events = self._programs.program(stretch, False).events
        card = Loaded(stretch, self._programs.empty_card(limits.endless, len(events)))
        self._programs.run(card, max_seq_len, card_of(limits, scratch_bytes), is_loaded=False)
        return int(card.state.counters[allocator.PEAK_ALLOCATED])

    def _find_needed(self, max_seq_len: int, limits: MachineLimits) -> int:
        return self.replay(max_seq_len, limits, endless=True).peak_allocated_bytes
