"""A table of text cells, for what is not a grid of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.report.format import size


@dataclass(frozen=True, kw_only=True)
class PlainTable:
    """`lines` of cells under `columns`, how to read them (`legend`), and what else a reader should know (`notes`)."""

    title: str
    legend: str
    columns: list[str]
    lines: list[list[str]]
    notes: list[str] = field(default_factory=list)
    varying: Sequence[str] = ()

    def header(self) -> list[str]:
        return self.columns

    def body(self) -> list[list[str]]:
        return self.lines


def card_title(name: str, kind: str, total_bytes: float | None, limit_bytes: float | None, uuid: str | None) -> str:
    """`rtx_4090 (simulated), 23.52 GiB`; a real card by the end of its own number, as there may be two of a name."""
    what = "simulated" if kind == "simulated" else "measured"
    limited = "" if limit_bytes is None else f" limited to {size(limit_bytes)}"
    mark = "" if uuid is None else f" [{uuid[-6:]}]"
    return f"{name} ({what}), {size(total_bytes)}{limited}{mark}"
