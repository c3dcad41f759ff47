"""Tokens a second over how many sequences or jobs decode together, of what is alike in all else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from bench.core.caches import coarseness
from bench.report.naming.axes import how
from bench.report.naming.models import CARD_AND_MODEL, Names
from bench.report.tables.card import (
    OPTIONAL,
    CardTable,
    Line,
    TableRow,
    card_tables,
    cells_of,
    lines_of,
)
from bench.report.text.units import rate, tokens

_LINE = ["bpw", "cache", "lazy", *(name for name in OPTIONAL if name != "batch_size"), "max_seq_len"]
_SPEEDS = ("decode_tokens_per_s_full", "estimated_decode_tokens_per_s")


class SpeedRow(TableRow):
    """What is shown of a case that fits: measured on a real card, estimated on a simulated one."""

    max_seq_len: int
    decode_tokens_per_s_full: float | None
    estimated_decode_tokens_per_s: float | None


def speed_of(row: SpeedRow) -> float | None:
    """Of all sequences or jobs together, with their contexts full; no card has both a measured and an estimated one."""
    measured = row["decode_tokens_per_s_full"]
    return row["estimated_decode_tokens_per_s"] if measured is None else measured


@dataclass(frozen=True, kw_only=True)
class SpeedTable(CardTable[SpeedRow]):
    """A column for each of `batch_sizes`, and a line for each setting and length of which several were run."""

    batch_sizes: list[int]

    @property
    def legend(self) -> str:
        """Whose speeds they are."""
        basis = "estimated from memory bandwidth" if self.simulated else "measured"
        return (
            f"Tokens/s of all sequences or jobs together by how many decode at a time (batch_size), {basis}; each has "
            "max_seq_len tokens, and decodes at its end. In brackets those of each."
        )

    @property
    def notes(self) -> list[str]:
        """Nothing."""
        return []

    def header(self) -> list[str]:
        """The names of the columns."""
        return ["bpw", "cache", "how", *self.varying, "max_seq_len", *map(str, self.batch_sizes)]

    def body(self) -> list[list[str]]:
        """The cells of each line, as long as the header."""
        return [
            [
                self.axes.bits(line),
                str(line["cache"]),
                how(line),
                *self.axes.cells(line),
                tokens(length_of(cells)),
                *map(_cell, cells),
            ]
            for line, cells in zip(self.lines, self.cells, strict=True)
        ]

    def words(self, index: int) -> str:
        """What tells a line of one cache from the others: `4 bpw load, 8,192 tokens`."""
        line = self.lines[index]
        words = [f"{self.axes.bits(line)} bpw {how(line)}", *self.axes.others(line)]
        return ", ".join([*words, f"{tokens(length_of(self.cells[index]))} tokens"])


def length_of(cells: list[SpeedRow | None]) -> int:
    """The length of a line, by its cells."""
    return next(cell["max_seq_len"] for cell in cells if cell is not None)


def _cell(row: SpeedRow | None) -> str:
    """`187 (23)`, or `134` of one sequence."""
    speed = None if row is None else speed_of(row)
    if row is None or speed is None:
        return ""
    jobs = row["batch_size"] or 1
    return rate(speed) if jobs == 1 else f"{rate(speed)} ({rate(speed / jobs)})"


def of_several_sizes(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases with a speed, of the settings and lengths that were run with several batch sizes; each case once."""
    if cases.empty:
        return cases
    fits = cases[cases["outcome"].eq("fits") & cases[list(_SPEEDS)].notna().any(axis=1)]
    fits = fits[list(dict.fromkeys([*SpeedRow.__annotations__, "started_at"]))]
    if fits.empty:
        return fits
    alike = fits.assign(attention=fits["attention"].fillna(fits["attention_requested"]))
    counts = alike.groupby([*CARD_AND_MODEL, *_LINE], dropna=False)["batch_size"].transform("nunique")
    return fits[counts > 1]


def speed_tables(frame: pd.DataFrame, by_attention: bool = False, names: Names | None = None) -> Iterator[SpeedTable]:
    """One table at a time for each card and model in `frame`, which are rows that `of_several_sizes` gives."""
    return card_tables(frame, "started_at", SpeedRow, _table, by_attention, names)


def _table(rows: list[SpeedRow], names: Names) -> SpeedTable:
    lines = sorted(lines_of(rows, _LINE), key=_place)
    sizes = sorted({row["batch_size"] or 1 for row in rows})
    cells = cells_of(rows, _LINE, lines, "batch_size", sizes)
    return SpeedTable(names=names, rows=rows, lines=lines, batch_sizes=sizes, cells=cells)


def _place(line: Line) -> tuple[object, ...]:
    """Few bits first, then the cache from large to small."""
    return line["bpw"], coarseness(str(line["cache"]))
