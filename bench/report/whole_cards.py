"""Rows that do not tell all of their card, told by the others that are shown with them."""

from __future__ import annotations

import pandas as pd

from bench.core.columns import CARD
from bench.core.identity import completed
from bench.core.identity_columns import CardColumns
from bench.report.naming.models import distinct

_TOLD = (*CARD, "schema_version")


class _Told(CardColumns):
    """A card, and the program that told of it."""

    schema_version: int


def with_whole_cards(cases: pd.DataFrame, boundaries: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both frames, with what `identity.completed` finds of their cards; where that is nothing, the same frames."""
    frames = (cases, boundaries)
    missing = completed(card for frame in frames for card in distinct(frame, _Told))
    if not missing:
        return frames
    whole = [frame.copy(deep=False) for frame in frames]
    for frame in whole:
        for key, told in missing.items():
            own = pd.Series(True, index=frame.index)
            for name, value in zip(_TOLD, key, strict=True):
                own &= frame[name].isna() if value is None else frame[name].eq(value).fillna(False).astype(bool)
            for name, value in told.items() if own.any() else ():
                frame[name] = frame[name].mask(own, value)
    return whole[0], whole[1]
