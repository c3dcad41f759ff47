"""What a case will take, part by part, and how far a search goes, without running it.

Replays of what the engine was recorded to allocate (bench.memory): the same allocator, fed with the same requests.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.allocator.limits import Limits
from bench.allocator.parts import PARTS
from bench.core.case import PAGE
from bench.forecast.search import Observation, found, grid, next_probe
from bench.trace.replay import Replay, Replayer


@dataclass(frozen=True)
class Prediction:
    """The peaks of one case; where it does not `fit`, those that it would have on a card without a limit.

    `parts` are the bytes of each part alive at the peak of allocated bytes, the CUDA context among them; `failed_in` is
    the section in which memory runs out.
    """

    max_seq_len: int
    fits: bool
    failed_in: str | None
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    peak_device_bytes: int
    parts: dict[str, int]


def predict(replayer: Replayer, limits: Limits, max_seq_len: int) -> Prediction:
    """One case on a card. Raises `NoPrediction`."""
    return _prediction(replayer, limits, max_seq_len, replayer.replay(max_seq_len, limits))


def predict_boundary(replayer: Replayer, limits: Limits, search_end: int) -> Prediction:
    """The longest case, in pages, that fits a card; the shortest, which does not, where nothing fits.

    Raises `NoPrediction`.
    """
    guess = _estimate(replayer, limits, search_end)
    replays: dict[int, Replay] = {}
    observations: list[Observation] = []
    while (length := next_probe(search_end, guess, observations)) is not None:
        replays[length] = replayer.replay(length, limits)
        observations.append(Observation(length, replays[length].fits))
    length = found(search_end, observations).fits_at or grid(search_end)[0]
    return _prediction(replayer, limits, length, replays[length])


def predict_fits_at(replayer: Replayer, limits: Limits, search_end: int) -> int:
    """The longest length, in pages, that fits a card; 0 where not even the first page does. Raises `NoPrediction`."""
    boundary = predict_boundary(replayer, limits, search_end)
    return boundary.max_seq_len if boundary.fits else 0


def _prediction(replayer: Replayer, limits: Limits, max_seq_len: int, limited: Replay) -> Prediction:
    replay = limited if limited.fits else replayer.replay(max_seq_len, limits, endless=True)
    return Prediction(
        max_seq_len=max_seq_len,
        fits=limited.fits,
        failed_in=limited.failed_in,
        peak_allocated_bytes=replay.peak_allocated_bytes,
        peak_reserved_bytes=replay.peak_reserved_bytes,
        peak_device_bytes=replay.peak_reserved_bytes + limits.context_bytes,
        parts={**dict(zip(PARTS, replay.parts_at_peak, strict=True)), "context": limits.context_bytes},
    )


def _estimate(replayer: Replayer, limits: Limits, search_end: int) -> int:
    """Where the line through two lengths crosses the card's limit: near the boundary, but for fragmentation."""
    short, long = min(PAGE, search_end), search_end
    least, most = (replayer.needed_bytes(length, limits) for length in (short, long))
    if most <= limits.torch_bytes:
        return long
    if least > limits.torch_bytes:
        return 0
    return short + int((limits.torch_bytes - least) * (long - short) / (most - least))
