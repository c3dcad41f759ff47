"""How a model is put on several cards, from the keys `split`, `gpu_split`, `reserve_vram`, `load` and `lazy`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bench.config.settings import Load, Settings
from bench.config.units import parse_size
from bench.core.device import DeviceSpec
from bench.core.errors import BadInput
from bench.core.split import Split, SplitBy
from bench.engines.base import Server

_SYNONYMS = {"autosplit": SplitBy.AUTO, "tp": SplitBy.TENSOR_PARALLEL, "manual": SplitBy.GPU_SPLIT}
_ALLOWED = f"allowed are {', '.join(SplitBy)}, or GiB for each card: [20,24]"


def split_of(settings: Settings, count: int, server: Server | None = None) -> tuple[str | None, bool]:
    """The text of the `Split` over `count` cards, None for one card, and whether loading is lazy.

    Where the engine fills card after card as a `server` has it do so, the server's reserve is told. Raises `BadInput`.
    """
    asked, numbers, key = settings.split, settings.gpu_split, "gpu_split"
    lazy = _is_lazy(settings)
    if isinstance(asked, list):
        if numbers is not None:
            raise BadInput(f"split={_typed(asked)} gpu_split={_typed(numbers)}: give one of the two")
        key = "split"
        asked, numbers = SplitBy.GPU_SPLIT, asked
    name = str(asked or (SplitBy.AUTO if numbers is None else SplitBy.GPU_SPLIT)).strip().lower().replace("-", "_")
    name = _SYNONYMS.get(name, name)
    if name not in list(SplitBy):
        raise BadInput(f"split={asked}: {_ALLOWED}")
    by = SplitBy(name)
    if count == 1:
        for name, value in ((key, numbers), ("reserve_vram", settings.reserve_vram)):
            if value is not None:
                raise BadInput(
                    f"{name}={_typed(value)}: it is for several cards, and this is one; two are device=2xrtx_3090"
                )
        if by is not SplitBy.AUTO:
            raise BadInput(f"split={by}: it is for several cards, and this is one; two are device=2xrtx_3090")
        return None, bool(lazy)
    if by is SplitBy.AUTO and numbers is not None:
        raise BadInput(f"split=auto gpu_split={numbers}: the engine fills card after card; leave one of the two out")
    if by is SplitBy.BEST and numbers is not None:
        raise BadInput(f"split=best gpu_split={numbers}: the best gpu_split is looked for; leave one of the two out")
    if by is SplitBy.GPU_SPLIT and numbers is None:
        raise BadInput(f"split=gpu_split: how many GiB for each card? gpu_split=[{','.join(['20'] * count)}]")
    if by is not SplitBy.AUTO and settings.reserve_vram is not None:
        raise BadInput(f"reserve_vram={settings.reserve_vram}: only split=auto keeps a reserve; leave it out")
    if lazy is not None and lazy is not (by is SplitBy.AUTO):
        key = "load" if settings.lazy is None else "lazy"
        value = str(settings.lazy).lower() if settings.load is None else settings.load.name
        wanted = "is load_autosplit, with a lazy cache" if by is SplitBy.AUTO else "loads, then makes the cache"
        raise BadInput(f"{key}={value}: split={by} {wanted}; leave {key} out, or give another split")
    reserve = _reserve(settings.reserve_vram, count)
    if reserve is None and by is SplitBy.AUTO and server is not None:
        reserve = server.reserves(count)
    split = Split(by, _gib(key, numbers, count), reserve)
    return str(split), by is SplitBy.AUTO


def require_room_beside_reserves(reserve_vram: Any, devices: Sequence[DeviceSpec]) -> None:
    """A reserve that is as large as its card leaves nothing to load into. Raises `BadInput`."""
    for size_bytes, device in zip(_reserve(reserve_vram, len(devices)) or (), devices, strict=False):
        if size_bytes >= device.total_memory_bytes:
            raise BadInput(
                f"reserve_vram={_typed(reserve_vram)}: {device.name} itself has "
                f"{device.total_memory_bytes / (1 << 30):.2f} GiB; give less"
            )


def _is_lazy(settings: Settings) -> bool | None:
    """Whether loading is by autosplit, by `load` or by `lazy`, which are two names of one key; None where none says.

    A server goes by the number of cards.
    """
    if settings.load not in (Load.single, Load.autosplit):
        return settings.lazy
    is_autosplit = settings.load is Load.autosplit
    if settings.lazy is not None and settings.lazy is not is_autosplit:
        lazy = str(settings.lazy).lower()
        raise BadInput(f"load={settings.load.name} lazy={lazy}: lazy=true is load=autosplit; give one of them")
    return is_autosplit


def _gib(key: str, value: Any, count: int) -> tuple[float, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise BadInput(f"gpu_split={value}: give a list, GiB for each card: gpu_split=[{','.join(['20'] * count)}]")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < math.inf:
            raise BadInput(f"{key}={_typed(value)}: {number} is no number of GiB; the engine takes 0 or more")
    _require_count(key, value, count)
    if not any(value):
        some = ",".join([*["0"] * (count - 1), "20"])
        raise BadInput(
            f"{key}={_typed(value)}: no card may hold anything; give at least one of them GiB: {key}=[{some}]"
        )
    return tuple(float(number) for number in value)


def _reserve(value: Any, count: int) -> tuple[int, ...] | None:
    if value is None:
        return None
    each = value if isinstance(value, list) else [value] * count
    _require_count("reserve_vram", each, count)
    try:
        return tuple(0 if size == 0 and not isinstance(size, bool) else parse_size(size) for size in each)
    except ValueError as error:
        raise BadInput(f"reserve_vram={_typed(value)}: {error}") from None


def _require_count(key: str, values: list[Any], count: int) -> None:
    if len(values) != count:
        raise BadInput(f"{key}={_typed(values)}: give one number for each of {count} cards, not {len(values)}")


def _typed(value: Any) -> str:
    """A value as one types it."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
