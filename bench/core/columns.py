"""What tells rows apart: the columns of the card, of the model and of the setting, each named here and nowhere else.

Whatever groups, pairs or names rows takes its columns from here, so that a new axis is one more name in `SETTING`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.core.case import Case

SCHEMA_VERSION = 3

# What the card is. Those from `device_context_bytes` on are what a simulated card was told to be, null of a real one.
CARD = (
    *("device_kind", "device_name", "device_uuid", "device_total_bytes", "compute_capability"),
    *("device_context_bytes", "device_workspace_bytes"),
    *("device_multi_processor_count", "device_bandwidth_bytes_per_s"),
)
# How much of it is used, and who keeps to that.
LIMIT = ("vram_limit_bytes", "vram_limit_by")
# A model is its fingerprint: several may have one name.
MODEL = ("model", "model_fingerprint")
# How the model is run; what a user can choose.
SETTING = (
    *("bpw", "head_bits", "cache", "lazy", "attention_requested"),
    *("batch_size", "max_input_len", "max_attention_size"),
)
# All that a row is about, but for the length.
IDENTITY = (*CARD, *LIMIT, *MODEL, *SETTING)

# Whose rows told no more of a simulated card than its name and its memory.
_FIRST_TO_TELL_CARDS = 3

# Where a column is found in a `Case`, for those that are not called the same there.
_OF_DEVICE = {
    "device_kind": "kind",
    "device_name": "name",
    "device_uuid": "uuid",
    "device_total_bytes": "total_memory_bytes",
    "compute_capability": "compute_capability",
}
_TOLD = {
    "device_context_bytes": "context_bytes",
    "device_workspace_bytes": "workspace_bytes",
    "device_multi_processor_count": "multi_processor_count",
    "device_bandwidth_bytes_per_s": "memory_bandwidth_bytes_per_s",
}
_OF_CASE = {"attention_requested": "attention"}

Row = Mapping[str, Any]


def identity_of(case: Case) -> dict[str, Any]:
    """The columns of `IDENTITY` of a case, as its row will have them."""
    device = case.device
    told = {column: getattr(device, name) for column, name in _TOLD.items()}
    return {
        **{column: getattr(device, name) for column, name in _OF_DEVICE.items()},
        **(told if device.kind == "simulated" else dict.fromkeys(told)),
        "model": case.model.name,
        "model_fingerprint": case.model.fingerprint,
        **{column: getattr(case, _OF_CASE.get(column, column)) for column in (*LIMIT, *SETTING)},
    }


def key_of(row: Row, columns: Sequence[str]) -> tuple[Any, ...]:
    """The values of `columns` as a key: what is unknown is None, whatever the row has in its place."""
    return tuple(known(row.get(column)) for column in columns)


def known(value: Any) -> Any:
    """The value, or None where it is missing: NaN is not equal to itself, and pandas has several ways to say null."""
    if value is None or type(value).__name__ == "NAType" or value != value:
        return None
    return value


def completed(cards: Iterable[Row]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """What the other cards tell of those that are not told in full, by the card's key (`CARD`, then schema_version).

    `cards` have the columns of `CARD` and schema_version. Rows of older programs told little of a simulated card, and a
    case on a real GPU may die before CUDA says how much memory there is. Where exactly one card agrees with all that is
    told, it is that card; where several do, nobody knows.
    """
    distinct = {key_of(card, (*CARD, "schema_version")): card for card in cards}
    full = {key[:-1]: card for key, card in distinct.items() if not _untold(card)}
    found = {}
    for key, card in distinct.items():
        untold = _untold(card)
        others = [
            other for other in full.values() if _agree(card, other, [name for name in CARD if name not in untold])
        ]
        if untold and len(others) == 1:
            found[key] = {name: others[0].get(name) for name in untold}
    return found


def _untold(card: Row) -> list[str]:
    if card.get("device_kind") != "simulated":
        return [] if known(card.get("device_total_bytes")) is not None else ["device_total_bytes"]
    version = known(card.get("schema_version"))
    return list(_TOLD) if version is not None and version < _FIRST_TO_TELL_CARDS else []


def _agree(card: Row, other: Row, columns: Sequence[str]) -> bool:
    return key_of(card, columns) == key_of(other, columns)
