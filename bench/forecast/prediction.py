"""What is predicted of a case; how, is in predict.py, which takes NumPy and is imported where nothing is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CardPrediction:
    """What one of several cards comes to; `attention_layers` of the model have their keys and values there."""

    attention_layers: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    peak_device_bytes: int
    headroom_bytes: int
    parts: dict[str, int]


@dataclass(frozen=True)
class Prediction:
    """The peaks of one case; where it does not `fit`, those that it would have on a card without a limit.

    `length` is that of the case along the axis of its search, in tokens.
    `parts` are the bytes of each part alive at the peak of allocated bytes, the CUDA context among them; `failed_in` is
    the section in which memory runs out. On several cards all are sums; `cards` says it of each where the case fits,
    and `failed_on` is the number of the one that runs out. `gaps` are lengths, from the first to the last of each gap,
    that do not fit although the boundary of a search is above them; None where there can be none. `best_split` is the
    gpu_split that was chosen, as one types it, where the best is asked for; `lack` says what one is short of
    that holds not even all modules.
    """

    length: int
    fits: bool
    failed_in: str | None
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    peak_device_bytes: int
    parts: dict[str, int]
    cards: tuple[CardPrediction, ...] | None = None
    failed_on: int | None = None
    gaps: tuple[tuple[int, int], ...] | None = None
    best_split: str | None = None
    lack: str | None = None

    @staticmethod
    def from_plain(told: Mapping[str, Any]) -> Prediction:
        """Reads what `dataclasses.asdict` has made."""
        cards, gaps = told.get("cards"), told.get("gaps")
        return Prediction(
            **{
                **told,
                "cards": cards and tuple(CardPrediction(**card) for card in cards),
                "gaps": None if gaps is None else tuple((first, last) for first, last in gaps),
            }
        )
