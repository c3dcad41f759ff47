"""The texts of rows, each once, and the same rows with others in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pac

_LIST = pa.list_(pa.string())
Rows = pa.Table  # as the functions that read rows return them


def texts_of(table: pa.Table) -> Iterator[tuple[str, str]]:
    """Every text, once a column, with the column's name."""
    for column in table.schema:
        values = table.column(column.name)
        if column.type == _LIST:
            values = pac.list_flatten(values)
        elif not pa.types.is_string(column.type):
            continue
        yield from ((column.name, text) for text in pac.unique(values).to_pylist() if text is not None)


def with_texts(table: pa.Table, told: Callable[[str, str], str]) -> pa.Table:
    """The same rows; each text is what `told` gives for its column and itself."""
    for number, column in enumerate(table.schema):
        known: dict[str, str] = {}

        def new(text: str | None, name: str = column.name, known: dict[str, str] = known) -> str | None:
            if text is None:
                return None
            if text not in known:
                known[text] = told(name, text)
            return known[text]

        values: list[str | None] | list[list[str | None] | None]
        if pa.types.is_string(column.type):
            values = [new(text) for text in table.column(number).to_pylist()]
        elif column.type == _LIST:
            values = [None if own is None else [new(text) for text in own] for own in table.column(number).to_pylist()]
        else:
            continue
        table = table.set_column(number, column, pa.array(values, column.type))
    return table


def hosts_of(table: pa.Table) -> set[tuple[str, str | None]]:
    """Each host, with the UUID of each card of it."""
    if "host" not in table.column_names:
        return set()
    pairs = table.select(["host", "device_uuid"]).group_by(["host", "device_uuid"]).aggregate([]).to_pylist()
    return {(pair["host"], pair["device_uuid"]) for pair in pairs if pair["host"] is not None}
