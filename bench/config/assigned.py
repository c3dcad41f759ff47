"""A combination with a value of an axis in it."""

from __future__ import annotations

from typing import Any


def with_value(settings: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """`settings` with another value of `key`, which may be that of a node (`device.index`); what is given stays."""
    *parents, last = key.split(".")
    changed = {**settings}
    node = changed
    for parent in parents:
        node[parent] = {**node[parent]}
        node = node[parent]
    node[last] = value
    return changed
