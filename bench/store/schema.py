"""Every stored row's columns in parquet: one explicit, versioned schema for each kind of table."""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum
from typing import Any

import pyarrow as pa

from bench.core.column import Declared, declared
from bench.core.columns import SCHEMA_VERSION, BoundaryRow, CaseRow, MemoryRow


class Kind(StrEnum):
    """The kinds of rows; each has a file of its own in a run's folder."""

    CASES = "cases"
    BOUNDARIES = "boundaries"
    MEMORY = "memory"


# The kinds that have an answer each, and that are compared with each other; `memory` is a part of cases.
ANSWERS = (Kind.CASES, Kind.BOUNDARIES)


_TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    datetime: pa.timestamp("us", tz="UTC"),
    list[str]: pa.list_(pa.string()),
    list[float]: pa.list_(pa.float64()),
}
_LATER = b"later"
_RENAMED = b"renamed"


def is_later(column: pa.Field[Any]) -> bool:
    """Whether a file without this column is merely older; without any other, it is damaged."""
    return _LATER in (column.metadata or {})


def value_before(column: pa.Field[Any]) -> int | str | None:
    """The value of a column for rows of older programs, which lack it."""
    value: int | str | None = json.loads((column.metadata or {}).get(_LATER, b"null"))
    return value


def renamed_values(column: pa.Field[Any]) -> dict[str, str]:
    """The values of a column that older programs wrote, each with what it is called now."""
    return dict(json.loads((column.metadata or {}).get(_RENAMED, b"[]")))


def _field(column: Declared) -> pa.Field[Any]:
    about = column.about
    kind = pa.type_for_alias(about.storage) if about.storage else _TYPES[column.type]
    metadata = {_LATER: json.dumps(about.before)} if about.later else {}
    if about.renamed:
        metadata[_RENAMED] = json.dumps(about.renamed)
    return pa.field(column.name, kind, column.nullable, metadata or None)


def _schema(row: type, kind: Kind) -> pa.Schema:
    metadata = {"schema_version": str(SCHEMA_VERSION), "kind": kind}
    return pa.schema([_field(column) for column in declared(row)], metadata=metadata)


CASES = _schema(CaseRow, Kind.CASES)
BOUNDARIES = _schema(BoundaryRow, Kind.BOUNDARIES)
MEMORY = _schema(MemoryRow, Kind.MEMORY)
SCHEMAS = {Kind.CASES: CASES, Kind.BOUNDARIES: BOUNDARIES, Kind.MEMORY: MEMORY}
