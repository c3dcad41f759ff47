"""How large the cache may be that jobs of a generator share, for jobs of up to some length, and for how many users."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bench.core.case import Axis
from bench.core.columns import BoundaryRow
from bench.report.naming.axes import how
from bench.report.naming.models import CARD_AND_MODEL, Names
from bench.report.tables.boundaries import BoundaryTable, cell_of, marks_in_words, tables_by_cache
from bench.report.tables.card import OPTIONAL
from bench.report.text.ends import users_of
from bench.report.text.units import tokens

_LINE = ["bpw", "lazy", *OPTIONAL, "max_seq_len"]


def of_caches(boundaries: pd.DataFrame) -> pd.DataFrame:
    """The boundaries of `cache_size=auto`."""
    return boundaries[_is_of_caches(boundaries)] if "search_axis" in boundaries else boundaries.iloc[:0]


def of_lengths(boundaries: pd.DataFrame) -> pd.DataFrame:
    """All others: how long a sequence or a job may be."""
    return boundaries[~_is_of_caches(boundaries)] if "search_axis" in boundaries else boundaries


def of_several_lengths(caches: pd.DataFrame) -> pd.DataFrame:
    """Those of the models and cards of which the largest cache was searched for jobs of several lengths."""
    if caches.empty:
        return caches
    return caches[caches.groupby(CARD_AND_MODEL, dropna=False)["max_seq_len"].transform("nunique") > 1]


def _is_of_caches(boundaries: pd.DataFrame) -> pd.Series[bool]:
    return boundaries["search_axis"].eq(Axis.CACHE_SIZE.value)


@dataclass(frozen=True, kw_only=True)
class CacheTable(BoundaryTable):
    """A line for each setting and length of jobs, a column for each type of cache."""

    @property
    def legend(self) -> str:
        """Speaks only of what the table shows."""
        shown = [row for cells in self.cells for row in cells if row]
        said = (
            "The largest cache_size that fits where jobs have up to max_seq_len tokens, and how many users with that "
            "many each it has room for (cache_size // max_seq_len)."
        )
        if any(row["certified"] and row["fits_at"] and row["fails_at"] for row in shown):
            said += " Certified by two runs: it fits there, and with a page of 256 tokens more it fails."
        marks = (text.replace("not even 256 tokens", "not even the smallest") for text in marks_in_words(shown))
        return " ".join([said, *marks])

    @property
    def in_words(self) -> str | None:
        """Nothing: its picture is that of how many users there may be."""
        return None

    def header(self) -> list[str]:
        """The names of the columns."""
        return ["bpw", "how", *self.varying, "max_seq_len", *self.caches]

    def body(self) -> list[list[str]]:
        """The cells of each line, as long as the header."""
        return [
            [
                self.axes.bits(line),
                how(line),
                *self.axes.cells(line),
                tokens(next(cell["max_seq_len"] for cell in cells if cell)),
                *map(_cell, cells),
            ]
            for line, cells in zip(self.lines, self.cells, strict=True)
        ]


def cache_tables(boundaries: pd.DataFrame, by_attention: bool = False, names: Names | None = None) -> list[CacheTable]:
    """One table for each card and model in `boundaries`, those of `cache_size=auto`: small cards first."""
    return tables_by_cache(CacheTable, _LINE, boundaries, by_attention, names)


def _cell(row: BoundaryRow | None) -> str:
    """`151,552 (18)`."""
    said = cell_of(row)
    users = None if row is None else users_of(row["fits_at"], row["max_seq_len"])
    return said if users is None else f"{said} ({users:,} user{'s' * (users != 1)})"
