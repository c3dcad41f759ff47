"""Which tables stand together in a picture: those of one card, and of these no more than can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pandas as pd

from bench.core.columns import CARD, LIMIT, MODEL
from bench.core.identity_columns import NamedColumns
from bench.report.naming.axes import in_common
from bench.report.naming.models import CARD_AND_MODEL, Names
from bench.report.rows import memory_of, rows_of
from bench.report.tables.card import CardTable

_CARD = [*CARD, *LIMIT]
BY_ATTENTION = (*CARD_AND_MODEL, "attention")
_ANSWERS = ("fits", "oom")

Table = TypeVar("Table", bound=CardTable[Any])


@dataclass(frozen=True)
class Most:
    """How much is drawn of one kind of picture, so that many rows take no longer to draw than to read."""

    panels: int
    panels_in_all: int
    cards: int = 20


@dataclass(frozen=True)
class Card(Generic[Table]):
    """The tables of one card (never none), a panel for each model and attention; what it leaves out, in words."""

    tables: list[Table]
    left_out: list[str]

    @property
    def title(self) -> str:
        """What the panels have in common."""
        of = "" if self._models_vary else f"{self.tables[0].model} on "
        attention = "" if len(self._attentions) > 1 else f", {self.tables[0].attentions[0]} attention"
        rows = [row for table in self.tables for row in table.rows]
        return f"{of}{self.tables[0].card}{attention}{in_common(rows)}"

    @property
    def slug(self) -> str:
        """The card's name as a file's."""
        return self.tables[0].card_slug

    @property
    def simulated(self) -> bool:
        """Whether it is a simulated card: all of its tables are, or none."""
        return self.tables[0].simulated

    def name(self, table: Table) -> str:
        """What tells a panel from the others; empty where there are none."""
        model = [table.model] if self._models_vary else []
        varies = len(self._attentions) > 1 and len(table.attentions) == 1
        return ", ".join(model + [f"{table.attentions[0]} attention"] * varies)

    @property
    def _models_vary(self) -> bool:
        return len({table.model for table in self.tables}) > 1

    @property
    def _attentions(self) -> set[str]:
        return {attention for table in self.tables for attention in table.attentions}


def cards(
    frame: pd.DataFrame,
    tables_of: Callable[[pd.DataFrame], Iterable[Table]],
    most: Most,
    names: Names | None = None,
    panel: Sequence[str] = BY_ATTENTION,
) -> tuple[Iterator[Card[Table]], list[str]]:
    """The cards of `frame`, one at a time, and what is left out altogether, in words. A panel is of rows that are alike
    in the columns `panel`.

    Only panels with an answer are drawn, the first of a card's models. The rows of others are never made a table: there
    may be a million of them.
    """
    if frame.empty:
        return iter(()), []
    names = names or Names.of_frames(frame)
    frame = frame.assign(attention=frame["attention"].fillna(frame["attention_requested"]))
    frame = frame.assign(memory=memory_of(frame))
    number = frame.groupby([*panel], dropna=False, sort=True).ngroup()
    answered = set(number[frame["outcome"].isin(_ANSWERS)])
    heads = frame.assign(panel=number).drop_duplicates("panel").sort_values("panel")
    groups = [group for _, group in heads.groupby(["device_kind", "memory", *_CARD[1:]], dropna=False, sort=True)]

    def called(group: pd.DataFrame) -> str:
        return names.card(rows_of(group.iloc[:1], NamedColumns)[0])

    told = [group for group in groups if answered & set(group["panel"])]
    silent = [called(group) for group in groups if not answered & set(group["panel"])]
    words = [f"no plot for {_some(silent)}: no row has an answer"] if silent else []
    if told[most.cards :]:
        left_out = _some([called(group) for group in told[most.cards :]])
        words.append(f"plots for {most.cards} of {len(told)} cards, not for {left_out}")
    most_panels = max(1, min(most.panels, most.panels_in_all // min(most.cards, len(told) or 1)))

    def card(group: pd.DataFrame) -> Card[Table]:
        has_answer = group["panel"].isin(answered)
        drawn = group.loc[has_answer, "panel"].tolist()
        empty = [names.model(row) for row in rows_of(group[~has_answer], NamedColumns)]
        left_out = [f"No answer for {_some(list(dict.fromkeys(empty)))}."] if empty else []
        if drawn[most_panels:]:
            several = group[has_answer].duplicated([*MODEL]).any()
            what = "models with their attention" if several else "models"
            left_out.append(f"{most_panels} of {len(drawn)} {what} are drawn; all are in tables.md.")
        return Card(list(tables_of(frame[number.isin(drawn[:most_panels])])), left_out)

    return map(card, told[: most.cards]), words


def _some(names: list[str]) -> str:
    """`a, b, c and 7 more`."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
