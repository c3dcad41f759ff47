"""How other programs put a model on several cards, as the keys `split`, `gpu_split` and `reserve_vram`."""

from __future__ import annotations

from collections.abc import Sequence

from bench.core.errors import BadInput
from bench.setups.setup import Setup, is_typed

_ONE = "not used on one card"


def tell_split(
    setup: Setup,
    cards: int,
    *,
    is_tensor_parallel: bool,
    gpu_split: Sequence[float] | None,
    reserve: Sequence[int] | None = None,
    is_auto: bool = True,
) -> None:
    """Tells `setup` of it: GB for each card, and `reserve` in bytes; `is_auto` where card after card is filled.

    Raises `BadInput` for a split over fewer cards than it names.
    """
    given = list(gpu_split or ())
    said = {"tensor_parallel": is_tensor_parallel, "gpu_split": given, "autosplit_reserve": reserve}
    if cards == 1:
        for key, value in said.items():
            if value:
                setup.leave(key, _ONE)
        return
    if len(given) > cards:
        raise BadInput(f"{setup.source}: gpu_split names {len(given)} cards, and device has {cards}; name as many")
    gib = f"gpu_split=[{','.join(f'{size:g}' for size in [*given, *[0] * (cards - len(given))])}]"
    if is_tensor_parallel:
        setup.take("tensor_parallel", "split=tensor_parallel", *([gib] if given else []))
    elif given:
        setup.take(f"gpu_split: {given}", gib)
    elif is_auto:
        setup.take("(it fills card after card)", "split=auto")
    elif not is_typed("split", setup.typed):
        raise BadInput(
            f"{setup.source}: it has no gpu_split, and does not fill card after card, so that nothing tells what goes "
            "where; give split=auto or split=[GiB,GiB] beside it, or one card"
        )
    if reserve is not None and (is_tensor_parallel or given):
        setup.leave("autosplit_reserve", "not used where a split is given")
    elif reserve is not None:
        setup.take("autosplit_reserve", f"reserve_vram=[{','.join(map(str, reserve))}]")
