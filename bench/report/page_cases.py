"""The page's table of cases: its columns, its cells, and the library that sorts and filters it (the door to itables).

DataTables comes as itables packs it, so that it is installed and pinned like any other package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import itables
import pandas as pd

from bench.report.card_table import OPTIONAL, SHORT, how
from bench.report.format import GIB
from bench.report.rows import plain

# What a browser sorts and filters without being felt, and what a person may still look through.
MOST_CASES = 5_000

_Cell = str | float | None


def library() -> tuple[str, str]:
    """DataTables' JavaScript (a module) and its CSS."""
    folder = files(itables) / "html"
    script, style = ((folder / name).read_text(encoding="utf-8") for name in ("dt_bundle.js", "dt_bundle.css"))
    return script, style


@dataclass(frozen=True, kw_only=True)
class CaseTable:
    """The last of `total` cases, each of `rows` with a cell for each of `columns` (title, kind of cell and number of
    digits, as assets/report.js reads them).
    """

    columns: list[dict[str, Any]]
    rows: list[list[_Cell]]
    total: int


@dataclass(frozen=True)
class _Column:
    """`digits` of a number, None for words."""

    title: str
    digits: int | None
    cell: Callable[[dict[str, Any]], _Cell]


def case_table(cases: pd.DataFrame) -> CaseTable:
    """The `MOST_CASES` that were run last, the last first. Columns that say nothing here are left out."""
    rows = plain(cases.tail(MOST_CASES).iloc[::-1])
    known = [column for column in _COLUMNS if any(column.cell(row) is not None for row in rows)]
    varying = {name for name in OPTIONAL if len({row[name] for row in rows}) > 1}
    columns = [*known, *(_plain_column(name) for name in OPTIONAL if name in varying and name != "attention")]
    return CaseTable(
        columns=[{"title": column.title, "digits": column.digits} for column in columns],
        rows=[[column.cell(row) for column in columns] for row in rows],
        total=len(cases),
    )


def _plain_column(name: str) -> _Column:
    return _Column(name, 0, lambda row: row[name])


def _in_gib(name: str) -> Callable[[dict[str, Any]], _Cell]:
    return lambda row: None if row[name] is None else round(row[name] / GIB, 3)


def _verdict(row: dict[str, Any]) -> str:
    if row["outcome"] == "oom":
        return f"OOM in {row['phase']}"
    return SHORT.get(row["outcome"], str(row["outcome"]))


def _rounded(name: str) -> Callable[[dict[str, Any]], _Cell]:
    return lambda row: None if row[name] is None else round(row[name], 2)


_COLUMNS = (
    _Column("kind", None, lambda row: "simulated" if row["device_kind"] == "simulated" else "measured"),
    _Column("card", None, lambda row: row["device_name"]),
    _Column("limit, GiB", 2, _in_gib("vram_limit_bytes")),
    _Column("model", None, lambda row: row["model"]),
    _Column("bpw", 2, _rounded("bpw")),
    _Column("cache", None, lambda row: row["cache"]),
    _Column("how", None, how),
    _Column("attention", None, lambda row: row["attention"] or row["attention_requested"]),
    _Column("max_seq_len", 0, lambda row: row["max_seq_len"]),
    _Column("verdict", None, _verdict),
    _Column("VRAM, GiB", 2, _in_gib("peak_device_bytes")),
    _Column("predicted, GiB", 2, _in_gib("predicted_peak_bytes")),
    _Column("weights, GiB", 2, _in_gib("weights_bytes")),
    _Column("cache, GiB", 2, _in_gib("cache_bytes")),
    _Column("tokens/s, measured", 1, _rounded("decode_tokens_per_s_full")),
    _Column("tokens/s, estimated", 1, _rounded("estimated_decode_tokens_per_s")),
    _Column("took, s", 1, _rounded("wall_s")),
)
