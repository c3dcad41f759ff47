"""What `doctor --self-test` takes of a card, step by step, and what must be told of it then.

The sizes are such that PyTorch's allocator leaves no doubt (CUDACachingAllocator.cpp, with native segments): requests
are rounded up to 512 B; those of up to 1 MiB share segments of 2 MiB, and those of 10 MiB and more have one of their
own, in multiples of 2 MiB, of which what is left over is apart where it is more than 1 MiB.
"""

from __future__ import annotations

from typing import NamedTuple

MIB = 1 << 20
HALF = MIB // 2
TOO_MUCH_BYTES = 1 << 50  # more than any card has


class Step(NamedTuple):
    """Takes `sizes_bytes` by name, gives back `frees`, and `trims` what PyTorch holds and nothing uses.

    `allocated_bytes` and `reserved_bytes` are what there is then beyond what was there before the first step; the most
    there was until then follows.
    """

    words: str
    allocated_bytes: int
    reserved_bytes: int
    sizes_bytes: tuple[tuple[str, int], ...] = ()
    frees: tuple[str, ...] = ()
    trims: bool = False


STEPS = (
    Step("nothing taken", 0, 0),
    Step("64 MiB taken", 64 * MIB, 64 * MIB, (("even", 64 * MIB),)),
    Step("32.5 MiB more", 96 * MIB + HALF, 98 * MIB, (("odd", 32 * MIB + HALF),)),
    Step("1,000 B more", 96 * MIB + HALF + 1024, 100 * MIB, (("small", 1000),)),
    Step("64 MiB given back", 32 * MIB + HALF + 1024, 100 * MIB, frees=("even",)),
    Step("the same taken again", 96 * MIB + HALF + 1024, 100 * MIB, (("even", 64 * MIB),)),
    Step("all given back", 0, 0, frees=("even", "odd", "small"), trims=True),
)
