"""How much of each card is used, from the key `vram_limit`: one size for all, or one for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.config.units import parse_size
from bench.core.device import DeviceSpec
from bench.core.errors import BadInput

_GIB = 1 << 30


def limits_of_cards(value: Any, devices: Sequence[DeviceSpec]) -> tuple[int | None, ...]:
    """Bytes of each card; None where all of it is used. Raises `BadInput`."""
    typed = f"vram_limit={_typed(value)}"
    each = value if isinstance(value, list) else [value] * len(devices)
    if len(each) != len(devices):
        raise BadInput(f"{typed}: {_how_many(len(each), len(devices))}")
    return tuple(_limit(typed, one, device) for one, device in zip(each, devices, strict=True))


def _limit(typed: str, value: Any, device: DeviceSpec) -> int | None:
    if value is None:
        return None
    try:
        limit_bytes = parse_size(value)
    except ValueError as error:
        raise BadInput(f"{typed}: {error}") from None
    if limit_bytes > device.total_memory_bytes:
        raise BadInput(f"{typed}: {device.name} itself has {device.total_memory_bytes / _GIB:.2f} GiB")
    return limit_bytes


def _how_many(given: int, count: int) -> str:
    if count == 1:
        return "this is one card: give one size, or several to try one after the other: vram_limit=20GiB,10GiB"
    return f"{given} sizes for {count} cards; give one for each, null for a whole card, or one size for all"


def _typed(value: Any) -> str:
    """A value as one types it."""
    return f"[{','.join('null' if one is None else str(one) for one in value)}]" if isinstance(value, list) else value
