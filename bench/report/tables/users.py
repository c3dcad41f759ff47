"""How many users with so many tokens each a card has room for, and by which search that was found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from bench.core.caches import coarseness
from bench.core.case import DEFAULT_SCENARIO, Axis
from bench.core.columns import SETTING, BoundaryRow
from bench.core.identity import key_of
from bench.core.outcome import Outcome
from bench.report.naming.axes import Axes
from bench.report.naming.models import CARD_AND_MODEL, Names
from bench.report.rows import rows_of
from bench.report.text.ends import is_lower_bound, is_own_limit, users_of
from bench.report.text.plain_table import PlainTable, card_key
from bench.report.text.units import tokens

LENGTHS = (8192, 16384, 32768)  # what a user is asked to have, in tokens
_ANSWERS = (Outcome.FITS, Outcome.OOM)
_BUT_JOBS = [name for name in SETTING if name not in ("bpw", "cache", "batch_size")]
_LEGEND = (
    "How many users with so many tokens each there is room for. found by jobs: so many jobs of that length, or longer, "
    "ran together (batch_size with max_seq_len=auto); +: more may fit, as the next number of jobs was not tried. found "
    "by cache: the largest cache_size for jobs of that length is so many times as long (cache_size=auto); fewer jobs "
    "may have run together."
)
_Rows = dict[tuple[Any, ...], list[BoundaryRow]]


def users_tables(boundaries: pd.DataFrame, names: Names) -> list[PlainTable]:
    """A table for each card and model of which a generator's cache, or several numbers of jobs, were searched."""
    if boundaries.empty:
        return []
    served = boundaries[
        boundaries["scenario"].fillna(DEFAULT_SCENARIO).ne(DEFAULT_SCENARIO) & boundaries["outcome"].isin(_ANSWERS)
    ]
    groups: _Rows = {}
    for row in rows_of(served, BoundaryRow):
        groups.setdefault(key_of(row, CARD_AND_MODEL), []).append(row)
    tables = [_table(rows, names) for rows in groups.values()]
    return [table for table in tables if table.lines]


def _table(rows: Sequence[BoundaryRow], names: Names) -> PlainTable:
    axes, lines = Axes(rows, _BUT_JOBS), []
    lengths = sorted({*LENGTHS, *(row["max_seq_len"] for row in rows if row["max_seq_len"] is not None)})
    for key, of_setting in sorted(_by_setting(rows).items(), key=lambda each: _place(each[0])):
        by_cache = key[-1] == Axis.CACHE_SIZE
        found = [(_by_cache if by_cache else _by_jobs)(of_setting, length) for length in lengths]
        if any(found):
            first = of_setting[0]
            way = f"cache, {_jobs(first['batch_size'])}" if by_cache else "jobs"
            lines.append([axes.bits(first), first["cache"], *axes.cells(first), *(each or "–" for each in found), way])
    used = [at for at in range(len(lengths)) if any(line[-1 - len(lengths) + at] != "–" for line in lines)]
    kept = [lengths[at] for at in used]
    lines = [[*line[: -1 - len(lengths)], *(line[at - 1 - len(lengths)] for at in used), line[-1]] for line in lines]
    return PlainTable(
        title=f"Users: {names.model(rows[0])} on {names.card_title(rows[0])}",
        legend=_LEGEND,
        columns=["bpw", "cache", *axes.varying, *map(tokens, kept), "found by"],
        lines=lines,
        varying=axes.varying,
        card_key=card_key(rows[0]),
    )


def _by_setting(rows: Iterable[BoundaryRow]) -> _Rows:
    """The rows of each setting: of those that searched the cache by how many jobs ran, of others all together.

    One number of jobs says how long they may be, and not how many there may be.
    """
    groups: _Rows = {}
    for row in rows:
        by_cache = row["search_axis"] == Axis.CACHE_SIZE
        jobs = row["batch_size"] if by_cache else None
        key = (row["bpw"], row["cache"], key_of(row, _BUT_JOBS), jobs or 0, row["search_axis"])
        groups.setdefault(key, []).append(row)
    return {
        key: found
        for key, found in groups.items()
        if key[-1] == Axis.CACHE_SIZE or len({row["batch_size"] for row in found}) > 1
    }


def _place(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """Few bits first, then the cache from large to small."""
    return key[0], coarseness(key[1]), str(key[2]), key[-1], key[3]


def _jobs(count: int | None) -> str:
    return "1 job ran" if count in (None, 1) else f"{count} jobs ran"


def _by_cache(rows: Sequence[BoundaryRow], length: int) -> str | None:
    """As many as the largest cache for jobs of that length has room for."""
    row = next((row for row in reversed(rows) if row["max_seq_len"] == length), None)
    if row is None:
        return None
    users = users_of(row["fits_at"] or 0, length)
    return f"{users:,}" + ("+" if is_lower_bound(row) else "" if row["certified"] else "?")


def _by_jobs(rows: Sequence[BoundaryRow], length: int) -> str | None:
    """The most jobs that were seen to have room for that length."""
    ends = {int(row["batch_size"] or 1): row for row in rows}
    reach = [jobs for jobs, row in ends.items() if (row["fits_at"] or 0) >= length]
    fails = [jobs for jobs, row in ends.items() if (row["fits_at"] or 0) < length and _is_its_end(row)]
    if not reach:
        return "0" if 1 in fails else None
    return f"{max(reach):,}" + ("" if max(reach) + 1 in fails else "+")


def _is_its_end(row: BoundaryRow) -> bool:
    """Whether the card ended it, so that no longer job fits."""
    return row["certified"] and not is_own_limit(row) and not is_lower_bound(row)
