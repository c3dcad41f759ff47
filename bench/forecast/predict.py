"""What a case will take, part by part, and how far a search goes, without running it.

Replays of what the engine was recorded to allocate (bench.memory): the same allocator, fed with the same requests.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from bench.allocator.limits import Limits, MachineLimits
from bench.allocator.parts import PARTS
from bench.core.case import PAGE
from bench.core.split import Split, SplitBy
from bench.forecast.prediction import CardPrediction, Prediction
from bench.forecast.search import Observation, found, grid, next_probe
from bench.trace.best_replay import BestReplayer
from bench.trace.card_programs import SplitReplay
from bench.trace.passes import NoPrediction
from bench.trace.placed_replay import PlacedReplayer
from bench.trace.replay import CardReplay, Replay

AnyLimits = Limits | MachineLimits


class AnyReplayer(Protocol):
    """A search on one card or on several (`bench.trace.replay`, `bench.trace.split_replay`)."""

    @property
    def reading(self) -> dict[str, Any] | None:
        """What the engine made of config.json, in plain values."""

    def replay(self, max_seq_len: int, limits: Any, endless: bool = False) -> Replay:
        """The case at that length on these cards, or on endless ones."""

    def is_known(self, length: int) -> bool:
        """Whether a case of that length can be predicted, as far as that is known beforehand."""

    def lengths_alike(self, lengths: Sequence[int], limits: Any) -> list[Sequence[int]] | None:
        """Of `lengths`, those that follow one another and of which a longer one takes no less; None where all are.

        Lengths of which it is known that they do not fit may be left out.
        """

    def needed_bytes(self, max_seq_len: int, limits: Any) -> int:
        """About what PyTorch must hold."""


def predict(replayer: AnyReplayer, limits: AnyLimits, max_seq_len: int) -> Prediction:
    """One case on a card. Raises `NoPrediction`."""
    return _prediction(replayer, limits, max_seq_len, _replayed(replayer, limits, max_seq_len))


def _replayed(replayer: AnyReplayer, limits: AnyLimits, max_seq_len: int) -> Replay:
    if not replayer.is_known(max_seq_len):
        raise NoPrediction(
            f"a max_seq_len of less than max_input_len ({max_seq_len}) makes chunks as short, and less is counted when "
            f"modules are put on cards: no recording shows it; give a max_input_len that is no longer"
        )
    return replayer.replay(max_seq_len, limits)


def predict_boundary(replayer: AnyReplayer, limits: AnyLimits, search_end: int, shortest: int = PAGE) -> Prediction:
    """The longest case, in pages from the `shortest` on, that fits a card; that one where nothing fits.

    Raises `NoPrediction`.
    """
    lengths = grid(search_end, shortest)
    stretches = replayer.lengths_alike(list(filter(replayer.is_known, lengths)) or lengths[-1:], limits)
    if stretches is not None:
        return _boundary_with_gaps(replayer, limits, stretches)
    guess = _estimate(replayer, limits, search_end, shortest)
    replays: dict[int, Replay] = {}
    observations: list[Observation] = []
    while (length := next_probe(search_end, guess, observations, shortest)) is not None:
        replays[length] = _replayed(replayer, limits, length)
        observations.append(Observation(length, replays[length].fits))
    length = found(search_end, observations, shortest).fits_at or grid(search_end, shortest)[0]
    return _prediction(replayer, limits, length, replays[length])


def _boundary_with_gaps(replayer: AnyReplayer, limits: AnyLimits, stretches: list[Sequence[int]]) -> Prediction:
    """The same where a longer case may fit and a shorter one not: how many lengths of each stretch fit decides."""
    fits_at, gaps = 0, list[tuple[int, int]]()

    def is_full(length: int) -> bool:
        return not _replayed(replayer, limits, length).fits

    for lengths in reversed(stretches):
        count = len(lengths)
        if is_full(lengths[-1]):
            count = 0 if is_full(lengths[0]) else bisect.bisect_left(lengths, True, 1, count - 1, key=is_full)
        if fits_at and count < len(lengths):
            gaps.append((lengths[count], lengths[-1]))
        fits_at = fits_at or (lengths[count - 1] if count else 0)
    length = fits_at or stretches[0][0]
    boundary = _prediction(replayer, limits, length, _replayed(replayer, limits, length))
    return replace(boundary, gaps=_joined(reversed(gaps)))


def _joined(gaps: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Gaps in order; those with no length between them are one."""
    joined: list[tuple[int, int]] = []
    for first, last in gaps:
        if joined and first - joined[-1][1] <= PAGE:
            joined[-1] = joined[-1][0], last
        else:
            joined.append((first, last))
    return tuple(joined)


