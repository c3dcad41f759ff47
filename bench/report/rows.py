"""Rows as they come from the disk, made ready to be shown: plain values, and none twice."""

from __future__ import annotations

import json
import math
from typing import Any

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
    return frame if frame.empty else frame.sort_values(moment).drop_duplicates(identity, keep="last")


def plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Plain Python values: None for null, and whole numbers whole, which pandas loses beside a null."""
    whole = set(_whole_columns(frame))
    return [
        {str(name): None if _missing(value) else int(value) if name in whole else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


def raw(frame: pd.DataFrame) -> pd.DataFrame:
    """The same values for CSV: whole numbers whole, lists as JSON."""
    shown = frame.astype(dict.fromkeys(_whole_columns(frame), "Int64"))
    for name in _LISTS & set(shown.columns):
        shown[name] = shown[name].map(lambda values: None if values is None else json.dumps(list(values)))
    return shown


def _whole_columns(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns if name in _WHOLE or str(name).endswith("_bytes")]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
