"""Addresses of expandable segments that no memory is mapped to, of each pool by rising address.

They are few: a list of rows, whose beginning is in `State.counters` from `FIRST_UNMAPPED` on.
"""

from __future__ import annotations

from bench.allocator.blocks import absorb
from bench.allocator.compiled import compiled
from bench.allocator.free_blocks import mark_of
from bench.allocator.state import (
    ADDRESS,
    FIRST_UNMAPPED,
    FREE_MARK,
    IN_USE,
    NEXT,
    NEXT_UNMAPPED,
    POOL,
    PREV,
    UNMAPPED,
    State,
)

_MARK = 0x2545F4914F6CDD1D  # an odd factor: unmapped addresses count as something else than a free block there


@compiled
def remember_unmapped(state: State, row: int) -> None:
    """Has `row` be unmapped addresses, one with its unmapped neighbours."""
    blocks, counters = state.blocks, state.counters
    blocks[row][IN_USE] = UNMAPPED
    for other in (blocks[row][PREV], blocks[row][NEXT]):
        if other >= 0 and blocks[other][IN_USE] == UNMAPPED:
            forget_unmapped(state, other)
            absorb(state, row, other)
    before, after = -1, counters[FIRST_UNMAPPED + blocks[row][POOL]]
    while after >= 0 and blocks[after][ADDRESS] < blocks[row][ADDRESS]:
        before, after = after, blocks[after][NEXT_UNMAPPED]
    _follow(state, row, before, row)
    blocks[row][NEXT_UNMAPPED] = after
    counters[FREE_MARK] += mark_of(state, row) * _MARK


@compiled
def forget_unmapped(state: State, row: int) -> None:
    """Takes `row` out of the unmapped addresses of its pool."""
    blocks, counters = state.blocks, state.counters
    counters[FREE_MARK] -= mark_of(state, row) * _MARK
    before, at = -1, counters[FIRST_UNMAPPED + blocks[row][POOL]]
    while at != row:
        before, at = at, blocks[at][NEXT_UNMAPPED]
    _follow(state, row, before, blocks[row][NEXT_UNMAPPED])


@compiled
def _follow(state: State, row: int, before: int, after: int) -> None:
    """Has `after` be the next of `before` in the pool of `row`, or the first of it."""
    if before >= 0:
        state.blocks[before][NEXT_UNMAPPED] = after
    else:
        state.counters[FIRST_UNMAPPED + state.blocks[row][POOL]] = after
