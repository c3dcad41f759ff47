"""What people say of one model on cards of a size, against boundaries of that model that were certified there. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from bench.analysis.evidence import QUESTION
from bench.core.columns import BoundaryRow

_GIB = 1 << 30


@dataclass(frozen=True)
class Claim:
    """`claim` tokens of the one model on a card that is sold with `card_gb`: a ceiling, or with `or_more` a floor."""

    card_gb: int
    claim: int
    or_more: bool

    def __str__(self) -> str:
        return f"{self.card_gb} GB: {self.claim:,}{' or more' if self.or_more else ''}"


# The one model, and where it is asked about: a 2-bit one that does not load in 40 GB, and max_seq_len=2048 as the way
# out. Who drew the two sayings from such advice is not known.
MODEL = "Phi-3-medium-128k"
SOURCE = "https://github.com/turboderp-org/exllamav2/issues/665"
SAYINGS = (Claim(24, 2048, or_more=False), Claim(40, 4096, or_more=True))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One saying, card and model. Of `settings` certified boundaries, `reaching` are at the claim or above. `least` and
    `most` are the rows of the shortest and the longest; `fits_at` is null in one where not even 256 tokens fit.
    """

    saying: Claim
    settings: int
    reaching: int
    least: BoundaryRow
    most: BoundaryRow

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
    """An answer for each saying, and each card with a certified boundary of the model that it speaks of.

    A smaller card inside a larger one (`vram_limit_bytes`) counts by its limit.
    """
    usable = boundaries[boundaries["certified"].eq(True) & boundaries["contradictory"].eq(False)]
    usable = usable[usable["outcome"].isin(["fits", "oom"])]
    usable = usable[usable["model"].map(is_about).astype(bool)]
    total, limit = usable["device_total_bytes"].astype(float), usable["vram_limit_bytes"].astype(float)
    usable = usable.assign(size_bytes=total.where(~(limit < total), limit), length=usable["fits_at"].fillna(0))
    usable = usable.sort_values(["length", "bpw"], ascending=[True, False], kind="stable")
    found = []
    for saying in SAYINGS:
        sizes = usable["size_bytes"]  # a 40 GB card reports 39.4 GiB, a 24 GB card 23.5
        own = usable[sizes.between((saying.card_gb - 2) * _GIB, saying.card_gb * _GIB)]
        for _, rows in own.groupby(QUESTION, dropna=False, sort=True):
            ends = rows.iloc[[0, -1]].to_dict("records")
            least, most = (cast(BoundaryRow, {name: _plain(value) for name, value in end.items()}) for end in ends)
            reaching = int((rows["length"] >= saying.claim).sum())
            found.append(Answer(saying=saying, settings=len(rows), reaching=reaching, least=least, most=most))
    return found


def is_about(model: str) -> bool:
    """Whether the sayings are about a model of this name, however it is spelt: `phi_3_medium_128k` is that one."""
    return _letters(MODEL) in _letters(model)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
