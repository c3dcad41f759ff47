"""Expandable segments (`expandable_segments:True`): addresses are reserved, and memory is mapped to them page by page.

A segment is a range of addresses for one pool and one stream, a little longer than the card. Its blocks are in use,
free, or unmapped; it grows by whole pages (20 MiB in the large pool, 2 MiB in the small one) where there is room for a
request, and gives back the pages that lie wholly in a free block. The rules were found by recording what PyTorch
2.13.0+cu130 does over a driver that only counts, and agree with it on every recorded operation (docs/oracle.md).
"""

from __future__ import annotations

from bench.allocator.blocks import insert_after, merge_free, set_block
from bench.allocator.compiled import compiled
from bench.allocator.free_blocks import (
    first_not_before,
    forget_free,
    remember_free,
    skip_holes,
    take_place,
)
from bench.allocator.sizes import page_size, segment_size
from bench.allocator.state import (
    ADDRESS,
    DEVICE_BYTES,
    FIRST_UNMAPPED,
    FRACTION_LIMIT,
    FREE,
    FULL,
    HOLE,
    IN_USE,
    LIMIT,
    NEXT,
    NEXT_ADDRESS,
    NEXT_UNMAPPED,
    NUM_RETRIES,
    PEAK_RESERVED,
    POOL,
    PREV,
    RESERVED,
    SIZE,
    UNMAPPED,
    USED,
    State,
    give_row_back,
    take_row,
)
from bench.allocator.unmapped import forget_unmapped, remember_unmapped


@compiled
def take_expandable(state: State, size: int, pool: int) -> int:
    """The row of a block of `size` bytes or more, which no list of free blocks has; `FULL` where there is no room."""
    row = _take_reaching_least(state, size, pool)
    if row == FULL:
        row = _grow(state, size, pool)
    if row == FULL:
        unmap_free_pages(state)
        state.counters[NUM_RETRIES] += 1
        row = _grow(state, size, pool)
    return row


@compiled
def _take_reaching_least(state: State, size: int, pool: int) -> int:
    """Takes a free block of `pool` that has `size` bytes out of it; its row, `FULL` where there is none.

    The smallest, but one that could grow counts as large as it could become: the end of a segment is taken last.
    """
    place = skip_holes(state, pool, first_not_before(state, pool, size, 0))
    if place == state.num_free[pool]:
        return FULL
    reach = _reach(state, state.free[pool][place])
    further = skip_holes(state, pool, place + 1)
    while further < state.num_free[pool] and _reach(state, state.free[pool][further]) < reach:
        place, reach = further, _reach(state, state.free[pool][further])
        further = skip_holes(state, pool, place + 1)
    return take_place(state, pool, place)


@compiled
def _reach(state: State, row: int) -> int:
    """The bytes of a free block and of the unmapped addresses right behind it."""
    blocks = state.blocks
    after = blocks[row][NEXT]
    behind = blocks[after][SIZE] if after >= 0 and blocks[after][IN_USE] == UNMAPPED else 0
    return int(blocks[row][SIZE] + behind)


@compiled
def _grow(state: State, size: int, pool: int) -> int:
    """Maps memory for `size` bytes; the row of the free block that has them, which no list has any more.

    `FULL` where the card has too few; what was mapped of several pieces by then stays mapped. A fraction is asked for
    a segment of the request's own, whatever is free already and whatever will be mapped.
    """
    blocks, counters = state.blocks, state.counters
    if counters[RESERVED] + segment_size(size) > counters[FRACTION_LIMIT]:
        return FULL
    row = _place(state, size, pool)
    if blocks[row][IN_USE] == UNMAPPED and not _map(state, row, min(size, blocks[row][SIZE])):
        return FULL
    while blocks[row][SIZE] < size:
        behind = blocks[row][NEXT]
        if not _map(state, behind, min(size - blocks[row][SIZE], blocks[behind][SIZE])):
            return FULL
        row = behind
    forget_free(state, row)
    return int(row)