def predict_fits_at(replayer: AnyReplayer, limits: AnyLimits, search_end: int) -> int:
    """The longest length, in pages, that fits a card; 0 where not even the first page does. Raises `NoPrediction`."""
    boundary = predict_boundary(replayer, limits, search_end)
    return boundary.length if boundary.fits else 0


def _prediction(replayer: AnyReplayer, limits: AnyLimits, length: int, limited: Replay) -> Prediction:
    replay = limited if limited.fits else replayer.replay(length, limits, endless=True)
    cards = None
    if isinstance(limited, SplitReplay) and isinstance(limits, MachineLimits) and limited.fits:
        cards = tuple(
            _card(layers, card, own)
            for layers, card, own in zip(limited.attention_layers, limited.cards, limits.cards, strict=True)
        )
    return Prediction(
        length=length,
        fits=limited.fits,
        failed_in=limited.failed_in,
        peak_allocated_bytes=replay.peak_allocated_bytes,
        peak_reserved_bytes=replay.peak_reserved_bytes,
        peak_device_bytes=replay.peak_held_bytes + limits.context_bytes,
        parts=_parts(replay, limits),
        cards=cards,
        failed_on=limited.failed_on if isinstance(limited, SplitReplay) else None,
        best_split=best_split(replayer, limits, length),
        lack=replayer.lack(length) if isinstance(replayer, PlacedReplayer) and not limited.fits else None,
    )


def best_split(replayer: AnyReplayer, limits: AnyLimits, max_seq_len: int) -> str | None:
    """The gpu_split that was chosen, as one types it; None where none is to be chosen. Raises `NoPrediction`."""
    if not isinstance(replayer, BestReplayer) or not isinstance(limits, MachineLimits):
        return None
    return Split(SplitBy.GPU_SPLIT, replayer.split_gib(max_seq_len, limits)).typed


def _card(layers: int, replay: CardReplay, limits: Limits) -> CardPrediction:
    device_bytes = replay.peak_held_bytes + limits.context_bytes
    return CardPrediction(
        attention_layers=layers,
        peak_allocated_bytes=replay.peak_allocated_bytes,
        peak_reserved_bytes=replay.peak_reserved_bytes,
        peak_device_bytes=device_bytes,
        headroom_bytes=limits.total_bytes - device_bytes,
        parts=_parts(replay, limits),
    )


def _parts(replay: Replay | CardReplay, limits: AnyLimits) -> dict[str, int]:
    return {**dict(zip(PARTS, replay.parts_at_peak, strict=True)), "context": limits.context_bytes}


def _estimate(replayer: AnyReplayer, limits: AnyLimits, search_end: int, shortest: int) -> int:
    """Where the line through two lengths crosses the card's limit: near the boundary, but for fragmentation."""
    long, most = search_end, replayer.needed_bytes(search_end, limits)
    short, least = _shortest_known(replayer, limits, search_end, shortest)
    if most <= limits.torch_bytes:
        return long
    if least > limits.torch_bytes:
        return 0
    return short + int((limits.torch_bytes - least) * (long - short) / max(1, most - least))


def _shortest_known(replayer: AnyReplayer, limits: AnyLimits, search_end: int, shortest: int) -> tuple[int, int]:
    """A short length of which there is a prediction, and about what it needs; of the shortest there may be none."""
    length = min(shortest, search_end)
    while True:
        try:
            return length, replayer.needed_bytes(length, limits)
        except NoPrediction:
            if length == search_end:
                raise
            length = min(2 * length, search_end)
