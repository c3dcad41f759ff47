"""Rows as they come from the disk, made ready to be shown: plain values, and none twice."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

_WHOLE = {
    "head_bits",
    "batch_size",
    "max_input_len",
    "max_seq_len",
    "native_max_seq_len",
    "fits_at",
    "fails_at",
    "predicted_fits_at",
    "probes",
    "exit_code",
    "signal",
}
_LISTS = {"notes", "case_ids"}


def latest(frame: pd.DataFrame, identity: str, moment: str) -> pd.DataFrame:
    """The rows by time; of those that answer the same question, the last."""
    if frame.empty:
        return frame
    if not frame[moment].is_monotonic_increasing:
        frame = frame.sort_values(moment)
    return frame[~frame.duplicated(identity, keep="last")] if frame.duplicated(identity).any() else frame


def plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Plain Python values: None for null, and whole numbers whole, which pandas loses beside a null."""
    whole = set(_whole_columns(frame))
    columns = [_values(frame[name], name in whole) for name in frame.columns]
    names = [str(name) for name in frame.columns]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values(column: pd.Series[Any], whole: bool) -> list[Any]:
    known = column.notna()
    if known.all():
        return column.astype("int64").tolist() if whole else column.tolist()
    values = np.full(len(column), None, dtype=object)
    some = column[known]
    values[known.to_numpy()] = some.astype("int64").astype(object) if whole else some.astype(object)
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