@compiled
def _place(state: State, size: int, pool: int) -> int:
    """Where the lowest run of free and unmapped addresses begins that has `size` bytes; else a new segment."""
    blocks = state.blocks
    unmapped = state.counters[FIRST_UNMAPPED + pool]
    while unmapped >= 0:
        first = unmapped
        if blocks[first][PREV] >= 0 and blocks[blocks[first][PREV]][IN_USE] == FREE:
            first = blocks[first][PREV]
        room, at = 0, first
        while room < size and at >= 0 and blocks[at][IN_USE] != USED:
            room += blocks[at][SIZE]
            at = blocks[at][NEXT]
        if room >= size:
            return int(first)
        unmapped = blocks[unmapped][NEXT_UNMAPPED]
    return _new_segment(state, size, pool)


@compiled
def _new_segment(state: State, size: int, pool: int) -> int:
    """Reserves addresses for the whole card and an eighth more; on an endless card, for `size` bytes at least."""
    counters = state.counters
    page = page_size(pool)
    num_bytes = max(size, counters[DEVICE_BYTES] + counters[DEVICE_BYTES] // 8)
    row = take_row(state)
    num_bytes = -(-num_bytes // page) * page
    set_block(state, row, counters[NEXT_ADDRESS], num_bytes, pool, -1, -1)
    counters[NEXT_ADDRESS] += num_bytes
    remember_unmapped(state, row)
    return row


@compiled
def _map(state: State, row: int, size: int) -> bool:
    """Maps whole pages for the first `size` bytes of unmapped addresses, merged with what is free beside them.

    False, and nothing is changed, if the card is full.
    """
    blocks, counters = state.blocks, state.counters
    page = page_size(blocks[row][POOL])
    size = -(-size // page) * page
    if counters[RESERVED] + size > counters[LIMIT]:
        return False
    forget_unmapped(state, row)
    blocks[row][IN_USE] = FREE
    if size < blocks[row][SIZE]:
        remember_unmapped(state, insert_after(state, row, size))
    merge_free(state, row)
    remember_free(state, row)
    counters[RESERVED] += size
    counters[PEAK_RESERVED] = max(counters[PEAK_RESERVED], counters[RESERVED])
    return True


@compiled
def unmap_free_pages(state: State) -> None:
    """Gives back the pages that lie wholly in a free block; what is left at its ends stays free."""
    for pool in range(len(state.num_free)):
        place = state.num_free[pool] - 1  # the largest: what is smaller than a page has none to give
        while place >= 0:
            row = state.free[pool][place]
            place -= 1
            if row == HOLE:
                continue
            if state.blocks[row][SIZE] < page_size(pool):
                break
            if _unmap(state, row):
                place = state.num_free[pool] - 1  # its ends have moved the others


@compiled
def _unmap(state: State, row: int) -> bool:
    """Unmaps the whole pages of a free block; false where it has none."""
    blocks = state.blocks
    address, end, page = blocks[row][ADDRESS], blocks[row][ADDRESS] + blocks[row][SIZE], page_size(blocks[row][POOL])
    at = row
    while blocks[at][PREV] >= 0:
        at = blocks[at][PREV]
    base = blocks[at][ADDRESS]
    first = base + -(-(address - base) // page) * page
    last = base + (end - base) // page * page
    if first >= last:
        return False
    forget_free(state, row)
    if last < end:
        remember_free(state, insert_after(state, row, last - address))
    if first > address:
        pages = insert_after(state, row, first - address)
        remember_free(state, row)
        row = pages
    state.counters[RESERVED] -= last - first
    remember_unmapped(state, row)
    if blocks[row][PREV] < 0 and blocks[row][NEXT] < 0:  # all of the segment: its addresses go, too
        forget_unmapped(state, row)
        give_row_back(state, row)
    return True
