"""Rows as pandas DataFrames: numbers that may be unknown stay whole, null stays null, each column has its unit."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any, get_args, get_type_hints

import pandas as pd

from bench.core.column import declared
from bench.core.columns import BoundaryRow, CaseRow, MemoryRow
from bench.report.forecasts import ForecastRow

_DECLARED = {column.name: column for row in (CaseRow, MemoryRow, BoundaryRow) for column in declared(row)}
_NULLABLE = {int: "Int64", bool: "boolean"}
_DTYPES = _NULLABLE | {float: "float64"}
_SUFFIXES = {"_tokens_per_s": "tokens/s", "_bytes": "bytes", "fits_at": "tokens", "_s": "s"}
_APART = ("parts", "identity", "is_search")


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows as they were read, with whole numbers whole (`Int64`) and yes or no (`boolean`) beside nulls."""
    kinds = {str(name): _NULLABLE[_kind(str(name))] for name in frame if _kind(str(name)) in _NULLABLE}
    return with_units(frame.astype(kinds))


def forecast_frame(rows: Sequence[ForecastRow]) -> pd.DataFrame:
    """A plan, a row for each case and search, under the names that `plan --json` has.

    The parts of the predicted peak are columns of their own, `predicted_weights_bytes` and so on; `is_search` tells
    searches from cases.
    """
    identity = list(dict.fromkeys(name for row in rows for name in row.identity))
    own = {name: kind for name, kind in _own_kinds().items() if name not in identity}
    parts = [f"predicted_{name}" for name in dict.fromkeys(name for row in rows for name in row.parts or ())]
    columns = [*identity, "is_search", *own, *parts]
    told = []
    for row in rows:
        predicted = {f"predicted_{name}": value for name, value in (row.parts or {}).items()}
        values: dict[str, Any] = {**row.to_json(), "is_search": row.is_search, **predicted}
        told.append({name: values.get(name) for name in columns})
    known = {name: _kind(name) for name in identity} | own | dict.fromkeys(parts, int) | {"is_search": bool}
    kinds = {name: _DTYPES[kind] for name, kind in known.items() if kind in _DTYPES}
    return with_units(pd.DataFrame(told, columns=columns).astype(kinds))


def with_units(frame: pd.DataFrame) -> pd.DataFrame:
    """The same frame; `frame.attrs["units"]` has the unit of each column that has one."""
    units = {str(name): unit_of(str(name)) for name in frame}
    frame.attrs["units"] = {name: unit for name, unit in units.items() if unit}
    return frame


def unit_of(name: str) -> str:
    """The unit of a column, as docs/results.md has it; nothing where it has none."""
    if name in _DECLARED:
        return _DECLARED[name].about.unit
    return next((unit for suffix, unit in _SUFFIXES.items() if name.endswith(suffix)), "")


def _kind(name: str) -> Any:
    return _DECLARED[name].type if name in _DECLARED else None


def _own_kinds() -> dict[str, Any]:
    """What a forecast says beside its identity, each with its type without None."""
    kinds: dict[str, Any] = {}
    for name, hint in get_type_hints(ForecastRow).items():
        if name not in _APART:
            plain = [each for each in get_args(hint) if each is not NoneType]
            kinds[name] = plain[0] if len(plain) == 1 and NoneType in get_args(hint) else hint
    return kinds | {"predicted_needed_bytes": int}
