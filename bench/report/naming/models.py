"""What models and cards are called: by what tells them apart among all that are named together.

A name alone may stand for several. Where it does, what differs follows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from bench.core.columns import CARD, LIMIT, MODEL
from bench.core.identity import known
from bench.core.identity_columns import CardColumns, ModelColumns, NamedColumns
from bench.report.naming.cards import CardNames, texts_of

if TYPE_CHECKING:
    import pandas as pd

CARD_AND_MODEL = [*CARD, *LIMIT, *MODEL]  # what a table is of

_Row = TypeVar("_Row")

_MARK_DIGITS = range(6, 65)  # of a fingerprint: as few as tell all apart


class Names:
    """The names of whatever is among `things`: rows, or anything else with the columns of `results.identity`.

    `real` is what a card is called that is not simulated.
    """

    def __init__(self, things: Iterable[NamedColumns], real: str = "measured") -> None:
        things = list(things)
        self._cards = CardNames(things, real)
        prints: dict[str, set[str]] = {}
        for thing in things:
            prints.setdefault(thing["model"], set()).add(_fingerprint(thing))
        ways = [lambda value, digits=digits: value[:digits] for digits in _MARK_DIGITS]
        self._marks = {name: texts_of(values, ways) for name, values in prints.items() if len(values) > 1}

    @classmethod
    def of_frames(cls, *frames: pd.DataFrame) -> Names:
        """The names of all rows; there may be a million of them, of few cards and models."""
        return cls(row for frame in frames for row in distinct(frame, NamedColumns))

    @property
    def shared(self) -> set[str]:
        """The names that stand for several models."""
        return set(self._marks)

    def model(self, row: ModelColumns) -> str:
        """`ORG/NAME`; where several models have that name, with the beginning of its fingerprint: `mine [3f2a1c]`."""
        mark = self._marks.get(row["model"], {}).get(_fingerprint(row))
        return f"{row['model']} [{mark}]" if mark else str(row["model"])

    def card(self, row: CardColumns) -> str:
        """In few words: `rtx_4090`."""
        return self._cards.short(row)

    def card_title(self, row: CardColumns) -> str:
        """`rtx_4090 (simulated), 23.52 GiB`."""
        return self._cards.title(row)

    def card_slug(self, row: CardColumns) -> str:
        """For the name of a file."""
        return self._cards.slug(row)


def distinct(frame: pd.DataFrame, row: type[_Row]) -> list[_Row]:
    """The combinations of values of the columns of `row`; one that the frame lacks is unknown."""
    from bench.report.rows import rows_of  # with pandas, which whoever has a frame has imported

    return rows_of(frame.reindex(columns=list(row.__annotations__)).drop_duplicates(), row)


def _fingerprint(row: ModelColumns) -> str:
    return str(known(row["model_fingerprint"]) or "unknown")
