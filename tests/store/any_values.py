"""Rows with any values at all in the columns that may be null."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from bench.store.schema import value_before

_BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(),
    pa.list_(pa.float64()): st.lists(st.floats(allow_nan=False)),
    pa.list_(pa.string()): st.lists(st.text()),
}


def values_of(schema: pa.Schema, required: Container[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the columns of `schema` that are not `required`."""
    return st.fixed_dictionaries(
        {}, optional={column.name: _BY_TYPE[column.type] for column in schema if column.name not in required}
    )


def as_read(schema: pa.Schema, row: dict[str, Any]) -> dict[str, Any]:
    """A stored row with every column: those that it lacks have the value that all rows had before them."""
    row = {column.name: value_before(column) for column in schema} | row
    if row["engine_version"] is None and row["engine"] is not None:
        row["engine_version"] = row.get(f"{row['engine']}_version")
    return row
