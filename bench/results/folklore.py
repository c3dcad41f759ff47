"""What people say a card can do, against the boundaries that were certified on cards of that size. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.results.evidence import QUESTION

_GIB = 1 << 30


@dataclass(frozen=True)
class Saying:
    """`claim` tokens on a card that is sold with `card_gb`: a ceiling, or with `or_more` a floor."""

    card_gb: int
    claim: int
    or_more: bool

    def speaks_of(self, total_bytes: float) -> bool:
        """A card is known by a little more than it reports: a 40 GB card has 39.4 GiB, a 24 GB card 23.5."""
        return self.card_gb - 2 <= total_bytes / _GIB <= self.card_gb

    def __str__(self) -> str:
        return f"{self.card_gb} GB: {self.claim:,}{' or more' if self.or_more else ''}"


SAYINGS = (Saying(24, 2048, or_more=False), Saying(40, 4096, or_more=True))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One saying, card and model. Of `settings` certified boundaries, `reaching` are at the claim or above. `least` and
    `most` are the rows of the shortest and the longest; `fits_at` is null in one where not even 256 tokens fit.
    """

    saying: Saying
    settings: int
    reaching: int
    least: dict[str, Any]
    most: dict[str, Any]

    @property
    def verdict(self) -> str:
        """The saying, in the light of the numbers."""
        if not self.reaching:
            return f"too high: no setting reaches {self.saying.claim:,}"
        if self.reaching < self.settings:
            return f"depends: {self.reaching} of {self.settings} settings reach {self.saying.claim:,}"
        if self.saying.or_more:
            return f"holds: all {self.settings} settings reach {self.saying.claim:,}"
        if self.most["fits_at"] == self.saying.claim:
            return f"holds: no setting goes further than {self.saying.claim:,}"
        return f"too low: all {self.settings} settings reach {self.saying.claim:,}"


def answers(boundaries: pd.DataFrame) -> list[Answer]:
    """An answer for each saying, and each card and model with a certified boundary that it speaks of.

    A smaller card inside a larger one (`vram_limit_bytes`) counts by its limit.
    """
    usable = boundaries[boundaries["certified"].eq(True) & boundaries["contradictory"].eq(False)]
    usable = usable[usable["outcome"].isin(["fits", "oom"])]
    total, limit = usable["device_total_bytes"].astype(float), usable["vram_limit_bytes"].astype(float)
    usable = usable.assign(size_bytes=total.where(~(limit < total), limit), length=usable["fits_at"].fillna(0))
    usable = usable.sort_values(["length", "bpw"], ascending=[True, False], kind="stable")
    found = []
    for saying in SAYINGS:
        sizes = usable["size_bytes"]
        own = usable[sizes.between((saying.card_gb - 2) * _GIB, saying.card_gb * _GIB)]
        for _, rows in own.groupby(QUESTION, dropna=False, sort=True):
            ends = rows.iloc[[0, -1]].to_dict("records")
            least, most = ({str(name): _plain(value) for name, value in end.items()} for end in ends)
            reaching = int((rows["length"] >= saying.claim).sum())
            found.append(Answer(saying=saying, settings=len(rows), reaching=reaching, least=least, most=most))
    return found


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
