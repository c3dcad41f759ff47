"""How far each bpw and cache type goes, for each card and model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from bench.core.caches import finest_first
from bench.core.columns import BoundaryRow
from bench.report.naming.axes import how
from bench.report.naming.models import CARD_AND_MODEL, Names
from bench.report.tables.card import OPTIONAL, CardTable, card_tables, cells_of, lines_of
from bench.report.tables.parts import BoundaryAtFit
from bench.report.text.ends import OWN_LIMIT, is_lower_bound, is_own_limit, lower_bound, reach
from bench.report.text.splits import best_split_words
from bench.report.text.units import tokens
from bench.report.text.verdicts import short

_LINE = ["bpw", "lazy", *OPTIONAL]


@dataclass(frozen=True, kw_only=True)
class BoundaryTable(CardTable[BoundaryAtFit]):
    """A column for each of `caches`."""

    caches: list[str]

    @property
    def legend(self) -> str:
        """Speaks only of what the table shows."""
        shown = [row for cells in self.cells for row in cells if row]
        said = "The largest max_seq_len that fits."
        if any(row["certified"] and row["fits_at"] and row["fails_at"] for row in shown):
            said += " Certified by two runs: it fits there, and 256 tokens further it fails."
        return " ".join([said, *marks_in_words(shown)])

    @property
    def in_words(self) -> str | None:
        """What a plot would not show better: that everything goes as far as was looked. None where something ends."""
        shown = [row for cells in self.cells for row in cells if row]
        ends = {row["fits_at"] for row in shown}
        if len(ends) != 1 or None in ends or not all(is_own_limit(row) or is_lower_bound(row) for row in shown):
            return None
        settings = "The only setting that was tried goes" if len(shown) == 1 else f"All {len(shown)} settings go"
        return f"{settings} to {tokens(ends.pop())} tokens, and no longer length was tried."

    def header(self) -> list[str]:
        """The names of the columns."""
        return ["bpw", "how", *self.varying, *self.caches]

    def body(self) -> list[list[str]]:
        """The cells of each line, as long as the header."""
        return [
            [
                self.axes.bits(line),
                how(line),
                *self.axes.cells(line),
                *(cell_of(cell) for cell in self.cells[i]),
            ]
            for i, line in enumerate(self.lines)
        ]

    @property
    def notes(self) -> list[str]:
        """What to do where nothing fits, and what is in doubt."""
        said: dict[str, list[tuple[int, int]]] = {}
        for i, cells in enumerate(self.cells):
            for j, row in enumerate(cells):
                for remark in _remarks(row) if row else []:
                    said.setdefault(remark, []).append((i, j))
        return [self._where(places) + remark for remark, places in said.items()]

    def _where(self, places: list[tuple[int, int]]) -> str:
        """`6 bpw load (FP16, Q8), 6 bpw lazy: `, the caches named where they are not all; empty for the whole table."""
        if len(places) == sum(row is not None for cells in self.cells for row in cells):
            return ""
        names = []
        for i in dict.fromkeys(i for i, _ in places):
            line, columns = self.lines[i], [j for place, j in places if place == i]
            name = self.axes.words(line)
            every = columns == [j for j, row in enumerate(self.cells[i]) if row]
            names.append(name if every else f"{name} ({', '.join(self.caches[j] for j in columns)})")
        return ", ".join(names) + ": "


Table = TypeVar("Table", bound=BoundaryTable)


def boundary_tables(frame: pd.DataFrame, by_attention: bool = False, names: Names | None = None) -> list[BoundaryTable]:
    """One table for each card and model in `frame` (rows of boundaries): a model's cards together, small ones first."""
    return tables_by_cache(BoundaryTable, _LINE, frame, by_attention, names)


def tables_by_cache(
    kind: type[Table], line: list[str], frame: pd.DataFrame, by_attention: bool, names: Names | None
) -> list[Table]:
    """The same of a kind of table, whose lines differ in the columns of `line`."""

    def table(rows: list[BoundaryAtFit], names: Names) -> Table:
        lines = lines_of(rows, line)
        caches = finest_first(row["cache"] for row in rows)
        cells = cells_of(rows, line, lines, "cache", caches)
        return kind(names=names, rows=rows, lines=lines, caches=caches, cells=cells)

    tables = card_tables(frame, "finished_at", BoundaryAtFit, table, by_attention, names)
    return sorted(tables, key=lambda table: (table.simulated, table.rows[0]["model"], table.limit_bytes or 0))


def marks_in_words(shown: Sequence[BoundaryRow]) -> list[str]:
    """What the marks in the cells of `shown` mean, each once."""
    words = []
    if any(is_own_limit(row) for row in shown):
        words.append(OWN_LIMIT)
    if open_ends := [row for row in shown if is_lower_bound(row)]:
        words.append(lower_bound([row["cache_size"] == row["fits_at"] for row in open_ends]))
    if any(row["outcome"] == "oom" for row in shown):
        words.append("none: not even 256 tokens.")
    if any(_mark(row) for row in shown):
        words.append("?: not certified, the end was not found.")
    return words


def cell_of(row: BoundaryRow | None) -> str:
    """How far it goes, with its mark; empty for what was not asked."""
    if row is None:
        return ""
    if row["fits_at"] is None and row["outcome"] != "oom":
        return short(row["outcome"])
    return ("none" if row["fits_at"] is None else reach(row)) + _mark(row)


def _mark(row: BoundaryRow) -> str:
    answered = row["fits_at"] is not None or row["outcome"] == "oom"
    return "?" if answered and not row["certified"] and not is_lower_bound(row) else ""


def _remarks(row: BoundaryRow) -> list[str]:
    """What a reader should know of one cell."""
    remarks = []
    if row["outcome"] == "oom" and row["advice"]:
        remarks.append(f"nothing fits; {row['advice']}")
    if row["outcome"] not in ("fits", "oom") and row["error"]:
        remarks.append(row["error"])
    if _mark(row):
        known = [] if row["fits_at"] is None else [f"{tokens(row['fits_at'])} fits"]
        known += [] if row["fails_at"] is None else [f"{tokens(row['fails_at'])} fails"]
        known += [] if row["predicted_fits_at"] is None else [f"predicted to end at {tokens(row['predicted_fits_at'])}"]
        known += [row["error"]] if row["error"] else []
        remarks.append(", ".join(["not certified", *known]))
    if split := best_split_words(row["best_split"], row["fits_at"], row["predicted_auto_fits_at"]):
        remarks.append(split)
    if row["contradictory"]:
        remarks.append("contradictory, a length fitted at or above one that failed")
    return remarks


def as_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows in the order of their CSV."""
    return frame.sort_values([*CARD_AND_MODEL, "bpw", "cache", "lazy", *OPTIONAL])
