"""Sequences of what a program does with an allocator, and what our model of PyTorch's answers to each step.

An operation is a row (op, value, stream): allocate `value` bytes, free what the operation number `value` allocated,
empty the cache, or let PyTorch hold no more than `value` bytes. An answer is a row of ANSWERS after the operation.
"""

from __future__ import annotations

import zlib
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from bench.allocator import state as allocator
from bench.allocator.caching import CachingAllocator, OutOfMemory

Array = NDArray[np.int64]

# The address is relative to the first segment's, -1 where the card was full, 0 for other operations. The layout is a
# checksum of all segments and blocks: address, size, requested size, whether it is in use, its stream, its pool.
ANSWERS = ("address", "allocated", "requested", "reserved", "segments", "retries", "ooms", "layout")

MIB = 1 << 20
_EDGES = (512, MIB, 2 * MIB, 10 * MIB, 12 * MIB, 20 * MIB)


class Operation(IntEnum):
    MALLOC, FREE, EMPTY_CACHE, LIMIT = range(4)


def random_operations(seed: int, length: int, num_streams: int, card_bytes: int) -> Array:
    """Allocations of all kinds of sizes, most of them freed again, on a card that is full now and then."""
    random = np.random.default_rng(seed)
    operations = np.zeros((length, 3), np.int64)
    live: list[int] = []
    aim = int(random.integers(10, 150))
    for index in range(length):
        chance = random.random()
        if chance < 0.002:
            operations[index] = Operation.EMPTY_CACHE, 0, 0
        elif chance < 0.003:
            operations[index] = Operation.LIMIT, int(card_bytes * random.uniform(0.6, 1.0)), 0
        elif live and chance < 0.5 * len(live) / aim:
            which = int(random.integers(len(live)))
            live[which], live[-1] = live[-1], live[which]
            operations[index] = Operation.FREE, live.pop(), 0
        else:
            operations[index] = Operation.MALLOC, _random_size(random), int(random.integers(num_streams))
            live.append(index)
    return operations


def _random_size(random: np.random.Generator) -> int:
    kind = random.integers(5)
    if kind == 0:
        return int(random.choice(_EDGES)) + int(random.integers(-1, 514))
    return int(random.integers(1, (4096, 2 * MIB, 12 * MIB, 40 * MIB)[kind - 1]))


def answers_of_model(operations: Array, limit_bytes: int) -> Array:
    """What `bench.allocator.caching` answers to each operation."""
    model = CachingAllocator(limit_bytes)
    answers = np.zeros((len(operations), len(ANSWERS)), np.int64)
    rows: dict[int, int] = {}
    for index, (op, value, stream) in enumerate(operations.tolist()):
        address = 0
        if op == Operation.MALLOC:
            try:
                rows[index] = model.malloc(value, stream)
                address = model.block(rows[index]).address - FIRST_ADDRESS
            except OutOfMemory:
                address = -1
        elif op == Operation.FREE:
            if value in rows:
                model.free(rows.pop(value))
        elif op == Operation.EMPTY_CACHE:
            model.empty_cache()
        else:
            model.set_limit(value)
        stats = model.stats
        answers[index] = (
            address,
            stats.allocated_bytes,
            stats.requested_bytes,
            stats.reserved_bytes,
            stats.num_segments,
            stats.num_alloc_retries,
            stats.num_ooms,
            layout_checksum(model_blocks(model)),
        )
    return answers


FIRST_ADDRESS = allocator.FIRST_ADDRESS


def model_blocks(model: CachingAllocator) -> Array:
    """All blocks by address: address (relative), size, requested size, in use, stream, small pool."""
    blocks = model.all_blocks()
    return np.stack(
        [
            blocks[:, allocator.ADDRESS] - FIRST_ADDRESS,
            blocks[:, allocator.SIZE],
            np.where(blocks[:, allocator.IN_USE] == 1, blocks[:, allocator.REQUESTED], 0),
            blocks[:, allocator.IN_USE],
            blocks[:, allocator.POOL] // 2,
            1 - blocks[:, allocator.POOL] % 2,
        ],
        axis=1,
    )


def layout_checksum(blocks: Array) -> int:
    """The same for the same blocks, in whatever order."""
    in_order = blocks[np.argsort(blocks[:, 0])]
    return zlib.crc32(np.ascontiguousarray(in_order).tobytes())
