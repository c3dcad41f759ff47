"""A table of text cells, for what is not a grid of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench.core.columns import CARD, LIMIT
from bench.core.identity import key_of
from bench.core.identity_columns import CardColumns

CardKey = tuple[Any, ...]


class HasCard(Protocol):
    """A table of one card, by what tells cards apart."""

    @property
    def card_key(self) -> CardKey:
        """The card that all of it is of."""


@dataclass(frozen=True, kw_only=True)
class PlainTable:
    """`lines` of cells under `columns`, how to read them (`legend`), what else a reader should know (`notes`), and what
    was taken for granted (`assumptions`).

    `card_key` is that of the card which all of it is of; empty where there is none.
    """

    title: str
    legend: str
    columns: list[str]
    lines: list[list[str]]
    notes: list[str] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    varying: Sequence[str] = ()
    card_key: CardKey = ()

    def header(self) -> list[str]:
        """The names of the columns."""
        return self.columns

    def body(self) -> list[list[str]]:
        """The cells of each line, as long as the header."""
        return self.lines


def card_key(row: CardColumns) -> CardKey:
    """What tells the card of a row from all others."""
    return key_of(row, (*CARD, *LIMIT))
