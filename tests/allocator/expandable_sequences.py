"""Random operations on expandable segments, by the compiled model and by the plain statement of its rules.

python -m tests.allocator.expandable_sequences --operations 500000 --seeds 20
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from typing import NamedTuple

from bench.allocator.caching import CachingAllocator, OutOfMemory
from bench.allocator.state import FIRST_ADDRESS
from tests.allocator.plain_expandable import Full, Piece, PlainAllocator

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_EDGES = (512, 4 * KIB, MIB, 2 * MIB, 10 * MIB, 20 * MIB, 22 * MIB, 40 * MIB, 200 * MIB)
Operation = tuple[str, int, int]  # malloc bytes on a stream; free the live block number n; empty_cache; fraction bytes


class Compared(NamedTuple):
    """`different` says what the first disagreement is; None where all operations agree."""

    num_operations: int
    num_ooms: int
    num_retries: int
    different: str | None


def random_operations(seed: int, length: int) -> tuple[int, list[Operation]]:
    """A card's bytes, and what is done on it: it is full now and then, on one to three streams."""
    chance = random.Random(seed)
    card = chance.choice((300 * MIB, 1 * GIB + 7 * MIB, 12 * GIB))
    large = chance.choice((24 * MIB, 96 * MIB, card // 4))
    streams = chance.randint(1, 3)
    operations: list[Operation] = []
    aim = 0
    live = 0
    for number in range(length):
        if number % 150 == 0:
            aim = chance.choice((5, 20, 60, 120))
        which = chance.random()
        if which < 0.006:
            operations.append(("empty_cache", 0, 0))
        elif which < 0.010:
            operations.append(("fraction", int(card * chance.choice((0.5, 0.8, 0.95, 1.0))), 0))
        elif live and which < 0.35 + 0.4 * (live > aim):
            operations.append(("free", chance.randrange(live), 0))
            live -= 1
        else:
            operations.append(("malloc", _size(chance, large), chance.randrange(streams)))
            live += 1
    return card, operations


def _size(chance: random.Random, large: int) -> int:
    kind = chance.random()
    if kind < 0.2:
        return max(1, chance.choice(_EDGES) + chance.randint(-1, 513))
    return chance.randint(1, MIB) if kind < 0.45 else chance.randint(MIB, 24 * MIB if kind < 0.75 else large)


def compare(card: int, operations: list[Operation]) -> Compared:
    """Both answer each operation: the address or that memory ran out, the bytes, their peaks, and the retries."""
    ours, plain = CachingAllocator(card, device_bytes=card), PlainAllocator(card)
    live: list[tuple[int, Piece] | None] = []  # None: memory had run out
    for number, (operation, value, stream) in enumerate(operations):
        addresses = (0, 0)
        if operation == "malloc":
            addresses = _malloc(ours, plain, live, value, stream)
        elif operation == "free":
            taken = live.pop(value)
            if taken is not None:
                ours.free(taken[0])
                plain.free(taken[1])
        elif operation == "empty_cache":
            ours.empty_cache()
            plain.empty_cache()
        else:
            ours.set_limit(value)
            plain.fraction = value if value < card else None
        told, seen = _told(ours), (*plain.now(), *plain.peaks, plain.retries, plain.ooms)
        if (addresses[0], *told) != (addresses[1], *seen):
            what = f"operation {number}, {operation} {value:,} on stream {stream}"
            return Compared(
                number, plain.ooms, plain.retries, f"{what}: {addresses[0]}, {told}; {addresses[1]}, {seen}"
            )
    return Compared(len(operations), plain.ooms, plain.retries, None)


def _told(allocator: CachingAllocator) -> tuple[int, ...]:
    stats = allocator.stats
    return (
        *(stats.allocated_bytes, stats.requested_bytes, stats.reserved_bytes),
        *(stats.peak_allocated_bytes, stats.peak_requested_bytes, stats.peak_reserved_bytes),
        *(stats.num_alloc_retries, stats.num_ooms),
    )


def _malloc(
    ours: CachingAllocator, plain: PlainAllocator, live: list[tuple[int, Piece] | None], size: int, stream: int
) -> tuple[int, int]:
    """The address that each gives, -1 where memory runs out; what both have given is live."""
    row, piece, addresses = -1, None, [-1, -1]
    try:
        row = ours.malloc(size, stream)
        addresses[0] = ours.block(row).address - FIRST_ADDRESS
    except OutOfMemory:
        pass
    try:
        piece, addresses[1] = plain.malloc(size, stream)
    except Full:
        pass
    live.append(None if piece is None or row < 0 else (row, piece))
    return addresses[0], addresses[1]


def main() -> int:
    """Prints what was compared; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=500_000)
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    began_at = time.monotonic()
    found = [
        compare(*random_operations(seed, arguments.operations // arguments.seeds)) for seed in range(arguments.seeds)
    ]
    for seed, each in enumerate(found):
        if each.different:
            print(f"seed {seed}: {each.different}")
    wrong = sum(each.different is not None for each in found)
    print(
        f"{sum(each.num_operations for each in found):,} operations in {len(found)} seeds, "
        f"{sum(each.num_retries for each in found):,} retries, {sum(each.num_ooms for each in found):,} times out of "
        f"memory, {wrong} seeds with a disagreement ({time.monotonic() - began_at:.0f} s)"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
