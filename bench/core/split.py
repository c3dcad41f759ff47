"""How a model is put on several cards: the engine fills one after the other, or one says how much goes where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

GAPS_NOTE = (
    "with gpu_split the lengths that fit may have gaps: a longer context can move a module to the next card, and fit "
    "where a shorter one does not (docs/several-cards.md)"
)
_MIB = 1 << 20
_TEXT = re.compile(r"(\w+)(?:\((.*)\))?")


def gaps_note(gaps: Sequence[tuple[int, int]] | None) -> str:
    """The same where it is predicted which lengths below a boundary do not fit, from the first to the last of each."""
    if gaps is None:
        return GAPS_NOTE
    if not gaps:
        return "with gpu_split lengths may fit above others that do not: here all below the boundary fit (predicted)"
    told = ", ".join(f"{first:,}" if first == last else f"{first:,} to {last:,}" for first, last in gaps)
    return f"below the boundary these lengths do not fit (predicted; docs/several-cards.md): {told}"


class SplitBy(StrEnum):
    """The engine's ways to use several cards."""

    AUTO = "auto"  # cards are filled one after the other, cache and model together
    GPU_SPLIT = "gpu_split"  # so many GiB of weights for each card
    BEST = "best"  # the gpu_split that leaves the most on the tightest card, as it is predicted
    TENSOR_PARALLEL = "tensor_parallel"  # every card has a part of every layer


@dataclass(frozen=True)
class Split:
    """One way. `gpu_split_gib` is GiB for each card, as the engine counts them; where it may be left out, the engine
    goes by what is free. `reserve_bytes`, for each card, is what `auto` keeps free; None is the engine's default.

    Its text is how a `Case` and a row have it:

    >>> str(Split(SplitBy.GPU_SPLIT, (20.5, 24.0)))
    'gpu_split(20.5,24)'
    >>> Split.parse("auto(512,96)").reserve_bytes  # MiB
    (536870912, 100663296)
    """

    by: SplitBy = SplitBy.AUTO
    gpu_split_gib: tuple[float, ...] | None = None
    reserve_bytes: tuple[int, ...] | None = None

    def __str__(self) -> str:
        reserve_mib = None if self.reserve_bytes is None else tuple(size / _MIB for size in self.reserve_bytes)
        numbers = self.gpu_split_gib if reserve_mib is None else reserve_mib
        return self.by if numbers is None else f"{self.by}({','.join(str(n).removesuffix('.0') for n in numbers)})"

    def deciding_card(self, headroom_bytes: Sequence[int | None]) -> int | None:
        """The number of the card that decides how far it goes, by what each has left; None where nothing is known.

        Where the engine fills card after card it is the last: what there is no room for on one goes to the next. Else
        it is the one with the least left.
        """
        known = {number: left for number, left in enumerate(headroom_bytes) if left is not None}
        if not known:
            return None
        return max(known) if self.by is SplitBy.AUTO else min(known, key=lambda number: known[number])

    def keys(self) -> dict[str, str]:
        """What one types for it on the command line: `{"split": "[20.5,24]"}`."""
        told: dict[str, str] = {"split": self.by}
        if self.reserve_bytes is not None:
            told["reserve_vram"] = f"[{','.join(f'{size}B' if size else '0' for size in self.reserve_bytes)}]"
        if self.gpu_split_gib is not None:
            gib = f"[{','.join(str(number).removesuffix('.0') for number in self.gpu_split_gib)}]"
            told["split" if self.by is SplitBy.GPU_SPLIT else "gpu_split"] = gib
        return told

    @property
    def typed(self) -> str:
        """The value of the key `split`."""
        return self.keys()["split"]

    @staticmethod
    def parse(text: str) -> Split:
        """Reads what `str` has written. Raises ValueError for any other text."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no split")
        by = SplitBy(match[1])
        numbers = None if match[2] is None else tuple(float(number) for number in match[2].split(","))
        if by is SplitBy.AUTO:
            return Split(by, None, None if numbers is None else tuple(round(size * _MIB) for size in numbers))
        return Split(by, numbers)
