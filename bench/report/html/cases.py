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

from bench.core.columns import CaseRow
from bench.core.identity import key_of
from bench.report.naming.axes import how
from bench.report.naming.cards import kind_word
from bench.report.naming.models import Names
from bench.report.rows import rows_of
from bench.report.tables.card import OPTIONAL
from bench.report.text.units import GIB
from bench.report.text.verdicts import ended

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
    """The last of `total` cases: each of `rows` has a cell for each of `columns`, which assets/report.js reads."""

    columns: list[dict[str, Any]]
    rows: list[list[_Cell]]
    total: int


@dataclass(frozen=True)
class _Column:
    """`digits` after the point of a number, all that it has where None; `is_word`: no number."""

    title: str
    cell: Callable[[CaseRow], _Cell]
    digits: int | None = None
    is_word: bool = False


def case_table(cases: pd.DataFrame, names: Names) -> CaseTable:
    """The `MOST_CASES` that were run last, the last first. Columns that say nothing here are left out.

    A number is as it is shown, so that a filter finds what one reads.
    """
    rows = rows_of(cases.tail(MOST_CASES).iloc[::-1], CaseRow)
    varying = [
        name
        for name in OPTIONAL
        if name != "attention" and len({value for row in rows for value in key_of(row, [name])}) > 1
    ]
    named = [
        _Column("model", names.model, is_word=True),
        _Column("card", names.card, is_word=True),
    ]
    possible = [*named, *_COLUMNS, *(_Column(name, _whole(name), digits=0) for name in varying)]
    columns = [column for column in possible if any(column.cell(row) is not None for row in rows)]
    return CaseTable(
        columns=[{"title": c.title, "digits": c.digits, "isWord": c.is_word} for c in columns],
        rows=[[_shown(column.cell(row), column.digits) for column in columns] for row in rows],
        total=len(cases),
    )


def _whole(name: str) -> Callable[[CaseRow], _Cell]:
    return lambda row: key_of(row, [name])[0]


def _in_gib(name: str) -> Callable[[CaseRow], _Cell]:
    def cell(row: CaseRow) -> _Cell:
        (size_bytes,) = key_of(row, [name])
        return None if size_bytes is None else size_bytes / GIB

    return cell


def _of_draft(name: str) -> Callable[[CaseRow], _Cell]:
    return lambda row: None if row["draft_model"] is None else _in_gib(name)(row)


def _in_use(row: CaseRow) -> _Cell:
    """Of what ran out of memory it is only what was in use until then, and no figure to compare a prediction with."""
    return _in_gib("peak_allocated_bytes")(row) if row["outcome"] == "fits" else None


def _shown(cell: _Cell, digits: int | None) -> _Cell:
    return round(cell, digits) if isinstance(cell, float) and digits is not None else cell


_COLUMNS = (
    _Column("kind", kind_word, is_word=True),
    _Column("limit, GiB", _in_gib("vram_limit_bytes"), digits=2),
    _Column("bpw", _whole("bpw")),
    _Column("cache", lambda row: row["cache"], is_word=True),
    _Column("how", how, is_word=True),
    _Column("attention", lambda row: row["attention"] or row["attention_requested"], is_word=True),
    _Column("max_seq_len", _whole("max_seq_len"), digits=0),
    _Column("verdict", lambda row: ended(row["outcome"], row["phase"]), is_word=True),
    _Column("VRAM, GiB", _in_gib("peak_device_bytes"), digits=2),
    _Column("in use, GiB", _in_use, digits=2),
    _Column("in use as predicted, GiB", _in_gib("predicted_peak_bytes"), digits=2),
    _Column("weights, GiB", _in_gib("weights_bytes"), digits=2),
    _Column("cache, GiB", _in_gib("cache_bytes"), digits=2),
    _Column("draft weights, GiB", _of_draft("draft_weights_bytes"), digits=2),
    _Column("draft cache, GiB", _of_draft("draft_cache_bytes"), digits=2),
    _Column("tokens/s, measured", _whole("decode_tokens_per_s_full"), digits=1),
    _Column("tokens/s, estimated", _whole("estimated_decode_tokens_per_s"), digits=1),
    _Column("took, s", _whole("wall_s"), digits=1),
)
