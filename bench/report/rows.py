"""Rows as they come from the disk, made ready to be shown: plain values, and none twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd

from bench.core.column import declared
from bench.core.columns import BoundaryRow, CaseRow, MemoryRow

_COLUMNS = (*declared(CaseRow), *declared(BoundaryRow), *declared(MemoryRow))
_WHOLE = {column.name for column in _COLUMNS if column.type is int}
_LISTS = {column.name for column in _COLUMNS if column.type == list[str]}
# Made plain together: a table of few rows would cost more by its columns than by its rows, and a million dicts are GBs.
_AT_ONCE = 10_000

_Row = TypeVar("_Row")


def latest(frame: pd.DataFrame, identity: str | Sequence[str], moment: str) -> pd.DataFrame:
    """The rows by time; of those that answer the same question, the last."""
    if frame.empty:
        return frame
    if not frame[moment].is_monotonic_increasing:
        frame = frame.sort_values(moment)
    return frame[~frame.duplicated(identity, keep="last")] if frame.duplicated(identity).any() else frame


def memory_of(frame: pd.DataFrame) -> pd.Series[Any]:
    """What each row's card has, or the smaller one inside it: the order in which cards are shown."""
    return frame["vram_limit_bytes"].astype(float).fillna(frame["device_total_bytes"].astype(float))


def shared(column: pd.Series[Any]) -> pd.Series[Any]:
    """The same lists, but those that are equal are one: a million rows have few different notes."""
    known: dict[tuple[Any, ...] | None, Any] = {}
    lists = [known.setdefault(None if own is None else tuple(own), own) for own in column]
    return pd.Series(lists, index=column.index, dtype=object)


def rows_of(frame: pd.DataFrame, row: type[_Row]) -> list[_Row]:
    """The rows of a frame as plain values in the columns of `row`; one that the frame lacks is unknown."""
    return cast(list[_Row], plain(frame.reindex(columns=list(row.__annotations__))))


def plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Plain Python values: None for null, and whole numbers whole, which pandas loses beside a null."""
    whole = set(_whole_columns(frame))
    columns = [_values(frame[name], name in whole) for name in frame.columns]
    names = [str(name) for name in frame.columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def groups_of(frame: pd.DataFrame, number: np.ndarray[Any, np.dtype[Any]], row: type[_Row]) -> Iterator[list[_Row]]:
    """The rows of each group as `rows_of` gives them, by `number`, which says for each row in which group it is."""
    frame = frame.reindex(columns=list(row.__annotations__))
    order = np.argsort(number, kind="stable")
    parts = (order[at : at + _AT_ONCE] for at in range(0, len(order), _AT_ONCE))
    numbered = chain.from_iterable(zip(number[part], rows_of(frame.iloc[part], row), strict=True) for part in parts)
    for _, rows in groupby(numbered, key=itemgetter(0)):
        yield [row for _, row in rows]


def _values(column: pd.Series[Any], whole: bool) -> list[Any]:
    known = column.notna().to_numpy()
    if known.all():
        return column.astype("int64").tolist() if whole else column.tolist()
    values = np.full(len(column), None, dtype=object)
    if not known.any():  # as most columns of most rows are
        return values.tolist()
    some = column[known]
    values[known] = some.astype("int64").astype(object) if whole else some.astype(object)
    return values.tolist()


def raw(frame: pd.DataFrame) -> pd.DataFrame:
    """The same values for CSV: whole numbers whole, lists as JSON."""
    shown = frame.astype(dict.fromkeys(_whole_columns(frame), "Int64"))
    for name in _LISTS & set(shown.columns):
        known: dict[tuple[str, ...], str] = {}
        texts = [None if values is None else _json(tuple(values), known) for values in shown[name]]
        shown[name] = pd.Series(texts, index=shown.index, dtype="str")
    return shown


def _json(values: tuple[str, ...], known: dict[tuple[str, ...], str]) -> str:
    """As JSON; what rows note, many of them do."""
    if values not in known:
        known[values] = json.dumps(list(values))
    return known[values]


def _whole_columns(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns if name in _WHOLE or str(name).endswith("_bytes")]
