"""Peak VRAM and verdicts over max_seq_len, for each card and model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import pandas as pd

from bench.core.case import PAGE
from bench.core.columns import DOCUMENTS
from bench.report.naming.axes import how
from bench.report.naming.models import CARD_AND_MODEL, Names
from bench.report.tables.card import OPTIONAL, CardTable, TableRow, card_tables, cells_of, lines_of
from bench.report.text.ends import OWN_LIMIT, at_least
from bench.report.text.units import gib, tokens
from bench.report.text.verdicts import in_a_cell

_LINE = ["bpw", "cache", "lazy", *OPTIONAL]
_NEAR = 1.3  # of a length to the next


class ShownCase(TableRow):
    """What a table or a picture of cases shows of one."""

    started_at: datetime
    max_seq_len: int
    phase: str
    peak_device_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class VerdictTable(CardTable[ShownCase]):
    """A column for each of `lengths`, and a line for each way to run the model."""

    lengths: list[int]

    @property
    def legend(self) -> str:
        """Speaks only of what the table shows."""
        ends = [self.fits_up_to(i) for i in range(len(self.lines))]
        parts = ["Peak VRAM in GiB, or the phase that ran out."]
        if any(end.endswith("max") for end in ends):
            parts.append(OWN_LIMIT)
        if any(end.startswith("≥") for end in ends):
            parts.append(
                "≥: the longest of the lengths tried that fits, and no more than that: max_seq_len=auto finds how far "
                "it goes."
            )
        if any(end.startswith("<") for end in ends):
            parts.append("<: none of the lengths tried fits, and this is the shortest of them.")
        if "none" in ends:
            parts.append("none: not even 256 tokens.")
        return " ".join(parts)

    @property
    def notes(self) -> list[str]:
        """Why some cells have no answer."""
        errors = {row["error"] for row in self.rows if row["error"] and row["outcome"] not in ("fits", "oom")}
        return sorted(errors)

    def header(self) -> list[str]:
        """The names of the columns."""
        return ["bpw", "cache", "how", *self.varying, *(tokens(n) for n in self.lengths), "fits up to"]

    def body(self) -> list[list[str]]:
        """The cells of each line, as long as the header."""
        return [
            [
                self.axes.bits(line),
                str(line["cache"]),
                how(line),
                *self.axes.cells(line),
                *(_cell(cell) for cell in self.cells[i]),
                self.fits_up_to(i),
            ]
            for i, line in enumerate(self.lines)
        ]

    def fits_up_to(self, index: int) -> str:
        """How far a line goes by the lengths that were tried: a lower bound, unless a page further was seen to fail."""
        row = [(n, cell["outcome"]) for n, cell in zip(self.lengths, self.cells[index], strict=True) if cell]
        fits = max((n for n, outcome in row if outcome == "fits"), default=None)
        if fits is None:
            return _beyond([n for n, outcome in row if outcome == "oom"])
        if fits == self.own_limit:
            return f"{tokens(fits)} max"
        is_end = any(fits < n <= fits + PAGE and outcome in ("oom", "degraded") for n, outcome in row)
        return tokens(fits) if is_end else at_least(fits)


def _beyond(failed: Sequence[int]) -> str:
    """How far a line goes of which no length that was tried fits: `not at 8,192` of one, `< 2,048` of several."""
    if not failed:
        return "–"
    if min(failed) <= PAGE:
        return "none"
    return f"not at {tokens(failed[0])}" if len(failed) == 1 else f"< {tokens(min(failed))}"


def close_together(lengths: Sequence[int]) -> bool:
    """Whether what lies between two neighbours is near enough to both to be drawn as a line."""
    return len(lengths) > 2 and all(longer <= _NEAR * shorter for shorter, longer in pairwise(lengths))


def verdict_tables(
    frame: pd.DataFrame, by_attention: bool = False, names: Names | None = None
) -> Iterator[VerdictTable]:
    """One table at a time for each card and model in `frame` (rows of cases, each case once)."""
    return card_tables(shown(frame), "started_at", ShownCase, _table, by_attention, names)


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that a table or a picture of cases shows; there may be a million rows."""
    return frame if frame.empty else frame[list(ShownCase.__annotations__)]


def _table(rows: list[ShownCase], names: Names) -> VerdictTable:
    lines = lines_of(rows, _LINE)
    lengths = sorted({row["max_seq_len"] for row in rows})
    cells = cells_of(rows, _LINE, lines, "max_seq_len", lengths)
    return VerdictTable(names=names, rows=rows, lines=lines, lengths=lengths, cells=cells)


def _cell(row: ShownCase | None) -> str:
    if row is None:
        return ""
    if row["outcome"] == "fits":
        return gib(row["peak_device_bytes"])
    return in_a_cell(row["outcome"], row["phase"])


def as_frames(frame: pd.DataFrame, most_rows: int) -> Iterator[pd.DataFrame]:
    """The rows in the order of their CSV, without the columns that hold whole documents, `most_rows` at a time.

    Never all at once: sorted, a million rows would be there twice.
    """
    names = [name for name in frame.columns if name not in DOCUMENTS]
    keys = [*CARD_AND_MODEL, *_LINE, "max_seq_len"]
    order = frame[keys].reset_index(drop=True).sort_values(keys).index
    for at in range(0, len(frame), most_rows):
        yield frame.iloc[order[at : at + most_rows]][names]
