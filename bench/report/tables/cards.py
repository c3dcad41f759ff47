"""How far each card goes, the cards as rows: what a wiki wants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from bench.core.columns import BoundaryRow
from bench.report.naming.axes import Axes, how, in_common
from bench.report.tables.boundaries import BoundaryTable
from bench.report.tables.crossed import Setting, crossed
from bench.report.text.plain_table import PlainTable


def cards_tables(found: Sequence[BoundaryTable]) -> list[PlainTable]:
    """How far each card goes in each setting, as the card's own table has it."""
    among = _Among(found)
    cells = [
        (among.card(table), setting, text)
        for table in sorted(found, key=_place)
        for setting, text, _ in among.cells(table)
    ]
    order = [setting for table in found for setting, _, _ in among.cells(table)]
    return crossed(cells, order, "The largest max_seq_len that fits, in tokens. " + _legend(found))


def cards_frame(found: Sequence[BoundaryTable]) -> pd.DataFrame:
    """The same for CSV: a row for each card, a column for each model and setting, with the longest that fits; null
    where nothing fits or is known.
    """
    among, rows = _Among(found), dict[str, dict[str, int | None]]()
    for table in sorted(found, key=_place):
        for setting, _, row in among.cells(table):
            rows.setdefault(among.card(table), {})[" ".join(filter(None, setting))] = row["fits_at"]
    frame = pd.DataFrame.from_dict(rows, orient="index").astype("Int64")
    return frame.rename_axis("card").reset_index()


class _Among:
    """How settings and cards are named among all tables of `found`."""

    def __init__(self, found: Sequence[BoundaryTable]) -> None:
        told = [row for table in found for cells in table.cells for row in cells if row]
        self._axes, self._common = Axes(told), in_common(told).removeprefix(", ")
        ran = {attention for table in found for attention in table.attentions}
        asked = {row["attention_requested"] for table in found for row in table.rows}
        self._attentions_differ = len(ran) > 1 and len(asked) == 1

    def cells(self, table: BoundaryTable) -> Iterator[tuple[Setting, str, BoundaryRow]]:
        """The setting, the text and the row of each cell.

        Attention is the one that was asked for: `auto` is another on a card that cannot run flash-attn.
        """
        start = len(table.header()) - len(table.caches)
        for texts, rows in zip(table.body(), table.cells, strict=True):
            for text, row in zip(texts[start:], rows, strict=True):
                if row is not None:
                    others = ", ".join(self._axes.others(row))
                    words = (f"{self._axes.bits(row)} bpw", row["cache"], how(row), others, self._common)
                    yield (table.model, *words), text, row

    def card(self, table: BoundaryTable) -> str:
        """With the attention that ran, where `auto` ran another on another card."""
        differs = self._attentions_differ
        return f"{table.card}, {' and '.join(table.attentions)} attention" if differs else table.card


def _legend(found: Sequence[BoundaryTable]) -> str:
    """What the marks of the cells mean, each once."""
    sentences = (sentence.rstrip(".") for table in found for sentence in table.legend.split(". ")[1:])
    return " ".join(f"{sentence}." for sentence in dict.fromkeys(sentences))


def _place(table: BoundaryTable) -> tuple[bool, int, str]:
    return table.simulated, table.limit_bytes or 0, table.card
