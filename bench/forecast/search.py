"""`max_seq_len=auto` and `cache_size=auto`: which length to measure next, to find the longest that fits with few
measurements.

Pure functions of what has been measured, so a search goes on from stored rows as if it had never stopped. They count in
pages: page 1 is the length where the search begins, each further one has a page of tokens more, and the last page is
where the search ends. Page 0 is nothing and always fits, the page after the last never does; the boundary is between
the highest page that fits and the lowest that fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.core.case import PAGE

# Each step away from a missed prediction goes to this many times the distance. With 3, a prediction off by 2 pages
# costs 4 probes, and one off by 5 % about 5; 2 is slower when it is far off, 4 when it is near.
_STRIDE = 3
# Predictions may be corrected after every probe, and be wrong every time by a page. With more lengths than this
# measured at the edges of a bracket (within half its width), they are disregarded, and the bracket is halved.
_CROWD = 8


@dataclass(frozen=True)
class Observation:
    """One measurement: whether a length of so many tokens fitted."""

    length: int
    fits: bool


@dataclass(frozen=True)
class Bracket:
    """What is known of the boundary, in lengths of the grid: `fits_at` fits and so does all below, `fails_at` fails and
    so does all above; None where nothing does. `certified`: both were seen themselves, with no length between them, and
    the search is over. `contradictory`: some length fitted at or above one that failed.
    """

    fits_at: int | None
    fails_at: int | None
    certified: bool
    contradictory: bool


def grid(search_end: int, shortest: int = PAGE) -> list[int]:
    """The lengths that a search may measure: whole pages from the `shortest` on, and its end."""
    if search_end < 1:
        raise ValueError(f"a search cannot end at {search_end} tokens")
    return [*range(shortest, search_end, PAGE), search_end]


def next_probe(
    search_end: int, predicted_fits_at: int | None, observations: Sequence[Observation], shortest: int = PAGE
) -> int | None:
    """The next length to measure; None when the boundary is certified.

    `predicted_fits_at` is the longest length thought to fit, 0 for none, None for no idea; it may change between calls.
    """
    lengths = grid(search_end, shortest)
    known = _Known(lengths, shortest, observations)
    if known.disputed:
        page = known.fails
    elif known.fails - known.fits > 1:
        prediction = None
        if predicted_fits_at is not None and not known.crowded:
            prediction = _page(lengths, shortest, predicted_fits_at, fits=True)
        page = _between(known.fits, known.fails, len(lengths), prediction)
    elif known.unseen:
        page = known.unseen[0]
    else:
        return None
    return lengths[page - 1]


def found(search_end: int, observations: Sequence[Observation], shortest: int = PAGE) -> Bracket:
    """What is known of the boundary, at any time."""
    lengths = grid(search_end, shortest)
    known = _Known(lengths, shortest, observations)
    longest_fit = max((o.length for o in observations if o.fits), default=None)
    shortest_failure = min((o.length for o in observations if not o.fits), default=None)
    return Bracket(
        fits_at=lengths[known.fits - 1] if known.fits > 0 else None,
        fails_at=lengths[known.fails - 1] if known.fails <= len(lengths) else None,
        certified=known.fails - known.fits == 1 and not known.unseen and not known.disputed,
        contradictory=longest_fit is not None and shortest_failure is not None and longest_fit >= shortest_failure,
    )


class _Known:
    """Observations in pages: `fits` is the highest page below `fails` that fits, `fails` the lowest that fails.

    A page's verdict is that of most of its own observations, a tie is a failure. Lengths off the grid speak for the
    page next to them (5000 tokens that fit are 4864 that do, 5000 that fail are 5120) until it is measured itself.

    Where a page fits above one that fails, the lower failure is `disputed` and measured again, until it is outvoted or
    has failed twice: at most three times in all. A page that failed twice stands, and nothing above it counts.
    """

    def __init__(self, lengths: list[int], shortest: int, observations: Sequence[Observation]) -> None:
        measured: dict[int, list[bool]] = {}
        inferred: dict[int, list[bool]] = {}
        for seen in observations:
            page = _page(lengths, shortest, seen.length, seen.fits)
            if 1 <= page <= len(lengths):  # others say nothing: less than a page fits, more than all fails
                votes = measured if lengths[page - 1] == seen.length else inferred
                votes.setdefault(page, []).append(seen.fits)
        verdicts = inferred | measured
        beyond = len(lengths) + 1
        failures = {page: votes.count(False) for page, votes in verdicts.items() if 2 * sum(votes) <= len(votes)}
        ceiling = min((page for page, count in failures.items() if count >= 2), default=beyond)
        self.fails = min(failures, default=beyond)
        self.fits = max((page for page in verdicts if page < self.fails), default=0)
        self.disputed = any(True in votes for page, votes in verdicts.items() if self.fails <= page < ceiling)
        self.unseen = [page for page in (self.fits, self.fails) if 0 < page < beyond and page not in measured]
        near = (self.fails - self.fits) // 2
        self.crowded = sum(self.fits - near <= page <= self.fails + near for page in measured) > _CROWD


def _page(lengths: list[int], shortest: int, length: int, fits: bool) -> int:
    """The highest page that fits if `length` does, or the lowest that fails if it does not."""
    end = lengths[-1]
    if length >= end:
        return len(lengths) + (length > end and not fits)
    beyond = length - shortest
    return max(0, 1 + (beyond // PAGE if fits else -(-beyond // PAGE)))


def _between(fits: int, fails: int, last: int, prediction: int | None) -> int:
    """A page between `fits` and `fails`: the prediction, or steps away from it that grow, or the middle."""
    middle = (fits + fails) // 2
    if prediction is None:
        return middle
    if fits < prediction < fails:
        return prediction
    if prediction <= fits:
        # Up to the first failure nothing says where to stop, and many a card takes all that is asked.
        farthest = last if fails > last else middle
        return min(prediction + max(1, _STRIDE * (fits - prediction)), farthest)
    return max(prediction - max(1, _STRIDE * (prediction - fails)), middle)
