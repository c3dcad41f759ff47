"""Replays a case on several cards with the modules divided so that the tightest card has the most left.

The more of the model is on a card, the more it holds. So for a given headroom each card but the last is given as many
modules as leave it that much, and the largest headroom for which the last card has room for the rest is bisected. That
is guided by what would be in use on endless cards; the divisions about there are then replayed on the real ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise, product
from typing import NamedTuple, Protocol

from bench.allocator.limits import Limits, MachineLimits
from bench.trace.card_programs import SplitReplay
from bench.trace.passes import NoPrediction
from bench.trace.placed_replay import PlacedReplayer, Placement
from bench.trace.replay import OfTrace
from bench.trace.split import SplitTrace

_STEP_BYTES = 16 << 20  # about the smallest module that makes a difference
_NEAR = {2: 3, 3: 1, 4: 1}  # by the number of cards: how far from the guide each division is looked for


class Divisions(Protocol):
    """How an engine can divide a model among cards. A cut is the number of the module that the next card begins with.

    The cuts of so many cards are one fewer, each as large as the one before or larger.
    """

    @property
    def count(self) -> int:
        """How many modules there are."""

    @property
    def cuts(self) -> Sequence[int]:
        """Where a card may begin, in order; the first is 0, the last is `count`."""

    def placement(self, cuts: Sequence[int]) -> Placement:
        """The modules of each card."""

    def split_gib(self, cuts: Sequence[int], max_seq_len: int, limits: MachineLimits) -> tuple[float, ...] | None:
        """What one tells the engine to have it so, in GiB for each card; None where nothing that is short would."""


class Chosen(NamedTuple):
    """One division, what one tells the engine, and how the case ends with it on these cards."""

    placement: Placement
    split_gib: tuple[float, ...]
    replay: SplitReplay


class BestReplayer(OfTrace):
    """One search, ready to be replayed at any length on any cards: see `bench.trace.replay.Replayer`."""

    def __init__(self, trace: SplitTrace, tensor_bytes: Mapping[str, int], divisions: Divisions) -> None:
        super().__init__(trace.first)
        self.placed = PlacedReplayer(trace, tensor_bytes, lambda length, has_room: None)
        self.divisions = divisions
        self._allocated: dict[tuple[int, int, int, Limits], float] = {}
        self._chosen: dict[tuple[int, MachineLimits], Chosen] = {}
        self._needed: dict[int, int] = {}

    def lengths_alike(self, lengths: Sequence[int], limits: MachineLimits) -> None:
        """A longer one takes no less, whatever `lengths` are: each has the division that is best for it."""

    def split_gib(self, max_seq_len: int, limits: MachineLimits) -> tuple[float, ...]:
        """What one tells the engine at that length. Raises `NoPrediction`."""
        return self._choose(max_seq_len, limits).split_gib

    def replay(self, max_seq_len: int, limits: MachineLimits, endless: bool = False) -> SplitReplay:
        """The case at `max_seq_len` on cards, or on endless ones, divided for these. Raises `NoPrediction`."""
        chosen = self._choose(max_seq_len, limits)
        return self.placed.replay_placed(chosen.placement, max_seq_len, limits, True) if endless else chosen.replay

    def needed_bytes(self, max_seq_len: int, limits: MachineLimits) -> int:
        """About what PyTorch must hold at that length, on any cards; remembered."""
        if max_seq_len not in self._needed:
            everything = self.divisions.placement([self.divisions.count] * (len(limits.cards) - 1))
            replay = self.placed.replay_placed(everything, max_seq_len, limits, True)
            self._needed[max_seq_len] = replay.peak_allocated_bytes
        return self._needed[max_seq_len]

    def _choose(self, max_seq_len: int, limits: MachineLimits) -> Chosen:
        key = max_seq_len, limits
        if key not in self._chosen:
            self._chosen[key] = self._best(max_seq_len, limits)
        return self._chosen[key]

    def _best(self, max_seq_len: int, limits: MachineLimits) -> Chosen:
        best: tuple[tuple[bool, float], Chosen] | None = None
        reason = "no division of the model can be predicted"
        for cuts in self._near(self._guide(max_seq_len, limits)):
            split_gib = self.divisions.split_gib(cuts, max_seq_len, limits)
            if split_gib is None:
                continue
            placement = self.divisions.placement(cuts)
            try:
                replay = self.placed.replay_placed(placement, max_seq_len, limits)
            except NoPrediction as why:
                reason = str(why)
                continue
            worth = replay.fits, self._least_left(replay, cuts, max_seq_len, limits)
            if best is None or worth > best[0]:
                best = worth, Chosen(placement, split_gib, replay)
        if best is None:
            raise NoPrediction(reason)
        return best[1]

    def _least_left(self, replay: SplitReplay, cuts: Sequence[int], max_seq_len: int, limits: MachineLimits) -> float:
        """What the tightest card has left; where it does not fit, by what would be in use."""
        if replay.fits:
            left = zip(limits.cards, replay.cards, strict=True)
            return min(card.torch_bytes - own.peak_reserved_bytes for card, own in left)
        bounds = pairwise([0, *cuts, self.divisions.count])
        return min(
            self._left(card, first, end, max_seq_len) for card, (first, end) in zip(limits.cards, bounds, strict=True)
        )

    def _guide(self, max_seq_len: int, limits: MachineLimits) -> list[int]:
        """The cuts with the most left on the tightest card, by what would be in use."""
        lowest, highest = -(1 << 50), max(card.torch_bytes for card in limits.cards)
        cuts = [self.divisions.count] * (len(limits.cards) - 1)
        while highest - lowest > _STEP_BYTES:
            # From far below zero by strides that double, so that most tries are near the answer.
            wanted = (lowest + highest) // 2 if lowest > -(1 << 50) else min(0, 2 * highest - (1 << 30))
            found = self._filled(wanted, max_seq_len, limits)
            if found is None:
                highest = wanted
            else:
                cuts, lowest = found, wanted
        return cuts

    def _filled(self, left_bytes: int, max_seq_len: int, limits: MachineLimits) -> list[int] | None:
        """The cuts where each card but the last has as much as leaves it so many bytes; None if the last has not."""
        allowed, cuts, begin = self.divisions.cuts, list[int](), 0
        for card in limits.cards[:-1]:
            few, most = begin, len(allowed) - 1
            while few < most:
                middle = (few + most + 1) // 2
                if self._left(card, allowed[begin], allowed[middle], max_seq_len) >= left_bytes:
                    few = middle
                else:
                    most = middle - 1
            if few == 0:
                return None  # what leaves the first card empty is not recorded
            begin = few
            cuts.append(allowed[begin])
        last = self._left(limits.cards[-1], allowed[begin], self.divisions.count, max_seq_len)
        return cuts if last >= left_bytes else None

    def _left(self, card: Limits, first: int, end: int, max_seq_len: int) -> float:
        """What a card has left with these modules, by what would be in use; minus infinity where nobody knows."""
        if first == end:
            return card.torch_bytes
        key = first, end, max_seq_len, card
        if key not in self._allocated:
            self._allocated[key] = self._in_use(card, first, end, max_seq_len)
        return card.torch_bytes - self._allocated[key]

    def _in_use(self, card: Limits, first: int, end: int, max_seq_len: int) -> float:
        stretches = self.divisions.placement([first, end])
        (stretch,), (scratch,) = stretches.stretches[1:2], stretches.scratch_bytes[1:2]
        assert stretch is not None
        try:
            return self.placed.in_use(stretch, scratch, max_seq_len, card)
        except NoPrediction:
            return float("inf")

    def _near(self, cuts: Sequence[int]) -> Iterator[list[int]]:
        """These cuts and those about them."""
        allowed = list(self.divisions.cuts)
        numbers = [allowed.index(cut) for cut in cuts]
        near = _NEAR.get(len(cuts) + 1, 0)
        shifts: Iterable[tuple[int, ...]] = product(range(-near, near + 1), repeat=len(cuts))
        if near == 0:  # of many cards one cut at a time
            unit = [
                tuple(by * (other == cut) for other in range(len(cuts))) for cut in range(len(cuts)) for by in (1, -1)
            ]
            shifts = [(0,) * len(cuts), *unit]
        for shift in shifts:
            shifted = [number + by for number, by in zip(numbers, shift, strict=True)]
            in_order = all(first <= second for first, second in pairwise([1, *shifted, len(allowed) - 1]))
            if in_order:
                yield [allowed[number] for number in shifted]
