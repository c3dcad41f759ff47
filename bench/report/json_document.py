"""Rows as one JSON document, piece by piece, as there may be a million of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import pandas as pd

from bench.report.rows import plain

_AT_ONCE = 10_000


def as_json_document(head: Mapping[str, Any], rows: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    """The members of `head`, then those of `rows`, each a list with an object a row, in lines of their own.

    Values are raw: sizes in bytes, moments as ISO 8601, null for what is unknown.
    """
    yield json.dumps(head)[:-1]
    for name, frame in rows.items():
        yield f",\n{json.dumps(name)}: ["
        separator = "\n"
        for at in range(0, len(frame), _AT_ONCE):
            for row in plain(frame.iloc[at : at + _AT_ONCE]):
                yield separator + json.dumps(row, default=_as_json, allow_nan=False)
                separator = ",\n"
        yield "]"
    yield "}\n"


def _as_json(value: Any) -> Any:
    """What pandas and numpy have for a moment, a list and a number."""
    return value.isoformat() if isinstance(value, datetime) else value.tolist()
