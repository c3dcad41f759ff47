"""What the tables of one card and one model have in common: which rows they hold, their lines, and their names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, Generic, TypeVar, cast

import pandas as pd

from bench.core.caches import coarseness
from bench.core.identity import is_simulated
from bench.core.identity_columns import IdentityColumns, NativeLength, RanAttention, SettingColumns
from bench.report.naming import axes
from bench.report.naming.axes import Axes, in_common
from bench.report.naming.models import CARD_AND_MODEL, Names
from bench.report.rows import groups_of, memory_of
from bench.report.tables.assumptions import in_words
from bench.report.text.ends import own_limit
from bench.report.text.plain_table import CardKey, card_key

# What makes one table: rows that differ in any of these are never shown as one.
# What tells lines apart, and is shown only where it differs within the table: the attention is the one that ran.
OPTIONAL = ["attention" if name == "attention_requested" else name for name in axes.OPTIONAL]


class TableRow(IdentityColumns, NativeLength, RanAttention):
    """What a table takes of a row, whichever kind it is."""

    outcome: str
    error: str | None
    notes: list[str] | None


class Line(SettingColumns, RanAttention):
    """What the cells of a line have in common: of these columns those by which its table tells lines apart."""


Row = TypeVar("Row", bound=TableRow)


@dataclass(frozen=True, kw_only=True)
class CardTable(ABC, Generic[Row]):
    """One card and one model. `rows` (never none) are in the order of their time; each of `lines` holds what its cells
    have in common; `cells[i][j]` is the row of line i in column j, None where there is none. `names` are those of all
    cards and models that are shown together.
    """

    rows: list[Row]
    lines: list[Line]
    cells: list[list[Row | None]]
    names: Names

    @property
    @abstractmethod
    def legend(self) -> str:
        """How to read a cell."""

    @property
    @abstractmethod
    def notes(self) -> list[str]:
        """What else a reader should know, each in a line."""

    @abstractmethod
    def header(self) -> list[str]:
        """The names of the columns."""

    @abstractmethod
    def body(self) -> list[list[str]]:
        """The cells of each line, as long as the header."""

    @property
    def title(self) -> str:
        """The model, the card and its limit, and the attention and the scenario where there is one alone."""
        attention = f", {self.attentions[0]} attention" if len(self.attentions) == 1 else ""
        return f"{self.model} on {self.card}{attention}{in_common(self.rows)}"

    @property
    def model(self) -> str:
        """`ORG/NAME`, with its fingerprint where several have that name."""
        return self.names.model(self.rows[0])

    @property
    def card(self) -> str:
        """`rtx_4090 (simulated), 23.52 GiB`."""
        return self.names.card_title(self.rows[0])

    @property
    def card_slug(self) -> str:
        """The card for the name of a file."""
        return self.names.card_slug(self.rows[0])

    @property
    def card_key(self) -> CardKey:
        """What tells the card from all others."""
        return card_key(self.rows[0])

    @property
    def simulated(self) -> bool:
        """Whether the card is a simulated one."""
        return is_simulated(self.rows[0])

    @property
    def limit_bytes(self) -> int | None:
        """How much of the card is used: the limit that was asked for, else all of it."""
        first = self.rows[0]
        return first["vram_limit_bytes"] or first["device_total_bytes"]

    @property
    def limit_name(self) -> str:
        """What `limit_bytes` is of."""
        return "the card's limit" if self.rows[0].get("device_cards") is None else "all cards' limits together"

    @property
    def own_limit(self) -> int | None:
        """The model's own limit in tokens; None where nothing tells it."""
        return own_limit(self.rows[0])

    @property
    def answered(self) -> bool:
        """Whether any cell says what fits, so that there is something to draw."""
        return any(row and row["outcome"] in ("fits", "oom") for cells in self.cells for row in cells)

    @property
    def varying(self) -> list[str]:
        """Of what tells lines apart, what does so here."""
        return self.axes.varying

    @cached_property
    def axes(self) -> Axes:
        """How the lines are called."""
        return Axes(self.lines, OPTIONAL)

    @property
    def assumptions(self) -> list[str]:
        """What the rows say was assumed."""
        return in_words(note for row in self.rows for note in (row["notes"] if row["notes"] is not None else []))

    @cached_property
    def attentions(self) -> list[str]:
        """The back ends that its rows ran with, or asked for."""
        return list(dict.fromkeys(row["attention"] or "unknown" for row in self.rows))


_Table = TypeVar("_Table", bound=CardTable[Any])


def card_tables(
    frame: pd.DataFrame,
    moment: str,
    row: type[Row],
    make: Callable[[list[Row], Names], _Table],
    by_attention: bool,
    names: Names | None = None,
) -> Iterator[_Table]:
    """One table at a time for each card and model in `frame`, by `make` from its rows in the order of their `moment`
    (each with the columns of `row`): real cards first, and small ones before large ones.

    With `by_attention` each attention back end has a table of its own. `names` where more is named than this frame has.
    """
    if frame.empty:
        return
    names = names or Names.of_frames(frame)
    frame = frame.assign(attention=frame["attention"].fillna(frame["attention_requested"]))
    if not frame[moment].is_monotonic_increasing:
        frame = frame.sort_values(moment)
    keys = [*CARD_AND_MODEL, "attention"] if by_attention else CARD_AND_MODEL
    by_memory = ["device_kind", "memory", *(name for name in keys if name != "device_kind")]
    number = frame.assign(memory=memory_of(frame)).groupby(by_memory, dropna=False, sort=True).ngroup().to_numpy()
    for rows in groups_of(frame, number, row):
        yield make(rows, names)


def card_table_count(frame: pd.DataFrame) -> int:
    """How many tables `card_tables` makes of `frame` where each attention back end has one of its own."""
    if frame.empty:
        return 0
    named = frame[CARD_AND_MODEL].assign(attention=frame["attention"].fillna(frame["attention_requested"]))
    return len(named.drop_duplicates())


def lines_of(rows: Sequence[TableRow], names: Sequence[str]) -> list[Line]:
    """The distinct values of `names`, by bits, then cache from large to small, then lazy loading last."""
    keys: dict[tuple[Any, ...], None] = dict.fromkeys(map(itemgetter(*names), rows))
    lines = [cast(Line, dict(zip(names, key, strict=True))) for key in keys]

    def place(line: Line) -> tuple[Any, ...]:
        cache = coarseness(line["cache"]) if "cache" in line else ()
        return line["bpw"], cache, line["lazy"], *((value is not None, value) for value in line.values())

    return sorted(lines, key=place)


def cells_of(
    rows: Sequence[Row], names: Sequence[str], lines: Iterable[Line], column: str, values: Sequence[Any]
) -> list[list[Row | None]]:
    """The row of each of `lines`, by its `names`, at each of `values` of `column`; the last where there are several."""
    found = dict(zip(map(itemgetter(*names, column), rows), rows, strict=True))
    return [[found.get((*line.values(), value)) for value in values] for line in lines]
