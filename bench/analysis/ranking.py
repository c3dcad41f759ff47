"""Which of several models to run on a card, each in its best setting: what was shown first, then what is predicted.
Pure: choices in, the same in order out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bench.core.caches import fineness


class Basis(StrEnum):
    """How it is known that something fits."""

    CERTIFIED = "certified"  # a stored boundary: one run fits, and one a page longer does not
    RUN = "run"  # a stored run of that length or a longer one
    PREDICTED = "predicted"  # nothing was run


@dataclass(frozen=True)
class Quality:
    """A figure that was published, with the words of its file; `metric` says which direction is better."""

    figure: float
    metric: str | None
    source: str | None

    @property
    def badness(self) -> float | None:
        """Less is better; None where the metric does not say what is, so that nothing is ranked by it."""
        words = (self.metric or "").lower()
        if "lower is better" in words:
            return self.figure
        return -self.figure if "higher is better" in words else None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A model with a setting that fits the wanted length; `weights` is about how many it has, None where unknown.

    `number` is the caller's own. `fits_at` is the longest that fits, by `fits_at_basis`; `headroom_bytes` is what is
    left at the wanted length, predicted unless `is_headroom_of_run`.
    """

    number: int
    model: str
    weights: int | None
    bpw: float
    head_bits: int | None
    cache: str
    basis: Basis
    headroom_bytes: int
    is_headroom_of_run: bool = False
    quality: Quality | None = None
    fits_at: int | None = None
    fits_at_basis: Basis | None = None

    @property
    def is_shown(self) -> bool:
        """Whether a run has shown it."""
        return self.basis is not Basis.PREDICTED

    @property
    def ranked_by(self) -> str:
        """`quality`, where a published figure says how good it is, else `size`."""
        return "quality" if self.quality is not None and self.quality.badness is not None else "size"


def ranked(choices: Sequence[Choice]) -> list[Choice]:
    """The best first: of each model the best setting that was shown, and where a better one is predicted, that.

    A setting is better with more bits, then with a finer cache. Models that were shown come first; among these, and
    among those that are predicted, the ones with a published figure by that, figures of one metric and source together,
    then the others by size.
    """
    best: dict[tuple[str, bool], Choice] = {}
    for choice in choices:
        key = (choice.model, choice.is_shown)
        if key not in best or _fineness(choice) > _fineness(best[key]):
            best[key] = choice
    kept = [
        choice
        for choice in best.values()
        if choice.is_shown
        or (choice.model, True) not in best
        or _fineness(choice)[:2] > _fineness(best[choice.model, True])[:2]
    ]
    groups = {group: place for place, group in enumerate(dict.fromkeys(map(_metric, kept)))}

    def place(choice: Choice) -> tuple[Any, ...]:
        by_size = choice.ranked_by == "size"
        badness = (choice.quality.badness if choice.quality else None) or 0.0
        of_figures = (0, 0.0) if by_size else (groups[_metric(choice)], badness)
        return not choice.is_shown, by_size, *of_figures, -(choice.weights or 0), -choice.bpw, choice.model

    return sorted(kept, key=place)


def _metric(choice: Choice) -> tuple[str | None, str | None]:
    return (None, None) if choice.quality is None else (choice.quality.metric, choice.quality.source)


def _fineness(choice: Choice) -> tuple[float, tuple[int, int], int]:
    return choice.bpw, fineness(choice.cache), choice.head_bits or 0
