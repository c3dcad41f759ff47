"""A table of text cells, for what is not a grid of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


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
