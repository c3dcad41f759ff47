"""What several cards of one kind came to with the same settings, on one host or many: the least and the most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from bench.core.caches import coarseness
from bench.core.columns import MODEL, BoundaryRow, CaseRow
from bench.core.identity import key_of
from bench.core.identity_columns import IdentityColumns, MachineColumns
from bench.report.kinds import KIND
from bench.report.naming.axes import OPTIONAL, Axes, how
from bench.report.naming.cards import of_a_kind
from bench.report.naming.models import Names
from bench.report.rows import rows_of
from bench.report.text.plain_table import PlainTable
from bench.report.text.units import gib, rate, tokens

_LEGEND = (
    "The same settings on several cards of one kind, from the least to the most that any of them came to. Elsewhere "
    "stands the one with the least room."
)


class _Place(IdentityColumns, MachineColumns):
    """A card, where it is, and what is asked of it."""


class _Case(CaseRow):
    question: int


class _Boundary(BoundaryRow):
    question: int


_Row = Any  # one of both, as the cells of its table take it


def spread_tables(cases: pd.DataFrame, boundaries: pd.DataFrame, names: Names) -> list[PlainTable]:
    """A table for each kind of card and model in the frames, which are those that `kinds.by_kind` has of all cards."""
    return [
        *_tables(boundaries, _Boundary, "how far it goes", ["fits at"], _ends, names),
        *_tables(cases, _Case, "case by case", ["max_seq_len", "verdicts", "GiB", "tokens/s at the end"], _run, names),
    ]


def _tables(
    frame: pd.DataFrame,
    row: type,
    words: str,
    columns: list[str],
    cells: Callable[[Sequence[_Row]], list[str]],
    names: Names,
) -> Iterator[PlainTable]:
    if frame.empty:
        return
    rows = sorted(rows_of(frame, row), key=_table_of)
    for _, own in groupby(rows, _table_of):
        of_table = list(own)
        axes = Axes(of_table, OPTIONAL)
        several: dict[int, list[_Row]] = {}
        for each in sorted(of_table, key=_line_place):
            several.setdefault(each["question"], []).append(each)
        lines = []
        for alike in several.values():
            first = alike[0]
            counts = [len({each["device_uuid"] for each in alike}), len({each["host"] for each in alike})]
            setting = [axes.bits(first), first["cache"], how(first), *axes.cells(first)]
            lines.append([*setting, *map(str, counts), *cells(alike)])
        cards = sorted({_place(each) for each in of_table})
        title = {**of_table[0], "device_uuid": of_a_kind(len({uuid for uuid, _ in cards}))}
        yield PlainTable(
            title=f"Card to card, {words}: {names.model(of_table[0])} on {names.card_title(title)}",  # type: ignore[arg-type]
            legend=_LEGEND,
            columns=["bpw", "cache", "how", *axes.varying, "cards", "hosts", *columns],
            lines=lines,
            notes=[f"{uuid}: {where}" for uuid, where in cards],
            varying=axes.varying,
        )


def _table_of(row: Any) -> tuple[str, ...]:
    return tuple(map(str, key_of(row, (*KIND, *MODEL))))


def _line_place(row: Any) -> tuple[Any, ...]:
    length = row.get("max_seq_len") or 0
    return row["bpw"], coarseness(row["cache"]), row["lazy"], length, row["question"], str(row["device_uuid"])


def _place(row: _Place) -> tuple[str, str]:
    """Which card, and where with what: what may be why it differs from others."""
    where = f"on {row['host'] or 'an unknown host'}"
    driver = [] if row["driver_version"] is None else [f"driver {row['driver_version']}"]
    torch = [] if row["torch_version"] is None else [f"PyTorch {row['torch_version']}"]
    return str(row["device_uuid"] or "no uuid"), ", ".join([where, *driver, *torch])


def _ends(rows: Sequence[_Boundary]) -> list[str]:
    found = [row["fits_at"] for row in rows]
    nothing = ["none"] if any(row["fits_at"] is None and row["outcome"] == "oom" for row in rows) else []
    told = _between([length for length in found if length is not None], tokens)
    failed = sorted({row["outcome"] for row in rows if row["fits_at"] is None and row["outcome"] != "oom"})
    return [", ".join([*nothing, *([told] if told else []), *failed])]


def _run(rows: Sequence[_Case]) -> list[str]:
    verdicts = [row["outcome"] for row in rows]
    told = [f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(sorted(verdicts))]
    peaks = [row["peak_device_bytes"] for row in rows if row["peak_device_bytes"] is not None]
    speeds = [row["decode_tokens_per_s_full"] for row in rows if row["decode_tokens_per_s_full"] is not None]
    return [tokens(rows[0]["max_seq_len"]), ", ".join(told), _between(peaks, gib), _between(speeds, rate)]


def _between(values: Sequence[Any], text: Callable[[Any], str]) -> str:
    """`8,192 to 8,448 (3.1 %)`, or the one that all have; empty where nobody tells."""
    if not values:
        return ""
    least, most = min(values), max(values)
    if least == most:
        return text(least)
    share = f" ({100 * (most - least) / least:.1f} %)" if least else ""
    return f"{text(least)} to {text(most)}{share}"
