"""Blocks of a segment: one is cut in two, free neighbours become one."""

from __future__ import annotations

from bench.allocator.compiled import compiled, inlined
from bench.allocator.free_blocks import forget_free, remember_free
from bench.allocator.sizes import MIN_BLOCK_SIZE, SMALL_SIZE
from bench.allocator.state import (
    ADDRESS,
    DEVICE_BYTES,
    FREE,
    IN_USE,
    NEXT,
    PART,
    POOL,
    PREV,
    REQUESTED,
    SIZE,
    State,
    give_row_back,
    take_row,
)


@compiled
def set_block(state: State, row: int, address: int, size: int, pool: int, before: int, after: int) -> None:
    """A free block in `row`, which no list of free blocks has yet."""
    blocks = state.blocks
    blocks[row][ADDRESS] = address
    blocks[row][SIZE] = size
    blocks[row][REQUESTED] = 0
    blocks[row][POOL] = pool
    blocks[row][PART] = 0
    blocks[row][IN_USE] = FREE
    blocks[row][PREV] = before
    blocks[row][NEXT] = after


@compiled
def insert_after(state: State, row: int, size: int) -> int:
    """Leaves `size` bytes to a block; the row of a free block with the rest, which no list has yet."""
    blocks = state.blocks
    rest = take_row(state)
    remaining = blocks[row][SIZE] - size
    set_block(state, rest, blocks[row][ADDRESS] + size, remaining, blocks[row][POOL], row, blocks[row][NEXT])
    if blocks[row][NEXT] >= 0:
        blocks[blocks[row][NEXT]][PREV] = rest
    blocks[row][NEXT] = rest
    blocks[row][SIZE] = size
    return rest


@inlined
def split(state: State, row: int, size: int) -> None:
    """Cuts a block that is to be handed out to `size` bytes, unless the rest is too small (should_split)."""
    blocks = state.blocks
    remaining = blocks[row][SIZE] - size
    any_rest = blocks[row][POOL] % 2 == 0 or state.counters[DEVICE_BYTES] > 0
    if (any_rest and remaining < MIN_BLOCK_SIZE) or (not any_rest and remaining <= SMALL_SIZE):
        return
    remember_free(state, insert_after(state, row, size))


@inlined
def absorb(state: State, row: int, other: int) -> None:
    """Makes one block of a block and the neighbour `other`, which no list has any more."""
    blocks = state.blocks
    if blocks[row][PREV] == other:
        blocks[row][ADDRESS] = blocks[other][ADDRESS]
        blocks[row][PREV] = blocks[other][PREV]
        if blocks[row][PREV] >= 0:
            blocks[blocks[row][PREV]][NEXT] = row
    else:
        blocks[row][NEXT] = blocks[other][NEXT]
        if blocks[row][NEXT] >= 0:
            blocks[blocks[row][NEXT]][PREV] = row
    blocks[row][SIZE] += blocks[other][SIZE]
    give_row_back(state, other)


@inlined
def merge_free(state: State, row: int) -> None:
    """Takes in the free neighbours of a block that has just become free."""
    blocks = state.blocks
    for other in (blocks[row][PREV], blocks[row][NEXT]):
        if other >= 0 and blocks[other][IN_USE] == FREE:
            forget_free(state, other)
            absorb(state, row, other)
