"""The free blocks of each pool, in the order in which PyTorch takes them: the smallest that is large enough first.

They are a sorted array with holes: a block that is taken leaves its place empty, as it mostly comes back to it, and
places are closed up when there are too many empty ones.
"""

from __future__ import annotations

from bench.allocator.compiled import compiled, inlined
from bench.allocator.state import ADDRESS, FREE_MARK, FULL, HOLE, MAX_HOLES, POOL, SIZE, State

_MIX_ADDRESS, _MIX_SIZE = 0x100000001B3, 0x5BD1E9955BD1E995  # odd factors of a hash, which wraps at 64 bits


@compiled
def take_free_block(state: State, size: int, pool: int) -> int:
    """Takes the first block of `pool` that has `size` bytes out of it; its row, `FULL` where there is none."""
    place = skip_holes(state, pool, first_not_before(state, pool, size, 0))
    if place == state.num_free[pool]:
        return FULL
    return take_place(state, pool, place)


@compiled
def skip_holes(state: State, pool: int, place: int) -> int:
    """The first place of `pool` from `place` on that is not empty."""
    while place < state.num_free[pool] and state.free[pool][place] == HOLE:
        place += 1
    return place


@inlined
def take_place(state: State, pool: int, place: int) -> int:
    """Takes the block at a place of `pool` out of it; its row."""
    row = int(state.free[pool][place])
    leave_hole(state, pool, place)
    if state.num_holes[pool] > MAX_HOLES:
        close_holes(state, pool)
    return row


@compiled
def first_not_before(state: State, pool: int, size: int, address: int) -> int:
    """The place in a pool of the first free block that is not before (`size`, `address`)."""
    low, high = 0, state.num_free[pool]
    while low < high:
        middle = (low + high) // 2
        found = state.free_keys[pool][middle][0]
        if found < size or (found == size and state.free_keys[pool][middle][1] < address):
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def remember_free(state: State, row: int) -> None:
    """Puts the block of `row`, which is in use no more, into its pool."""
    size, address, pool = state.blocks[row][SIZE], state.blocks[row][ADDRESS], state.blocks[row][POOL]
    free, keys = state.free[pool], state.free_keys[pool]
    place = first_not_before(state, pool, size, address)
    if place > 0 and free[place - 1] == HOLE and (place == state.num_free[pool] or free[place] != HOLE):
        place -= 1
    # Those behind make room, as far as to the next hole.
    hole = place
    while hole < state.num_free[pool] and free[hole] != HOLE:
        hole += 1
    if hole == state.num_free[pool]:
        state.num_free[pool] += 1
    else:
        state.num_holes[pool] -= 1
    for i in range(hole, place, -1):
        free[i] = free[i - 1]
        keys[i][0], keys[i][1] = keys[i - 1][0], keys[i - 1][1]
    free[place] = row
    keys[place][0], keys[place][1] = size, address
    state.counters[FREE_MARK] += mark_of(state, row)


@compiled
def forget_free(state: State, row: int) -> None:
    """Takes the block of `row` out of its pool, because it is merged with a neighbour."""
    blocks = state.blocks
    pool = blocks[row][POOL]
    place = first_not_before(state, pool, blocks[row][SIZE], blocks[row][ADDRESS])
    while state.free[pool][place] != row:  # a hole that the same block has left
        place += 1
    leave_hole(state, pool, place)
    if state.num_holes[pool] > MAX_HOLES:
        close_holes(state, pool)


@compiled
def leave_hole(state: State, pool: int, place: int) -> None:
    """Empties a place of `pool`."""
    state.counters[FREE_MARK] -= mark_of(state, state.free[pool][place])
    state.free[pool][place] = HOLE
    state.num_holes[pool] += 1


@compiled
def close_holes(state: State, pool: int) -> None:
    """Moves the free blocks of `pool` together; no place is empty then."""
    kept = 0
    for place in range(state.num_free[pool]):
        if state.free[pool][place] != HOLE:
            state.free[pool][kept] = state.free[pool][place]
            state.free_keys[pool][kept][0] = state.free_keys[pool][place][0]
            state.free_keys[pool][kept][1] = state.free_keys[pool][place][1]
            kept += 1
    state.num_free[pool] = kept
    state.num_holes[pool] = 0


@compiled
def mark_of(state: State, row: int) -> int:
    """The share of one block in `FREE_MARK`, a sum: it doesn't matter in which order they came to be free."""
    blocks = state.blocks
    mark = blocks[row][ADDRESS] * _MIX_ADDRESS ^ (blocks[row][SIZE] * _MIX_SIZE + blocks[row][POOL])
    mark = (mark ^ (mark >> 29)) * _MIX_ADDRESS
    return int((mark ^ (mark >> 32)) * _MIX_SIZE)
