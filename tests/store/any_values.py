"""Rows with any values at all in the columns that may be null."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

_BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.string(): st.text(),
    pa.list_(pa.float64()): st.lists(st.floats(allow_nan=False)),
    pa.list_(pa.string()): st.lists(st.text()),
}


def values_of(schema: pa.Schema, required: Container[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the columns of `schema` that are not `required`."""
    return st.fixed_dictionaries(
        {}, optional={column.name: _BY_TYPE[column.type] for column in schema if column.name not in required}
    )
